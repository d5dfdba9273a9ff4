"""Which blocks mattered: main effects, pairs that do not add up, and length-scales.

The main effect of a parameter is how the expected score changes with it while all others are
anywhere in their ranges (Sobol, Global sensitivity indices, 2001, there as a variance; here as a
difference, in units of the score, because that is what a user can compare with a gain). Likewise
the interaction of two is what their joint effect has beyond the sum of their main effects; as a
difference, it is the average over the box of the mixed derivative, times both ranges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.insights import Effect, Interaction, LengthScale
from lib_automerge.search.ensemble import Ensemble
from lib_automerge.search.kernel import Kernel
from lib_automerge.search.space import Space

Array = NDArray[np.float64]

LEVELS = 17
"""At so many weights an effect is looked at. A hill of the narrowest kind that the model has for a
block of its own (`kernel`, length 0.08) is lowered by a fortieth on average because its top is
between two of them, and by a thirteenth at worst; five would miss it."""

PAIRS = 5
"""How many interactions are told at most."""

_PAIRED = 32
_SHORTLIST = 12
_PAIR_SAMPLE = 16
_PAIR_SURE = 3.0
_PAIR_SHARE = 0.1
_NODES = np.array([0.5 - math.sqrt(1.0 / 12.0), 0.5 + math.sqrt(1.0 / 12.0)])
_KNOWN_WITHIN = 10.0
_ENDLESS = 10.0


def main_effects(
    ensemble: Ensemble, space: Space, scale: float, sample: Array
) -> tuple[Effect, ...]:
    """Return the effect of every free parameter, the largest first.

    Args:
        ensemble: over the unit cube of the space.
        space: what was searched.
        scale: of the score in units of the ensemble's values.
        sample: points over which the other parameters are averaged, (s, d).
    """
    levels = np.linspace(0.0, 1.0, LEVELS)
    count = len(sample)
    effects = []
    for position, name in enumerate(space.names):
        points = np.tile(sample, (LEVELS, 1))
        points[:, position] = np.repeat(levels, count)
        curve = ensemble.mean(points).reshape(LEVELS, count).mean(1) * scale
        best, worst = int(curve.argmax()), int(curve.argmin())
        both = np.concatenate(
            [points[level * count : (level + 1) * count] for level in (best, worst)]
        )
        weights = np.repeat([1.0, -1.0], count) / count
        _, error = ensemble.contrasts(both, weights[None])
        low, high = space.bounds[position]
        ticks = low + levels * (high - low)
        effects.append(
            Effect(
                name=name,
                difference=float(curve[best] - curve[worst]),
                standard_error=float(error[0]) * scale,
                best=float(ticks[best]),
                curve=tuple(zip(ticks.tolist(), (curve - curve.mean()).tolist(), strict=True)),
            )
        )
    return tuple(sorted(effects, key=lambda effect: -effect.difference))


def interactions(
    ensemble: Ensemble, space: Space, scale: float, sample: Array, effects: Sequence[Effect]
) -> tuple[Interaction, ...]:
    """Return the pairs of parameters whose effects clearly do not add up, the largest first.

    The average mixed derivative is that of the two-point Gauss rule, which is exact for cubics.
    Only pairs of the parameters with the largest main effects are looked at, and of these pairs the
    largest. One is told if it is three standard errors away from zero (it is the largest of
    hundreds) and at least a tenth of the largest main effect.

    Args:
        ensemble: over the unit cube of the space.
        space: what was searched.
        scale: of the score in units of the ensemble's values.
        sample: points over which the other parameters are averaged, (s, d).
        effects: the main effects, the largest first.
    """
    sample = sample[:_PAIR_SAMPLE]
    chosen = sorted(space.names.index(effect.name) for effect in effects[:_PAIRED])
    pairs = list(itertools.combinations(chosen, 2))
    weights = np.repeat([1.0, -1.0, -1.0, 1.0], len(sample)) / len(sample)
    weights /= (_NODES[1] - _NODES[0]) ** 2
    first = ensemble.posteriors[0]
    sizes = [abs(float(weights @ first.mean(_corners(sample, *pair)))) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: -sizes[i])[:_SHORTLIST]
    found = []
    for i, j in (pairs[index] for index in order):
        mean, error = ensemble.contrasts(_corners(sample, i, j), weights[None])
        pair = Interaction(
            first=space.names[i],
            second=space.names[j],
            difference=float(mean[0]) * scale,
            standard_error=float(error[0]) * scale,
        )
        worth = abs(pair.difference) >= _PAIR_SHARE * effects[0].difference
        if worth and abs(pair.difference) > _PAIR_SURE * pair.standard_error:
            found.append(pair)
    return tuple(sorted(found, key=lambda pair: -abs(pair.difference))[:PAIRS])


def _corners(sample: Array, i: int, j: int) -> Array:
    """Return the sample with parameters i and j at both nodes each, (4 s, d)."""
    points = np.tile(sample, (4, 1))
    points[:, i] = np.repeat(_NODES[[0, 0, 1, 1]], len(sample))
    points[:, j] = np.repeat(_NODES[[0, 1, 0, 1]], len(sample))
    return points


def length_scales(ensemble: Ensemble, kernel: Kernel, space: Space) -> tuple[LengthScale, ...]:
    """Return the length-scale along every free parameter, in order, with its interval.

    A parameter is a feature of its own and part of its groups' features, and all of them make
    points strangers: 1 / length^2 = sum over features of (its part)^2 / (their length)^2. The
    interval is that of a log-normal distribution with the spread of the ensemble. The scores have
    decided it if its ends are within a factor of ten (the prior's are a factor of hundreds apart)
    and it is not above ten ranges: there the ends of a range correlate to 0.99, longer ones make
    no difference to any score, and only the prior keeps them from being longer still.

    Args:
        ensemble: over the unit cube of the space.
        kernel: of the ensemble.
        space: what was searched.
    """
    squares = np.exp(-2.0 * ensemble.thetas[:, : kernel.features]) @ kernel.projection**2
    logs = -0.5 * np.log(squares)
    middle, reach = logs.mean(axis=0), 1.96 * logs.std(axis=0, ddof=1)
    return tuple(
        LengthScale(
            name=name,
            length=math.exp(middle[k]),
            low=math.exp(middle[k] - reach[k]),
            high=math.exp(middle[k] + reach[k]),
            determined=bool(2.0 * reach[k] < math.log(_KNOWN_WITHIN))
            and math.exp(middle[k]) < _ENDLESS,
        )
        for k, name in enumerate(space.names)
    )
