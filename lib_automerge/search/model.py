"""The model of a search: what its scores say about any recipe, and what is left to gain.

One model serves the optimizer, the stopping rules, the choice of the best and the analysis after a
run, so that they agree. It is a pure function of the history; what was computed for the last few
histories is kept, because several of them ask about the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.run import Evaluation
from lib_automerge.search.acquisition import (
    LogExpectedImprovement,
    UpperConfidenceBound,
    best_known,
    most_promising,
)
from lib_automerge.search.kernel import Kernel, group_features, relevance
from lib_automerge.search.observations import Observed, observed
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from lib_automerge.search.surrogate import Observations, Posterior, fit

Array = NDArray[np.float64]
_History = tuple[Evaluation, ...]
T = TypeVar("T")

FEWEST = 5
"""Scored evaluations of the space from which on the model says something."""

MOST = 600
"""So many points the model looks at; what a fit costs grows with the cube of their number."""

_KEPT = 4
_BETA = 2.0


class Fitted(msgspec.Struct, frozen=True, eq=False):
    """The model of one history: score = offset + scale * value of the posterior.

    Attributes:
        posterior: over the unit cube of the space's ranges.
        offset, scale: from the posterior's units to those of the score; the scale is above 0.
        noise: the learned standard deviation of a complete score, in units of the score.
        numbers: the evaluations of each of the posterior's points.
    """

    posterior: Posterior
    offset: float
    scale: float
    noise: float
    numbers: tuple[tuple[int, ...], ...]

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return the expected score and its standard deviation at points of the unit cube."""
        mean, sd = self.posterior.predict(points)
        return self.offset + self.scale * mean, self.scale * sd


class Belief(msgspec.Struct, frozen=True):
    """What the model believes of a finished evaluation, in units of the score."""

    number: int
    mean: float
    sd: float


