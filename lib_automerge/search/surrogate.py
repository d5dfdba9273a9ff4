"""A Gaussian process over recipes: what the scores so far say about any other recipe.

Hides the fit of the hyperparameters (maximum a posteriori, by L-BFGS with exact gradients) and the
linear algebra of the posterior. Exact, for some hundreds of observations; the notation is that of
`kernel`.

References:
    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006: algorithm 2.1
    (posterior), equation 5.9 (gradient of the marginal likelihood).
    Ginsbourger, Le Riche and Carraro, Kriging Is Well-Suited to Parallelize Optimization, 2010
    (the kriging believer).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import OptimizeResult, minimize

from lib_automerge.search.kernel import Basis, Hyperparameters, Kernel

Array = NDArray[np.float64]

_ITERATIONS = 50
_QUIET = -9.0
_EXACT = 1e-2
_SMALLEST_VARIANCE = 1e-12


class Observations(msgspec.Struct, frozen=True, eq=False):
    """What was measured.

    Attributes:
        points: distinct points in the unit cube, (n, d).
        values: their scores, (n,).
        noise: their noise variances relative to that of a complete evaluation, (n,): 2 for a score
            from half of the images.
        error: further variance of each score, in units of the scores squared, (n,).
    """

    points: Array
    values: Array
    noise: Array
    error: Array


class Posterior:
    """A Gaussian process that is conditioned on observations.

    Values are in the units of `values`, standardized scores; only their order and their scale
    relative to the standard deviation matter to an acquisition function.
    """

    def __init__(self, kernel: Kernel, hyper: Hyperparameters, data: Observations) -> None:
        self.points, self.values = data.points, data.values
        self._kernel, self._hyper, self._data = kernel, hyper, data
        self._bent = hyper.curves > 0.0
        self._basis = kernel.basis(data.points, curves=self._bent)
        covariance = kernel.covariance(hyper, self._basis, self._basis)
        covariance[np.diag_indices(len(data.points))] += hyper.noise * data.noise + data.error
        self._factor = cho_factor(covariance, lower=True, check_finite=False)
        self._alpha = cho_solve(self._factor, data.values, check_finite=False)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyperparameters that it was fitted with."""
        return self._hyper

    @property
    def kernel(self) -> Kernel:
        """The covariance function."""
        return self._kernel

    @property
    def data(self) -> Observations:
        """What it is conditioned on."""
        return self._data

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, without noise, at the points, (n, d): each (n,)."""
        basis = self._kernel.basis(points, curves=self._bent)
        cross = self._kernel.covariance(self._hyper, basis, self._basis)
        half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = self._kernel.variance(self._hyper, basis) - (half * half).sum(0)
        return cross @ self._alpha, np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))

    def mean(self, points: Array) -> Array:
        """Return the mean, (n,), at the points, (n, d): much cheaper than with its deviation."""
        basis = self._kernel.basis(points, curves=False)
        seen = msgspec.structs.replace(self._basis, curves=np.zeros((len(self.points), 0)))
        mean = self._kernel.covariance(self._hyper, basis, seen) @ self._alpha
        if self._bent:
            weights = self._alpha @ self._basis.curves
            mean = mean + self._hyper.curves * self._kernel.curves(points, weights)
        return np.asarray(mean)

    def sums(self, basis: Basis, weights: Array) -> tuple[Array, Array]:
        """Return mean and variance, without noise, of weighted sums of the values at points.

        Args:
            basis: the n points as the kernel sees them.
            weights: one row for each sum, (k, n).

        Returns:
            Two arrays, (k,).
        """
        kernel, hyper, seen = self._kernel, self._hyper, self._basis
        summed = Basis(
            basis.features,
            weights @ basis.linear,
            weights @ basis.quadratic,
            weights @ basis.curves[:, : seen.curves.shape[1]],
        )
        # nothing but the Matern part needs what each two of the points have in common
        own = ((weights @ kernel.matern(hyper, basis, basis)[0]) * weights).sum(1)
        own = own + np.diag(kernel.trend(hyper, summed, summed))
        cross = weights @ kernel.matern(hyper, basis, seen)[0] + kernel.trend(hyper, summed, seen)
        half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        return cross @ self._alpha, own - (half * half).sum(0)

    def predict_with_gradient(self, point: Array) -> tuple[float, float, Array, Array]:
        """Return mean, standard deviation and their gradients, (d,), at one point, (d,)."""
        hyper, basis = self._hyper, self._kernel.basis(point[None], curves=self._bent)
        matern, slope = self._kernel.matern(hyper, basis, self._basis)
        cross = (matern + self._kernel.trend(hyper, basis, self._basis))[0]
        solved = cho_solve(self._factor, cross, check_finite=False)
        variance = float(self._kernel.variance(hyper, basis)[0] - cross @ solved)
        deviation = math.sqrt(max(variance, _SMALLEST_VARIANCE))
        weights = np.stack([self._alpha, -2.0 * solved])
        slopes = self._kernel.curve_slopes(point)[:, : None if self._bent else 0]
        d_mean, d_variance = self._gradient(basis, slope[0], slopes, weights)
        own = 4.0 * hyper.linear * basis.linear[0]
        own = own + 8.0 * hyper.quadratic * basis.quadratic[0] * (2.0 * point - 1.0)
        waves = basis.curves.reshape(slopes.shape)
        d_variance = d_variance + own / math.sqrt(self._kernel.dimension)
        d_variance = d_variance + 2.0 * hyper.curves * (waves * slopes).sum(1)
        return float(cross @ self._alpha), deviation, d_mean, d_variance / (2.0 * deviation)

    def _gradient(self, basis: Basis, slope: Array, curves: Array, weights: Array) -> Array:
        """Return d/dx of sum_i w_i k(x, x_i) for rows of weights w, (m, n): (m, d)."""
        hyper, observed = self._hyper, self._basis
        weighted = weights * slope
        pull = weighted.sum(1)[:, None] * basis.features - weighted @ observed.features
        matern = -(pull / hyper.lengths**2) @ self._kernel.projection
        scale = 1.0 / math.sqrt(self._kernel.dimension)
        linear = 2.0 * scale * hyper.linear * (weights @ observed.linear)
        # dq/dx = 2 * 2 z, and basis.linear holds z * scale.
        quadratic = 4.0 * hyper.quadratic * basis.linear * (weights @ observed.quadratic)
        pulls = (weights @ observed.curves).reshape(len(weights), *curves.shape)
        bent = hyper.curves * np.einsum("mdk,dk->md", pulls, curves)
        return np.asarray(matern + linear + quadratic + bent)

    def believing(self, points: Array) -> Posterior:
        """Return the posterior as if the points, (m, d), had scored their posterior means.

        The kriging believer: the uncertainty around evaluations that are under way shrinks, so
        that the next proposal goes elsewhere; the mean stays.
        """
        if not len(points):
            return self
        mean, _ = self.predict(points)
        believed = Observations(
            np.vstack([self.points, points]),
            np.concatenate([self.values, mean]),
            np.concatenate([self._data.noise, np.ones(len(points))]),
            np.concatenate([self._data.error, np.zeros(len(points))]),
        )
        return Posterior(self._kernel, self._hyper, believed)


def fit(kernel: Kernel, observations: Observations) -> Posterior:
    """Return the posterior with the most probable hyperparameters.

    Curves are looked for only where the scores turn out to be nearly exact (noise below a tenth of
    their standard deviation): else noise would pass for curves. The search for the hyperparameters
    starts from the prior each time, so the result depends on the observations alone. The values
    should have mean 0 and variance 1 (or be all 0).
    """
    loss = Loss(kernel, observations)
    prior = kernel.prior()
    flat, straight = kernel.straight(prior)
    # a second start with little noise: from the first alone, scores that are nearly exact are now
    # and then taken for noise
    quiet = np.where(np.arange(len(flat)) == kernel.features + 1, _QUIET, flat)
    found = min(
        (_climbed(loss, start, straight) for start in (flat, quiet)),
        key=lambda result: float(result.fun),
    )
    theta = found.x
    if kernel.unpack(theta).noise < _EXACT:
        curved = theta.copy()
        curved[-1] = prior.mean[-1]
        theta = _climbed(loss, curved, prior.bounds).x
    return Posterior(kernel, kernel.unpack(theta), observations)


def _climbed(loss: Loss, start: Array, bounds: list[tuple[float, float]]) -> OptimizeResult:
    return minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS},
    )


class Loss:
    """The negative log posterior density of theta, with its gradient."""

    def __init__(self, kernel: Kernel, observations: Observations) -> None:
        self._kernel = kernel
        self._values, self._noise = observations.values, observations.noise
        self._error = observations.error
        self._prior = kernel.prior()
        self._basis = kernel.basis(observations.points)
        self._squares = self._basis.features**2
        self._linear = self._basis.linear @ self._basis.linear.T
        self._quadratic = self._basis.quadratic @ self._basis.quadratic.T
        self._curves = self._basis.curves @ self._basis.curves.T

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return the loss up to a constant and its gradient, (f + 5,), at theta, (f + 5,)."""
        hyper = self._kernel.unpack(theta)
        matern, slope = self._kernel.matern(hyper, self._basis, self._basis)
        covariance = matern + hyper.linear * self._linear + hyper.quadratic * self._quadratic
        covariance += hyper.curves * self._curves
        covariance[np.diag_indices(len(covariance))] += hyper.noise * self._noise + self._error
        factor = cho_factor(covariance, lower=True, check_finite=False)
        alpha = cho_solve(factor, self._values, check_finite=False)
        likelihood = -0.5 * float(self._values @ alpha) - float(np.log(np.diag(factor[0])).sum())

        # Equation 5.9: d(log likelihood) = 1/2 trace((alpha alpha' - K^-1) dK).
        outer = np.outer(alpha, alpha) - _inverse(factor[0])
        by_slope = outer * slope
        # Sums of S_ij (phi_i - phi_j)^2 for a symmetric S, without forming the differences.
        spread = by_slope.sum(1) @ self._squares - np.einsum(
            "if,if->f", self._basis.features, by_slope @ self._basis.features
        )
        variances = 0.5 * np.array(
            [
                (outer * matern).sum(),
                hyper.noise * (np.diag(outer) @ self._noise),
                hyper.linear * (outer * self._linear).sum(),
                hyper.quadratic * (outer * self._quadratic).sum(),
                hyper.curves * (outer * self._curves).sum(),
            ]
        )
        gradient = np.concatenate([spread / hyper.lengths**2, variances])
        density, d_density = self._prior.density(theta)
        return -(likelihood + density), -(gradient + d_density)


def _inverse(lower: Array) -> Array:
    """Return the inverse of L L', (n, n), given its Cholesky factor L in the lower triangle."""
    half, _ = dpotri(lower, lower=1)
    half = np.tril(half)
    return np.asarray(half + half.T - np.diag(np.diag(half)))
