"""The doubt about the hyperparameters: draws of a known density, and honest errors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lib_automerge.search.ensemble import draws, ensemble
from lib_automerge.search.kernel import Hyperparameters, Kernel, Prior
from lib_automerge.search.randomness import generator
from lib_automerge.search.surrogate import Observations, Posterior, fit

Array = NDArray[np.float64]


def kernel_of(dimension: int) -> Kernel:
    return Kernel(np.zeros((0, dimension)))


def observed(points: Array, values: Array) -> Observations:
    spread = (values - values.mean()) / values.std()
    count = len(values)
    return Observations(points, spread, np.ones(count), np.zeros(count))


def test_draws_have_the_mean_and_the_covariance_of_the_density() -> None:
    covariance = np.array([[1.0, 0.8, 0.0], [0.8, 2.0, 0.0], [0.0, 0.0, 0.01]])
    precision, mode = np.linalg.inv(covariance), np.array([1.0, -2.0, 3.0])

    def loss(theta: Array) -> tuple[float, Array]:
        away = theta - mode
        return 0.5 * float(away @ precision @ away), precision @ away

    prior = Prior(np.zeros(3), np.full(3, 9.0), [(-50.0, 50.0)] * 3)
    found = np.vstack([draws(loss, prior, mode, generator(0, "t", k)) for k in range(40)])
    assert found.mean(axis=0) == pytest.approx(mode, abs=0.15)
    assert np.cov(found.T) == pytest.approx(covariance, abs=0.25)
    assert found[:, 2].std() == pytest.approx(0.1, rel=0.2)
    # the dynamics keep the energy, so hardly a step is refused
    assert len(set(found[:, 0])) > 0.97 * len(found)


def test_draws_are_right_where_the_mode_misleads() -> None:
    """exp(-t^4 / 4) is nearly flat at its mode, so the steps are far too long for its walls."""
    prior = Prior(np.zeros(1), np.full(1, 3.0), [(-50.0, 50.0)])

    def loss(theta: Array) -> tuple[float, Array]:
        return 0.25 * float(theta[0] ** 4), theta**3

    found = np.vstack([draws(loss, prior, np.zeros(1), generator(0, "w", k)) for k in range(200)])
    # E t^2 = 2 Gamma(3/4) / Gamma(1/4)
    assert float(np.mean(found**2)) == pytest.approx(0.676, rel=0.1)
    assert float(np.mean(found**4)) == pytest.approx(1.0, rel=0.15)


def test_a_component_at_its_bound_stays_there_and_a_hopeless_density_leaves_the_mode() -> None:
    prior = Prior(np.zeros(2), np.ones(2), [(-1.0, 5.0), (-5.0, 5.0)])

    def loss(theta: Array) -> tuple[float, Array]:
        return 0.5 * float(theta @ theta), theta

    found = draws(loss, prior, np.array([-1.0, 0.0]), generator(0, "t"))
    assert set(found[:, 0]) == {-1.0}
    assert found[:, 1].std() > 0.5

    def broken(theta: Array) -> tuple[float, Array]:
        if abs(theta[1]) > 0.01:
            raise np.linalg.LinAlgError
        return 0.5 * float(theta @ theta), theta

    walled = draws(broken, prior, np.zeros(2), generator(0, "t"))
    assert np.abs(walled[:, 1]).max() <= 0.01


def test_errors_grow_by_what_the_draws_disagree_about() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((14, 4))
    data = observed(points, np.sin(4.0 * points[:, 0]) + 0.2 * rng.standard_normal(14))
    posterior = fit(kernel_of(4), data)
    believed = ensemble(posterior)
    somewhere = rng.random((6, 4))
    means = np.array([p.predict(somewhere)[0] for p in believed.posteriors])
    variances = np.array([p.predict(somewhere)[1] ** 2 for p in believed.posteriors])
    mean, sd = believed.contrasts(somewhere, np.eye(6))
    assert mean == pytest.approx(means.mean(axis=0))
    assert sd**2 == pytest.approx(variances.mean(axis=0) + means.var(axis=0))
    assert believed.mean(somewhere) == pytest.approx(mean)
    assert np.ptp(means, axis=0).min() > 0
    # a difference of two points has the variance of both and of what they share
    apart, error = believed.contrasts(somewhere[:2], np.array([[1.0, -1.0]]))
    assert apart[0] == pytest.approx(mean[0] - mean[1])
    assert error[0] < sd[0] + sd[1]
    again = ensemble(posterior)
    assert np.array_equal(believed.thetas, again.thetas)


@pytest.mark.parametrize("curves", [0.0, 0.4])
def test_sums_have_the_moments_of_the_joint_posterior(curves: float) -> None:
    rng = np.random.default_rng(1)
    points = rng.random((20, 3))
    data = observed(points, np.cos(9.0 * points).sum(1))
    kernel = kernel_of(3)
    hyper = Hyperparameters(np.array([0.5, 1.0, 2.0]), 0.7, 0.1, 0.3, 0.2, curves)
    posterior = Posterior(kernel, hyper, data)
    somewhere, weights = rng.random((5, 3)), rng.standard_normal((2, 5))
    seen, new = kernel.basis(points), kernel.basis(somewhere)
    known = kernel.covariance(hyper, seen, seen) + np.diag(hyper.noise * data.noise + data.error)
    cross = kernel.covariance(hyper, new, seen) @ np.linalg.inv(known)
    joint = kernel.covariance(hyper, new, new) - cross @ kernel.covariance(hyper, seen, new)
    mean, variance = posterior.sums(new, weights)
    assert mean == pytest.approx(weights @ cross @ data.values, abs=1e-6)
    assert variance == pytest.approx(np.diag(weights @ joint @ weights.T), abs=1e-6)


def test_intervals_cover_functions_of_the_prior() -> None:
    kernel = kernel_of(3)
    prior = kernel.prior()
    covered = trusted = total = 0
    for case in range(40):
        rng = np.random.default_rng(case)
        theta = np.clip(prior.mean + 0.7 * prior.sd * rng.standard_normal(8), *prior_box(prior))
        hyper = kernel.unpack(theta)
        points = rng.random((32, 3))
        basis = kernel.basis(points)
        covariance = kernel.covariance(hyper, basis, basis) + 1e-9 * np.eye(32)
        truth = np.linalg.cholesky(covariance) @ rng.standard_normal(32)
        noisy = truth + np.sqrt(hyper.noise) * rng.standard_normal(32)
        seen, asked = slice(0, 14), slice(14, 32)
        data = observed(points[seen], noisy[seen])
        posterior: Posterior = fit(kernel, data)
        target = (truth[asked] - noisy[seen].mean()) / noisy[seen].std()
        mean, sd = ensemble(posterior).contrasts(points[asked], np.eye(18))
        alone, narrow = posterior.predict(points[asked])
        covered += int((np.abs(target - mean) < 1.96 * sd).sum())
        trusted += int((np.abs(target - alone) < 1.96 * narrow).sum())
        total += 18
    assert 0.88 < covered / total < 0.99
    assert covered > trusted


def prior_box(prior: Prior) -> tuple[Array, Array]:
    low, high = np.array(prior.bounds).T
    return low, high
