"""How many numbers become one: across rewards, across payloads, and with which error.

All functions take values with weights above 0 in any unit; only their shares count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CAUTION = 0.5
"""How many standard deviations of disagreement are taken from the mean."""
MEDIAN_FROM = 4
"""From so many rewards on, the median is taken."""
TAIL = 0.25
"""The share of the payloads, by weight, that the tail is made of."""
TAIL_SHARE = 0.3
"""The share of the tail in the total."""


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted arithmetic mean."""
    return math.fsum(w * v for w, v in zip(weights, values)) / math.fsum(weights)


def across_rewards(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return one value of an image from those of several rewards; never falls when one rises.

    One value: itself. Two or three: mean - c sd, where sd is the weighted sample standard
    deviation, sd^2 = sum w (v - mean)^2 / (1 - sum w^2), and c is 0.5, or sqrt(w_min (1 - sum w^2)
    / (1 - w_min)) if that is less, which it is for very unequal weights: with a larger c, a better
    score of the lightest reward could lower the value. Four or more: the weighted median.
    """
    if len(values) == 1:
        return values[0]
    if len(values) >= MEDIAN_FROM:
        return weighted_median(values, weights)
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    freedom = 1.0 - math.fsum(share * share for share in shares)
    centre = mean(values, shares)
    squares = math.fsum(share * (value - centre) ** 2 for share, value in zip(shares, values))
    lightest = min(shares)
    caution = min(CAUTION, math.sqrt(lightest * freedom / (1.0 - lightest)))
    return centre - caution * math.sqrt(squares / freedom)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the value below and above which half of the weight lies.

    Where exactly half lies below one value and half above the next, the middle between them.
    """
    ordered = sorted(zip(values, weights))
    half = math.fsum(weights) / 2
    below = 0.0
    for position, (value, weight) in enumerate(ordered):
        below += weight
        if math.isclose(below, half, rel_tol=1e-9) and position + 1 < len(ordered):
            return (value + ordered[position + 1][0]) / 2
        if below > half:
            return value
    return ordered[-1][0]


def worst(values: Sequence[float], weights: Sequence[float], tail: float = TAIL) -> float:
    """Return the mean of the worst `tail` of the values by weight (CVaR; lower is worse).

    A value that the border of the tail runs through counts with the part that lies within.
    """
    return mean(values, _parts_within(values, weights, tail))


def across_payloads(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return 0.7 of the mean and 0.3 of the mean of the worst quarter."""
    return (1 - TAIL_SHARE) * mean(values, weights) + TAIL_SHARE * worst(values, weights)


def error_across_payloads(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the standard error of `across_payloads`; NaN for a single value.

    The values are taken as draws from all payloads that there could be. The error is that of the
    jackknife, with T_i the total without value i of share w_i:

        error^2 = sum (1 - w_i) (T_i - T)^2,    T = the mean of T_i with weights 1 - w_i

    which for equal weights is Tukey's (n - 1) / n sum (T_i - T)^2, and for the mean alone the
    textbook error. (Efron and Stein, The Jackknife Estimate of Variance, 1981.)
    """
    count = len(values)
    if count < 2:
        return math.nan
    without = [
        across_payloads([*values[:i], *values[i + 1 :]], [*weights[:i], *weights[i + 1 :]])
        for i in range(count)
    ]
    total = math.fsum(weights)
    rests = [1.0 - weight / total for weight in weights]
    centre = mean(without, rests)
    return math.sqrt(math.fsum(rest * (t - centre) ** 2 for rest, t in zip(rests, without)))


def error_of_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the standard error of the weighted mean; NaN for a single value.

    error^2 = sum w^2 / (1 - sum w^2) * sum w (v - mean)^2 (see `search.statistics`).
    """
    if len(values) < 2:
        return math.nan
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    centre = mean(values, shares)
    concentration = math.fsum(share * share for share in shares)
    squares = math.fsum(share * (value - centre) ** 2 for share, value in zip(shares, values))
    return math.sqrt(concentration / (1.0 - concentration) * squares)


def tilted(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the share of each value in `across_payloads`, which is the mean under these shares.

    They sum to 1; the worst have more than their weight.
    """
    total = math.fsum(weights)
    within = _parts_within(values, weights, TAIL)
    tail = math.fsum(within)
    return [
        (1 - TAIL_SHARE) * weight / total + TAIL_SHARE * part / tail
        for weight, part in zip(weights, within)
    ]


def _parts_within(values: Sequence[float], weights: Sequence[float], tail: float) -> list[float]:
    """Return how much of each weight belongs to the worst `tail` of all weight."""
    left = tail * math.fsum(weights)
    parts = [0.0] * len(values)
    for position in sorted(range(len(values)), key=values.__getitem__):
        parts[position] = min(weights[position], left)
        left -= parts[position]
        if left <= 0:
            break
    return parts
