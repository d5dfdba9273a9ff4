"""The default proposer: Bayesian optimization with `bayesian-optimization` and our own model.

The package keeps the observations and asks an acquisition function for the next point; ours
replaces its model and its search for the maximum. The package's Gaussian process has one
length-scale for all parameters and no noise, and takes seconds of finite differences for a
suggestion in 27 dimensions; it is never fitted here. Nor are its constraints used, which are a
model of their own and must be learned from points that break them: a `Space` has no such points.
What is frozen or tied is no parameter of it, and ranges are the bounds that the package is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bayes_opt import BayesianOptimization
from bayes_opt.acquisition import AcquisitionFunction
from bayes_opt.target_space import TargetSpace
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.acquisition import (
    Acquisition,
    LogExpectedImprovement,
    Shunned,
    UpperConfidenceBound,
    best_known,
    most_promising,
)
from lib_automerge.search.design import SobolSequence, design_size, first_unused
from lib_automerge.search.model import Fitted, Model
from lib_automerge.search.proposers import Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from lib_automerge.search.subspace import Subspace, groups_of
from lib_automerge.search.surrogate import Posterior

Array = NDArray[np.float64]

_PER_GROUP = 3
"""Evaluations for each group before its blocks may be freed, and between one group and the next."""


class BayesProposer:
    """Proposes the start design, then what the model finds most promising.

    Even numbers maximize the expected improvement, odd ones the upper confidence bound: the first
    refines, the second keeps exploring when scores are noisy.

    Args:
        space: what is searched.
        seed: of all random choices.
        model: the model to ask, of this space; None makes one.
        coarse_first: whether to search groups of blocks before single ones.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        model: Model | None = None,
        coarse_first: bool = False,
    ) -> None:
        self._space, self._seed = space, seed
        self._model = model or Model(space)
        self._groups = groups_of(space) if coarse_first else ()
        self._design_space = (
            Subspace.grouped(self._groups) if coarse_first else Subspace.whole(space.dimension)
        )
        self._sequence = SobolSequence(self._design_space.dimension, seed, "start design")

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the next candidate; see `Proposer.propose`."""
        space = self._space
        known = self._model.known(history)
        waiting = sorted((e for e in pending if space.contains(e.weights)), key=lambda e: e.number)
        used = taken(space, known, waiting)
        done = len(known) + len(waiting)
        started = done >= design_size(self._design_space.dimension)
        rng = generator(self._seed, "acquisition", number)
        fitted = self._model.fitted(known) if started else None
        if fitted is not None:
            within = self._within(fitted, done) if self._groups else None
            suggested = self._suggest(fitted, known, waiting, number, rng, within)
            vector = space.unused(suggested, used, rng)
            return Proposal(space.weights(vector), Origin.SEARCH)
        unused = first_unused(space, self._sequence, used, rng, self._design_space)
        return Proposal(space.weights(unused), Origin.DESIGN)

    def _within(self, fitted: Fitted, done: int) -> Subspace:
        """Return the part of the space that a search by groups looks at after `done` evaluations.

        First the groups, each as one; then the single blocks of a group with the others as in the
        best recipe: of the group in which the model sees most to gain, and of one more group every
        few evaluations, until all are free.
        """
        count = len(self._groups)
        over = done - design_size(count) - _PER_GROUP * count
        if over < 0:
            return self._design_space
        _, around = best_known(fitted.posterior)
        free = 1 + over // _PER_GROUP
        if free >= count:
            return Subspace.whole(self._space.dimension)
        ranked = sorted(self._groups, key=lambda group: -self._promise(fitted, around, group, done))
        chosen = [position for group in ranked[:free] for position in group]
        return Subspace.around(around[0], chosen)

    def _promise(self, fitted: Fitted, around: Array, group: tuple[int, ...], done: int) -> float:
        """Return the upper confidence bound that moving only this group's blocks can reach."""
        bound = UpperConfidenceBound()
        rng = generator(self._seed, f"group {group[0]}", done)
        part = Subspace.around(around[0], group)
        point = most_promising(fitted.posterior, bound, around, rng, part)
        return float(bound.value(*fitted.posterior.predict(point[None]))[0])

    def _shunned(self, fitted: Fitted, known: Sequence[Evaluation]) -> Shunned | None:
        """Return the points that made broken images, if there are any."""
        space = self._space
        broken = [space.vector(e.weights) for e in known if e.score is None and not e.per_payload]
        if not broken:
            return None
        points = (np.array(broken) - space.low) / (space.high - space.low)
        return Shunned(points, float(np.ptp(fitted.posterior.values)))

    def _suggest(
        self,
        fitted: Fitted,
        known: Sequence[Evaluation],
        waiting: Sequence[Evaluation],
        number: int,
        rng: np.random.Generator,
        within: Subspace | None,
    ) -> Array:
        space = self._space
        acquisition = ModelAcquisition(
            fitted.posterior,
            pending=np.array([space.vector(e.weights) for e in waiting]).reshape(
                -1, space.dimension
            ),
            explore=number % 2 == 1,
            rng=rng,
            within=within,
            shunned=self._shunned(fitted, known),
        )
        optimizer = BayesianOptimization(
            f=None,
            pbounds=dict(zip(space.names, space.bounds, strict=True)),
            acquisition_function=acquisition,
            random_state=0,
            verbose=0,
            allow_duplicate_points=True,
        )
        scaled = space.low + (space.high - space.low) * fitted.posterior.points
        # rounding may have left the bounds by a last digit, of which the package would warn
        vectors = np.clip(scaled, space.low, space.high)
        for vector, score in zip(vectors, fitted.posterior.values.tolist(), strict=True):
            # Not optimizer.register: for its log that reformats all observations each time.
            optimizer.space.register(vector, score)
        # Threads cost more than they save on matrices this small, and their number would decide the
        # last digits of the result.
        with threadpool_limits(1, user_api="blas"):
            suggestion = optimizer.suggest()
        return np.array([float(suggestion[name]) for name in space.names])


