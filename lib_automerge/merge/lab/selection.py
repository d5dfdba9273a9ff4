"""Exact order statistics of magnitudes, in passes over a stream of any length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.stack import Stack

Magnitudes = Callable[[int, int], Floats]
"""Non-negative float64 values of a range of elements; scratch memory of the caller."""

_RUNS = 64
_RUN = 512
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
    """Return what tells the `count` largest magnitudes of a tensor from the others.

    A sample brackets the value, one pass counts what is above and collects what is inside, and the
    exact value is selected from that. Only if the sample misleads do more passes follow.

    Args:
        stack: the tensor, for its size, chunks and memory.
        magnitudes: of any range of it.
        count: 1 to the size of the tensor.
    """
    low, high = _bracket(stack.size, magnitudes, count)
    limit = max(min(stack.memory // 16, stack.size), 4096)
    above = inside = equal = 0
    kept: list[Floats] = []
    for start, stop in stack.chunks():
        values = magnitudes(start, stop)
        over = values > high
        above += int(np.count_nonzero(over))
        within = values >= low
        within ^= over
        found = int(np.count_nonzero(within))
        inside += found
        if low < high and inside <= limit:
            kept.append(values[within])
        equal += found if low == high else 0
    if low == high and above < count <= above + equal:
        return Threshold(low, count - above)
    if low == high or inside > limit or not above < count <= above + inside:
        return _by_digits(stack, magnitudes, count)
    candidates = np.concatenate(kept)
    value = float(np.partition(candidates, inside - (count - above))[inside - (count - above)])
    above += int(np.count_nonzero(candidates > value))
    return Threshold(value, count - above)


def _bracket(size: int, magnitudes: Magnitudes, count: int) -> tuple[float, float]:
    """Return two magnitudes that the threshold is most likely between, from evenly spread runs."""
    step = max(size // _RUNS, 1)
    sample = np.concatenate(
        [
            magnitudes(start, min(start + min(_RUN, step), size)).copy()
            for start in range(0, size, step)
        ]
    )
    sample.sort()
    place = len(sample) * (1.0 - count / size)
    # five standard deviations of a sampled rank, and room for runs that are alike
    slack = 5.0 * math.sqrt(len(sample)) + 2.0
    low = math.floor(place - slack)
    high = math.ceil(place + slack)
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
    """Marks the largest magnitudes while a tensor is walked through in order.

    Args:
        found: the threshold; of equal magnitudes those with lower offsets are marked.
    """

    def __init__(self, found: Threshold) -> None:
        self._value = found.value
        self._ties = found.ties

    def mark(self, values: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which of the next magnitudes belong to the largest."""
        kept = values >= self._value
        equal = np.flatnonzero(values == self._value)
        kept[equal[self._ties :]] = False
        self._ties = max(self._ties - len(equal), 0)
        return kept
