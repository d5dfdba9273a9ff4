"""TIES and its relatives: trim, vote on the sign of every element, average those that agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lib_automerge.merge.lab.changes import EXACT, Changes, reach
from lib_automerge.merge.lab.methods import BASE, register, role_of
from lib_automerge.merge.lab.number_types import Floats, Singles
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.selection import (
    EachModels,
    Exact,
    Largest,
    needs,
    thresholds,
    top_count,
)
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch, scratch_like

Vote = Literal["none", "sum", "count"]
"""How signs are elected: not at all, by the sum of changes (TIES), or by counting models."""

Counts = NDArray[np.uint8] | NDArray[np.int16]
Sums = tuple[Floats | Singles, Floats | Singles]

ChangesOf = Callable[[int, int, int], Floats | Singles]
"""`changes(model, start, stop)`: a model's changes as they are merged; scratch memory."""

Flags = NDArray[np.bool_]

_BITS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class Votes:
    """Changes of many models, gathered one model after the other for a range of elements.

    Four numbers per element stand for any number of models: the sums and the counts of positive
    and of negative changes. Changes of 0 do not vote and are not averaged. Sums are in float32 as
    long as that is exact, see `changes`.
    """

    BYTES = 24
    """Memory for each element, with one float64 to work with."""

    def __init__(self, size: int, models: int) -> None:
        counts = np.uint8 if models < 1 << 8 else np.int16
        self._singles = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._doubles: Sums | None = None
        self._sums: Sums = self._singles
        self._reach = 0.0
        self._more: Counts = np.zeros(size, counts)
        self._fewer: Counts = np.zeros(size, counts)
        self._models = models

    def clear(self) -> None:
        """Forget all changes."""
        self._sums = self._singles
        self._reach = 0.0
        for held in (*self._sums, self._more, self._fewer):
            held[:] = 0

    def add(self, changes: Floats | Singles, at: int = 0) -> None:
        """Add a model's changes of the elements from `at` on.

        Args:
            changes: in float32 only multiples of `changes.GRID` below `changes.EXACT`.
            at: the first element.
        """
        part = slice(at, at + changes.size)
        changes = self._fitting(changes)
        signed = torch.from_numpy(changes)
        one_sided = torch.from_numpy(scratch_like("one sided", changes))
        positive, negative = (torch.from_numpy(held[part]) for held in self._sums)
        # PyTorch cuts at 0 four times faster than NumPy
        positive.add_(torch.clamp(signed, min=0.0, out=one_sided))
        negative.add_(torch.clamp(signed, max=0.0, out=one_sided))
        self._more[part] += (changes > 0.0).view(np.uint8)
        self._fewer[part] += (changes < 0.0).view(np.uint8)

    def _fitting(self, changes: Floats | Singles) -> Floats | Singles:
        """Return changes in the type of the sums, which go to float64 once they must."""
        is_single = changes.dtype == np.float32
        if self._sums is self._singles:
            self._reach += reach(changes) if is_single else EXACT
            if self._reach < EXACT:
                return changes
            if self._doubles is None:
                self._doubles = np.empty(self._more.size), np.empty(self._more.size)
            for double, single in zip(self._doubles, self._singles, strict=True):
                double[:] = single
            self._sums = self._doubles
        if not is_single:
            return changes
        wide = scratch("wide changes", changes.size)
        wide[:] = changes
        return wide

    def sign(self, vote: Vote, size: int, at: int = 0) -> Floats:
        """Return the elected sign of `size` elements from `at` on: -1, 0 or 1."""
        balance = self._balance(vote, slice(at, at + size))
        return np.sign(balance, out=balance)

    def merged(self, vote: Vote, size: int, at: int = 0) -> Floats:
        """Return the merged change of `size` elements from `at` on.

        The mean of the changes with the elected sign; without a vote that of all models.
        """
        part = slice(at, at + size)
        out = scratch("merged", size)
        positive, negative = (held[part] for held in self._sums)
        if vote == "none":
            np.add(positive, negative, out=out)
            out /= self._models
            return out
        balance = self._balance(vote, part)
        up = balance > 0.0
        down = balance != 0.0
        down ^= up
        out[:] = _chosen(up, positive, down, negative)
        counts = _chosen(up, self._more[part], down, self._fewer[part])
        np.maximum(counts, 1, out=counts)
        out /= counts
        return out

    def _balance(self, vote: Vote, part: slice) -> Floats:
        """What is above 0 where plus is elected, and below where minus is; scratch memory."""
        balance = scratch("balance", part.stop - part.start)
        if vote == "sum":
            positive, negative = self._sums
            return np.add(positive[part], negative[part], out=balance)
        balance[:] = self._more[part]
        balance -= self._fewer[part]
        return balance


def _chosen(up: Flags, one: NDArray[Any], down: Flags, other: NDArray[Any]) -> NDArray[Any]:
    """Return `one` where up, `other` where down, else 0.

    By their bits: choosing is several times slower where the choice has no pattern.
    """
    whole = _BITS[one.itemsize]
    bits = np.negative(up.view(np.int8)).astype(whole)
    bits &= one.view(whole)
    rest = np.negative(down.view(np.int8)).astype(whole)
    rest &= other.view(whole)
    bits |= rest
    return bits.view(one.dtype)


