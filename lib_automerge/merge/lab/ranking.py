"""Exact ranks of magnitudes within a tensor, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.selection import Magnitudes, threshold
from lib_automerge.merge.lab.stack import Stack

BYTES = 48
"""Memory for each magnitude that is sorted at once."""

_DIGIT = 16
_LEAST = 1 << 12


def ordinal_ranks(
    stack: Stack, magnitudes: Magnitudes, start: int, stop: int, memory: int
) -> NDArray[np.uint32]:
    """Return the ranks, from 1 for the smallest magnitude of the tensor, of a range of elements.

    Equal magnitudes are ranked by their offset. What does not fit in memory is ranked from the
    smallest to the largest, as much at a time as fits.

    Args:
        stack: the tensor, for its size and chunks.
        magnitudes: of any range of it.
        start: the first element to return.
        stop: after the last one.
        memory: bytes to sort in.
    """
    ranks = np.zeros(stop - start, np.uint32)
    at_once = max(memory // BYTES, _LEAST)
    done, above = 0, -1.0
    while stack.size - done > at_once:
        below = threshold(stack, magnitudes, stack.size - done - at_once + 1).value
        done += _rank_between(stack, magnitudes, (above, below), done, start, ranks)
        done += _rank_equal(stack, magnitudes, below, done, start, ranks)
        above = below
    _rank_between(stack, magnitudes, (above, np.inf), done, start, ranks)
    return ranks


def _rank_between(
    stack: Stack,
    magnitudes: Magnitudes,
    limits: tuple[float, float],
    done: int,
    first: int,
    ranks: NDArray[np.uint32],
) -> int:
    """Rank the magnitudes between two others, both excluded; return how many there are."""
    everything = limits == (-1.0, np.inf)
    values: list[Floats] = []
    offsets: list[NDArray[np.int64]] = []
    for start, stop in stack.chunks():
        found = magnitudes(start, stop)
        if everything:
            values.append(found.copy())
            continue
        inside = np.flatnonzero((found > limits[0]) & (found < limits[1]))
        values.append(found[inside])
        offsets.append(inside + start)
    joined = np.concatenate(values) if values else np.empty(0)
    values.clear()
    order = _order(joined)
    count = len(joined)
    del joined
    places = order if everything else np.concatenate(offsets)[order]
    places -= first
    numbers = np.arange(done + 1, done + count + 1, dtype=np.uint32)
    if first == 0 and len(ranks) == stack.size:
        ranks[places] = numbers
        return count
    wanted = (places >= 0) & (places < len(ranks))
    ranks[places[wanted]] = numbers[wanted]
    return count


def _rank_equal(
    stack: Stack,
    magnitudes: Magnitudes,
    value: float,
    done: int,
    first: int,
    ranks: NDArray[np.uint32],
) -> int:
    """Rank the magnitudes that equal one value, by offset; return how many there are."""
    count = 0
    for start, stop in stack.chunks():
        places = np.flatnonzero(magnitudes(start, stop) == value) + (start - first)
        numbers = np.arange(done + count + 1, done + count + 1 + len(places), dtype=np.uint32)
        wanted = (places >= 0) & (places < len(ranks))
        ranks[places[wanted]] = numbers[wanted]
        count += len(places)
    return count


def _order(values: Floats) -> NDArray[np.int64]:
    """Return the stable order of non-negative numbers, by radix sort on 16 bits at a time.

    Their bits have the order of the numbers; what all bits have in common is left out, so that the
    changes of 16-bit models need two passes instead of four.
    """
    if not len(values):
        return np.empty(0, np.int64)
    bits = values.view(np.uint64)
    used = bits - bits.min()
    different = int(np.bitwise_or.reduce(used))
    if not different:
        return np.arange(len(values), dtype=np.int64)
    used >>= np.uint64((different & -different).bit_length() - 1)
    length = int(used.max()).bit_length()
    order: NDArray[np.int64] | None = None
    for shift in range(0, length, _DIGIT):
        digits = (used >> np.uint64(shift)).astype(np.uint16)
        if order is None:
            order = np.argsort(digits, kind="stable")
        else:
            order = order[np.argsort(digits[order], kind="stable")]
    assert order is not None
    return order
