"""Exact ranks of changes whose sizes are whole multiples of a step, without sorting tensors.

The rank of a change is how many are smaller, and how many equal ones come before it. The first is
counted in one pass over the tensor; the second is counted on while ranks are given out in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lib_automerge.merge.lab.changes import GRID, Changes
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.stack import Stack

Whole = NDArray[np.int32]

_LEAST = 1 << 16
"""Elements of a tensor below which sorting is cheaper."""

_FIRST, _LAST = 1 << 16, 1 << 19
"""Lengths of a table; changes of so many steps are large: they are sorted."""

_LARGE = 16
"""One in so many changes may be large."""

_AT_ONCE = 1 << 14
"""Elements that are ordered at once; a few times more leave the cache."""

_DIGIT = (1 << 16) - 1


class CountedRanks:
    """Ranks of one model's changes by size, from 1 for the smallest; equal ones by their offset.

    Args:
        changes: of the tensor; they must be on the grid.
        model: which model.
        size: of the tensor.
        memory: bytes to use.
    """

    def __init__(self, changes: Changes, model: int, size: int, memory: int) -> None:
        self._changes = changes
        self._model = model
        self._memory = memory
        self._table = np.zeros(_FIRST, np.int32)
        self._large: list[Floats] = []
        self._larges = 0
        self._most = size // _LARGE
        self._large_ranks: Whole = np.empty(0, np.int32)

    def count(self, start: int, stop: int) -> bool:
        """Count the next elements; False if there are too many large ones, or too little memory."""
        keys, large = self._keys(start, stop)
        self._large.append(large)
        self._larges += large.size
        keys = keys[keys < _LAST] if large.size else keys
        length = len(self._table)
        while length <= keys.max(initial=0):
            length *= 2
        # the table twice while it is summed; large ones, their order and its memory
        if self._larges > self._most or 8 * length + 40 * self._larges > self._memory:
            return False
        if length > len(self._table):
            self._table = np.pad(self._table, (0, length - len(self._table)))
        ones = torch.ones((), dtype=torch.int32).expand(keys.size)
        torch.from_numpy(self._table).index_add_(0, torch.from_numpy(keys), ones)
        return True

    def begin(self) -> None:
        """Get ready to give out ranks, once all elements are counted."""
        total = np.cumsum(self._table, dtype=np.int32)
        # from here on the table holds the next rank of every size
        np.subtract(total, self._table, out=self._table)
        self._table += 1
        order = np.argsort(np.concatenate(self._large), kind="stable")
        self._large_ranks = np.empty(order.size, np.int32)
        self._large_ranks[order] = np.arange(order.size, dtype=np.int32) + (total[-1] + 1)
        self._large.clear()
        self._larges = 0

    def __call__(self, start: int, stop: int) -> Whole:
        """Return the ranks of the next elements, from `start` to `stop`."""
        keys, large = self._keys(start, stop)
        if not large.size:
            return self._ranks(keys)
        ranks = np.empty(keys.size, np.int32)
        small = keys < _LAST
        ranks[small] = self._ranks(keys[small])
        ranks[~small] = self._large_ranks[self._larges : self._larges + large.size]
        self._larges += large.size
        return ranks

    def _keys(self, start: int, stop: int) -> tuple[Whole, Floats]:
        """Return the size of each change in steps, at most `_LAST`, and the sizes that are more."""
        steps = self._changes(self._model, start, stop)
        np.abs(steps, out=steps)
        steps *= 1.0 / GRID
        large = steps[steps >= _LAST].astype(np.float64)
        return np.minimum(steps, _LAST, out=steps).astype(np.int32), large

    def _ranks(self, keys: Whole) -> Whole:
        ranks = np.empty(keys.size, np.int32)
        for first in range(0, keys.size, _AT_ONCE):
            part = keys[first : first + _AT_ONCE]
            order = _order(part)
            ordered = part[order]
            is_new = np.ones(part.size, np.bool_)
            np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
            begins = np.flatnonzero(is_new)
            lengths = np.diff(begins, append=part.size).astype(np.int32)
            equal = ordered[begins]
            following = self._table[equal]
            self._table[equal] = following + lengths
            following -= begins.astype(np.int32)
            ranks[first + order] = np.repeat(following, lengths) + _UP[: part.size]
        return ranks


_UP = np.arange(_AT_ONCE, dtype=np.int32)


def appetite(shape: tuple[int, ...], models: int) -> int:
    """Bytes with which `counted_ranks` counts whatever is on the grid."""
    size = math.prod(shape)
    return 2 * models * (8 * _LAST + 40 * size // _LARGE) if size >= _LEAST else 0


def counted_ranks(stack: Stack, models: Sequence[int]) -> list[CountedRanks] | None:
    """Return the ranks of some models' changes, to be asked for in order; None if they cannot be.

    They cannot be counted if numbers are not on the grid of `changes`, if many changes are large,
    if there is little memory, or if the tensor is small.
    """
    changes = Changes(stack)
    if not changes.on_grid or not _LEAST <= stack.size < 1 << 31:
        return None
    memory = stack.memory // 2 // len(models)
    found = [CountedRanks(changes, model, stack.size, memory) for model in models]
    for start, stop in stack.chunks():
        if not all(ranks.count(start, stop) for ranks in found):
            return None
    for ranks in found:
        ranks.begin()
    return found


def _order(keys: Whole) -> NDArray[np.int64]:
    """Return the stable order of keys, by radix sort on 16 bits; few should have more."""
    low = np.minimum(keys, _DIGIT).astype(np.uint16)
    order: NDArray[np.int64] = np.argsort(low, kind="stable")
    more = int(np.count_nonzero(keys >= _DIGIT))
    if more:
        rest = order[-more:]
        rest = rest[np.argsort(keys[rest].astype(np.uint16), kind="stable")]
        high = (keys[rest] >> 16).astype(np.uint16)
        order[-more:] = rest[np.argsort(high, kind="stable")]
    return order
