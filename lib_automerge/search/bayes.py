"""The default proposer: Bayesian optimization with `bayesian-optimization` and our own model.

The package keeps the observations and asks an acquisition function for the next point; ours
replaces its model and its search for the maximum. The package's Gaussian process has one
length-scale for all parameters and no noise, and takes seconds of finite differences for a
suggestion in 27 dimensions; it is never fitted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bayes_opt import BayesianOptimization
from bayes_opt.acquisition import AcquisitionFunction
from bayes_opt.target_space import TargetSpace
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.search.acquisition import (
    Acquisition,
    LogExpectedImprovement,
    UpperConfidenceBound,
    best_known,
    most_promising,
)
from lib_automerge.search.design import SobolSequence, design_size, start_points
from lib_automerge.search.model import Fitted, Model
from lib_automerge.search.proposers import Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Key, Space
from lib_automerge.search.surrogate import Posterior

Array = NDArray[np.float64]


class BayesProposer:
    """Proposes the start design, then what the model finds most promising.

    Even numbers maximize the expected improvement, odd ones the upper confidence bound: the first
    refines, the second keeps exploring when scores are noisy.

    Args:
        space: what is searched.
        seed: of all random choices.
        distances: see `model.Model`.
        coarse_first: whether to search groups of blocks before single ones.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        distances: Mapping[str, float] | None = None,
        coarse_first: bool = False,
    ) -> None:
        self._space, self._seed = space, seed
        self._sequence = SobolSequence(space.dimension, seed, "start design")
        self._model = Model(space, distances)
        self._coarse = coarse_first

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the next candidate; see `Proposer.propose`."""
        space = self._space
        known = self._model.known(history)
        waiting = sorted((e for e in pending if space.contains(e.weights)), key=lambda e: e.number)
        used = taken(space, known, waiting)
        started = len(known) + len(waiting) >= design_size(space.dimension)
        rng = generator(self._seed, "acquisition", number)
        fitted = self._model.fitted(known) if started else None
        if fitted is not None:
            vector = space.unused(self._suggest(fitted, waiting, number, rng), used, rng)
            return Proposal(space.weights(vector), Origin.SEARCH)
        return Proposal(space.weights(self._design(used, rng)), Origin.DESIGN)

    def _design(self, used: frozenset[Key], rng: np.random.Generator) -> Array:
        """Return the first point of the start design that is not used yet."""
        space = self._space
        points = start_points(self._sequence, space.dimension)
        # More tries than used points only fail in a space with few points.
        for point, _ in zip(points, range(len(used) + 1), strict=False):
            vector = space.scaled(point)
            if space.key(vector) not in used:
                return vector
        return space.unused(vector, used, rng)

    def _suggest(
        self,
        fitted: Fitted,
        waiting: Sequence[Evaluation],
        number: int,
        rng: np.random.Generator,
    ) -> Array:
        space = self._space
        acquisition = ModelAcquisition(
            fitted.posterior,
            pending=np.array([space.vector(e.weights) for e in waiting]).reshape(
                -1, space.dimension
            ),
            explore=number % 2 == 1,
            rng=rng,
        )
        optimizer = BayesianOptimization(
            f=None,
            pbounds=dict(zip(space.names, space.bounds, strict=True)),
            acquisition_function=acquisition,
            random_state=0,
            verbose=0,
            allow_duplicate_points=True,
        )
        width = space.high - space.low
        vectors = space.low + width * fitted.posterior.points
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
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        pending: Array,
        explore: bool,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self._posterior, self._pending = posterior, pending
        self._explore, self._rng = explore, rng

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
        return np.asarray(low + width * most_promising(believed, acquisition, around, self._rng))
