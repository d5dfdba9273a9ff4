"""Model files as sources of ranges: any part of any tensor, read into memory that exists.

Files are read, not mapped: pages of a mapping would count as memory of the process, and a file that
shrinks under a mapping kills it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from lib_automerge.errors import ModelError
from lib_automerge.merge.lab.number_types import Raw, size_of

AHEAD = 8 << 20
"""Bytes of a file that the system is asked to bring before they are read."""

_ASKED_AT_ONCE = 1 << 19
"""Systems cut longer requests short."""

Stamp = tuple[int, int, int]
"""Size of a file, time of its last change in ns, and inode."""


class Entry(NamedTuple):
    """One tensor of a file: safetensors number type, shape, and its first byte in the file."""

    number_type: str
    shape: tuple[int, ...]
    start: int


class Source(Protocol):
    """A model as a method sees it.

    Attributes:
        name: how errors call it.
        entries: its tensors by canonical key.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def entries(self) -> Mapping[str, Entry]:
        """See above."""
        ...

    def read(self, key: str, start: int, stop: int, out: Raw) -> None:
        """Read the elements from `start` to `stop` of a flattened tensor into `out`.

        Raises:
            ModelError: the file cannot be read.
        """
        ...

    def check_unchanged(self) -> None:
        """Raise ModelError if what it reads from has changed since it was opened."""
        ...


class FileSource:
    """A safetensors file; several threads may read from it at once.

    Args:
        path: of the file.
        entries: its tensors.
        since: what `stamp_of` said before the file was looked at; None does not check.

    Raises:
        ModelError: the file cannot be opened, or has changed since.
    """

    def __init__(
        self, path: Path, entries: Mapping[str, Entry], since: Stamp | None = None
    ) -> None:
        self.path = path
        self.name = path.name
        self.entries = entries
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        self._lock = threading.Lock()
        self._asked: dict[int, int] = {}
        self._stamp = _stamp(os.fstat(self._file.fileno()))
        if since not in (None, self._stamp):
            self._file.close()
            raise _changed(self.path)

    def read(self, key: str, start: int, stop: int, out: Raw) -> None:
        """See `Source.read`."""
        entry = self.entries[key]
        width = size_of(entry.number_type)
        left = memoryview(out)[: (stop - start) * width]  # type: ignore[arg-type]
        try:
            with self._lock:
                self._ask_ahead(entry.start + start * width, entry.start + stop * width)
                self._file.seek(entry.start + start * width)
                while left:
                    count = self._file.readinto(left)
                    if not count:
                        raise _changed(self.path)
                    left = left[count:]
        except OSError as error:
            raise self._unreadable(error) from error

    def check_unchanged(self) -> None:
        """See `Source.check_unchanged`."""
        check_stamp(self.path, self._stamp)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _ask_ahead(self, start: int, stop: int) -> None:
        """Let the disk bring what follows a read while this process calculates.

        The system's own reading ahead gives up if threads read from several places in turns.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        thread = threading.get_ident()
        asked = self._asked.get(thread, -1)
        if not start <= asked <= stop + AHEAD:
            # elsewhere than before: what follows is asked for once it is clear that it is read
            self._asked[thread] = stop
            return
        end = min(stop + AHEAD, self._stamp[0])
        with contextlib.suppress(OSError):
            for first in range(max(asked, stop), end, _ASKED_AT_ONCE):
                os.posix_fadvise(self._file.fileno(), first, _ASKED_AT_ONCE, os.POSIX_FADV_WILLNEED)
        self._asked[thread] = end

    def _unreadable(self, error: OSError) -> ModelError:
        return _unreadable(self.path, error)


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        ModelError: the file is not there.
    """
    try:
        return _stamp(path.stat())
    except OSError as error:
        raise _unreadable(path, error) from error


def check_stamp(path: Path, since: Stamp) -> None:
    """Raise ModelError if a file is not the one any more that had this stamp."""
    try:
        now = _stamp(path.stat())
    except OSError as error:
        raise _changed(path) from error
    if now != since:
        raise _changed(path)


def _changed(path: Path) -> ModelError:
    return ModelError(
        f"{path} changed while it was read, so the merge would be of nothing that exists. Wait "
        "until the file is complete and merge again."
    )


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path} cannot be read: {error.strerror}. Check the file and its disk.")


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ino
