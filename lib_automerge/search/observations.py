"""What evaluations tell a model: distinct points with scores, and how far each can be trusted.

Every candidate is judged on the same payloads and seeds, so what makes a payload easy or hard for
all candidates cancels, and a complete score has no sampling error that its payloads could show:
their spread is not used. It is what makes a partial score unsure: there it says what the payloads
that are missing might have changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.run import Evaluation
from lib_automerge.search.space import Key, Space

Array = NDArray[np.float64]

FEWEST_PAYLOADS = 4
"""Below so many payloads their scatter says nothing."""

_NOISE_RANGE = (0.25, 4.0)
_MOST_ERROR = 1e4
"""In units of the variance of the scores: of a score with a larger error nothing is left."""


class Observed(msgspec.Struct, frozen=True, eq=False):
    """Distinct points of a space and what was measured there, in the order of first evaluation.

    Attributes:
        vectors: in the units of the space, (n, d).
        scores: (n,).
        noise: the variance of the chance in each score, relative to that of a typical complete
            evaluation, (n,): 0.5 for two evaluations of one point.
        error: what is added to that because payloads are missing, the score is made up, or its
            standard error is far above those of others, a variance in units of the scores squared,
            (n,).
        numbers: the evaluations of each point.
    """

    vectors: Array
    scores: Array
    noise: Array
    error: Array
    numbers: tuple[tuple[int, ...], ...]


class _Reading(msgspec.Struct, frozen=True):
    """One evaluation as the model takes it."""

    number: int
    score: float
    noise: float
    error: float
    made_up: bool = False


def observed(
    space: Space, known: Sequence[Evaluation], shares: Mapping[str, float] | None = None
) -> Observed:
    """Return what evaluations within the space tell; one at least must have a score.

    A rejected evaluation counts as what those of its payloads say that were scored, corrected for
    how easy they are, with the error of the others. Without any it counts as the worst score seen,
    with an error as large as the scores differ: a precise bad score beside a good one would be a
    cliff, and the model could trust nothing around it.
    Evaluations of the same point become one, with the mean weighted by precision; what is made up
    gives way to a score.

    Args:
        space: what is searched.
        known: finished evaluations of it.
        shares: see `Payloads.of`.
    """
    payloads = Payloads.of(known, shares)
    worst = min(e.score for e in known if e.score is not None)
    most = max((e.images for e in known if e.score is not None), default=0)
    doubt = float(np.var([e.score for e in known if e.score is not None]))
    trust = _trust(known, _MOST_ERROR * doubt)
    merged: dict[Key, list[_Reading]] = {}
    for evaluation in sorted(known, key=lambda e: e.number):
        reading = _reading(evaluation, payloads, (worst, doubt), most, trust)
        point = tuple(space.vector(evaluation.weights).tolist())
        merged.setdefault(point, []).append(reading)
    groups = [[r for r in group if not r.made_up] or group for group in merged.values()]
    precisions = np.array([sum(1.0 / r.noise for r in group) for group in groups])
    means = [
        group[0].score if len(group) == 1 else sum(r.score / r.noise for r in group) / total
        for group, total in zip(groups, precisions.tolist(), strict=True)
    ]
    return Observed(
        vectors=np.array(list(merged)),
        scores=np.array(means),
        noise=1.0 / precisions,
        error=np.array([min(r.error for r in group) for group in groups]),
        numbers=tuple(tuple(r.number for r in group) for group in merged.values()),
    )


class Payloads(msgspec.Struct, frozen=True, kw_only=True):
    """How payloads differ for all candidates alike.

    Attributes:
        offsets: payload -> how much higher than its candidate's score it is on average.
        shares: payload -> its share in a score; they sum to 1.
        variance: of a payload's score around that, pooled over candidates and payloads.
    """

    offsets: Mapping[str, float]
    shares: Mapping[str, float]
    variance: float

    @classmethod
    def of(
        cls, known: Sequence[Evaluation], shares: Mapping[str, float] | None = None
    ) -> Payloads | None:
        """Return what complete evaluations say; None if there are fewer than two, or they do not
        share enough payloads.

        Args:
            known: finished evaluations.
            shares: payload -> its share in the score, above 0, in any unit; 1 where it is not
                named.
        """
        whole = [e for e in known if e.score is not None and len(e.per_payload) >= FEWEST_PAYLOADS]
        names = set.intersection(*(set(e.per_payload) for e in whole)) if whole else set()
        if len(whole) < 2 or len(names) < FEWEST_PAYLOADS:
            return None
        order = sorted(names)
        apart = np.array([[e.per_payload[n] - (e.score or 0.0) for n in order] for e in whole])
        offsets = apart.mean(axis=0)
        parts = np.array([(shares or {}).get(name, 1.0) for name in order])
        parts = parts / parts.sum()
        # A payload minus the mean has the variance s^2 (1 - 2 w + sum of w^2); one is lost to the
        # offsets. With equal shares this is the textbook's (candidates - 1) (payloads - 1).
        freedom = (len(whole) - 1) * (len(order) * (1.0 + float(parts @ parts)) - 2.0)
        variance = float(((apart - offsets) ** 2).sum()) / freedom
        return cls(
            offsets=dict(zip(order, offsets.tolist(), strict=True)),
            shares=dict(zip(order, parts.tolist(), strict=True)),
            variance=variance,
        )

    def estimate(self, per_payload: Mapping[str, float]) -> tuple[float, float] | None:
        """Return the score that some payloads foretell and the variance of its error, or None.

        The score is the mean of those seen, by their shares w; W is the sum of these. A payload
        counts w / W instead of w, or 0 if it was not seen, and the error is the sum of what that
        changes: s^2 (sum over seen of (w / W - w)^2 + sum over missing of w^2). With k of n equal
        shares it is that of a sample without replacement, s^2 (1 / k - 1 / n).
        """
        seen = [name for name in per_payload if name in self.offsets]
        if not seen:
            return None
        total = sum(self.shares[name] for name in seen)
        counts = {name: self.shares[name] / total for name in seen}
        score = sum(counts[name] * (per_payload[name] - self.offsets[name]) for name in seen)
        changed = sum((counts.get(name, 0.0) - share) ** 2 for name, share in self.shares.items())
        return score, self.variance * changed


def _trust(known: Sequence[Evaluation], most: float) -> dict[int, tuple[float, float]]:
    """Return what standard errors say, by number: the noise variance relative to the typical one,
    and what it is larger than a relative one can say, a variance of at most `most`. Those of
    payloads are no noise.
    """
    given = {
        e.number: e.standard_error
        for e in known
        if e.score is not None and e.standard_error and not e.per_payload
    }
    if not given:
        return {}
    # ratios before squares: no error is too small or too large for them
    typical = float(np.median(list(given.values())))
    largest = math.sqrt(_NOISE_RANGE[1])
    return {
        number: (
            float(np.clip(min(error / typical, largest) ** 2, *_NOISE_RANGE)),
            min(error, math.sqrt(most)) ** 2 if error > largest * typical else 0.0,
        )
        for number, error in given.items()
    }


def _reading(
    evaluation: Evaluation,
    payloads: Payloads | None,
    made_up: tuple[float, float],
    most: int,
    trust: Mapping[int, tuple[float, float]],
) -> _Reading:
    number = evaluation.number
    if evaluation.score is not None:
        images = most / evaluation.images if evaluation.images else 1.0
        noise, error = trust.get(number, (1.0, 0.0))
        return _Reading(number, evaluation.score, images * noise, error)
    partial = payloads.estimate(evaluation.per_payload) if payloads is not None else None
    if partial is None:
        worst, doubt = made_up
        return _Reading(number, worst, 1.0, doubt, made_up=True)
    score, error = partial
    images = most / evaluation.images if evaluation.images else 1.0
    return _Reading(number, score, images, error)
