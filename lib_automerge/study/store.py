"""Run folders: where a run's files lie, and how they are written without ever being half there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import msgspec
from PIL.Image import Image

from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import AnyEvent, Stage
from lib_automerge.domain.pictures import pixel_digest
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.errors import StorageError
from lib_automerge.study.holding import Hold, cannot_write, is_held, replace_file
from lib_automerge.study.journal import Journal, read_events

TINY = 128 * 128
"""Up to so many pixels, deflating a picture takes longer than everything else about saving it."""


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `run.json`: what was decided before the first evaluation.

    `distances` are the relative distances of the other model from A per block; `versions` and
    `generator` decide, with everything else, the bits of images and scores.

    `observations` are evaluations of earlier runs on the scale of this one (the same models,
    images and reward). Their numbers are negative and ascend to -1, so they sort before the run's
    own; their origin is "earlier run".
    """

    config: RunConfig
    models: dict[str, ModelRef]
    architecture: str
    distances: dict[str, float]
    reward: str
    generator: dict[str, str]
    versions: dict[str, str]
    observations: tuple[Evaluation, ...] = ()
    format: int = 1


class _Told(msgspec.Struct):
    """What a run's configuration says, as far as its age shows in it."""

    config: dict[str, object]

    @property
    def told_when_to_stop(self) -> bool:
        search = self.config.get("search")
        return isinstance(search, dict) and "stop" in search


def _without_rule(manifest: RunManifest) -> RunManifest:
    search = msgspec.structs.replace(manifest.config.search, stop="never")
    config = msgspec.structs.replace(manifest.config, search=search)
    return msgspec.structs.replace(manifest, config=config)


