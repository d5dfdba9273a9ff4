"""The Gaussian process against direct computations that share no code with it."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime

from lib_automerge.search.kernel import Hyperparameters, Kernel, group_features
from lib_automerge.search.randomness import generator
from lib_automerge.search.surrogate import Loss, Observations, Posterior, fit

Array = NDArray[np.float64]

NAMES = tuple("abcdefg")
GROUPS = {"first": tuple("abcd"), "last": tuple("efg")}


def whole(points: Array, values: Array, noise: Array) -> Observations:
    """Observations of which nothing is missing."""
    return Observations(points, values, noise, np.zeros(len(points)))


def kernel() -> Kernel:
    return Kernel(group_features(NAMES, GROUPS))


def hyperparameters(features: int) -> Hyperparameters:
    lengths = generator(0, "lengths").uniform(0.5, 3.0, features)
    return Hyperparameters(lengths, signal=1.3, noise=0.05, linear=0.4, quadratic=0.7, curves=0.2)


def direct_covariance(hyper: Hyperparameters, x: Array, y: Array) -> float:
    """The kernel between two points, term by term."""
    projection = np.vstack([np.eye(len(x)), group_features(NAMES, GROUPS)])
    r = math.sqrt(sum(((projection @ (x - y)) / hyper.lengths) ** 2))
    matern = (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)
    z, w = 2 * x - 1, 2 * y - 1
    linear = sum(z * w) / len(x)
    quadratic = sum((z * z - 1 / 3) * (w * w - 1 / 3)) / len(x)
    trend = hyper.linear * linear + hyper.quadratic * quadratic
    return hyper.signal * matern + trend + hyper.curves * direct_curves(x, y)


def direct_curves(x: Array, y: Array) -> float:
    """The mean over parameters of a sum of cosines, whose weights sum to 1."""
    waves = np.arange(1, 21)
    weights = np.exp(-0.5 * (0.08 * math.pi * waves) ** 2)
    pairs = [
        2.0 * weights @ (np.cos(math.pi * waves * a) * np.cos(math.pi * waves * b))
        for a, b in zip(x, y, strict=True)
    ]
    return float(np.mean(pairs) / weights.sum())


def direct_matrix(hyper: Hyperparameters, left: Array, right: Array) -> Array:
    return np.array([[direct_covariance(hyper, x, y) for y in right] for x in left])


@pytest.fixture
def data() -> tuple[Array, Array, Array]:
    rng = generator(1, "data")
    return rng.random((12, 7)), rng.normal(size=12), rng.uniform(0.5, 3.0, 12)


def test_group_features_are_means_and_slopes_of_unit_length() -> None:
    features = group_features(NAMES, {"few": ("a", "b"), **GROUPS})
    assert features.shape == (5, 7)
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(5))
    assert features[0].tolist() == pytest.approx([0.5] * 4 + [0.0] * 3)
    rising = np.linspace(0.0, 1.0, 7)
    assert features[1] @ rising > 0
    assert features[1] @ np.ones(7) == pytest.approx(0.0)
    assert features[3] @ np.array([0, 0, 0, 0, -1, 0, 1.0]) == pytest.approx(math.sqrt(2))
    assert features[4].tolist() == pytest.approx([1 / math.sqrt(7)] * 7)


def test_without_groups_there_are_no_features() -> None:
    assert group_features(NAMES, {}).shape == (0, 7)
    assert Kernel(group_features(NAMES, {})).features == 7


def test_covariance_is_the_formula(data: tuple[Array, Array, Array]) -> None:
    points, _, _ = data
    model = kernel()
    hyper = hyperparameters(model.features)
    basis = model.basis(points)
    expected = direct_matrix(hyper, points, points)
    assert model.covariance(hyper, basis, basis) == pytest.approx(expected, abs=1e-6)
    assert model.variance(hyper, basis) == pytest.approx(np.diag(expected))


def test_posterior_is_that_of_a_dense_computation(data: tuple[Array, Array, Array]) -> None:
    points, values, noise = data
    model = kernel()
    hyper = hyperparameters(model.features)
    where = generator(2, "where").random((5, 7))
    observed = direct_matrix(hyper, points, points) + hyper.noise * np.diag(noise)
    cross = direct_matrix(hyper, where, points)
    inverse = np.linalg.inv(observed)
    mean = cross @ inverse @ values
    covariance = direct_matrix(hyper, where, where) - cross @ inverse @ cross.T

    found, sd = Posterior(model, hyper, whole(points, values, noise)).predict(where)
    assert found == pytest.approx(mean, abs=1e-6)
    assert sd == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-6)


@pytest.mark.parametrize("curves", [0.0, 0.2])
def test_the_mean_alone_is_the_same_mean(data: tuple[Array, Array, Array], curves: float) -> None:
    points, values, noise = data
    model = kernel()
    hyper = msgspec.structs.replace(hyperparameters(model.features), curves=curves)
    posterior = Posterior(model, hyper, whole(points, values, noise))
    where = generator(8, "where").random((30, 7))
    assert posterior.mean(where) == pytest.approx(posterior.predict(where)[0], abs=1e-9)


def test_posterior_gradients_are_those_of_finite_differences(
    data: tuple[Array, Array, Array],
) -> None:
    points, values, noise = data
    model = kernel()
    for curves in (0.0, 0.2):
        hyper = msgspec.structs.replace(hyperparameters(model.features), curves=curves)
        check_gradients(Posterior(model, hyper, whole(points, values, noise)))


def check_gradients(posterior: Posterior) -> None:
    for point in generator(3, "where").random((4, 7)):
        mean, sd, d_mean, d_sd = posterior.predict_with_gradient(point)
        together = posterior.predict(point[None])
        assert (mean, sd) == pytest.approx((together[0][0], together[1][0]))
        for part, gradient in ((0, d_mean), (1, d_sd)):
            numeric = [
                (
                    posterior.predict((point + h)[None])[part]
                    - posterior.predict((point - h)[None])[part]
                )[0]
                / 2e-5
                for h in 1e-5 * np.eye(7)
            ]
            assert gradient == pytest.approx(np.array(numeric), abs=1e-6)


def test_loss_is_the_negative_log_posterior(data: tuple[Array, Array, Array]) -> None:
    points, values, noise = data
    model = kernel()
    loss = Loss(model, whole(points, values, noise))

    def direct(theta: Array) -> float:
        hyper = model.unpack(theta)
        covariance = direct_matrix(hyper, points, points) + hyper.noise * np.diag(noise)
        likelihood = -0.5 * values @ np.linalg.solve(covariance, values)
        likelihood -= 0.5 * np.linalg.slogdet(covariance)[1]
        # Densities of the logarithms of lengths and variances.
        mean, sd = 1.0, math.sqrt(3)
        lengths, rest = theta[: model.features], theta[model.features :]
        prior = -sum((lengths - mean) ** 2 / (2 * sd**2))
        means, sds = np.array([0, -5, -1, -1, -4]), np.array([1.5, 2, 2, 2, 2])
        return float(-likelihood - prior + sum((rest - means) ** 2 / (2 * sds**2)))

    one, other = generator(4, "theta").uniform(-1.0, 1.0, (2, model.features + 5))
    assert loss(one)[0] - loss(other)[0] == pytest.approx(direct(one) - direct(other), abs=1e-6)


def test_loss_gradient_is_that_of_finite_differences(data: tuple[Array, Array, Array]) -> None:
    points, values, noise = data
    model = kernel()
    loss = Loss(model, whole(points, values, noise))
    for theta in generator(5, "theta").uniform(-1.5, 1.5, (3, model.features + 5)):
        numeric = approx_fprime(theta, lambda t: loss(t)[0], 1e-6)
        assert loss(theta)[1] == pytest.approx(numeric, abs=2e-4)


def test_fit_beats_the_prior_and_repeats_itself(data: tuple[Array, Array, Array]) -> None:
    points, _, noise = data
    values = points @ np.arange(7.0) + 0.1 * np.sin(9 * points[:, 0])
    standardized = (values - values.mean()) / values.std()
    observations = whole(points, standardized, noise)
    first, second = (fit(kernel(), observations).hyperparameters for _ in range(2))
    assert first.lengths.tolist() == second.lengths.tolist()
    assert first.noise == second.noise
    loss = Loss(kernel(), observations)
    start = kernel().prior().mean
    assert loss(kernel().pack(first))[0] < loss(start)[0] - 1.0


def test_learns_which_of_the_scores_is_noise() -> None:
    rng = generator(0, "noise")
    points = rng.random((60, 7))
    clean = -((points - 0.4) ** 2).sum(1)
    noisy = clean + 0.5 * clean.std() * rng.normal(size=60)
    quiet, loud = (
        fit(kernel(), whole(points, (y - y.mean()) / y.std(), np.ones(60))).hyperparameters.noise
        for y in (clean, noisy)
    )
    assert quiet < 0.001 < 0.03 < loud < 0.5


def test_hills_of_single_blocks_are_learned_from_exact_scores() -> None:
    rng = generator(6, "hills")
    points, elsewhere = rng.random((60, 7)), rng.random((300, 7))

    def score(x: Array) -> Array:
        return np.asarray(np.cos(4.0 * np.pi * (x - 0.45)).sum(1) - 4.0 * ((x - 0.45) ** 2).sum(1))

    seen = score(points)
    found = fit(kernel(), whole(points, (seen - seen.mean()) / seen.std(), np.ones(60)))
    assert np.corrcoef(found.mean(elsewhere), score(elsewhere))[0, 1] > 0.95


def test_noise_does_not_pass_for_hills() -> None:
    rng = generator(0, "noise")
    points = rng.random((60, 7))
    clean = -((points - 0.4) ** 2).sum(1)
    scores = clean + 0.5 * clean.std() * rng.normal(size=60)
    found = fit(kernel(), whole(points, (scores - scores.mean()) / scores.std(), np.ones(60)))
    assert found.hyperparameters.noise > 0.03
    assert found.hyperparameters.curves < 1e-4


def test_a_noisier_observation_counts_less(data: tuple[Array, Array, Array]) -> None:
    points, values, _ = data
    model = kernel()
    hyper = hyperparameters(model.features)
    noise = np.ones(12)
    noise[0] = 50.0
    sure = Posterior(model, hyper, whole(points, values, np.ones(12))).predict(points[:1])
    unsure = Posterior(model, hyper, whole(points, values, noise)).predict(points[:1])
    assert abs(unsure[0][0] - values[0]) > abs(sure[0][0] - values[0])
    assert unsure[1][0] > sure[1][0]


def test_believing_keeps_the_mean_and_removes_the_doubt(data: tuple[Array, Array, Array]) -> None:
    points, values, noise = data
    model = kernel()
    posterior = Posterior(model, hyperparameters(model.features), whole(points, values, noise))
    rng = generator(8, "where")
    waiting, elsewhere = rng.random((2, 7)), rng.random((4, 7))
    believed = posterior.believing(waiting)
    assert believed.predict(elsewhere)[0] == pytest.approx(posterior.predict(elsewhere)[0])
    assert np.all(believed.predict(waiting)[1] < 0.5 * posterior.predict(waiting)[1])
    assert posterior.believing(np.empty((0, 7))) is posterior
