"""TGMD and DGMLA: the geometric median of dropped and voted changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lib_automerge.merge.lab import counting
from lib_automerge.merge.lab.counting import counted_ranks
from lib_automerge.merge.lab.dropping import (
    DropChances,
    Dropped,
    Favour,
    Ranks,
    Scale,
    Seed,
    Spread,
    all_or_nothing,
    check_spread,
    kept,
    sorted_ranks,
    windows,
)
from lib_automerge.merge.lab.medians import geometric_weights
from lib_automerge.merge.lab.methods import register
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.ranking import BYTES
from lib_automerge.merge.lab.selection import needs
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch
from lib_automerge.merge.lab.sums import BLOCK, blocks, gram
from lib_automerge.merge.lab.votes import Votes, on_base

Iterations = Annotated[int, Within(1, 10000, "steps of Weiszfeld's iteration at most")]
Stays = Callable[[int, int, int], NDArray[np.bool_]]
"""`stays(model, start, stop)`: which changes of a model are not dropped."""

_TOLERANCE, _FLOOR = 1e-20, 1e-6


def tgmd(
    stack: Stack,
    *,
    p: Dropped = 0.1,
    scale: Scale = 1.0,
    iterations: Iterations = 100,
    seed: Seed = 0,
) -> Pieces:
    """TSD with the geometric median in place of the mean.

    Its points are the whole changes of each model, with 0 where a change was dropped or outvoted,
    so that contested elements move towards the base.
    """

    def stays(model: int, start: int, stop: int) -> NDArray[np.bool_]:
        return kept(seed, model, stack.key, start, stop, p)

    yield from _median(stack, stays, scale, iterations)


def dgmla(
    stack: Stack,
    *,
    p: Dropped = 0.1,
    epsilon: Spread = 0.1,
    favour: Favour = "large",
    scale: Scale = 1.0,
    iterations: Iterations = 100,
    seed: Seed = 0,
) -> Pieces:
    """TGMD whose changes are dropped by the rank of their size, as in DELLA, without rescaling."""
    masks = _Masks(stack, seed, DropChances(stack.size, p, epsilon, favour))
    yield from _median(stack, masks.stays, scale, iterations)


class _Masks:
    """Which changes stay, one bit each, for as many elements of all models as fit in memory."""

    def __init__(self, stack: Stack, seed: int, chances: DropChances) -> None:
        self._stack = stack
        self._seed = seed
        self._chances = chances
        # a window of one model takes 4 bytes for ranks, which are let go before the next model
        each = 4 + -(-stack.models // 8)
        self._windows = windows(stack.size, stack.memory // 2, each)
        self._window = (0, 0)
        self._bits: list[NDArray[np.uint8]] = []

    def stays(self, model: int, start: int, stop: int) -> NDArray[np.bool_]:
        """See `Stays`; ranges are blocks, so that each lies in one window."""
        if not self._window[0] <= start < self._window[1]:
            self._window = next(w for w in self._windows if w[0] <= start < w[1])
            self._bits = [self._packed(m) for m in range(self._stack.models)]
        # blocks begin at multiples of 8
        first = (start - self._window[0]) // 8
        bits = self._bits[model][first : first + -(-(stop - start) // 8)]
        return np.unpackbits(bits, count=stop - start).view(np.bool_)

    def _packed(self, model: int) -> NDArray[np.uint8]:
        start, stop = self._window
        ranks = self._ranks(model)
        bits = np.empty(-(-(stop - start) // 8), np.uint8)
        for first, last in blocks(stop - start):
            drop = self._chances(ranks(start + first, start + last))
            stays = kept(self._seed, model, self._stack.key, start + first, start + last, drop)
            bits[first // 8 : -(-last // 8)] = np.packbits(stays)
        return bits

    def _ranks(self, model: int) -> Callable[[int, int], Ranks]:
        """Return what gives the ranks of a model in the window, asked for in order."""
        if len(self._windows) == 1:
            counted = counted_ranks(self._stack, [model])
            if counted:
                return counted[0]
        begin = self._window[0]
        ranks = sorted_ranks(self._stack, model, *self._window)
        return lambda start, stop: ranks[start - begin : stop - begin]


def _median(stack: Stack, stays: Stays, scale: float, iterations: int) -> Pieces:
    votes = Votes(min(stack.size, BLOCK), stack.models)

    def points(start: int, stop: int, out: Floats) -> None:
        stack.changes(start, stop, out)
        votes.clear()
        for model in range(stack.models):
            out[model] *= stays(model, start, stop)
            votes.add(out[model])
        elected = votes.sign("count", stop - start)
        for model in range(stack.models):
            out[model] *= np.sign(out[model]) == elected

    found = gram(stack, points)
    weights = geometric_weights(found, iterations=iterations, tolerance=_TOLERANCE, floor=_FLOOR)
    for start, stop in blocks(stack.size):
        count = stop - start
        part = scratch("gram", stack.models * count).reshape(stack.models, count)
        points(start, stop, part)
        merged = scratch("merged", count)
        merged[:] = 0.0
        for model, weight in enumerate(weights):
            if weight:
                part[model] *= weight
                merged += part[model]
        yield start, on_base(stack.base(start, stop), merged, scale)


register(
    tgmd,
    label="TGMD (TIES-SOUP with drop and geometric median)",
    formula="base + s geometric median(drop(changes, p) that have the sign of most models, else 0)",
    source="6DammK9's merging notes",
    based=True,
    identity=all_or_nothing,
    rereads=True,
)
register(
    dgmla,
    label="DGMLA",
    formula="base + s geometric median(drop(changes, p_i) that have the sign of most models, "
    "else 0), p_i = p -+ epsilon (rank_i / n - 1/2)",
    source="6DammK9's merging notes; DELLA's MagPrune (2406.11617) without rescaling",
    based=True,
    identity=all_or_nothing,
    check=check_spread,
    rereads=True,
    needs=lambda shape, _models: needs(shape, 1),
    appetite=lambda shape, _models: max(
        2 * (BYTES + 4) * math.prod(shape), counting.appetite(shape, 1)
    ),
)
