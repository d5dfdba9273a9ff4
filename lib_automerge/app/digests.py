"""The SHA-256 of checkpoints: as the host knows it, from before, or read in the background.

Reading a file of 7 GB takes long, so nothing that a page waits for does it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lib_automerge.app.ports import ModelChoice
from lib_automerge.errors import AutomergeError, BusyError, CancelledError
from lib_automerge.merge import lookup
from lib_automerge.study.formats import plural

log = logging.getLogger(__name__)


class Stamp(msgspec.Struct, frozen=True):
    """When a file was changed last (nanoseconds since the epoch), and its bytes."""

    changed: int
    size: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How far the reading of files is.

    Attributes:
        number: counts the times that files were read; 0 before the first.
        running: whether they are being read.
        cancelling: whether that was cancelled and ends soon.
        name: of the file in hand.
        done: bytes of all that are read.
        total: bytes of all.
        told: a sentence once it has ended.
        failed: whether that tells of a failure.
    """

    number: int = 0
    running: bool = False
    cancelling: bool = False
    name: str = ""
    done: int = 0
    total: int = 0
    told: str = ""
    failed: bool = False

    @property
    def version(self) -> str:
        """Another text whenever something that is shown has changed."""
        return f"{self.number}{self.running:d}{self.cancelling:d}-{self.done >> 24}"


class _Known(msgspec.Struct, frozen=True):
    stamp: Stamp
    sha256: str


class Digests:
    """What is known of the content of files.

    Args:
        path: of the file that keeps it; may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = self._read()
        self._now = Reading()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def known(self, model: ModelChoice) -> str:
        """The SHA-256 of a model's file as far as it is known; else empty. Reads no file."""
        with self._lock:
            found = self._known.get(model.path)
        if found is not None and stamp(Path(model.path)) == found.stamp:
            return found.sha256
        return model.sha256

    def learn(self, path: str, before: Stamp | None, sha256: str) -> None:
        """Note what was read of a file that was as `before` says when the reading began."""
        if before is None or not sha256:
            return
        with self._lock:
            if self._known.get(path) == _Known(before, sha256):
                return
            self._known[path] = _Known(before, sha256)
            self._write()

    def snapshot(self) -> Reading:
        """How far the reading is."""
        with self._lock:
            return self._now

    def read(self, models: Sequence[ModelChoice]) -> None:
        """Begin to read those of the models' files that are not known; returns at once.

        Raises:
            BusyError: files are being read already.
        """
        paths = [Path(model.path) for model in models if not self.known(model)]
        with self._lock:
            if self._now.running:
                raise BusyError("models are being read already. Wait for it, or cancel it.")
            self._stop.clear()
            self._now = Reading(number=self._now.number + 1, running=True)
            # a daemon: nothing is lost when the program ends while it reads
            self._thread = threading.Thread(
                target=self._work, args=(paths,), name="automerge-digests", daemon=True
            )
            self._thread.start()

    def cancel(self) -> None:
        """End the reading; what is known by then stays known."""
        self._stop.set()
        with self._lock:
            if self._now.running:
                self._now = msgspec.structs.replace(self._now, cancelling=True)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until no files are read, or the time is over."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    # --- the thread's side ----------------------------------------------------------------------

    def _work(self, paths: Sequence[Path]) -> None:
        failed = True
        try:
            sizes = {path: _size(path) for path in paths}
            self._change(total=sum(sizes.values()))
            before = 0
            for path in paths:
                self._change(name=path.name, done=before)
                first = stamp(path)
                self.learn(str(path), first, lookup.sha256(path, progress=self._step))
                before += sizes[path]
            told, failed = f"The contents of {plural(len(paths), 'model')} are known.", False
        except CancelledError:
            told, failed = "Reading the models was cancelled.", False
        except AutomergeError as error:
            told = str(error)
        except Exception as error:
            # the thread's last resort: nobody else would see it
            log.exception("the models could not be read")
            told = f"the models could not be read: {type(error).__name__}: {error}. See the log."
        self._change(running=False, cancelling=False, told=told, failed=failed)

    def _step(self, count: int) -> None:
        if self._stop.is_set():
            raise CancelledError("reading the models was cancelled.")
        self._change(done=self._now.done + count)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._now = msgspec.structs.replace(self._now, **changes)

    def _read(self) -> dict[str, _Known]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Known])
        except (OSError, msgspec.MsgspecError):
            # they can be read again
            return {}

    def _write(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(self._known))
            partial.replace(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)


def stamp(path: Path) -> Stamp | None:
    """What tells that a file was changed; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_size)


def _size(path: Path) -> int:
    found = stamp(path)
    return 0 if found is None else found.size
