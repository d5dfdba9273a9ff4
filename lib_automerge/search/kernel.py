r"""The covariance between recipes, and the prior beliefs about it.

Notation:
    d       number of free parameters
    g       number of group features
    f       d + g, number of features
    X       points in the unit cube, (n, d)
    phi     features M x of a point, where M = [identity; group features], (f, d)
    z, q    2 x - 1 and z^2 - 1/3 per parameter, (d,): a linear and a quadratic basis on [0, 1]
    c       w_k sqrt(2) cos(pi k x) per parameter and k = 1..20, (20 d,), where w_k^2 falls like the
            spectrum of a squared exponential of length 0.08 and sums to 1: curves on [0, 1]
    r^2     sum over features of (phi_j - phi'_j)^2 / length_j^2
    theta   logarithms of all hyperparameters: lengths (f), signal, noise, linear, quadratic, curves

The kernel is

    k(x, x') = signal * (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r)
             + linear * z.z' / d + quadratic * q.q' / d + curves * c.c' / d

a Matern-5/2 kernel with one length-scale per feature (automatic relevance determination) plus an
additive trend: every block has its own best weight, and may have a curve of its own with more than
one hill. Group features let the model learn from a few points that, say, all input blocks should
go up together.

References:
    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 4 and 5.
    Hvarfner, Hellsten and Nardi, Vanilla Bayesian Optimization Performs Great in High Dimensions,
    ICML 2024 (the prior of the length-scales).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.search.space import Space

Array = NDArray[np.float64]

_MIN_MEMBERS = 3
_BY_RELEVANCE = 1.0
_CLOSER = 2.0
_CLOSEST = 1.0
_CURVE_LENGTH = 0.08
_CURVES, _NO_CURVES = -4.0, -12.0
_WAVES = np.arange(1, 21)
_SPECTRUM = np.exp(-0.25 * (math.pi * _CURVE_LENGTH * _WAVES) ** 2)
_AMPLITUDES = math.sqrt(2.0) * _SPECTRUM / np.linalg.norm(_SPECTRUM)


def group_features(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Array:
    """Return the linear features of groups of parameters, (g, d), rows of unit length.

    Each group of at least three parameters gives its mean and its slope (the trend from its first
    to its last member), and all parameters together give their mean. Unit rows keep a feature's
    spread over uniformly random points equal to that of a single parameter.
    """
    rows = []
    for members in groups.values():
        if len(members) < _MIN_MEMBERS:
            continue
        positions = [names.index(name) for name in members]
        for shape in (np.ones(len(members)), np.linspace(-1.0, 1.0, len(members))):
            row = np.zeros(len(names))
            row[positions] = shape / np.linalg.norm(shape)
            rows.append(row)
    if rows:
        rows.append(np.full(len(names), 1.0 / math.sqrt(len(names))))
    return np.array(rows).reshape(len(rows), len(names))


def relevance(space: Space, distances: Mapping[str, float]) -> Array:
    """Return how much the models differ in each free parameter, relative to the others, (d,).

    The root of the summed squares of the distances of the blocks that take its value, divided by
    the geometric mean over the parameters, and kept within a factor of four; 1 where it is unknown.
    """
    squares = dict.fromkeys(space.names, 0.0)
    for block, source in space.blocks.items():
        if isinstance(source, str):
            squares[source] += distances.get(block, 0.0) ** 2
    found = np.sqrt(np.array(list(squares.values())))
    if not (found > 0).any():
        return np.ones(len(found))
    typical = float(np.exp(np.log(found[found > 0]).mean()))
    return np.clip(np.where(found > 0, found / typical, 1.0), 0.25, 4.0)


class Hyperparameters(msgspec.Struct, frozen=True, eq=False):
    """The kernel's parameters, unpacked: length-scales (f,) and five variances, in units of the
    variance of the scores.
    """

    lengths: Array
    signal: float
    noise: float
    linear: float
    quadratic: float
    curves: float


class Basis(msgspec.Struct, frozen=True, eq=False):
    """Points as the kernel sees them: features (n, f), linear and quadratic basis (n, d), curves
    (n, 20 d).
    """

    features: Array
    linear: Array
    quadratic: Array
    curves: Array


class Prior(msgspec.Struct, frozen=True, eq=False):
    """Independent normal beliefs about theta, and the box that it is kept in, each (f + 5,)."""

    mean: Array
    sd: Array
    bounds: list[tuple[float, float]]

    def density(self, theta: Array) -> tuple[float, Array]:
        """Return the log density up to a constant, and its gradient, (f + 5,)."""
        deviation = (theta - self.mean) / self.sd
        return -0.5 * float(deviation @ deviation), -deviation / self.sd


class Kernel:
    """The covariance function for `d` parameters with `g` group features, (g, d).

    `relevance`, (d,), is how fast the score is expected to change with each parameter, relative to
    the others.
    """

    def __init__(self, groups: Array, relevance: Array | None = None) -> None:
        self.dimension = groups.shape[1]
        self._relevance = np.ones(self.dimension) if relevance is None else relevance
        self.projection = np.vstack([np.eye(self.dimension), groups])
        self.features = len(self.projection)

    def prior(self) -> Prior:
        """Return the prior beliefs.

        Length-scales are log-normal with sd sqrt(3), so that distances in many dimensions do not
        make all points strangers. Their mean is sqrt(2) + log(d)/2 (Hvarfner et al. 2024) less 2:
        the density is that of the logarithm, whose peak is e^3 times higher than that of the length
        itself, and on merged networks the best value lay between the two. It is not below 1, or a
        model of few parameters would take noise for detail. A parameter's own
        length-scale is expected to be shorter in proportion to its relevance. The five variances
        are log-normal around 1, exp(-5), exp(-1), exp(-1) and exp(-4) times that of the scores.
        """
        count = self.features
        typical = math.sqrt(2.0) + 0.5 * math.log(self.dimension) - _CLOSER
        lengths = np.full(count, max(_CLOSEST, typical))
        lengths[: self.dimension] -= _BY_RELEVANCE * np.log(self._relevance)
        return Prior(
            mean=np.concatenate([lengths, [0.0, -5.0, -1.0, -1.0, _CURVES]]),
            sd=np.concatenate([np.full(count, math.sqrt(3.0)), [1.5, 2.0, 2.0, 2.0, 2.0]]),
            bounds=[
                *[(-3.0, 6.0)] * count,
                (-4.0, 4.0),
                (-13.0, 0.7),
                (-8.0, 4.0),
                (-8.0, 4.0),
                (_NO_CURVES, 2.0),
            ],
        )

    def straight(self, prior: Prior) -> tuple[Array, list[tuple[float, float]]]:
        """Return where a fit without curves starts, (f + 5,), and the box that it stays in."""
        start = prior.mean.copy()
        start[-1] = _NO_CURVES
        return start, [*prior.bounds[:-1], (_NO_CURVES, _NO_CURVES)]

    def unpack(self, theta: Array) -> Hyperparameters:
        """Return the hyperparameters of theta, (f + 5,)."""
        values = np.exp(theta)
        signal, noise, linear, quadratic, curves = values[self.features :].tolist()
        if theta[-1] <= _NO_CURVES:
            curves = 0.0
        lengths = values[: self.features]
        return Hyperparameters(lengths, signal, noise, linear, quadratic, curves)

    def pack(self, hyper: Hyperparameters) -> Array:
        """Return theta, (f + 5,), of the hyperparameters."""
        curves = max(hyper.curves, math.exp(_NO_CURVES))
        variances = (hyper.signal, hyper.noise, hyper.linear, hyper.quadratic, curves)
        return np.asarray(np.log(np.concatenate([hyper.lengths, variances])))

    def basis(self, points: Array, *, curves: bool = True) -> Basis:
        """Return the points, (n, d), as the kernel sees them; with no curves if none are asked."""
        scale = 1.0 / math.sqrt(self.dimension)
        z = 2.0 * points - 1.0
        waves = np.zeros((len(points), 0))
        if curves:
            waves = _AMPLITUDES * np.cos(math.pi * points[:, :, None] * _WAVES)
            waves = scale * waves.reshape(len(points), -1)
        return Basis(points @ self.projection.T, scale * z, scale * (z * z - 1.0 / 3.0), waves)

    def curves(self, points: Array, weights: Array) -> Array:
        """Return the sum of a basis' curves at points, (n, d), with these weights, (20 d,): (n,).

        By Clenshaw's recurrence: cos(k t) is the k-th Chebyshev polynomial of cos(t), so there is
        one cosine per point and parameter, and nothing of size 20 n d.
        """
        by_wave = (weights.reshape(self.dimension, -1) * _AMPLITUDES).T
        cosine = np.cos(math.pi * points)
        later, latest = np.zeros_like(points), np.zeros_like(points)
        for coefficients in by_wave[::-1]:
            later, latest = latest, coefficients + 2.0 * cosine * latest - later
        return np.asarray((cosine * latest - later).sum(1) / math.sqrt(self.dimension))

    def curve_slopes(self, point: Array) -> Array:
        """Return d(curves)/dx of one point, (d,): (d, 20)."""
        slopes = -math.pi * _WAVES * _AMPLITUDES * np.sin(math.pi * point[:, None] * _WAVES)
        return np.asarray(slopes / math.sqrt(self.dimension))

    def matern(self, hyper: Hyperparameters, left: Basis, right: Basis) -> tuple[Array, Array]:
        """Return the Matern part, (n, m), and c, (n, m), in its gradient
        dk/dphi_j = -c (phi_j - phi'_j) / length_j^2.
        """
        a, b = left.features / hyper.lengths, right.features / hyper.lengths
        squared = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T, 0.0)
        scaled = np.sqrt(5.0 * squared)
        decay = hyper.signal * np.exp(-scaled)
        slope = (5.0 / 3.0) * (1.0 + scaled) * decay
        return (1.0 + scaled + (5.0 / 3.0) * squared) * decay, slope

    def covariance(self, hyper: Hyperparameters, left: Basis, right: Basis) -> Array:
        """Return k between two sets of points, (n, m)."""
        matern, _ = self.matern(hyper, left, right)
        return matern + self.trend(hyper, left, right)

    def trend(self, hyper: Hyperparameters, left: Basis, right: Basis) -> Array:
        """Return k without its Matern part, (n, m): the linear and quadratic ones, and curves."""
        return np.asarray(
            hyper.linear * left.linear @ right.linear.T
            + hyper.quadratic * left.quadratic @ right.quadratic.T
            + hyper.curves * left.curves @ right.curves.T
        )

    def variance(self, hyper: Hyperparameters, points: Basis) -> Array:
        """Return k of each point with itself, (n,)."""
        return np.asarray(
            hyper.signal
            + hyper.linear * (points.linear**2).sum(1)
            + hyper.quadratic * (points.quadratic**2).sum(1)
            + hyper.curves * (points.curves**2).sum(1)
        )