class ModelAcquisition(AcquisitionFunction):
    """The acquisition function that the package asks; brings its own model.

    Args:
        posterior: the model, over the unit cube, of the registered observations.
        pending: points that are being evaluated, in the units of the space, (m, d).
        explore: whether to use the upper confidence bound rather than the expected improvement.
        rng: where the search for the maximum begins.
        within: the part of the unit cube to look at; None is all of it.
        shunned: points to keep away from.
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        pending: Array,
        explore: bool,
        rng: np.random.Generator,
        within: Subspace | None = None,
        shunned: Shunned | None = None,
    ) -> None:
        super().__init__()
        self._posterior, self._pending = posterior, pending
        self._explore, self._rng = explore, rng
        self._within, self._shunned = within, shunned

    def base_acq(self, mean: Array, std: Array) -> Array:
        """Return the upper confidence bound; the package demands one, `suggest` does not use it."""
        return UpperConfidenceBound().value(mean, std)

    def suggest(
        self,
        gp: object,  # noqa: ARG002 (the name is the package's)
        target_space: TargetSpace,
        *_arguments: Any,
        **_options: Any,
    ) -> Array:
        """Return the most promising point in the units of the space, (d,).

        Only the bounds of `target_space` are used: `gp` is the package's model, the others steer
        its search.
        """
        low, high = target_space.bounds.T
        width = high - low
        best, around = best_known(self._posterior)
        acquisition: Acquisition = (
            UpperConfidenceBound() if self._explore else LogExpectedImprovement(best)
        )
        believed = self._posterior.believing((self._pending - low) / width)
        found = most_promising(
            believed, acquisition, around, self._rng, self._within, self._shunned
        )
        return np.asarray(low + width * found)
