"""Optimizers that ask for one score after the other, made into proposers.

A strategy is a plain function that calls `score` at points of the unit cube. For every proposal it
runs again from its beginning; what the history knows is looked up, and the first point that it
does not know is the proposal. So the strategies keep no state, and a resumed run goes on as it
would have.

References:
    Ragonneau and Zhang, COBYQA: a derivative-free trust-region SQP method, 2022-2025 (thesis of
    Ragonneau, The Hong Kong Polytechnic University); bound constraints only are used here.
    Kolda, Lewis and Torczon, Optimization by Direct Search: New Perspectives on Some Classical and
    Modern Methods, SIAM Review 45, 2003 (compass search, of which `coordinate` is the greedy form).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.known import scores_then, start_of, within
from lib_automerge.search.proposers import SCIPY_HAS_COBYQA, Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Key, Space

Array = NDArray[np.float64]
Score = Callable[[Array], float]
Strategy = Callable[[Score, Array], None]
"""Searches for the highest score from a point, (d,), until it sees nothing more to gain."""

_FIRST_RADIUS, _LAST_RADIUS = 0.25, 1e-3
_FIRST_REACH, _LAST_REACH = 0.35, 1e-3


class SequentialProposer:
    """Proposes what a strategy asks for next.

    It starts at the best point that is known before; when it has ended it starts again at a random
    one. What others are evaluating counts as the mean of what the strategy has seen: no
    improvement, and for a model of the scores less misleading than the worst of them would be.

    Args:
        name: names the random streams.
        strategy: what to run.
        space: what is searched.
        seed: of the points at which the strategy starts again.
    """

    def __init__(self, name: str, strategy: Strategy, space: Space, *, seed: int) -> None:
        self._name, self._strategy = name, strategy
        self._space, self._seed = space, seed

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the first point that the strategy does not know; see `Proposer.propose`."""
        space = self._space
        finished = within(space, history)
        known = scores_then(space, finished)
        waiting = taken(space, pending)
        start = start_of(space, finished)
        if start is None:
            start = np.full(space.dimension, 0.5)
        # Each time that it ends it has used up a start; there are no more of those than points.
        for again in range(1, len(known) + len(waiting) + 2):
            vector = self._unknown(start, known, waiting)
            if vector is not None:
                return Proposal(space.weights(vector), Origin.SEARCH)
            start = generator(self._seed, self._name, again).random(space.dimension)
        rng = generator(self._seed, f"{self._name} left over", number)
        left = space.unused(space.scaled(start), {*known, *waiting}, rng)
        return Proposal(space.weights(left), Origin.SEARCH)

    def _unknown(
        self, start: Array, known: Mapping[Key, float], waiting: Collection[Key]
    ) -> Array | None:
        """Return the first unknown point that the strategy asks for, (d,); None if it ends."""
        replay = _Replay(self._space, known, waiting)
        try:
            # The number of threads would decide the last digits.
            with threadpool_limits(1, user_api="blas"):
                self._strategy(replay.score, start)
        except _Unknown as unknown:
            return unknown.vector
        return None


class _Unknown(Exception):  # noqa: N818 (not an error: it leaves a strategy)
    def __init__(self, vector: Array) -> None:
        super().__init__()
        self.vector = vector


class _Replay:
    """Answers a strategy from what is known, and leaves it where nothing is."""

    def __init__(self, space: Space, known: Mapping[Key, float], waiting: Collection[Key]) -> None:
        self._space, self._known, self._waiting = space, known, waiting
        self._seen: list[float] = []

    def score(self, fractions: Array) -> float:
        """Return the score at these fractions of the ranges, (d,)."""
        vector = self._space.scaled(fractions)
        key = self._space.key(vector)
        if key in self._known:
            self._seen.append(self._known[key])
            return self._known[key]
        if key in self._waiting:
            return float(np.mean(self._seen)) if self._seen else 0.0
        raise _Unknown(vector)


def cobyqa(score: Score, start: Array) -> None:
    """Follow a quadratic model of the scores within a trust region (COBYQA).

    The radius shrinks from a quarter to a thousandth of the ranges. Good for smooth scores without
    noise, from about 2 d + 1 evaluations on, which the first model takes.
    """
    bounds = Bounds(np.zeros(len(start)), np.ones(len(start)))
    loss = _in_own_unit(score)
    if SCIPY_HAS_COBYQA:
        from scipy.optimize import minimize

        options = {"initial_tr_radius": _FIRST_RADIUS, "final_tr_radius": _LAST_RADIUS}
        minimize(loss, start, method="COBYQA", bounds=bounds, options=options)
    else:
        from cobyqa import minimize

        options = {"radius_init": _FIRST_RADIUS, "radius_final": _LAST_RADIUS}
        minimize(loss, start, bounds=bounds, options=options)


def _in_own_unit(score: Score) -> Score:
    """Return minus the score, in units of the first difference that it shows.

    COBYQA compares models of the scores with absolute tolerances.
    """
    first: float | None = None
    unit = 0.0

    def loss(fractions: Array) -> float:
        nonlocal first, unit
        found = score(fractions)
        if first is None:
            first = found
        if unit == 0.0:
            unit = abs(found - first)
        return (first - found) / unit if unit > 0.0 else 0.0

    return loss


def coordinate(score: Score, start: Array) -> None:
    """Take block by block: try it some way down and up, keep the best, go on to the next.

    The first round reaches a third of the ranges both ways, each further one half as far.
    """
    best, highest = start, score(start)
    reach = _FIRST_REACH
    while reach >= _LAST_REACH:
        for block in range(len(start)):
            middle = best[block]
            for level in np.clip([middle - reach, middle + reach], 0.0, 1.0):
                tried = best.copy()
                tried[block] = level
                found = score(tried)
                if found > highest:
                    best, highest = tried, found
        reach /= 2.0
