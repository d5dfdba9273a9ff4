"""TIES and its relatives: trim, vote on the sign of every element, average those that agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

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
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch

Vote = Literal["none", "sum", "count"]
"""How signs are elected: not at all, by the sum of changes (TIES), or by counting models."""

Counts = NDArray[np.uint8] | NDArray[np.int16]

ChangesOf = Callable[[int, Floats, int, int], Floats]
"""`changes(model, base, start, stop)`: a model's changes as they are merged; scratch memory."""


class Votes:
    """Changes of many models, gathered one model after the other for a range of elements.

    Four numbers per element stand for any number of models: the sums and the counts of positive
    and of negative changes. Changes of 0 do not vote and are not averaged.
    """

    BYTES = 24
    """Memory for each element, with one float64 to work with."""

    def __init__(self, size: int, models: int) -> None:
        counts = np.uint8 if models < 1 << 8 else np.int16
        self._positive = np.zeros(size)
        self._negative = np.zeros(size)
        self._more: Counts = np.zeros(size, counts)
        self._fewer: Counts = np.zeros(size, counts)
        self._models = models

    def clear(self) -> None:
        """Forget all changes."""
        for held in (self._positive, self._negative, self._more, self._fewer):
            held[:] = 0

    def add(self, changes: Floats, at: int = 0) -> None:
        """Add a model's changes of the elements from `at` on."""
        part = slice(at, at + changes.size)
        # PyTorch cuts at 0 four times faster than NumPy
        signed = torch.from_numpy(changes)
        one_sided = torch.from_numpy(scratch("one sided", changes.size))
        torch.from_numpy(self._positive[part]).add_(torch.clamp(signed, min=0.0, out=one_sided))
        torch.from_numpy(self._negative[part]).add_(torch.clamp(signed, max=0.0, out=one_sided))
        self._more[part] += (changes > 0.0).view(np.uint8)
        self._fewer[part] += (changes < 0.0).view(np.uint8)

    def sign(self, vote: Vote, size: int, at: int = 0) -> Floats:
        """Return the elected sign of `size` elements from `at` on: -1, 0 or 1."""
        balance = self._balance(vote, slice(at, at + size))
        return np.sign(balance, out=balance)

    def merged(self, vote: Vote, size: int, at: int = 0) -> Floats:
        """Return the merged change of `size` elements from `at` on.

        The mean of the changes with the elected sign; without a vote that of all models.
        """
        part = slice(at, at + size)
        positive, negative = self._positive[part], self._negative[part]
        if vote == "none":
            out = np.add(positive, negative, out=scratch("merged", size))
            out /= self._models
            return out
        balance = torch.from_numpy(self._balance(vote, part))
        up = balance > 0.0
        out = scratch("merged", size)
        merged = torch.from_numpy(out)
        # PyTorch chooses several times faster than NumPy where the choice has no pattern
        torch.where(up, torch.from_numpy(positive), torch.from_numpy(negative), out=merged)
        more, fewer = (torch.from_numpy(held[part]) for held in (self._more, self._fewer))
        counts = torch.where(up, more, fewer).clamp_(min=1)
        merged.div_(torch.from_numpy(scratch("one sided", size)).copy_(counts))
        merged.masked_fill_(balance == 0.0, 0.0)
        return out

    def _balance(self, vote: Vote, part: slice) -> Floats:
        """What is above 0 where plus is elected, and below where minus is; scratch memory."""
        size = part.stop - part.start
        if vote == "sum":
            return np.add(self._positive[part], self._negative[part], out=scratch("balance", size))
        balance = scratch("balance", size)
        balance[:] = self._more[part]
        balance -= self._fewer[part]
        return balance


def vote_by_chunk(stack: Stack, changes: ChangesOf, *, vote: Vote, scale: float) -> Pieces:
    """Yield `base + scale * merged change`, with all models of one chunk after the other.

    Args:
        stack: the tensor in all models.
        changes: called as `changes(model, base, start, stop)`, in order of the elements.
        vote: how signs are elected.
        scale: of the merged change.
    """
    votes = Votes(min(stack.chunk, stack.size), stack.models)
    for start, stop in stack.chunks():
        base = stack.base(start, stop)
        votes.clear()
        for model in range(stack.models):
            votes.add(changes(model, base, start, stop))
        yield start, on_base(base, votes.merged(vote, stop - start), scale)


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
    if count == stack.size:
        yield from vote_by_chunk(stack, stack.change, vote=vote, scale=scale)
        return
    largest = [Largest(found) for found in thresholds(stack, magnitudes_of_all(stack), count)]

    def trimmed(model: int, base: Floats, start: int, stop: int) -> Floats:
        changes = stack.change(model, base, start, stop)
        largest[model].keep(changes)
        return changes

    yield from vote_by_chunk(stack, trimmed, vote=vote, scale=scale)


def magnitudes_of_all(stack: Stack) -> EachModels:
    """Return what yields the magnitudes of all models' changes for a range of elements."""
    return partial(_rough_magnitudes if stack.is_single else _exact_magnitudes, stack)


def _exact_magnitudes(stack: Stack, start: int, stop: int) -> Iterator[tuple[Floats, Exact]]:
    base = stack.base(start, stop)
    for model in range(stack.models):
        changes = stack.change(model, base, start, stop)
        np.abs(changes, out=changes)
        yield changes, changes.__getitem__


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