def vote_by_chunk(stack: Stack, changes: ChangesOf, *, vote: Vote, scale: float) -> Pieces:
    """Yield `base + scale * merged change`, with all models of one chunk after the other.

    Args:
        stack: the tensor in all models.
        changes: called as `changes(model, start, stop)`, in order of the elements.
        vote: how signs are elected.
        scale: of the merged change.
    """
    votes = Votes(min(stack.chunk, stack.size), stack.models)
    for start, stop in stack.chunks():
        votes.clear()
        for model in range(stack.models):
            votes.add(changes(model, start, stop))
        merged = votes.merged(vote, stop - start)
        yield start, on_base(stack.base(start, stop), merged, scale)


def on_base(base: Floats, change: Floats, scale: float) -> Floats:
    """Return `base + scale * change`, in the memory of `change`."""
    change *= scale
    change += base
    return change


def ties(
    stack: Stack,
    *,
    k: Annotated[
        float, Within(0, 1, "share of each tensor's largest changes that is kept", each="block")
    ] = 0.2,
    scale: Annotated[
        float, Within(-2, 4, "how much of the merged change is added", each="block")
    ] = 1.0,
) -> Pieces:
    """Keep the largest changes of each model, elect signs by their sum, average the agreeing."""
    yield from _ties(stack, k, "sum", scale)


def ties_soup(
    stack: Stack,
    *,
    k: Annotated[
        float, Within(0, 1, "share of each tensor's largest changes that is kept", each="block")
    ] = 1.0,
    scale: Annotated[
        float, Within(-2, 4, "how much of the merged change is added", each="block")
    ] = 1.0,
) -> Pieces:
    """TIES whose signs are elected by counting models; an even split leaves the base."""
    yield from _ties(stack, k, "count", scale)


def _ties(stack: Stack, k: float, vote: Vote, scale: float) -> Pieces:
    count = top_count(k, stack.size)
    changes_of = Changes(stack)
    if count == stack.size:
        yield from vote_by_chunk(stack, changes_of, vote=vote, scale=scale)
        return
    largest = [Largest(found) for found in thresholds(stack, magnitudes_of_all(stack), count)]

    def trimmed(model: int, start: int, stop: int) -> Floats | Singles:
        changes = changes_of(model, start, stop)
        largest[model].keep(changes)
        return changes

    yield from vote_by_chunk(stack, trimmed, vote=vote, scale=scale)


def magnitudes_of_all(stack: Stack) -> EachModels:
    """Return what yields the magnitudes of all models' changes for a range of elements."""
    changes_of = Changes(stack)
    if stack.is_single and not changes_of.on_grid:
        return partial(_rough_magnitudes, stack)
    return partial(_exact_magnitudes, stack, changes_of)


def _exact_magnitudes(
    stack: Stack, changes_of: Changes, start: int, stop: int
) -> Iterator[tuple[Floats | Singles, Exact]]:
    for model in range(stack.models):
        changes = changes_of(model, start, stop)
        np.abs(changes, out=changes)
        yield changes, partial(_widened, changes)


def _widened(changes: Floats | Singles, chosen: Flags) -> Floats:
    return changes[np.flatnonzero(chosen)].astype(np.float64)


def _rough_magnitudes(stack: Stack, start: int, stop: int) -> Iterator[tuple[Singles, Exact]]:
    """Rounded to float32, which is half the work."""
    base = stack.single(0, start, stop, "single base")
    for model in range(stack.models):
        values = stack.single(1 + model, start, stop, "single")
        rough = values - base
        np.abs(rough, out=rough)
        yield rough, partial(_exact_changes, base, values)


def _exact_changes(base: Singles, values: Singles, chosen: NDArray[np.bool_]) -> Floats:
    places = np.flatnonzero(chosen)
    changes = values[places].astype(np.float64)
    changes -= base[places]
    return np.abs(changes, out=changes)


def magnitudes_of(stack: Stack, model: int, start: int, stop: int) -> Floats:
    """Return how much elements of a model differ from the base."""
    changes = stack.change(model, stack.base(start, stop), start, stop)
    return np.abs(changes, out=changes)


def nothing_added(values: Mapping[str, Any], _models: int) -> str | None:
    """The base, if none of the change is added."""
    return BASE if values["scale"] == 0.0 else None


def _identity(values: Mapping[str, Any], models: int) -> str | None:
    if values["scale"] == 0.0 or values["k"] == 0.0:
        return BASE
    alone = models == 1 and values["k"] == 1.0 and values["scale"] == 1.0
    return role_of(0) if alone else None


register(
    ties,
    label="TIES",
    formula="base + s mean(kept changes that have the sign of their sum)",
    source="TIES-Merging, Yadav et al. 2023 (2306.01708)",
    based=True,
    identity=_identity,
    rereads=True,
    needs=needs,
)
register(
    ties_soup,
    label="TIES-SOUP",
    formula="base + s mean(changes that have the sign of most models)",
    source="6DammK9's merging notes; TIES-Merging (2306.01708) with a vote by sign count",
    based=True,
    identity=_identity,
    rereads=True,
    needs=needs,
)
