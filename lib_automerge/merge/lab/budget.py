"""How much memory a merge may take, and how its parts share it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_automerge.errors import ConfigError

DEFAULT = 2 << 30
"""Bytes of the whole process, unless the user gives another cap."""

LEAST = 64 << 20
"""Bytes that must be left for tensors."""

_UNKNOWN_OWN = 400 << 20
_UNITS = {
    "": 1,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}


def parse_memory(text: str) -> int:
    """Return the bytes that a text like "2GiB" or "1500 MB" means.

    Raises:
        ConfigError: it cannot be read.
    """
    number = text.strip().rstrip("KMGiBkmgIb ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise ConfigError(
            f"memory cannot be read: {text!r}. Give a number with MiB or GiB, like 2GiB."
        ) from error


def left_of(cap: int, reserved: int, least: int) -> int:
    """Return what is left for tensors of a cap on the memory of the process.

    Args:
        cap: bytes.
        reserved: bytes that will be used besides.
        least: bytes that the tensor which takes most cannot do without.

    Raises:
        ConfigError: too little is left; says how much is needed.
    """
    own = own_memory()
    left = cap - own - reserved
    least = max(least, LEAST)
    if left < least:
        needed = own + reserved + least
        raise ConfigError(
            f"{cap / 2**20:.0f} MiB of memory are too little for this merge. Give it "
            f"{-(-needed // 2**20)} MiB or more, or use fewer threads."
        )
    return left


def own_memory() -> int:
    """Bytes that the process holds now; an estimate where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_OWN
    return pages * 4096


class Budget:
    """Memory that is lent to one tensor after the other, in the order in which they ask."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Condition()
        self._waiting: list[object] = []

    @contextmanager
    def lent(self, wanted: int) -> Iterator[int]:
        """Wait for memory and yield how many bytes may be used: `wanted` or all there is."""
        share = min(wanted, self.total)
        ticket = object()
        with self._turn:
            self._waiting.append(ticket)
            self._turn.wait_for(lambda: self._waiting[0] is ticket and self._free >= share)
            self._waiting.pop(0)
            self._free -= share
            self._turn.notify_all()
        try:
            yield share
        finally:
            with self._turn:
                self._free += share
                self._turn.notify_all()