class Knowledge(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run so far, in units of the score.

    Attributes:
        ranking: this run's scored evaluations, the highest expected score first. One outside the
            space is believed as it was scored, with the learned noise.
        noise: the learned standard deviation of a complete score.
        spread: the standard deviation of the scores seen.
        gain: what the most promising candidate is expected to be better by than the leader.
        bound: what any candidate is better by at most than the leader (upper confidence bound of
            any minus highest lower confidence bound of a known one, two standard deviations each).
            Both are 0 when all scores are equal.
    """

    ranking: tuple[Belief, ...]
    noise: float
    spread: float
    gain: float
    bound: float

    @property
    def leader(self) -> Belief:
        """The evaluation with the highest expected score."""
        return self.ranking[0]


class Model:
    """The model of the scores over a space.

    Args:
        space: what is searched.
        distances: block -> relative distance of the models there, if known: where they differ more,
            the score is expected to change faster.
        shares: payload -> its share in the score, above 0, in any unit; 1 where it is not named.
    """

    def __init__(
        self,
        space: Space,
        distances: Mapping[str, float] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self.space = space
        self._shares = dict(shares or {})
        self.kernel = Kernel(
            group_features(space.names, space.groups), relevance(space, distances or {})
        )
        self._fitted: dict[bytes, Fitted] = {}
        self._learned: dict[bytes, Knowledge | None] = {}

    def known(self, history: Sequence[Evaluation]) -> _History:
        """Return the finished evaluations of the space, in order of their numbers."""
        inside = (e for e in history if e.finished and self.space.contains(e.weights))
        return tuple(sorted(inside, key=lambda e: e.number))

    def fitted(self, history: Sequence[Evaluation]) -> Fitted | None:
        """Return the model of a history; None if no evaluation of the space has a score."""
        known = self.known(history)
        if not any(e.score is not None for e in known):
            return None
        return _kept(
            self._fitted, known, lambda: self._fit(observed(self.space, known, self._shares))
        )

    def _fit(self, data: Observed) -> Fitted:
        low, width = self.space.low, self.space.high - self.space.low
        data = _bounded(data)
        offset, scale = float(data.scores.mean()), float(data.scores.std())
        # equal scores: their distance from the mean is rounding error, not to be blown up
        flat = np.ptp(data.scores) == 0 or not 0 < scale < math.inf
        scale = 1.0 if flat else scale
        values = np.zeros(len(data.scores)) if flat else (data.scores - offset) / scale
        # threads cost more than they save on matrices this small, and their number would decide
        # the last digits of the result
        with threadpool_limits(1, user_api="blas"):
            posterior = fit(
                self.kernel,
                Observations(
                    (data.vectors - low) / width, values, data.noise, data.error / scale**2
                ),
            )
        noise = scale * float(np.sqrt(posterior.hyperparameters.noise))
        return Fitted(posterior, offset, scale, 0.0 if flat else noise, data.numbers)

    def learn(self, history: Sequence[Evaluation]) -> Knowledge | None:
        """Return what is known; None with fewer than five scored evaluations of the space."""
        finished = tuple(sorted((e for e in history if e.finished), key=lambda e: e.number))
        return _kept(self._learned, finished, lambda: self._learn(finished))

    def _learn(self, history: _History) -> Knowledge | None:
        inside = [e for e in self.known(history) if e.score is not None]
        if len(inside) < FEWEST:
            return None
        fitted = self.fitted(history)
        # broken candidates say where not to look, but nothing of how good the others are
        sound = self.fitted([e for e in history if e.score is not None or e.per_payload])
        assert fitted is not None
        assert sound is not None
        with threadpool_limits(1, user_api="blas"):
            ranking = self._ranking(sound, history)
            if not ranking:
                return None
            best, around = best_known(fitted.posterior)
            rng = generator(0, "what is left to gain", len(history))
            promising = most_promising(fitted.posterior, LogExpectedImprovement(best), around, rng)
            highest = most_promising(fitted.posterior, UpperConfidenceBound(_BETA), around, rng)
            means, sds = fitted.predict(np.stack([promising, highest]))
            known_means, known_sds = fitted.predict(fitted.posterior.points)
        expected = LogExpectedImprovement(fitted.offset + fitted.scale * best)
        flat = not fitted.posterior.values.any()
        scores = np.array([e.score or 0.0 for e in inside])
        floor = float((known_means - _BETA * known_sds).max())
        return Knowledge(
            ranking=ranking,
            noise=sound.noise,
            # the deviation of equal numbers need not be 0
            spread=float(scores.std()) if np.ptp(scores) else 0.0,
            gain=0.0 if flat else float(np.exp(expected.value(means[:1], sds[:1])[0])),
            bound=0.0 if flat else max(0.0, float(means[1] + _BETA * sds[1]) - floor),
        )

    def _ranking(self, fitted: Fitted, history: _History) -> tuple[Belief, ...]:
        means, sds = fitted.predict(fitted.posterior.points)
        believed = {
            number: (float(mean), float(sd))
            for numbers, mean, sd in zip(fitted.numbers, means, sds, strict=True)
            for number in numbers
        }
        beliefs = [
            Belief(e.number, *believed.get(e.number, (e.score, fitted.noise)))
            for e in history
            if e.score is not None and e.number > 0
        ]
        return tuple(sorted(beliefs, key=lambda belief: (-belief.mean, belief.number)))


def _bounded(data: Observed) -> Observed:
    """Return the observations that the model looks at: all, or the best half of `MOST` and the
    latest of the others.
    """
    if len(data.scores) <= MOST:
        return data
    best = np.argsort(-data.scores, kind="stable")[: MOST // 2]
    others = np.setdiff1d(np.arange(len(data.scores)), best)
    chosen = np.sort(np.concatenate([best, others[len(best) - MOST :]]))
    return Observed(
        vectors=data.vectors[chosen],
        scores=data.scores[chosen],
        noise=data.noise[chosen],
        error=data.error[chosen],
        numbers=tuple(data.numbers[index] for index in chosen.tolist()),
    )


def _kept(memory: dict[bytes, T], history: _History, compute: Callable[[], T]) -> T:
    """Return what was computed for this history, or compute it; keeps the last few."""
    # scores of a library's user may be NumPy's
    key = msgspec.msgpack.encode(history, enc_hook=float)
    if key not in memory:
        while len(memory) >= _KEPT:
            del memory[next(iter(memory))]
        memory[key] = compute()
    return memory[key]
