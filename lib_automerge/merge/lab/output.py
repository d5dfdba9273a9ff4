"""The file that a merge writes: at final offsets, under another name until it is complete.

While it grows it is `.NAME.partial`, beside it `.NAME.journal` lists what is safely in it, so that
a cancelled merge can be taken up again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import filelock
import msgspec

from lib_automerge.errors import CancelledError, ConfigError, StorageError
from lib_automerge.merge.lab.number_types import Raw
from lib_automerge.merge.sinks import FileLayout, cannot_write, check_room

SYNCED = 1 << 27
"""Bytes after which what is written is made safe and noted in the journal, in the background."""


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the journal: first what is merged, then keys that are complete."""

    merge: str = ""
    keys: tuple[str, ...] = ()


class Writing(Protocol):
    """What takes a merge, tensor by tensor, from several threads.

    Attributes:
        finished: keys that need not be merged.
    """

    finished: set[str]

    def write(self, key: str, offset: int, raw: Raw) -> None:
        """Take bytes of a tensor at their offset in it."""
        ...

    def finish(self, key: str) -> None:
        """Note that a tensor is complete."""
        ...


class Output:
    """A safetensors file that several threads write to.

    Args:
        path: must not exist.
        layout: of the file.
        merge: what is merged, as a digest; a kept part of another merge is not taken up.
        resume: go on with what a cancelled merge has kept.

    Attributes:
        finished: keys that are complete in the file.
        replaced: whether the kept part of an earlier merge was thrown away.

    Raises:
        StorageError: the file exists, cannot be written, or the disk is too small.
        ConfigError: nothing is there to resume, or it is of another merge.
        CancelledError: instead of the one, or the KeyboardInterrupt, that was raised inside: tells
            what was kept and where.
    """

    def __init__(self, path: Path, layout: FileLayout, merge: str, *, resume: bool = False) -> None:
        self.path = path
        self.finished: set[str] = set()
        self.replaced = False
        self._layout = layout
        self._merge = merge
        self._resume = resume
        self._partial, self._journal = _kept_files(path)
        self._hold = _hold_of(path)
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._unsafe = 0
        self._saver = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def __enter__(self) -> Output:
        kept = _held(self._partial)
        check_room(self.path, self._layout.size - kept)
        try:
            self._hold.acquire()
        except filelock.Timeout as error:
            raise _written_by_another(self.path) from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            self._begin()
        except BaseException:
            self._close()
            raise
        return self

    def write(self, key: str, offset: int, raw: Raw) -> None:
        """Write bytes of a tensor.

        Args:
            key: the tensor.
            offset: of the first byte, in the tensor.
            raw: what to write.

        Raises:
            StorageError: it cannot be written.
        """
        assert self._file is not None
        data = memoryview(raw)  # type: ignore[arg-type]
        try:
            with self._lock:
                self._file.seek(self._layout.starts[key] + offset)
                while data:
                    data = data[self._file.write(data) :]
                self._unsafe += raw.nbytes
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def finish(self, key: str) -> None:
        """Note that a tensor is complete."""
        with self._lock:
            self.finished.add(key)
            self._waiting.append(key)
            is_due = self._unsafe >= SYNCED and (self._saving is None or self._saving.done())
            if is_due:
                self._unsafe = 0
                self._await_saved()
                self._saving = self._saver.submit(self._make_safe)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = kind is not None and issubclass(kind, CancelledError | KeyboardInterrupt)
        try:
            self._saver.shutdown()
            if kind is None:
                self._complete()
            elif stopped and self.finished:
                self._await_saved()
                with self._explained():
                    self._make_safe()
                raise self._cancelled() from error
            else:
                self._discard()
        finally:
            self._close()

    def _begin(self) -> None:
        if self._resume:
            self.finished = self._read_journal()
            with self._explained():
                self._file = self._partial.open("r+b", buffering=0)
            return
        self.replaced = self._partial.exists()
        with self._explained():
            self._file = self._partial.open("w+b", buffering=0)
            self._file.write(self._layout.header)
            self._file.truncate(self._layout.size)
            self._journal.write_bytes(msgspec.json.encode(_Line(merge=self._merge)) + b"\n")

    def _read_journal(self) -> set[str]:
        if not (self._journal.exists() and self._partial.exists()):
            raise ConfigError(
                f"there is nothing to resume for {self.path}. Start the merge without --resume."
            )
        finished: set[str] = set()
        lines = self._journal.read_bytes().split(b"\n")
        try:
            # what follows the last line break was cut off while it was written
            parsed = [msgspec.json.decode(line, type=_Line) for line in lines[:-1]]
        except msgspec.MsgspecError:
            parsed = []
        whole = self._partial.stat().st_size == self._layout.size
        if not parsed or parsed[0].merge != self._merge or not whole:
            raise ConfigError(
                f"what is kept in {self._partial} is of another merge: recipe, models or version "
                "differ. Delete it, or start without --resume, which replaces it."
            )
        for line in parsed:
            finished.update(line.keys)
        return finished

    def _make_safe(self) -> None:
        """Bring everything to the disk, then note which keys are complete."""
        assert self._file is not None
        with self._lock:
            complete, self._waiting = self._waiting, []
        os.fsync(self._file.fileno())
        with self._journal.open("ab") as file:
            file.write(msgspec.json.encode(_Line(keys=tuple(complete))) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _await_saved(self) -> None:
        """Wait for what is made safe in the background; raise what went wrong there."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._explained():
                saving.result()

    def _complete(self) -> None:
        assert self._file is not None
        try:
            if self._saving is not None:
                self._saving.result()
            self._make_safe()
            self._file.close()
            if not self.path.exists():
                self._partial.replace(self.path)
                self._journal.unlink(missing_ok=True)
                return
        except OSError as error:
            self._discard()
            raise cannot_write(self.path, error) from error
        raise StorageError(
            f"{self.path} was created by someone else meanwhile. The merge is complete and kept in "
            f"{self._partial}: move the other file away and go on with --resume, or delete it."
        )

    def _cancelled(self) -> CancelledError:
        done, total = len(self.finished), len(self._layout.order)
        return CancelledError(
            f"the merge was cancelled: {done} of {total} tensors are finished and kept in "
            f"{self._partial} ({self._layout.size / 1e9:.2f} GB). Go on with --resume, or delete "
            "it."
        )

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._partial.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        # while it is held, so that it cannot be another merge's; Windows does this by itself
        with contextlib.suppress(OSError):
            Path(self._hold.lock_file).unlink(missing_ok=True)
        self._hold.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error


def kept(path: Path) -> int | None:
    """Return the bytes that a cancelled merge into this file has kept; None if it kept nothing."""
    partial, journal = _kept_files(path)
    return _held(partial) if partial.exists() and journal.exists() else None


def discard(path: Path) -> None:
    """Throw away what a cancelled merge into this file has kept, if there is anything.

    Raises:
        StorageError: another merge is writing it, or it cannot be deleted.
    """
    partial, journal = _kept_files(path)
    if not (partial.exists() or journal.exists()):
        return
    hold = _hold_of(path)
    try:
        with hold:
            for file in (partial, journal):
                file.unlink(missing_ok=True)
            # while it is held, as in `Output`
            with contextlib.suppress(OSError):
                Path(hold.lock_file).unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise _written_by_another(path) from error
    except OSError as error:
        raise StorageError(
            f"cannot delete {error.filename}: {error.strerror}. Delete it yourself."
        ) from error


def _hold_of(path: Path) -> filelock.BaseFileLock:
    """What a merge holds while it writes a file."""
    return filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)


def _written_by_another(path: Path) -> StorageError:
    return StorageError(
        f"{path} is being written by another merge. Wait for it or choose another name."
    )


def _kept_files(path: Path) -> tuple[Path, Path]:
    """What is written until the merge is complete: the file itself, and its journal."""
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.journal")


def _held(path: Path) -> int:
    """Bytes that a file really takes on the disk; files that grow at offsets have holes."""
    if not path.exists():
        return 0
    status = path.stat()
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else 512 * blocks
