"""What is to be merged, tensor by tensor, and how far a merge is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Settings
from lib_automerge.merge.lab.sources import Source


class Task(msgspec.Struct, frozen=True):
    """One tensor of the result.

    Attributes:
        key: its canonical name.
        block: its block; None for what is copied along and never merged.
        number_type: in which it is stored.
        members: which source stands for each model of the method, the base first.
        copied: the source to copy it from, whatever the parameters are; None to merge.
    """

    key: str
    block: str | None
    number_type: str
    members: tuple[int, ...] = ()
    copied: int | None = None


class Job(msgspec.Struct, frozen=True):
    """Everything that decides the bytes of the result, besides metadata.

    Attributes:
        method: how to merge.
        settings: its parameters.
        sources: the models, in the order of `roles`; others may follow.
        roles: role of each of the first sources.
        tasks: all tensors of the result.
        zero_bad: take NaN and infinite numbers as 0 instead of refusing them.
    """

    method: LabMethod
    settings: Settings
    sources: tuple[Source, ...]
    roles: tuple[str, ...]
    tasks: tuple[Task, ...]
    zero_bad: bool = False

    def source_of(self, task: Task) -> Source:
        """The source whose shape a tensor of the result has: the first of those it is made of."""
        return self.sources[task.members[0] if task.copied is None else task.copied]


class Progress(msgspec.Struct, frozen=True):
    """How far a merge is.

    Attributes:
        done: bytes that were read and written, each input counted once per pass over all tensors.
        total: bytes to read and write.
        seconds: since it began.
        skipped: bytes of `done` that an earlier merge had done.
        note: what is done before the merge, in words; then its steps are counted, not bytes.
    """

    done: int
    total: int
    seconds: float
    skipped: int = 0
    note: str = ""

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return (self.done - self.skipped) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go, None if that cannot be told yet."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


Listener = Callable[[Progress], None]
"""Told how far a merge is."""
