"""Holding a folder for one process, and replacing files in it without ever being half there."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import filelock

from lib_automerge.errors import StorageError

LOCK_WAIT_S = 2.0
"""A status query holds the lock for a moment; who starts to work waits this long for it."""

_PROBE = threading.Lock()
"""Held while asking for a lock: two threads that ask at once would find each other."""


class Hold:
    """A context in which nobody else works in a folder; the lock dies with the process.

    Entering removes what a killed process left half written by `replace_file`.

    Args:
        folder: must exist.
        work: what is done there, in a word ("run"); also names the lock.

    Raises:
        StorageError: somebody else holds it, or it cannot be written.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self._folder = folder
        self._work = work
        self._file = folder / f"{work}.lock"
        self._lock = filelock.FileLock(self._file, timeout=LOCK_WAIT_S)

    def __enter__(self) -> Hold:
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise StorageError(
                f"another process is working on the {self._work} in {self._folder}. Wait for it or "
                "stop it first; `status` shows what it does."
            ) from error
        except OSError as error:
            raise cannot_write(self._file, error) from error
        for partial in self._folder.glob(".*.partial"):
            with suppress(OSError):
                partial.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


def is_held(folder: Path, work: str) -> bool:
    """Whether some process holds a folder for this work now."""
    lock = filelock.FileLock(folder / f"{work}.lock", timeout=0)
    try:
        with _PROBE, lock:
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: its readers see the old or the new whole.

    Raises:
        OSError: it could not be written; the old file is still there.
    """
    # a name for each writer, so that two at once do not move each other's file away
    writer = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.name}.{writer}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error that a file of a folder of work could not be written."""
    return StorageError(
        f"cannot write {path}: {error.strerror}. Check the folder's permissions and free space; "
        "everything written before is safe."
    )
