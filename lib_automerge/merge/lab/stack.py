"""What a method sees of one tensor: the same range of elements in every model, as float64."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import torch

from lib_automerge.errors import CancelledError, ModelError
from lib_automerge.merge.lab.number_types import Floats, Raw, Singles, single, size_of, widen
from lib_automerge.merge.lab.sources import Source

CHUNK = 1 << 17
"""Elements that are widened and combined at once: calls cost little, pieces stay in the cache."""

SPAN = 1 << 20
"""Elements of a model that one read brings if the tensor is read once."""


class Bad(msgspec.Struct, frozen=True):
    """A tensor of a model with NaN or infinite numbers, which were taken as 0."""

    model: str
    key: str


def damaged(model: str, key: str) -> ModelError:
    """The error that a tensor of a model holds NaN or infinite numbers."""
    return ModelError(
        f"{model}: {key!r} holds NaN or infinite numbers. The model is damaged: "
        "download it again, or take such numbers as 0 with --on-nan zero."
    )


class Reading(msgspec.Struct, frozen=True):
    """How tensors are read.

    Attributes:
        chunk: elements combined at once; results do not depend on it.
        zero_bad: take NaN and infinite numbers as 0 instead of refusing them.
        cancelled: asked between chunks.
        found_bad: told of tensors with numbers that were taken as 0, perhaps more than once.
    """

    chunk: int = CHUNK
    zero_bad: bool = False
    cancelled: Callable[[], bool] = lambda: False
    found_bad: Callable[[Bad], None] = lambda _bad: None


class Stack:
    """One tensor in several models.

    Attributes:
        key: its canonical name.
        shape: of the tensor in every model.
        size: its elements.
        models: how many models there are, without the base.
        number_types: of the sources, in their order.
        memory: bytes that a method may use for this tensor beyond a few chunks.

    Args:
        sources: the models in the order of roles; where `based`, the base first.
        based: whether the first source is the base.
        memory: bytes for this tensor, of which some are taken for reading.
        needs: bytes that are not taken.
        rereads: the tensor is read more than once: keep it in memory if it fits.
    """

    def __init__(
        self,
        key: str,
        sources: Sequence[Source],
        *,
        based: bool,
        memory: int,
        needs: int = 0,
        rereads: bool = False,
        reading: Reading = Reading(),  # noqa: B008 -- frozen
    ) -> None:
        self.key = key
        self.shape = sources[0].entries[key].shape
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.models = len(sources) - based
        self.chunk = reading.chunk
        self._sources = sources
        self._based = based
        self._reading = reading
        self.number_types = tuple(source.entries[key].number_type for source in sources)
        widths = sum(map(size_of, self.number_types))
        span = self.size if rereads else min(self.size, SPAN)
        span = max(min(span, (memory - needs) // 2 // widths), min(self.chunk, self.size), 1)
        self._span = span
        self._held: list[tuple[int, int, Raw | None]] = [(0, 0, None)] * len(sources)
        self.memory = max(memory - span * widths, 0)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the ranges in which elements are combined, in order."""
        stop = self.size if stop is None else stop
        for first in range(start, stop, self.chunk):
            yield first, min(first + self.chunk, stop)

    def value(self, model: int, start: int, stop: int, name: str = "value") -> Floats:
        """Return elements of a model; valid until the next call with this `name` in this thread.

        Args:
            model: its number, from 0, without the base.
            start: offset of the first element in the flattened tensor.
            stop: offset after the last one.
            name: of the scratch memory to use.

        Raises:
            ModelError: the file cannot be read, or holds NaN or infinite numbers.
            CancelledError: the caller does not want to go on.
        """
        return self._wide(model + self._based, start, stop, name)

    def base(self, start: int, stop: int, name: str = "base") -> Floats:
        """Return elements of the base; see `value`."""
        return self._wide(0, start, stop, name)

    def change(self, model: int, base: Floats, start: int, stop: int) -> Floats:
        """Return elements of a model minus `base`, in the scratch memory "value"."""
        values = self.value(model, start, stop)
        values -= base
        return values

    def changes(self, start: int, stop: int, out: Floats) -> Floats:
        """Fill `out` (models x elements) with all models minus the base, and return it."""
        base = self.base(start, stop)
        for model in range(self.models):
            np.subtract(self.value(model, start, stop), base, out=out[model])
        return out

    @property
    def is_single(self) -> bool:
        """Whether float32 holds every stored number exactly."""
        return "F64" not in self.number_types

    def single(self, index: int, start: int, stop: int, name: str) -> Singles:
        """Return elements of a source (the base is 0) in float32; `is_single` must be True.

        See `value`.
        """
        self._check_cancelled()
        out = single_scratch(name, stop - start)
        single(self._raw(index, start, stop), self.number_types[index], out)
        # squares may overflow in float32: then each number is looked at
        if not math.isfinite(np.dot(out, out)):
            self._judge(index, out)
        return out

    def _check_cancelled(self) -> None:
        if self._reading.cancelled():
            raise CancelledError("the merge was cancelled. Start it again to have it.")

    def _wide(self, index: int, start: int, stop: int, name: str) -> Floats:
        self._check_cancelled()
        out = scratch(name, stop - start)
        raw = self._raw(index, start, stop)
        widen(
            raw,
            self.number_types[index],
            out,
            torch.from_numpy(single_scratch("widened", stop - start)),
        )
        # a cheap test: one NaN or infinity makes the sum of squares NaN or infinite
        if not math.isfinite(np.dot(out, out)):
            self._judge(index, out)
        return out

    def _judge(self, index: int, values: Floats | Singles) -> None:
        bad = ~np.isfinite(values)
        if not bad.any():
            return
        name = self._sources[index].name
        if not self._reading.zero_bad:
            raise damaged(name, self.key)
        values[bad] = 0.0
        self._reading.found_bad(Bad(name, self.key))

    def _raw(self, index: int, start: int, stop: int) -> Raw:
        """Return stored bytes, reading as many as are held at once."""
        first, last, held = self._held[index]
        width = size_of(self.number_types[index])
        if held is None or start < first or stop > last:
            first, last = start, min(max(start + self._span, stop), self.size)
            if held is None or held.size < (last - first) * width:
                held = np.empty((last - first) * width, np.uint8)
            self._sources[index].read(self.key, first, last, held)
            self._held[index] = (first, last, held)
        return held[(start - first) * width : (stop - first) * width]


class _Scratch(threading.local):
    """Memory of one thread that is used again: fresh pages cost more than the arithmetic."""

    def __init__(self) -> None:
        self.floats: dict[str, Floats] = {}
        self.singles: dict[str, Singles] = {}


_scratch = _Scratch()


def scratch(name: str, size: int) -> Floats:
    """Return float64 memory of this thread by name; what it holds is left as it was."""
    held = _scratch.floats.get(name)
    if held is None or held.size < size:
        held = np.empty(size)
        _scratch.floats[name] = held
    return held[:size]


def single_scratch(name: str, size: int) -> Singles:
    """Return float32 memory of this thread by name; see `scratch`."""
    held = _scratch.singles.get(name)
    if held is None or held.size < size:
        held = np.empty(size, np.float32)
        _scratch.singles[name] = held
    return held[:size]


def scratch_like(name: str, values: Floats | Singles) -> Floats | Singles:
    """Return memory of this thread for as many numbers of the same type; see `scratch`."""
    if values.dtype == np.float32:
        return single_scratch(name, values.size)
    return scratch(name, values.size)


Pieces = Iterator[tuple[int, Floats]]
"""Merged elements of one tensor: offset and float64 values, in order and without gaps."""
