"""What the model believes, with the doubt about its own hyperparameters.

The most probable hyperparameters are one guess among many, and errors that trust them alone are
too small: in simulations (docs/search.md) two standard errors covered 88 to 93 % of true effects,
with the draws here 92 to 95 %. An ensemble is one posterior for each of some draws of the
hyperparameters from their own posterior, by Hamiltonian Monte Carlo around the mode in coordinates
that Laplace's approximation makes about equally wide.

References:
    Neal, MCMC Using Hamiltonian Dynamics, 2011.
    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 3.4 (Laplace's
    approximation) and 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.search.kernel import Prior
from lib_automerge.search.randomness import generator
from lib_automerge.search.surrogate import Loss, Posterior

Array = NDArray[np.float64]

_DRAWS = 72
_FEWEST_DRAWS = 12
_AFFORDABLE = 300
_EVERY = 3
_BURN = 12
_STEPS = 8
_STEP = (0.17, 0.33)
_DIFFERENCE = 1e-3
_EDGE = 1e-3
_FAR = 6.0


class Ensemble(msgspec.Struct, frozen=True, eq=False):
    """Equally probable posteriors of the same observations.

    Attributes:
        posteriors: one for every third draw of the hyperparameters; neighbours resemble each other.
        thetas: all draws, (m, f + 5); see `kernel`.
    """

    posteriors: tuple[Posterior, ...]
    thetas: Array

    def mean(self, points: Array) -> Array:
        """Return the expected values at points of the unit cube, (n, d): (n,)."""
        return np.asarray(np.mean([p.mean(points) for p in self.posteriors], axis=0))

    def contrasts(self, points: Array, weights: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of weighted sums of the values at points.

        The variance is the mean of the posteriors' variances plus the variance of their means.

        Args:
            points: in the unit cube, (n, d).
            weights: one row for each sum, (k, n).

        Returns:
            Two arrays, (k,).
        """
        basis = self.posteriors[0].kernel.basis(points)
        sums = [posterior.sums(basis, weights) for posterior in self.posteriors]
        means, variances = np.array(sums).swapaxes(0, 1)
        variance = variances.mean(0) + means.var(0)
        return np.asarray(means.mean(0)), np.sqrt(np.maximum(variance, 0.0))


def ensemble(posterior: Posterior, seed: int = 0) -> Ensemble:
    """Return posteriors with hyperparameters around those that a posterior was fitted with.

    Beyond 300 observations there are fewer draws: each costs more, and there is less doubt.
    """
    kernel, data = posterior.kernel, posterior.data
    affordable = min((_AFFORDABLE / len(data.points)) ** 3, 1.0)
    thetas = draws(
        Loss(kernel, data),
        kernel.prior(),
        kernel.pack(posterior.hyperparameters),
        generator(seed, "hyperparameters", len(data.points)),
        max(round(_DRAWS * affordable), _FEWEST_DRAWS),
    )
    return Ensemble(
        tuple(Posterior(kernel, kernel.unpack(theta), data) for theta in thetas[::_EVERY]), thetas
    )


def draws(
    loss: Callable[[Array], tuple[float, Array]],
    prior: Prior,
    mode: Array,
    rng: np.random.Generator,
    count: int = _DRAWS,
) -> Array:
    """Return draws of theta, (m, f + 5), from the density exp(-loss).

    Components that the fit left at a bound stay there.

    Args:
        loss: the negative log density and its gradient.
        prior: its bounds; what is implausible under it is not visited.
        mode: where the loss is lowest, (f + 5,).
        rng: of the walk.
        count: how many draws, m.
    """
    low, high = np.array(prior.bounds).T
    free = np.flatnonzero((mode > low + _EDGE) & (mode < high - _EDGE))
    axes = np.zeros((len(mode), len(free)))
    axes[free] = _axes(loss, prior, mode, free)

    def energy(u: Array) -> tuple[float, Array]:
        theta = mode + axes @ u
        if np.abs((theta - prior.mean)[free] / prior.sd[free]).max(initial=0.0) > _FAR:
            return math.inf, u
        try:
            value, gradient = loss(theta)
        except np.linalg.LinAlgError:
            return math.inf, u
        return value, axes.T @ gradient

    found = []
    place = np.zeros(len(free))
    value, gradient = energy(place)
    for index in range(_BURN + count):
        momentum = rng.standard_normal(len(free))
        before = value + 0.5 * float(momentum @ momentum)
        step, chance = rng.uniform(*_STEP), float(rng.random())
        ahead = _leapfrog(energy, place, momentum, gradient, step)
        if ahead is not None and math.log(chance) < before - ahead[0]:
            _, place, value, gradient = ahead
        if index >= _BURN:
            found.append(mode + axes @ place)
    return np.array(found)


def _leapfrog(
    energy: Callable[[Array], tuple[float, Array]],
    place: Array,
    momentum: Array,
    gradient: Array,
    step: float,
) -> tuple[float, Array, float, Array] | None:
    """Follow the dynamics; total energy, place, potential energy and its gradient at the end, or
    None where it leads out of what is plausible.
    """
    value = math.inf
    for _ in range(_STEPS):
        momentum = momentum - 0.5 * step * gradient
        place = place + step * momentum
        value, gradient = energy(place)
        if not math.isfinite(value):
            return None
        momentum = momentum - 0.5 * step * gradient
    return value + 0.5 * float(momentum @ momentum), place, value, gradient


def _axes(
    loss: Callable[[Array], tuple[float, Array]], prior: Prior, mode: Array, free: NDArray[np.intp]
) -> Array:
    """Return the root of the inverse Hessian at the mode, (k, k), for the k free components.

    The Hessian is that of central differences of the gradient. No direction is taken to be wider
    than the prior: where the fit stopped short of the mode the curvature can be too small.
    """
    rows = []
    for position in free:
        offset = np.zeros(len(mode))
        offset[position] = _DIFFERENCE
        ahead, behind = loss(mode + offset)[1], loss(mode - offset)[1]
        rows.append((ahead - behind)[free] / (2.0 * _DIFFERENCE))
    hessian = np.array(rows).reshape(len(free), len(free))
    curvatures, directions = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return np.asarray(directions / np.sqrt(np.maximum(curvatures, float(prior.sd.max()) ** -2)))
