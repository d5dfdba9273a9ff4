"""CMA-ES: a normal distribution of recipes that moves and stretches towards the better ones.

pycma is run anew for every proposal: it is told all complete generations of the history and asked
for the next one.

References:
    Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772 (and pycma, its package).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cma
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.known import key_of, scores, start_of, within
from lib_automerge.search.proposers import Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

Array = NDArray[np.float64]

_FIRST_WIDTH, _LAST_WIDTH = 0.15, 1e-3
_MARGIN = 0.05


class CmaProposer:
    """Proposes the members of the generations of a CMA-ES.

    The distribution begins around the best point that is known before, a seventh of the ranges
    wide. When it has converged it begins again at a random point.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space, self._seed = space, seed

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the next member of the current generation; see `Proposer.propose`."""
        space = self._space
        finished, waiting = within(space, history), within(space, pending)
        used = taken(space, finished, waiting)
        # The number of threads would decide the last digits.
        with threadpool_limits(1, user_api="blas"):
            member = self._member(finished, sum(e.origin is Origin.SEARCH for e in waiting))
        rng = generator(self._seed, "cma duplicate", number)
        vector = space.unused(space.scaled(member), used, rng)
        return Proposal(space.weights(vector), Origin.SEARCH)

    def _member(self, finished: Sequence[Evaluation], waiting: int) -> Array:
        """Return the next point, (d,) fractions of the ranges."""
        space = self._space
        known = scores(space, finished)
        own = [key_of(space, e) for e in finished if e.origin is Origin.SEARCH]
        points = (np.array(own).reshape(-1, space.dimension) - space.low) / (space.high - space.low)
        start = start_of(space, finished)
        begun = 0
        strategy = self._strategy(begun, start)
        size = int(strategy.popsize)
        told = len(own) // size * size
        for first in range(0, told, size):
            members = np.array(strategy.ask())
            members[:, : space.dimension] = points[first : first + size]
            strategy.tell(list(members), [-known[key] for key in own[first : first + size]])
            if strategy.stop():
                begun += 1
                strategy = self._strategy(begun, None)
        asked = len(own) - told + waiting
        # More than a generation: members of the same distribution for more evaluators.
        for _ in range(asked // size):
            strategy.ask()
        return np.asarray(strategy.ask()[asked % size][: space.dimension])

    def _strategy(self, begun: int, start: Array | None) -> cma.CMAEvolutionStrategy:
        """Return the strategy that begins for the `begun`-th time, in the unit cube."""
        rng = generator(self._seed, "cma", begun)
        if start is None:
            middle = np.full(self._space.dimension, 0.5)
            start = rng.random(self._space.dimension) if begun else middle
        # pycma needs two coordinates; a second one that nothing depends on drifts.
        center = np.full(max(self._space.dimension, 2), 0.5)
        # At the very edge half of the members would be mirror images of the others.
        center[: self._space.dimension] = np.clip(start, _MARGIN, 1.0 - _MARGIN)
        options = {
            "bounds": [0.0, 1.0],
            # NaN: pycma does not seed NumPy's global generator; it draws from ours.
            "seed": math.nan,
            "randn": lambda count, size: rng.standard_normal((count, size)),
            "verbose": -10,
            "verb_log": 0,
            "tolx": _LAST_WIDTH,
            # Absolute differences of scores mean nothing: their scale is unknown.
            "tolfun": 0.0,
            "tolfunhist": 0.0,
        }
        return cma.CMAEvolutionStrategy(center, _FIRST_WIDTH, options)
