"""TIES and its relatives: trim, vote on the sign of every element, average those that agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib_automerge.merge.lab.methods import BASE, register, role_of
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.selection import Largest, threshold, top_count
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch

Vote = Literal["none", "sum", "count"]
"""How signs are elected: not at all, by the sum of changes (TIES), or by counting models."""

ChangesOf = Callable[[int, Floats, int, int], Floats]
"""`changes(model, base, start, stop)`: a model's changes as they are merged; scratch memory."""


class Votes:
    """Changes of many models, gathered one model after the other for a range of elements.

    Four numbers per element stand for any number of models: the sums and the counts of positive
    and of negative changes. Changes of 0 do not vote and are not averaged.
    """

    BYTES = 24
    """Memory for each element, with one float64 to work with."""

    def __init__(self, size: int) -> None:
        self._positive = np.zeros(size)
        self._negative = np.zeros(size)
        self._more = np.zeros(size, np.uint16)
        self._fewer = np.zeros(size, np.uint16)
        self._models = 0

    def clear(self) -> None:
        """Forget all models."""
        for held in (self._positive, self._negative, self._more, self._fewer):
            held[:] = 0
        self._models = 0

    def add(self, changes: Floats, at: int = 0) -> None:
        """Add a model's changes of the elements from `at` on."""
        part = slice(at, at + changes.size)
        up, down = changes > 0.0, changes < 0.0
        np.add(self._positive[part], changes, out=self._positive[part], where=up)
        np.add(self._negative[part], changes, out=self._negative[part], where=down)
        self._more[part] += up
        self._fewer[part] += down

    def next_model(self) -> None:
        """Count a model: all of its changes were added."""
        self._models += 1

    def sign(self, vote: Vote, size: int, at: int = 0) -> NDArray[np.int8]:
        """Return the elected sign of `size` elements from `at` on: -1, 0 or 1."""
        part = slice(at, at + size)
        if vote == "sum":
            balance = self._positive[part] + self._negative[part]
        else:
            balance = self._more[part].astype(np.float64) - self._fewer[part]
        elected: NDArray[np.int8] = np.sign(balance).astype(np.int8)
        return elected

    def merged(self, vote: Vote, size: int, at: int = 0) -> Floats:
        """Return the merged change of `size` elements from `at` on.

        The mean of the changes with the elected sign; without a vote that of all models.
        """
        part = slice(at, at + size)
        positive, negative = self._positive[part], self._negative[part]
        out = scratch("merged", size)
        if vote == "none":
            np.add(positive, negative, out=out)
            out /= max(self._models, 1)
            return out
        sign = self.sign(vote, size, at)
        out[:] = 0.0
        np.divide(positive, self._more[part], out=out, where=sign > 0)
        np.divide(negative, self._fewer[part], out=out, where=sign < 0)
        return out


def vote_by_chunk(stack: Stack, changes: ChangesOf, *, vote: Vote, scale: float) -> Pieces:
    """Yield `base + scale * merged change`, with all models of one chunk after the other.

    Args:
        stack: the tensor in all models.
        changes: called as `changes(model, base, start, stop)`, in order of the elements.
        vote: how signs are elected.
        scale: of the merged change.
    """
    votes = Votes(min(stack.chunk, stack.size))
    for start, stop in stack.chunks():
        base = stack.base(start, stop)
        votes.clear()
        for model in range(stack.models):
            votes.add(changes(model, base, start, stop))
            votes.next_model()
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
    largest = []
    for model in range(stack.models):
        magnitudes = partial(magnitudes_of, stack, model)
        largest.append(Largest(threshold(stack, magnitudes, count)))

    def trimmed(model: int, base: Floats, start: int, stop: int) -> Floats:
        changes = stack.change(model, base, start, stop)
        changes *= largest[model].mark(np.abs(changes, out=scratch("magnitude", stop - start)))
        return changes

    yield from vote_by_chunk(stack, trimmed, vote=vote, scale=scale)


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
)
register(
    ties_soup,
    label="TIES-SOUP",
    formula="base + s mean(changes that have the sign of most models)",
    source="6DammK9's merging notes; TIES-Merging (2306.01708) with a vote by sign count",
    based=True,
    identity=_identity,
    rereads=True,
)
