"""Exact order statistics of magnitudes, in passes over a stream of any length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lib_automerge.merge.lab.number_types import Floats, Singles
from lib_automerge.merge.lab.stack import Stack

Magnitudes = Callable[[int, int], Floats]
"""Non-negative float64 values of a range of elements; scratch memory of the caller."""

Exact = Callable[[NDArray[np.bool_]], Floats]
EachModels = Callable[[int, int], Iterator[tuple[Floats | Singles, Exact]]]
"""Yields the magnitudes of a range of elements model by model, each valid until the next.

Rough ones in float32 or exact ones in float64, and a function that gives the exact ones of chosen
elements. Rounding keeps the order: what is rough and larger is larger.
"""

_RUNS = 32
_RUN = 1024
_SAMPLE = _RUNS * _RUN
_DIGIT = 16


class Threshold(NamedTuple):
    """The largest magnitudes are those above `value`, and the first `ties` that equal it."""

    value: float
    ties: int


def top_count(share: float, size: int) -> int:
    """Return how many elements a share is: the nearest whole number, halves up, at least one.

    0 only for a share of 0 or an empty tensor.
    """
    if share <= 0.0 or size == 0:
        return 0
    return min(max(math.floor(share * size + 0.5), 1), size)


def threshold(stack: Stack, magnitudes: Magnitudes, count: int) -> Threshold:
    """Return what tells the `count` largest magnitudes of one model from the others.

    See `thresholds`.
    """

    def alone(start: int, stop: int) -> Iterator[tuple[Floats, Exact]]:
        values = magnitudes(start, stop)
        yield values, values.__getitem__

    return thresholds(stack, alone, count, models=1)[0]


def thresholds(
    stack: Stack, each: EachModels, count: int, *, models: int | None = None
) -> list[Threshold]:
    """Return what tells the `count` largest magnitudes of a tensor from the others, by model.

    A sample brackets the value, one pass counts what is above and collects what is inside, and the
    exact value is selected from that. Only if the sample misleads do more passes follow.

    Args:
        stack: the tensor, for its size, chunks and memory.
        each: yields the magnitudes of a range of it, model by model.
        count: 1 to the size of the tensor.
        models: how many models `each` yields; None means all.
    """
    models = stack.models if models is None else models
    brackets = _brackets(stack.size, each, count, models)
    limit = max(min(stack.memory // (32 * models), stack.size), 2 * _SAMPLE)
    found = [_Bracketed(*bracket, limit) for bracket in brackets]
    for start, stop in stack.chunks():
        for one, (values, exact) in zip(found, each(start, stop), strict=True):
            one.take(values, exact)
    return [
        one.threshold(count) or _by_digits(stack, _only(each, model), count)
        for model, one in enumerate(found)
    ]


def needs(shape: tuple[int, ...], models: int) -> int:
    """Bytes that `thresholds` of so many models takes at least: samples, and what is kept."""
    return 8 * (models + 2) * min(math.prod(shape), 2 * _SAMPLE)


class _Bracketed:
    """Counts magnitudes above a bracket and keeps those inside, both ends included.

    Args:
        low: the lower end.
        high: the upper end; where both are 0, which no rounding makes, those inside are counted.
        limit: how many are kept at most.
    """

    def __init__(self, low: float, high: float, limit: int) -> None:
        self._low = low
        self._high = high
        self._limit = limit
        self._above = self._inside = 0
        self._kept: list[Floats] = []

    def take(self, values: Floats | Singles, exact: Exact) -> None:
        """Take the next magnitudes; see `EachModels`."""
        over = values > self._high
        within = values >= self._low
        within ^= over
        self._above += int(np.count_nonzero(over))
        self._inside += int(np.count_nonzero(within))
        if self._high > 0.0 and self._inside <= self._limit:
            self._kept.append(exact(within))

    def threshold(self, count: int) -> Threshold | None:
        """Return the threshold of the `count` largest, None if it is not inside or not kept."""
        if not self._above < count <= self._above + self._inside:
            return None
        if self._high == 0.0:
            return Threshold(0.0, count - self._above)
        if self._inside > self._limit:
            return None
        candidates = np.concatenate(self._kept)
        place = self._inside - (count - self._above)
        candidates.partition(place)
        value = float(candidates[place])
        return Threshold(value, count - self._above - int(np.count_nonzero(candidates > value)))


def _only(each: EachModels, model: int) -> Magnitudes:
    def magnitudes(start: int, stop: int) -> Floats:
        values, exact = next(islice(each(start, stop), model, None))
        return exact(np.ones(len(values), np.bool_))

    return magnitudes


def _brackets(size: int, each: EachModels, count: int, models: int) -> list[tuple[float, float]]:
    """Return two magnitudes of each model that its threshold is most likely between.

    They are from evenly spread runs of elements. Small tensors are not sampled: everything is
    between 0 and infinity.
    """
    if size <= 2 * _SAMPLE:
        return [(0.0, math.inf)] * models
    step = size // _RUNS
    samples: list[list[Floats]] = [[] for _ in range(models)]
    for start in range(0, size, step):
        run = each(start, min(start + _RUN, size))
        for sample, (values, _) in zip(samples, run, strict=True):
            sample.append(values.astype(np.float64))
    return [_bracket(np.concatenate(sample), 1.0 - count / size) for sample in samples]


def _bracket(sample: Floats, place: float) -> tuple[float, float]:
    """Return the magnitudes around a place (0 to 1) of a sample in the order of size."""
    # five standard deviations of a sampled rank, and room for runs that are alike
    slack = 5.0 * math.sqrt(len(sample) * place * (1.0 - place)) + 50.0
    low = math.floor(place * len(sample) - slack)
    high = math.ceil(place * len(sample) + slack)
    sample.partition([end for end in (low, high) if 0 <= end < len(sample)])
    return (
        0.0 if low < 0 else float(sample[low]),
        math.inf if high >= len(sample) else float(sample[high]),
    )


def _by_digits(stack: Stack, magnitudes: Magnitudes, count: int) -> Threshold:
    """Return the threshold from four counting passes, 16 bits each, whatever the values are."""
    prefix = above = 0
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        histogram = np.zeros(1 << _DIGIT, np.int64)
        for start, stop in stack.chunks():
            # bits of non-negative floats have the order of the numbers
            bits = magnitudes(start, stop).view(np.uint64)
            if shift + _DIGIT < 64:
                bits = bits[bits >> np.uint64(shift + _DIGIT) == prefix]
            digits = (bits >> np.uint64(shift)) & np.uint64((1 << _DIGIT) - 1)
            histogram += np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT)
        from_top = np.cumsum(histogram[::-1])[::-1]
        digit = int(np.flatnonzero(from_top >= count - above)[-1])
        above += int(from_top[digit] - histogram[digit])
        prefix = prefix << _DIGIT | digit
    value = float(np.array([prefix], np.uint64).view(np.float64)[0])
    return Threshold(value, count - above)


class Largest:
    """Keeps the largest magnitudes while a tensor is walked through in order.

    Args:
        found: the threshold; of equal magnitudes those with lower offsets are kept.
    """

    def __init__(self, found: Threshold) -> None:
        self._value = found.value
        self._ties = found.ties

    def keep(self, values: Floats | Singles) -> None:
        """Set to 0 what does not belong to the largest, in the next values of either sign."""
        equal: NDArray[np.int64] = np.empty(0, np.int64)
        if self._ties:
            equal = np.flatnonzero(np.abs(values) == self._value)[: self._ties]
            self._ties -= len(equal)
        saved = values[equal]
        signed = torch.from_numpy(values)
        torch.hardshrink(signed, self._value, out=signed)
        values[equal] = saved
