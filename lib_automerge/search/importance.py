"""Which blocks mattered: the main effect of each searched parameter, as the model sees it.

The main effect of a parameter is how the expected score changes with it while all others are
anywhere in their ranges (Sobol, Global sensitivity indices, 2001, there as a variance; here as a
difference, in units of the score, because that is what a user can compare with a gain).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.run import Evaluation
from lib_automerge.search.design import SobolSequence
from lib_automerge.search.model import FEWEST, Model
from lib_automerge.search.space import Space

Array = NDArray[np.float64]

LEVELS = 5
_SAMPLES = 64


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What one free parameter does to the score.

    Attributes:
        name: the parameter; blocks that are tied to it move with it.
        difference: expected score at the best of its levels minus that at the worst, 0 or more.
        standard_error: of the difference, from the model's uncertainty.
        best: the level with the highest expected score, in units of the weight.
        curve: (weight, expected score minus the mean over all levels) from low to high.
    """

    name: str
    difference: float
    standard_error: float
    best: float
    curve: tuple[tuple[float, float], ...]


def importance(space: Space, history: Sequence[Evaluation], *, seed: int = 0) -> tuple[Effect, ...]:
    """Return the effect of every free parameter, the largest first.

    Args:
        space: what was searched.
        history: finished evaluations; those outside the space are left out.
        seed: of the sample over which the other parameters are averaged.

    Returns:
        Nothing if fewer than five evaluations of the space have a score, or all scores are equal.
    """
    model = Model(space)
    known = [e for e in model.known(history) if e.score is not None]
    fitted = model.fitted(known) if len(known) >= FEWEST else None
    if fitted is None or not fitted.posterior.values.any():
        return ()
    posterior, scale = fitted.posterior, fitted.scale
    sequence = SobolSequence(space.dimension, seed, "importance")
    sample = np.array([sequence.point(index) for index in range(_SAMPLES)])
    levels = np.linspace(0.0, 1.0, LEVELS)
    effects = []
    for position, name in enumerate(space.names):
        points = np.tile(sample, (LEVELS, 1))
        points[:, position] = np.repeat(levels, _SAMPLES)
        mean, covariance = posterior.joint(points)
        curve = mean.reshape(LEVELS, _SAMPLES).mean(1) * scale
        best, worst = int(curve.argmax()), int(curve.argmin())
        contrast = (np.repeat(np.eye(LEVELS)[best] - np.eye(LEVELS)[worst], _SAMPLES)) / _SAMPLES
        variance = float(contrast @ covariance @ contrast)
        low, high = space.bounds[position]
        weights = low + levels * (high - low)
        effects.append(
            Effect(
                name=name,
                difference=float(curve[best] - curve[worst]),
                standard_error=math.sqrt(max(variance, 0.0)) * scale,
                best=float(weights[best]),
                curve=tuple(zip(weights.tolist(), (curve - curve.mean()).tolist(), strict=True)),
            )
        )
    return tuple(sorted(effects, key=lambda effect: -effect.difference))