class RunFolder:
    """A run folder by path. Reading needs nothing more; writing needs `owned`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report = path / "report.html"
        self.recipe = path / "recipe.json"
        self.log = path / "log.txt"
        self._manifest = path / "run.json"
        self._journal = path / "journal.jsonl"

    @classmethod
    def create(cls, path: Path, manifest: RunManifest) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            StorageError: it exists and is not empty, or cannot be written.
        """
        check_new(path)
        folder = cls(path)
        try:
            (path / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        folder.write("run.json", text + b"\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run.

        Raises:
            StorageError: there is no run in it.
        """
        folder = cls(path)
        if not folder._manifest.is_file():
            raise StorageError(
                f"no run in {path}: there is no run.json. Give the folder of a run; "
                "`runs` lists them."
            )
        return folder

    def manifest(self) -> RunManifest:
        """What was frozen at the start.

        Raises:
            StorageError: `run.json` cannot be read or is of a newer format.
        """
        try:
            data = self._manifest.read_bytes()
            manifest = msgspec.json.decode(data, type=RunManifest)
            if not msgspec.json.decode(data, type=_Told).told_when_to_stop:
                # frozen before there was a rule of the model: the run goes on without one
                manifest = _without_rule(manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise StorageError(
                f"cannot read {self._manifest}: {error}. Restore it from a backup; the run "
                "cannot go on without its configuration."
            ) from error
        if manifest.format != 1:
            raise StorageError(
                f"{self._manifest} has format {manifest.format}, newer than this version reads "
                "(1). Update Automerge."
            )
        return manifest

    def digest(self) -> str:
        """Identifies what `run.json` says (SHA-256, hex), whatever fields later versions add.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            content = msgspec.json.decode(self._manifest.read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise StorageError(
                f"cannot read {self._manifest}: {error}. Restore it from a backup."
            ) from error
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()

    def events(self) -> list[AnyEvent]:
        """The journal's events so far, also while another process runs the run."""
        return read_events(self._journal)

    def state(self) -> RunState:
        """The run's state so far, also while another process runs it."""
        return RunState(self.events())

    def stamp(self) -> tuple[int, int]:
        """Changes whenever `run.json` or the journal does: sums of their sizes and times (ns)."""
        size, time = 0, 0
        for path in (self._manifest, self._journal):
            try:
                found = path.stat()
            except OSError:
                continue
            size, time = size + found.st_size, time + found.st_mtime_ns
        return size, time

    def created(self) -> float:
        """When `run.json` was written, in seconds since the epoch; 0 if that is unknown."""
        try:
            return self._manifest.stat().st_mtime
        except OSError:
            return 0.0

    def running(self) -> bool:
        """Whether some process works on the run now."""
        return is_held(self.path, "run")

    def owned(self, clock: Callable[[], float]) -> OwnedRun:
        """Take the run for this process; a context manager.

        Raises:
            StorageError: another process has it, or the journal is damaged.
        """
        return OwnedRun(self, self._journal, clock)

    def write(self, name: str, data: bytes) -> Path:
        """Replace a file of the folder in one step: its readers see the old or the new whole.

        Raises:
            StorageError: it could not be written; the old file is still there.
        """
        path = self.path / name
        try:
            replace_file(path, data)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    def save_image(self, stage: Stage, evaluation: int, job: int, image: Image) -> tuple[str, str]:
        """Store an image; returns its path relative to the folder, and the digest of its pixels.

        Raises:
            StorageError: it could not be written.
        """
        name = f"images/e{evaluation:04d}/{stage.value}-{job:04d}.png"
        path = self.path / name
        try:
            path.parent.mkdir(exist_ok=True)
            image.save(path, compress_level=0 if image.width * image.height <= TINY else 1)
        except OSError as error:
            raise cannot_write(path, error) from error
        return name, pixel_digest(image)


class OwnedRun:
    """A run folder that this process holds: nobody else can append to its journal."""

    def __init__(self, folder: RunFolder, journal: Path, clock: Callable[[], float]) -> None:
        self.folder = folder
        self._path = journal
        self._clock = clock
        self._hold = Hold(folder.path, "run")

    def __enter__(self) -> OwnedRun:
        with ExitStack() as stack:
            stack.enter_context(self._hold)
            self.journal = Journal(self._path, self._clock)
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.journal.close()
        finally:
            self._hold.__exit__(kind, error, trace)


def check_new(path: Path) -> None:
    """Raise StorageError unless a new run could be made in this folder."""
    parent = nearest(path)
    try:
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is a file, not a folder. Choose another output folder.")
        empty = not path.is_dir() or not any(path.iterdir())
    except OSError as error:
        raise StorageError(
            f"cannot look into {path}: {error.strerror}. Choose another output folder."
        ) from error
    if not empty:
        raise StorageError(
            f"the output folder is not empty: {path}. Choose another one, or resume the run in it."
        )
    if not os.access(parent, os.W_OK):
        raise StorageError(
            f"cannot write in {parent}: it is read-only. Choose another output folder."
        )


def nearest(path: Path) -> Path:
    """The path itself if something is there, or else the nearest of its parents that exists.

    Raises:
        StorageError: none exists, as on a drive that is gone, or it cannot be looked at.
    """
    try:
        found = next((p for p in (path, *path.absolute().parents) if p.exists()), None)
    except OSError as error:
        raise StorageError(
            f"cannot look into {path}: {error.strerror}. Check the folder's permissions."
        ) from error
    if found is None:
        raise StorageError(
            f"the drive of {path} is not there. Connect it, or choose another folder."
        )
    return found


def list_runs(root: Path) -> list[RunFolder]:
    """The runs in a folder, oldest first; the folder may be a run itself.

    Entries that may not be looked into are left out.

    Raises:
        StorageError: the folder does not exist or cannot be listed.
    """
    try:
        if not root.is_dir():
            raise StorageError(f"there is no folder {root}. Give the folder that holds your runs.")
        found = [root, *sorted(root.iterdir())]
    except OSError as error:
        raise StorageError(
            f"cannot list the runs in {root}: {error.strerror}. Check the folder's permissions "
            "and that its drive is connected."
        ) from error
    return [RunFolder(path) for path in found if _holds_run(path)]


def _holds_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file()
    except OSError:
        # one folder of somebody else's must not hide all the others
        return False
