"""What the search has learned, for its user: see `domain.insights` for what each part means.

Everything is computed from the model of one history, with the doubt about the model's own
hyperparameters; the same history gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.domain.insights import Change, Insights, Predicted, Rounding, Sensitivity
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.design import SobolSequence
from lib_automerge.search.effects import interactions, length_scales, main_effects
from lib_automerge.search.ensemble import Ensemble, ensemble
from lib_automerge.search.model import FEWEST, Fitted, Model
from lib_automerge.search.space import Space
from lib_automerge.search.surrogate import Posterior

Array = NDArray[np.float64]

DECIMALS = 2
"""To how many decimals a recipe is rounded."""

STEPS = (0.01, 0.05)
"""By how much of weight one block is off."""

_SAMPLE = 32
_CLIMBED_FROM = 8
_ITERATIONS = 60
_UNNOTICED = 0.02
_NO_STEP = 1e-9


def insights(
    model: Model, history: Sequence[Evaluation], leader: int | None = None, *, seed: int = 0
) -> Insights | None:
    """Return what a history teaches.

    Args:
        model: of the space that was searched.
        history: finished evaluations; those outside the space are left out.
        leader: the evaluation whose recipe is looked at; None, or one outside the space, for that
            with the highest expected score of this run.
        seed: of all samples.

    Returns:
        None if fewer than five evaluations of the space have a score, all scores are equal, or all
        are of earlier runs, whose evaluations have no numbers above 0.
    """
    known = [e for e in model.known(history) if e.score is not None]
    fitted = model.fitted(history) if len(known) >= FEWEST else None
    own = [e for e in known if e.number > 0]
    if fitted is None or not fitted.posterior.values.any() or not own:
        return None
    # threads cost more than they save on matrices this small, and decide the last digits
    with threadpool_limits(1, user_api="blas"):
        return _insights(model, fitted, len(known), own, leader, seed)


def _insights(
    model: Model,
    fitted: Fitted,
    count: int,
    own: Sequence[Evaluation],
    leader: int | None,
    seed: int,
) -> Insights:
    space, scale = model.space, fitted.scale
    believed = ensemble(fitted.posterior, seed)
    sequence = SobolSequence(space.dimension, seed, "importance")
    sample = np.array([sequence.point(index) for index in range(_SAMPLE)])
    best = _leader(space, believed, own, leader)
    point = _unit(space, best)
    mean, sd = believed.contrasts(point[None], np.ones((1, 1)))
    effects = main_effects(believed, space, scale, sample)
    return Insights(
        evaluations=count,
        leader=best.number,
        score=fitted.offset + scale * float(mean[0]),
        sd=scale * float(sd[0]),
        noise=fitted.noise,
        effects=effects,
        lengths=length_scales(believed, model.kernel, space),
        interactions=interactions(believed, space, scale, sample, effects),
        predicted=_predicted(space, fitted, believed, point),
        rounding=_rounding(space, fitted, believed, point),
    )


def _leader(
    space: Space, believed: Ensemble, own: Sequence[Evaluation], leader: int | None
) -> Evaluation:
    named = next((e for e in own if e.number == leader), None)
    if named is not None:
        return named
    means = believed.mean(np.array([_unit(space, e) for e in own]))
    return own[int(np.argmax(means))]


def _unit(space: Space, evaluation: Evaluation) -> Array:
    return (space.vector(evaluation.weights) - space.low) / (space.high - space.low)


def _predicted(space: Space, fitted: Fitted, believed: Ensemble, leader: Array) -> Predicted | None:
    """Return the best of the points that the posterior mean rises to from the best known ones.

    They are those of the most probable hyperparameters; which of them is best, and how good it is,
    all draws decide together.
    """
    posterior = fitted.posterior
    order = np.argsort(-posterior.mean(posterior.points), kind="stable")[:_CLIMBED_FROM]
    width = space.high - space.low
    climbed = [_climbed(posterior, start) for start in (leader, *posterior.points[order])]
    # the recipe as it would be evaluated
    vectors = space.scaled(np.array(climbed))
    points = (vectors - space.low) / width
    chosen = int(np.argmax(believed.mean(points)))
    pair = np.stack([points[chosen], leader])
    mean, sd = believed.contrasts(pair, np.array([[1.0, 0.0], [1.0, -1.0]]))
    if mean[1] <= 0.0:
        return None
    return Predicted(
        weights=space.weights(vectors[chosen]),
        score=fitted.offset + fitted.scale * float(mean[0]),
        sd=fitted.scale * float(sd[0]),
        gain=_change(fitted, mean[1], sd[1]),
    )


def _climbed(posterior: Posterior, start: Array) -> Array:
    """Return the local maximum of the posterior mean above a point of the unit cube, (d,)."""

    def loss(point: Array) -> tuple[float, Array]:
        mean, _, slope, _ = posterior.predict_with_gradient(point)
        return -mean, -slope

    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * len(start),
        options={"maxiter": _ITERATIONS},
    )
    return np.asarray(found.x)


def _rounding(space: Space, fitted: Fitted, believed: Ensemble, leader: Array) -> Rounding:
    width = space.high - space.low
    vector = space.low + width * leader
    rounded = np.clip(np.round(vector, DECIMALS), space.low, space.high)
    offsets = [sign * step for step in STEPS for sign in (-1.0, 1.0)]
    steps = np.array([offset * axis for axis in np.eye(len(vector)) for offset in offsets])
    moved = np.clip(vector + steps, space.low, space.high)
    points = (np.vstack([vector, rounded, moved]) - space.low) / width
    away = np.hstack([-np.ones((len(points) - 1, 1)), np.eye(len(points) - 1)])
    means, errors = believed.contrasts(points, away)
    change, *changes = (_change(fitted, m, e) for m, e in zip(means, errors, strict=True))
    possible = ((np.abs(moved - vector) / width).max(axis=1) > _NO_STEP).tolist()
    worse = [
        # a step that an end of the range forbids costs nothing and says nothing
        min(
            [c for c, real in zip(changes[k : k + 2], possible[k : k + 2], strict=True) if real],
            key=lambda c: c.difference,
        )
        for k in range(0, len(changes), 2)
    ]
    limit = max(fitted.noise, _UNNOTICED * fitted.scale)
    return Rounding(
        change=change,
        harmless=change.difference - 2.0 * change.standard_error > -limit,
        blocks=tuple(
            Sensitivity(name=name, hundredth=worse[2 * k], twentieth=worse[2 * k + 1])
            for k, name in enumerate(space.names)
        ),
    )


def _change(fitted: Fitted, mean: float, error: float) -> Change:
    scaled = fitted.scale * float(error)
    return Change(
        difference=fitted.scale * float(mean),
        standard_error=scaled if math.isfinite(scaled) else 0.0,
    )
