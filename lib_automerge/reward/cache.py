"""Scores on disk, so that an image is judged once: by the same reward, of the same prompt.

The key is the digest of the image's RGB pixels, the prompt as the reward is given it, and the
reward's fingerprint, which holds its name, version, precision and the digest of its weights. One
file serves several processes at once. It is only ever a saving: if it cannot be used, the model
scores everything, and the user is told.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from lib_automerge.domain.pictures import pixel_digest
from lib_automerge.errors import RewardError
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward, Told, check_lengths, reason
from lib_automerge.reward.rgb import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "scores.sqlite"
"""Its name in the folder of the user's data."""

LIMIT = 2_000_000
"""Scores in the file; about 200 MB."""

_WAIT_S = 10.0
_ASIDE = ".damaged"
_PARKED = "cpu"

# The number changes with the layout; scores of another layout are then left alone.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores_1 (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    score REAL NOT NULL
)
"""
_FIND = "SELECT score FROM scores_1 WHERE key = ?"
_ADD = "INSERT OR IGNORE INTO scores_1 (key, score) VALUES (?, ?)"
_FORGET = "DELETE FROM scores_1 WHERE number <= (SELECT MAX(number) FROM scores_1) - ?"


class ScoreCache:
    """A file of scores.

    Args:
        path: the file; its folder is made if it does not exist.
        limit: how many scores are kept; the oldest go first.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.trouble: str | None = None
        """Why the file is not used, or was begun anew, in a sentence; None if all is well."""
        self._path = path
        self._limit = limit
        # a run's thread scores, the one that made the reward closes it
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait its turn where several set a new file up at once
            with _locked(path):
                self._connection = _connect(path)
        except sqlite3.Error as error:
            self._recover(error)
        except OSError as error:
            self._give_up(error)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The scores that are known."""
        with self._lock:
            if self._connection is None:
                return {}
            try:
                rows = [
                    self._connection.execute(_FIND, (key,)).fetchone()
                    for key in dict.fromkeys(keys)
                ]
            except sqlite3.Error as error:
                self._recover(error)
                return {}
        return {
            key: row[0]
            for key, row in zip(dict.fromkeys(keys), rows, strict=True)
            if row is not None and isinstance(row[0], float)
        }

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Remember scores, all or none of them, and forget the oldest beyond the limit."""
        with self._lock:
            if self._connection is None or not scores:
                return
            try:
                with self._connection:
                    self._connection.executemany(_ADD, scores.items())
                    self._connection.execute(_FORGET, (self._limit,))
            except sqlite3.Error as error:
                self._recover(error)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _recover(self, error: sqlite3.Error) -> None:
        """After an error: begin a new file if this one is damaged, else go on without it."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if not _means_damage(error):
            self._give_up(error)
            return
        try:
            self._connection = self._renewed(reason(error))
        except (OSError, sqlite3.Error) as further:
            self._give_up(further)

    def _renewed(self, damage: str) -> sqlite3.Connection:
        """Move the damaged file aside and begin a new one, unless another process has done so."""
        with _locked(self._path):
            connection = _sound(self._path)
            if connection is not None:
                return connection
            aside = self._path.with_name(self._path.name + _ASIDE)
            self._path.replace(aside)
            for ending in ("-wal", "-shm"):
                Path(f"{self._path}{ending}").unlink(missing_ok=True)
            self.trouble = (
                f"the file of known scores was damaged: {self._path} ({damage}). A new one was "
                f"begun; the old one is {aside.name}."
            )
            return _connect(self._path)

    def _give_up(self, error: Exception) -> None:
        self.trouble = (
            f"the file of known scores cannot be used: {self._path} ({reason(error)}). Every image "
            "is judged anew; check the folder's permissions and free space."
        )


def _locked(path: Path) -> filelock.BaseFileLock:
    """A lock for who opens the file or replaces it."""
    return filelock.FileLock(f"{path}.lock", timeout=_WAIT_S)


def _means_damage(error: sqlite3.Error) -> bool:
    """Tell "malformed" and "not a database" from a file that is sound: locked, read-only, full."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError
    )


def _sound(path: Path) -> sqlite3.Connection | None:
    """Open the file if nothing in it is damaged."""
    try:
        connection = _connect(path)
    except sqlite3.DatabaseError as error:
        if _means_damage(error):
            return None
        raise
    try:
        if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
            return connection
    except sqlite3.DatabaseError:
        pass
    connection.close()
    return None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        # readers do not wait for a writer, and a crash loses the last scores at most
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        with connection:
            connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def cached(reward: Reward, file: Path) -> Reward:
    """The reward with its scores kept in a file; itself where the registry says that they are not.

    Raises:
        ConfigError: no reward has its name.
    """
    if not registry.describe(reward.name).keep_scores:
        return reward
    return CachedReward(reward, ScoreCache(file))


class CachedReward:
    """A reward that asks its model only for what was never scored.

    It gives the same scores as the reward, and its warnings, those of prompts also where all scores
    are known. The model is brought to a device only when it has to score there, so a device
    that does not exist is an error of `score`.
    """

    def __init__(self, reward: Reward, cache: ScoreCache) -> None:
        self._reward = reward
        self._cache = cache
        self._told = Told()
        self._seen: set[str] = set()
        self._wanted: str | None = None
        self._placed: str | None = None

    @property
    def name(self) -> str:
        """The reward's."""
        return self._reward.name

    @property
    def fingerprint(self) -> str:
        """The reward's."""
        return self._reward.fingerprint

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`; see `lib_automerge.reward.base.Reward.score`."""
        check_lengths(images, prompts)
        keys = [self._key(i, p) for i, p in zip(images, prompts, strict=True)]
        known = self._cache.get(keys)
        self.read(prompts)
        new = {key: at for at, key in enumerate(keys) if key not in known}
        if new:
            self._place()
            chosen = list(new.values())
            scores = self._reward.score([images[i] for i in chosen], [prompts[i] for i in chosen])
            if len(scores) != len(chosen):
                raise RewardError(
                    f"the reward {self.name!r} gave {len(scores)} scores for {len(chosen)} images. "
                    "Ask whoever made it."
                )
            fresh = dict(zip(new, scores, strict=True))
            self._cache.put({key: s for key, s in fresh.items() if math.isfinite(s)})
            known.update(fresh)
        return [known[key] for key in keys]

    def read(self, prompts: Sequence[str]) -> None:
        """Have the reward read the prompts that it was not given before."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._seen]
        if new:
            self._reward.read(new)
            self._seen.update(new)

    def place(self, device: str) -> None:
        """Where to score; see `lib_automerge.reward.base.Reward.place`."""
        self._wanted = device
        if device == _PARKED:
            # it was asked to make room: now, and not when it is needed next
            self._place()

    def warnings(self) -> list[str]:
        """The reward's, and what is wrong with the file of scores."""
        if self._cache.trouble is not None:
            self._told.say(self._cache.trouble)
        return [*self._reward.warnings(), *self._told.take()]

    def close(self) -> None:
        """Close the reward and the file of scores."""
        self._reward.close()
        self._cache.close()

    def _place(self) -> None:
        if self._wanted is not None and self._wanted != self._placed:
            self._reward.place(self._wanted)
            self._placed = self._wanted

    def _key(self, image: Image, prompt: str) -> bytes:
        # as RGB, because the bytes of other modes do not say what the image looks like
        parts = (pixel_digest(as_rgb(image)), self.fingerprint, prompt)
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()
