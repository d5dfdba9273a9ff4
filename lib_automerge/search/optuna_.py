"""Optuna's samplers as proposers: the tree-structured Parzen estimator and its Gaussian process.

A study in memory is built from the history for every proposal; what others are evaluating are its
running trials.

References:
    Bergstra, Bardenet, Bengio and Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011
    (TPE). Watanabe, Tree-Structured Parzen Estimator, arXiv:2304.11127 (the multivariate form).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.design import SobolSequence, design_size, first_unused
from lib_automerge.search.known import key_of, scores, within
from lib_automerge.search.proposers import Proposal, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Key, Space

Array = NDArray[np.float64]

_LARGEST_SEED = 2**31


class OptunaProposer:
    """Proposes the start design, then what one of Optuna's samplers draws.

    Args:
        name: "tpe" or "gp".
        space: what is searched.
        seed: of all random choices.

    Raises:
        ImportError: "gp" without PyTorch.
    """

    def __init__(self, name: str, space: Space, *, seed: int) -> None:
        self._name, self._space, self._seed = name, space, seed
        self._sequence = SobolSequence(space.dimension, seed, "start design")
        self._distributions: dict[str, BaseDistribution] = {
            block: FloatDistribution(0.0, 1.0) for block in space.names
        }
        with _quiet():
            _sampler(name, seed=0)

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the next candidate; see `Proposer.propose`."""
        space = self._space
        finished, waiting = within(space, history), within(space, pending)
        used = taken(space, finished, waiting)
        rng = generator(self._seed, self._name, number)
        started = len(finished) + len(waiting) >= design_size(space.dimension)
        if not started or all(e.score is None for e in finished):
            vector = first_unused(space, self._sequence, used, rng)
            return Proposal(space.weights(vector), Origin.DESIGN)
        # The number of threads would decide the last digits.
        with _quiet(), threadpool_limits(1, user_api="blas"):
            drawn = self._drawn(finished, waiting, int(rng.integers(_LARGEST_SEED)))
        vector = space.unused(space.scaled(drawn), used, rng)
        return Proposal(space.weights(vector), Origin.SEARCH)

    def _drawn(
        self, finished: Sequence[Evaluation], waiting: Sequence[Evaluation], seed: int
    ) -> Array:
        """Return what the sampler draws, (d,) fractions of the ranges."""
        known = scores(self._space, finished)
        values = np.array(list(known.values()))
        # Standardized: Optuna does so with an absolute tolerance.
        values = (values - values.mean()) / values.std() if np.ptp(values) > 0 else 0.0 * values
        study = optuna.create_study(direction="maximize", sampler=_sampler(self._name, seed=seed))
        study.add_trials(
            [self._trial(key, value) for key, value in zip(known, values.tolist(), strict=True)]
        )
        study.add_trials([self._trial(key_of(self._space, e), None) for e in waiting])
        trial = study.ask(self._distributions)
        return np.array([float(trial.params[block]) for block in self._space.names])

    def _trial(self, key: Key, value: float | None) -> FrozenTrial:
        space = self._space
        fractions = (np.array(key) - space.low) / (space.high - space.low)
        return optuna.trial.create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            params=dict(zip(space.names, fractions.tolist(), strict=True)),
            distributions=self._distributions,
        )


def _sampler(name: str, *, seed: int) -> BaseSampler:
    # Never a random start of its own: the start design was that.
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=1)
    return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Optuna's messages about studies and about what it calls experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
