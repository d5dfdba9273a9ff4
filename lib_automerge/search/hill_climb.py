"""Hill climbing: random steps from the best point, as wide as they succeed.

References:
    Rechenberg, Evolutionsstrategie, 1973 (the (1+1) evolution strategy and the 1/5 success rule).
    Kern, Mueller, Hansen, Bueche, Ocenasek and Koumoutsakos, Learning Probability Distributions in
    Continuous Evolutionary Algorithms: A Comparative Review, Natural Computing 3, 2004 (the rule
    as two factors that balance at one success in five).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.known import key_of, scores, within
from lib_automerge.search.proposers import Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

Array = NDArray[np.float64]

_FIRST_WIDTH, _LAST_WIDTH = 0.25, 1e-3
_WIDER = math.exp(1.0 / 3.0)
_NARROWER = _WIDER**-0.25
_CHANGED = 4.0


class Climb(msgspec.Struct, frozen=True):
    """Where the climber stands: at a point, (d,) in units of the space, or about to start again at
    None; `width` is the standard deviation of its steps as a fraction of the ranges.
    """

    at: Array | None = None
    score: float = -math.inf
    width: float = _FIRST_WIDTH

    def after(self, vector: Array, score: float, *, step: bool) -> Climb:
        """Return the climb with one more point seen; `step` tells whether it was a step of it."""
        better = self.at is None or score > self.score
        width = self.width
        if step and self.at is not None:
            width *= _WIDER if better else _NARROWER
        if width < _LAST_WIDTH:
            return Climb()
        width = min(width, _FIRST_WIDTH)
        return Climb(vector, score, width) if better else Climb(self.at, self.score, width)


class HillClimbProposer:
    """Proposes the best known point with a few blocks moved.

    The state is folded from the finished evaluations in order of their numbers, so evaluations by
    others, in parallel or before, count like its own steps. When the steps have become too small
    to matter it starts again at a random point.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space, self._seed = space, seed

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return a step from the best point; see `Proposer.propose`."""
        space = self._space
        finished, waiting = within(space, history), within(space, pending)
        used = taken(space, finished, waiting)
        rng = generator(self._seed, "hill-climb", number)
        if not used:
            return Proposal(
                space.weights(space.scaled(np.full(space.dimension, 0.5))), Origin.SEARCH
            )
        vector = self._step(self.climb(finished), rng)
        return Proposal(space.weights(space.unused(vector, used, rng)), Origin.SEARCH)

    def climb(self, finished: Sequence[Evaluation]) -> Climb:
        """Return where the climber stands after these evaluations within the space, in order."""
        known = scores(self._space, finished)
        climb = Climb()
        for evaluation in finished:
            key = key_of(self._space, evaluation)
            step = evaluation.origin is Origin.SEARCH
            climb = climb.after(np.array(key), known[key], step=step)
        return climb

    def _step(self, climb: Climb, rng: np.random.Generator) -> Array:
        space = self._space
        dimension = space.dimension
        if climb.at is None:
            return space.scaled(rng.random(dimension))
        changed = rng.random(dimension) < min(1.0, _CHANGED / dimension)
        changed[rng.integers(dimension)] = True
        moves = climb.width * (space.high - space.low) * rng.standard_normal(dimension)
        return space.snap(climb.at + np.where(changed, moves, 0.0))
