"""Methods that drop changes at random: DARE, TSD and DELLA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import counting
from lib_automerge.merge.lab.changes import Changes
from lib_automerge.merge.lab.counting import counted_ranks
from lib_automerge.merge.lab.draws import RANGE, draws
from lib_automerge.merge.lab.methods import BASE, register, role_of
from lib_automerge.merge.lab.number_types import Floats, Singles
from lib_automerge.merge.lab.parameters import Help, Within
from lib_automerge.merge.lab.ranking import BYTES, ordinal_ranks
from lib_automerge.merge.lab.selection import needs
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch
from lib_automerge.merge.lab.sums import BLOCK
from lib_automerge.merge.lab.votes import Vote, Votes, magnitudes_of, on_base, vote_by_chunk

Seed = Annotated[int, Within(0, 2**53, "of the random choice")]
Election = Annotated[
    Vote, Help("signs: none (mean of all), by the sum of changes (TIES), or by counting models")
]
Scale = Annotated[float, Within(-2, 4, "how much of the merged change is added", each="block")]
Dropped = Annotated[float, Within(0, 1, "probability that a change is dropped", each="block")]
Favour = Annotated[Literal["large", "small"], Help("which changes are dropped less often")]
Spread = Annotated[
    float,
    Within(0, 1, "drop probabilities go from p - epsilon/2 to p + epsilon/2", each="block"),
]

Ranks = NDArray[np.int32] | NDArray[np.uint32]


def dare(
    stack: Stack,
    *,
    p: Dropped = 0.9,
    vote: Election = "none",
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Pieces:
    """Drop changes with probability p and divide the others by 1 - p, which keeps their mean."""
    yield from _dropped(stack, p, 1.0 / (1.0 - p), vote, scale, seed)


def tsd(stack: Stack, *, p: Dropped = 0.1, scale: Scale = 1.0, seed: Seed = 0) -> Pieces:
    """TIES-SOUP with dropped changes: no rescaling, signs by counting models."""
    yield from _dropped(stack, p, 1.0, "count", scale, seed)


def della(
    stack: Stack,
    *,
    p: Dropped = 0.5,
    epsilon: Spread = 0.2,
    favour: Favour = "large",
    vote: Election = "sum",
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Pieces:
    """Drop changes by the rank of their size and divide each by its own probability to stay.

    Ranks are taken in each tensor of each model, equal sizes in the order of their offset.
    """
    if not epsilon:
        yield from _dropped(stack, p, 1.0 / (1.0 - p), vote, scale, seed)
        return
    chances = DropChances(stack.size, p, epsilon, favour)
    changes_of = Changes(stack)

    def rescaled(model: int, start: int, stop: int, ranks: Ranks) -> Floats:
        drop = chances(ranks)
        changes = scratch("rescaled", stop - start)
        changes[:] = changes_of(model, start, stop)
        changes *= kept(seed, model, stack.key, start, stop, drop)
        np.subtract(1.0, drop, out=drop)
        changes /= drop
        return changes

    counted = counted_ranks(stack, range(stack.models))
    if counted:

        def changes(model: int, start: int, stop: int) -> Floats:
            return rescaled(model, start, stop, counted[model](start, stop))

        yield from vote_by_chunk(stack, changes, vote=vote, scale=scale)
        return
    for start, stop in _windows(stack, Votes.BYTES + 4):
        votes = Votes(stop - start, stack.models)
        for model in range(stack.models):
            ranks = sorted_ranks(stack, model, start, stop)
            for first, last in stack.chunks(start, stop):
                part = ranks[first - start : last - start]
                votes.add(rescaled(model, first, last, part), first - start)
        for first, last in stack.chunks(start, stop):
            merged = votes.merged(vote, last - first, first - start)
            yield first, on_base(stack.base(first, last), merged, scale)


def _dropped(stack: Stack, p: float, rescale: float, vote: Vote, scale: float, seed: int) -> Pieces:
    changes_of = Changes(stack)

    def changes(model: int, start: int, stop: int) -> Floats | Singles:
        values = changes_of(model, start, stop)
        values *= kept(seed, model, stack.key, start, stop, p)
        return values

    yield from vote_by_chunk(stack, changes, vote=vote, scale=scale * rescale)


def kept(
    seed: int, model: int, key: str, start: int, stop: int, drop: float | Floats
) -> NDArray[np.bool_]:
    """Return which elements stay: those whose draw is not below the probability to be dropped."""
    numbers = draws(seed, model, key, start, stop)
    if isinstance(drop, float):
        limit = round(drop * RANGE)
        if limit == RANGE:
            return np.zeros(stop - start, np.bool_)
        above: NDArray[np.bool_] = numbers >= np.uint32(limit)
        return above
    limits = np.multiply(drop, float(RANGE), out=scratch("limits", stop - start))
    stays: NDArray[np.bool_] = numbers >= limits
    return stays


class DropChances:
    """Probabilities to be dropped, by the rank of a change among those of its tensor and model.

    `p + epsilon (r - (n + 1) / 2) / n` for favour="small", with ranks r from 1 to n, the largest
    change last, and minus for "large": their mean is p. (MagPrune, Deep et al. 2024, whose
    formula and implementations differ in the sign of epsilon.)
    """

    def __init__(
        self, size: int, p: float, epsilon: float, favour: Literal["large", "small"]
    ) -> None:
        self._p = p
        step = epsilon / max(size, 1)
        self._slope = step if favour == "small" else -step
        self._middle = (size + 1) / 2

    def __call__(self, ranks: Ranks) -> Floats:
        """Return the probabilities of elements with these ranks; scratch memory."""
        out = scratch("chance", len(ranks))
        np.subtract(ranks, self._middle, out=out)
        out *= self._slope
        out += self._p
        return out


def sorted_ranks(stack: Stack, model: int, start: int, stop: int) -> Ranks:
    """Return the ranks of a range of a model's changes, in the memory of the stack."""
    magnitudes = partial(magnitudes_of, stack, model)
    return ordinal_ranks(stack, magnitudes, start, stop, stack.memory // 2)


def windows(size: int, memory: int, bytes_each: int) -> list[tuple[int, int]]:
    """Cut a tensor into as few ranges of whole blocks as fit in memory, one at a time."""
    step = max(memory // bytes_each // BLOCK, 1) * BLOCK
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _windows(stack: Stack, bytes_each: int) -> list[tuple[int, int]]:
    return windows(stack.size, stack.memory // 2, bytes_each)


def check_spread(values: Mapping[str, Any]) -> None:
    """Raise ConfigError if p and epsilon give probabilities outside 0..1."""
    p, epsilon = values["p"], values["epsilon"]
    if p - epsilon / 2 < 0.0 or p + epsilon / 2 > 1.0:
        raise ConfigError(
            f"p is {p:g} and epsilon {epsilon:g}: changes would be dropped with probabilities from "
            f"{p - epsilon / 2:g} to {p + epsilon / 2:g}. Keep them from 0 to 1."
        )


def all_or_nothing(values: Mapping[str, Any], models: int) -> str | None:
    """The base, if all is dropped or nothing added; one model alone, if none of it is dropped."""
    if values["p"] == 1.0 or values["scale"] == 0.0:
        return BASE
    alone = models == 1 and values["p"] == 0.0 and values["scale"] == 1.0
    return role_of(0) if alone else None


register(
    dare,
    label="DARE",
    formula="base + s merge(drop(changes, p) / (1 - p))",
    source="Language Models are Super Mario, Yu et al. 2023 (2311.03099)",
    based=True,
    identity=all_or_nothing,
)
register(
    tsd,
    label="TSD (TIES-SOUP with drop)",
    formula="base + s mean(drop(changes, p) that have the sign of most models)",
    source="6DammK9's merging notes; DARE (2311.03099) without rescaling, TIES (2306.01708)",
    based=True,
    identity=all_or_nothing,
)
register(
    della,
    label="DELLA",
    formula="base + s merge(drop(changes, p_i) / (1 - p_i)), p_i = p -+ epsilon (rank_i / n - 1/2)",
    source="DELLA-Merging, Deep et al. 2024 (2406.11617)",
    based=True,
    identity=all_or_nothing,
    check=check_spread,
    rereads=True,
    needs=lambda shape, _models: needs(shape, 1),
    appetite=lambda shape, models: max(
        2 * (BYTES + Votes.BYTES + 4) * math.prod(shape), counting.appetite(shape, models)
    ),
)
