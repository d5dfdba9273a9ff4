"""Where to look next: how promising a recipe is, and the most promising one.

References:
    Ament, Daulton, Eriksson, Balandat and Bakshy, Unexpected Improvements to Expected Improvement
    for Bayesian Optimization, NeurIPS 2023 (LogEI).
    Srinivas, Krause, Kakade and Seeger, Gaussian Process Optimization in the Bandit Setting,
    ICML 2010 (the upper confidence bound).
    Regis and Shoemaker, Combining Radial Basis Function Surrogates and Dynamic Coordinate Search in
    High-Dimensional Expensive Black-Box Optimization, 2013 (perturbing few coordinates of the best
    points).
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr

from lib_automerge.search.subspace import Subspace
from lib_automerge.search.surrogate import Posterior

Array = NDArray[np.float64]

_RAW = 384
_LOCAL = 192
_STARTS = 4
_ITERATIONS = 30
_BEST = 3
_PERTURBED = 8.0
_SHUNNED_WIDTH = 0.02


class Acquisition(Protocol):
    """How promising a point is, as a function of the posterior mean and standard deviation."""

    def value(self, mean: Array, sd: Array) -> Array:
        """Return the promise of points with these means and standard deviations, (n,)."""

    def slopes(self, mean: float, sd: float) -> tuple[float, float, float]:
        """Return the promise of one point and its derivatives by mean and by sd."""


class LogExpectedImprovement(msgspec.Struct, frozen=True):
    """The logarithm of the expected improvement over `best`, stable where that underflows."""

    best: float

    def value(self, mean: Array, sd: Array) -> Array:
        """Return log E[max(f - best, 0)] for f ~ N(mean, sd^2), (n,)."""
        return np.asarray(np.log(sd) + log_improvement((mean - self.best) / sd))

    def slopes(self, mean: float, sd: float) -> tuple[float, float, float]:
        """Return the value and its derivatives by mean and by sd."""
        u = (mean - self.best) / sd
        log_h = float(log_improvement(np.array([u]))[0])
        # h'(u) = Phi(u), so d(log h)/du = Phi(u) / h(u).
        rate = math.exp(float(log_ndtr(u)) - log_h)
        return math.log(sd) + log_h, rate / sd, (1.0 - u * rate) / sd


class Shunned(msgspec.Struct, frozen=True, eq=False):
    """Points that made broken images: close to them the mean counts as lower, whatever the model
    believes, or it would go back to a point that tempts it.

    Like the local penalty of Gonzalez et al., Batch Bayesian Optimization via Local Penalization,
    AISTATS 2016, with a bump of fixed width.

    Attributes:
        points: in the unit cube, (r, d).
        height: by how much the mean is lowered at such a point, in units of the posterior.
    """

    points: Array
    height: float

    def bumps(self, points: Array) -> Array:
        """Return what each shunned point takes away at points (n, d): (n, r)."""
        apart = points[:, None, :] - self.points[None]
        return np.asarray(self.height * np.exp(-0.5 * (apart**2).sum(2) / self._variance))

    def gradient(self, point: Array) -> Array:
        """Return the gradient, (d,), of all that is taken away at a point, (d,)."""
        bumps = self.bumps(point[None])[0]
        return np.asarray(bumps @ (self.points - point) / self._variance)

    @property
    def _variance(self) -> float:
        return float(_SHUNNED_WIDTH**2 * self.points.shape[1])


class UpperConfidenceBound(msgspec.Struct, frozen=True):
    """The posterior mean plus `beta` standard deviations.

    Of 0.5, 1 and 2, 1 left the least regret after 120 evaluations on three landscapes of 27
    dimensions, one of them noisy, two seeds each.
    """

    beta: float = 1.0

    def value(self, mean: Array, sd: Array) -> Array:
        """Return mean + beta sd, (n,)."""
        return np.asarray(mean + self.beta * sd)

    def slopes(self, mean: float, sd: float) -> tuple[float, float, float]:
        """Return the value and its derivatives by mean and by sd."""
        return mean + self.beta * sd, 1.0, self.beta


def log_improvement(u: Array) -> Array:
    """Return log(phi(u) + u Phi(u)), (n,), for any finite u (Ament et al. 2023, equation 9)."""
    result = np.empty_like(u)
    near, far = u > -1.0, u < -1e4
    middle = ~near & ~far
    x = u[near]
    result[near] = np.log(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi) + x * np.exp(log_ndtr(x)))
    log_phi = -0.5 * u * u - 0.5 * math.log(2.0 * math.pi)
    x = u[middle]
    tail = 1.0 + math.sqrt(0.5 * math.pi) * x * erfcx(-x / math.sqrt(2.0))
    result[middle] = log_phi[middle] + np.log(tail)
    # There the difference cancels; its limit is 1 / u^2.
    result[far] = log_phi[far] - 2.0 * np.log(-u[far])
    return result


def most_promising(
    posterior: Posterior,
    acquisition: Acquisition,
    around: Array,
    rng: np.random.Generator,
    within: Subspace | None = None,
    shunned: Shunned | None = None,
) -> Array:
    """Return the point of the unit cube, (d,), with (about) the highest acquisition.

    The best of random points and of perturbations of the points `around`, (k, d), are climbed from
    with exact gradients. `within` is where to look; None is everywhere. `shunned` are points to
    keep away from.
    """
    part = within or Subspace.whole(around.shape[1])
    uniform = rng.random((_RAW, part.dimension))
    local = [_perturbed(center, rng) for center in part.inner(around)]
    candidates = np.vstack([uniform, *local])
    means, sds = posterior.predict(part.points(candidates))
    if shunned is not None:
        means = means - shunned.bumps(part.points(candidates)).sum(1)
    values = acquisition.value(means, sds)
    order = np.argsort(-values, kind="stable")
    wide = [i for i in order if i < _RAW][: _STARTS // 2]
    close = [i for i in order if i >= _RAW][: _STARTS - len(wide)]

    def loss(inner: Array) -> tuple[float, Array]:
        point = part.points(inner[None])[0]
        mean, sd, d_mean, d_sd = posterior.predict_with_gradient(point)
        if shunned is not None:
            mean -= float(shunned.bumps(point[None]).sum())
            d_mean = d_mean - shunned.gradient(point)
        value, by_mean, by_sd = acquisition.slopes(mean, sd)
        return -value, -(by_mean * d_mean + by_sd * d_sd) @ part.directions

    climbed = [
        minimize(
            loss,
            candidates[start],
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * part.dimension,
            options={"maxiter": _ITERATIONS},
        )
        for start in (*wide, *close)
    ]
    best = min(climbed, key=lambda found: float(found.fun))
    return np.asarray(part.points(best.x[None])[0])


def best_known(posterior: Posterior) -> tuple[float, Array]:
    """Return the highest posterior mean at an observed point, and the best few points, (k, d).

    The mean, not the score: the highest of noisy scores is partly luck.
    """
    mean, _ = posterior.predict(posterior.points)
    return float(mean.max()), posterior.points[np.argsort(-mean, kind="stable")[:_BEST]]


def _perturbed(center: Array, rng: np.random.Generator) -> Array:
    """Return points that differ from `center`, (d,), in about eight coordinates, by steps of all
    sizes or anew.
    """
    shape = (_LOCAL, len(center))
    points = np.broadcast_to(center, shape)
    changed = rng.random(shape) < min(1.0, _PERTURBED / len(center))
    changed[np.arange(_LOCAL), rng.integers(0, len(center), _LOCAL)] = True
    steps = rng.standard_normal(shape) * 10.0 ** rng.uniform(-2.0, -0.3, (_LOCAL, 1))
    anew = rng.random((_LOCAL, 1)) < 0.3
    moved = np.where(anew, rng.random(shape), points + steps)
    return np.clip(np.where(changed, moved, points), 0.0, 1.0)
