"""Chain folders: where the files of a chain lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import msgspec
from PIL.Image import Image

from lib_automerge.domain.chain import ChainConfig
from lib_automerge.domain.chain_events import AnyChainEvent, Purpose
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.pictures import pixel_digest
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.errors import StorageError
from lib_automerge.study.holding import Hold, cannot_write, is_held, replace_file
from lib_automerge.study.journal import Log, read_log
from lib_automerge.study.store import check_new

MANIFEST = "chain.json"
"""The file by which a folder is known to be a chain's."""

_DECODER: msgspec.json.Decoder[AnyChainEvent] = msgspec.json.Decoder(AnyChainEvent)


class Member(msgspec.Struct, frozen=True):
    """A checkpoint of the pool: its name in steps, its file, the file's size in bytes, and how many
    numbers it holds.
    """

    name: str
    ref: ModelRef
    size: int
    numbers: int


class ChainManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `chain.json`: what was decided before the first step.

    `reward` is its fingerprint (empty if nothing is judged); `versions` and `generator` decide,
    with everything else, the bits of images and scores.
    """

    config: ChainConfig
    pool: tuple[Member, ...]
    architecture: str
    reward: str
    generator: dict[str, str]
    versions: dict[str, str]
    format: int = 1

    def member(self, name: str) -> Member | None:
        """The model of the pool that has this name."""
        return next((member for member in self.pool if member.name == name), None)


class ChainFolder:
    """A chain folder by path. Reading needs nothing more; writing needs `owned`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report = path / "report.html"
        self.log = path / "log.txt"
        self.recipes = path / "recipes"
        self._manifest = path / MANIFEST
        self._journal = path / "journal.jsonl"

    @classmethod
    def create(cls, path: Path, manifest: ChainManifest) -> ChainFolder:
        """Make the folder of a new chain.

        Raises:
            StorageError: it exists and is not empty, or cannot be written.
        """
        check_new(path)
        folder = cls(path)
        try:
            for name in ("steps", "previews", "recipes"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        folder.write(MANIFEST, text + b"\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> ChainFolder:
        """The folder of an existing chain.

        Raises:
            StorageError: there is no chain in it.
        """
        if not (path / MANIFEST).is_file():
            raise StorageError(
                f"no chain in {path}: there is no {MANIFEST}. Give the folder of a chain."
            )
        return cls(path)

    def manifest(self) -> ChainManifest:
        """What was frozen at the start.

        Raises:
            StorageError: `chain.json` cannot be read or is of a newer format.
        """
        try:
            manifest = msgspec.json.decode(self._manifest.read_bytes(), type=ChainManifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from error
        if manifest.format != 1:
            raise StorageError(
                f"{self._manifest} has format {manifest.format}, newer than this version reads "
                "(1). Update Automerge."
            )
        return manifest

    def digest(self) -> str:
        """Identifies what `chain.json` says (SHA-256, hex).

        Raises:
            StorageError: it cannot be read.
        """
        try:
            content = msgspec.json.decode(self._manifest.read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from error
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()

    def _unreadable(self, error: Exception) -> StorageError:
        return StorageError(
            f"cannot read {self._manifest}: {error}. Restore it from a backup; the chain cannot go "
            "on without its configuration."
        )

    def events(self) -> list[AnyChainEvent]:
        """The journal's events so far, also while another process works on the chain."""
        return read_log(self._journal, _DECODER)

    def state(self) -> ChainState:
        """How the chain stands, also while another process works on it."""
        return ChainState(self.events())

    def running(self) -> bool:
        """Whether some process works on the chain now."""
        return is_held(self.path, "chain")

    def owned(self, clock: Callable[[], float]) -> OwnedChain:
        """Take the chain for this process; a context manager.

        Raises:
            StorageError: another process has it, or the journal is damaged.
        """
        return OwnedChain(self, self._journal, clock)

    def step(self, number: int, name: str) -> Path:
        """The folder of a step; made if it is not there.

        Raises:
            StorageError: it cannot be made.
        """
        path = self.path / "steps" / f"{number:02d}-{name}"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    def write(self, name: str, data: bytes) -> Path:
        """Replace a file of the folder in one step.

        Raises:
            StorageError: it could not be written; the old file is still there.
        """
        path = self.path / name
        try:
            replace_file(path, data)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    def save_image(self, model: str, purpose: Purpose, job: int, image: Image) -> tuple[str, str]:
        """Store an image; returns its path relative to the folder, and the digest of its pixels.

        Raises:
            StorageError: it could not be written.
        """
        place = "previews" if purpose is Purpose.PREVIEW else f"images/{purpose.value}"
        # what a model of the pool is called may not be a name for a folder everywhere
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in model).strip(". ")
        told = hashlib.sha256(model.encode()).hexdigest()[:6] if safe != model else ""
        name = f"{place}/{'-'.join(filter(None, (safe, told)))}/{job:04d}.png"
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, compress_level=1)
        except OSError as error:
            raise cannot_write(path, error) from error
        return name, pixel_digest(image)


class OwnedChain:
    """A chain folder that this process holds: nobody else can append to its journal."""

    def __init__(self, folder: ChainFolder, journal: Path, clock: Callable[[], float]) -> None:
        self.folder = folder
        self._path = journal
        self._clock = clock
        self._hold = Hold(folder.path, "chain")

    def __enter__(self) -> OwnedChain:
        with ExitStack() as stack:
            stack.enter_context(self._hold)
            self.journal: Log[AnyChainEvent] = Log(self._path, self._clock, _DECODER)
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
