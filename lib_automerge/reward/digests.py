"""SHA-256 digests of weight files, kept on disk so that a file of gigabytes is not read each time.

A digest belongs to a path, a size, two times and the number that the file system gives the file. It
is only ever a saving: whatever is wrong with the file of digests, they are computed anew.

What stays unseen: bytes that go bad on the disk, which no file system reports, and on Windows a
file that was overwritten in place with as many bytes and given its old time back.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import msgspec

FILE = "digests.json"
"""Its name in the folder of the user's data."""

LIMIT = 2000
"""Digests in the file; the oldest go first. Pools of models have hundreds of files."""

# A file that is written twice within the clock's grain (two seconds on FAT) has one time for both.
_GRAIN_NS = 2_000_000_000

# The number changes with the layout.
_VERSION = 2


class Stamp(msgspec.Struct, frozen=True):
    """What a digest belongs to.

    Attributes:
        path: of the file, absolute and without links.
        size: in bytes.
        mtime_ns: when it was changed last, in nanoseconds; programs that copy may set it.
        ctime_ns: when the file system was last told anything about it, which no program can set; on
            Windows when it was made.
        inode: the file system's number of it, in decimal digits; another file has another one.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: str

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The file as it is now.

        Raises:
            OSError: it does not exist, or cannot be looked at.
        """
        status = path.stat()
        return cls(
            str(path.resolve()),
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            str(status.st_ino),
        )

    def settled(self) -> bool:
        """Whether any later change gives another time. Ask before reading the file."""
        return time.time_ns() - self.mtime_ns >= _GRAIN_NS


class _Digest(msgspec.Struct, frozen=True):
    stamp: Stamp
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Digests(msgspec.Struct, frozen=True):
    version: int
    files: dict[str, _Digest]


_file: ContextVar[Path | None] = ContextVar("_file", default=None)
_memory: dict[Stamp, str] = {}


@contextmanager
def kept_in(file: Path | None) -> Iterator[None]:
    """Within the block, digests are also looked up and kept in a file; None for the process only.

    Args:
        file: made with the first digest, if its folder exists.
    """
    token = _file.set(file)
    try:
        yield
    finally:
        _file.reset(token)


def of(path: Path, read: Callable[[Path], str]) -> str:
    """The digest of a file: the one that was kept if the file has not changed since.

    Args:
        path: of the file.
        read: returns the digest of what is in the file now.

    Raises:
        OSError: the file does not exist, or cannot be looked at; and what `read` raises.
    """
    stamp = Stamp.of(path)
    digest = recall(stamp)
    if digest is None:
        settled = stamp.settled()
        digest = read(path)
        if settled and Stamp.of(path) == stamp:
            keep(stamp, digest)
    return digest


def recall(stamp: Stamp) -> str | None:
    """The digest of a file that has not changed since it was kept; None if there is none."""
    digest, file = _memory.get(stamp), _file.get()
    if digest is None and file is not None:
        found = _read(file).get(stamp.path)
        if found is not None and found.stamp == stamp:
            digest = _memory[stamp] = found.sha256
    return digest


def keep(stamp: Stamp, digest: str) -> None:
    """Remember a digest, for this process and in the file."""
    _memory[stamp] = digest
    file = _file.get()
    if file is not None:
        _write(file, stamp, digest)


def _read(file: Path) -> dict[str, _Digest]:
    try:
        read = msgspec.json.decode(file.read_bytes(), type=_Digests)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return {}
    return read.files if read.version == _VERSION else {}


def _write(file: Path, stamp: Stamp, digest: str) -> None:
    """Add a digest; of two processes that write at once, one has to compute its own again."""
    files = _read(file)
    files.pop(stamp.path, None)
    files[stamp.path] = _Digest(stamp, digest)
    newest = dict(list(files.items())[-LIMIT:])
    # ValueError: a path whose bytes are no text
    with suppress(OSError, ValueError):
        content = msgspec.json.encode(_Digests(_VERSION, newest))
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
        try:
            with os.fdopen(handle, "wb") as part:
                part.write(content)
            Path(temporary).replace(file)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
