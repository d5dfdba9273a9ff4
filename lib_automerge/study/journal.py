"""The journal of a run: an append-only file of events, the only truth of the run.

Hides durability (an append is flushed and fsynced before it returns), the torn last line that
a killed process or a power cut leaves, and damage anywhere else, which every line's number and
checksum reveal.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

import msgspec

from lib_automerge.domain.events import AnyEvent
from lib_automerge.errors import StorageError

_PREFIX = re.compile(rb'\{"n":(\d+),"crc":"([0-9a-f]{8})",')
_DECODER: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)

Event = TypeVar("Event", bound=msgspec.Struct)
"""A kind of events: frozen, with a field `time`."""


def read_events(path: Path) -> list[AnyEvent]:
    """The events of a journal; a torn last line is left out, a missing file is empty.

    Safe while another process appends.

    Raises:
        StorageError: the file cannot be read, or is damaged before its last line.
    """
    return read_log(path, _DECODER)


def read_log(path: Path, decoder: msgspec.json.Decoder[Event]) -> list[Event]:
    """The events of a journal of another kind of work; see `read_events`."""
    return _parse(path, decoder)[0]


def _parse(path: Path, decoder: msgspec.json.Decoder[Event]) -> tuple[list[Event], int, bool]:
    """Events, the length in bytes that they take, and whether the last line lacks its newline."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0, False
    except OSError as error:
        raise StorageError(
            f"cannot read the journal {path}: {error.strerror}. Check its permissions."
        ) from error
    events: list[Event] = []
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        stop = len(data) if end < 0 else end
        event = _decode(data[position:stop], len(events) + 1, decoder)
        if event is None:
            # a line's start never occurs inside a line: quotes in texts are escaped
            swallowed = b'{"n":' in data[position + 1 :]
            if swallowed or 0 <= end < len(data) - 1:
                raise StorageError(
                    f"the journal {path} is damaged in line {len(events) + 1}: what follows it "
                    "cannot be trusted. Restore the file from a backup, or delete that line and "
                    "all after it to resume from there."
                )
            return events, position, False
        events.append(event)
        position = stop + 1
    return events, min(position, len(data)), position > len(data)


def _decode(line: bytes, number: int, decoder: msgspec.json.Decoder[Event]) -> Event | None:
    match = _PREFIX.match(line)
    if match is None or int(match[1]) != number:
        return None
    body = b"{" + line[match.end() :]
    if int(match[2], 16) != _checksum(number, body):
        return None
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError:
        return None


def _checksum(number: int, body: bytes) -> int:
    return zlib.crc32(body, number)


class Log(Generic[Event]):
    """A journal that is open for appending; its owner must hold the folder's lock.

    Opening cuts off a torn last line. `events` is what was there.

    Raises:
        StorageError: the file is damaged or cannot be written.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], decoder: msgspec.json.Decoder[Event]
    ) -> None:
        self._path = path
        self._clock = clock
        self._decoder = decoder
        events, length, open_ended = _parse(path, decoder)
        self.events: tuple[Event, ...] = tuple(events)
        self._count = len(events)
        self._end = length
        try:
            # unbuffered: bytes that a full disk refused must not come back when the file closes
            self._file: BinaryIO = path.open("r+b" if path.exists() else "x+b", buffering=0)
            self._file.truncate(length)
            self._file.seek(length)
            if open_ended:
                self._write(b"\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def append(self, *events: Event, durable: bool = True) -> tuple[Event, ...]:
        """Write events and wait until they are on disk; returns them with their time.

        Events that follow from earlier ones need not be `durable`: they are handed to the
        operating system, which a killed process does not undo, and reach the disk with the next
        durable ones. Losing them in a power cut costs nothing; waiting for each costs time.

        Raises:
            StorageError: they could not be written; the journal is as it was before.
        """
        now = self._clock()
        stamped = tuple(msgspec.structs.replace(event, time=now) for event in events)
        lines = bytearray()
        for number, event in enumerate(stamped, start=self._count + 1):
            body = msgspec.json.encode(event)
            if self._decoder.decode(body) != event:
                raise ValueError(f"{event} would not be read back as it is")
            lines += b'{"n":%d,"crc":"%08x",' % (number, _checksum(number, body))
            lines += body[1:] + b"\n"
        try:
            self._write(bytes(lines), durable=durable)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._count += len(stamped)
        return stamped

    def _write(self, data: bytes, *, durable: bool = True) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            if durable:
                os.fsync(self._file.fileno())
        except OSError:
            # a half-written line must not stand before the next one
            self._file.seek(self._end)
            self._file.truncate()
            raise
        self._end += len(data)

    def _cannot_write(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write the journal {self._path}: {error.strerror}. All earlier scores are "
            "safe; free some space or fix the permissions, then resume."
        )

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._file.close()

    def __enter__(self) -> Log[Event]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Journal(Log[AnyEvent]):
    """The journal of a run; see `Log`."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        super().__init__(path, clock, _DECODER)
