"""Means, errors and tests of scores: is this candidate really better?

Scores have two sources of chance: the prompt and the seed. Images of one prompt resemble each
other, so with enough prompts the unit of all statistics is the payload (its mean over seeds), and
the result speaks about prompts like these. With fewer than five payloads a spread between them
cannot be estimated; the unit is then the image, and the result speaks about these prompts with
other seeds.

For units with values v_i and shares w_i (sum 1) the mean is m = sum w_i v_i. If all units have the
same variance s^2, then var(m) = s^2 sum w_i^2 and E[sum w_i (v_i - m)^2] = s^2 (1 - sum w_i^2), so

    standard error^2 = sum w_i^2 / (1 - sum w_i^2) * sum w_i (v_i - m)^2

with n_e - 1 degrees of freedom, where n_e = 1 / sum w_i^2 is the effective number of units (Kish,
Survey Sampling, 1965). With equal shares this is the textbook error, s / sqrt(n), with n - 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lib_automerge.errors import ConfigError

Array = NDArray[np.float64]
ImageKey = tuple[str, int]
"""The name of a payload and a seed: which image it is, whatever the candidate."""

ENOUGH_PAYLOADS = 5

_ROUNDING = 1e-12
"""What rounding makes of a difference at most, as a share of the largest score."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The score of a candidate.

    Attributes:
        mean: the payload-weighted arithmetic mean of the payloads' means.
        standard_error: the error of `mean`; NaN for a single unit.
        images: how many images were scored.
        per_payload: the mean of each payload.
    """

    mean: float
    standard_error: float
    images: int
    per_payload: dict[str, float]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate against another on the same images.

    Attributes:
        difference: the payload-weighted mean of winner minus baseline.
        standard_error: the error of `difference`.
        low, high: the two-sided 95 % t interval.
        p_value: of the one-sided t test that `difference` is not above 0.
        pairs: how many pairs of images were compared.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    pairs: int


def summarize(scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Summary:
    """Return the score of a candidate.

    Args:
        scores: payload name -> the scores of its images.
        weights: payload name -> its share in the mean, above 0, in any unit.

    Raises:
        ConfigError: no payload, a payload without scores or without a positive weight, or a score
            that is not finite.
    """
    values, shares = _units(scores, weights)
    mean, error, _ = _estimate(values, shares)
    return Summary(
        mean=mean,
        standard_error=error,
        images=sum(len(images) for images in scores.values()),
        per_payload={name: float(np.mean(images)) for name, images in scores.items()},
    )


def compare(
    winner: Mapping[ImageKey, float],
    baseline: Mapping[ImageKey, float],
    weights: Mapping[str, float],
) -> Difference:
    """Return the paired difference of two candidates, image by image.

    If all differences are equal, but for the rounding of floating-point numbers, their sign
    decides: the p-value is that of the sign test.

    Args:
        winner: (payload name, seed) -> score.
        baseline: the scores of the same payloads and seeds.
        weights: payload name -> its share in the mean, above 0, in any unit.

    Raises:
        ConfigError: the images differ, there are fewer than two, a payload has no positive weight,
            or a score is not finite.
    """
    if winner.keys() != baseline.keys():
        payload, seed = min(winner.keys() ^ baseline.keys())
        raise ConfigError(
            f"the scores are not paired: payload {payload!r} with seed {seed} was scored for one "
            "candidate only. Score both on the same payloads and seeds."
        )
    if len(winner) < 2:
        raise ConfigError(f"pairs of images to compare: {len(winner)}. Score at least two.")
    differences: dict[str, list[float]] = {}
    for key, score in winner.items():
        differences.setdefault(key[0], []).append(score - baseline[key])
    values, shares = _units(differences, weights)
    mean, error, freedom = _estimate(values, shares)
    rounding = _ROUNDING * max(map(abs, (*winner.values(), *baseline.values())))
    if error <= rounding:
        error, low, high = 0.0, mean, mean
        # equal differences: the sign test, one half for every unit
        p_value = 0.5 ** len(values) if mean > rounding else 1.0
    else:
        reach = error * float(stats.t.ppf(0.975, freedom))
        low, high = mean - reach, mean + reach
        p_value = float(stats.t.sf(mean / error, freedom))
    return Difference(
        difference=mean,
        standard_error=error,
        low=low,
        high=high,
        p_value=p_value,
        pairs=len(winner),
    )


def _units(
    scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]
) -> tuple[Array, Array]:
    """Return the values of the units and their shares, which sum to 1, each (n,)."""
    _check(scores, weights)
    total = sum(weights[name] for name in scores)
    if len(scores) >= ENOUGH_PAYLOADS:
        means = [float(np.mean(images)) for images in scores.values()]
        return np.array(means), np.array([weights[name] / total for name in scores])
    return (
        np.array([score for images in scores.values() for score in images], dtype=np.float64),
        np.array(
            [weights[name] / total / len(images) for name, images in scores.items() for _ in images]
        ),
    )


def _check(scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> None:
    if not scores:
        raise ConfigError("there are no scores: the mapping is empty. Score at least one image.")
    for name, images in scores.items():
        if not len(images):
            raise ConfigError(f"payload {name!r} has no scores. Score it or leave it out.")
        for score in images:
            if not math.isfinite(score):
                raise ConfigError(
                    f"payload {name!r} has the score {score}. Leave broken images out."
                )
        if not weights.get(name, 0.0) > 0:
            raise ConfigError(
                f"the weight of payload {name!r} is {weights.get(name)}. It must be above 0."
            )


def _estimate(values: Array, shares: Array) -> tuple[float, float, float]:
    """Return the mean, its standard error, and the degrees of freedom of that."""
    mean = float(shares @ values)
    concentration = float(shares @ shares)
    if len(values) == 1:
        return mean, math.nan, 0.0
    variance = concentration / (1.0 - concentration) * float(shares @ (values - mean) ** 2)
    return mean, math.sqrt(variance), 1.0 / concentration - 1.0
