from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import norm

from lib_automerge.search.acquisition import (
    Acquisition,
    LogExpectedImprovement,
    Shunned,
    UpperConfidenceBound,
    best_known,
    log_improvement,
    most_promising,
)
from lib_automerge.search.kernel import Hyperparameters, Kernel, group_features
from lib_automerge.search.randomness import generator
from lib_automerge.search.surrogate import Observations, Posterior, fit


@pytest.mark.parametrize(
    ("mean", "sd", "best"), [(0.3, 0.5, 0.1), (-1.0, 0.4, 0.2), (0.0, 1.0, 4.0), (2.0, 0.1, 0.0)]
)
def test_log_ei_is_the_integral(mean: float, sd: float, best: float) -> None:
    expected, _ = quad(
        lambda y: (y - best) * norm.pdf(y, mean, sd), best, max(best, mean) + 12 * sd, epsabs=0
    )
    value = LogExpectedImprovement(best).value(np.array([mean]), np.array([sd]))
    assert value[0] == pytest.approx(math.log(expected), abs=1e-7)


@pytest.mark.parametrize("u", [-5.0, -30.0, -200.0, -9e3, -2e4, -1e6])
def test_log_improvement_far_below_follows_its_expansion(u: float) -> None:
    # phi(u)/u^2 (1 - 3/u^2 + 15/u^4 - 105/u^6), Abramowitz and Stegun 26.2.12
    series = 1 - 3 / u**2 + 15 / u**4 - 105 / u**6
    expected = norm.logpdf(u) - 2 * math.log(-u) + math.log(series)
    tolerance = 5e-3 if u == -5.0 else 1e-6
    assert log_improvement(np.array([u]))[0] == pytest.approx(expected, rel=tolerance)


def test_log_improvement_has_no_steps_where_its_formulas_meet() -> None:
    for u in (-1.0, -1e4):
        below, above = log_improvement(np.array([u * (1 + 1e-9), u * (1 - 1e-9)]))
        assert above > below
        assert above - below < 4e-9 * u * u + 1e-6


@pytest.mark.parametrize(
    "acquisition", [LogExpectedImprovement(0.4), UpperConfidenceBound(), UpperConfidenceBound(0.5)]
)
@pytest.mark.parametrize(("mean", "sd"), [(0.5, 0.3), (-2.0, 0.2), (0.39, 1e-3), (-40.0, 0.5)])
def test_slopes_are_those_of_finite_differences(
    acquisition: Acquisition, mean: float, sd: float
) -> None:
    value, by_mean, by_sd = acquisition.slopes(mean, sd)
    h = 1e-6 * sd
    means, sds = np.array([mean, mean + h, mean - h]), np.array([sd, sd + h, sd - h])
    at_means = acquisition.value(means, np.full(3, sd))
    at_sds = acquisition.value(np.full(3, mean), sds)
    assert value == pytest.approx(at_means[0])
    assert by_mean == pytest.approx((at_means[1] - at_means[2]) / (2 * h), rel=1e-4)
    assert by_sd == pytest.approx((at_sds[1] - at_sds[2]) / (2 * h), rel=1e-4)


def posterior() -> Posterior:
    rng = generator(0, "data")
    points = rng.random((30, 4))
    values = -((points - np.array([0.2, 0.7, 1.2, 0.5])) ** 2).sum(1)
    return fit(
        Kernel(group_features("abcd", {})), Observations(points, values, np.ones(30), np.zeros(30))
    )


@pytest.mark.parametrize("bound", [True, False])
def test_most_promising_is_as_good_as_a_dense_search(bound: bool) -> None:
    model = posterior()
    best, around = best_known(model)
    acquisition = UpperConfidenceBound() if bound else LogExpectedImprovement(best)
    found = most_promising(model, acquisition, around, generator(0, "search"))
    assert np.all((found >= 0) & (found <= 1))
    dense = generator(1, "dense").random((50_000, 4))
    reached = acquisition.value(*model.predict(found[None]))[0]
    assert reached >= acquisition.value(*model.predict(dense)).max()


@pytest.mark.parametrize("bound", [True, False])
def test_most_promising_is_at_a_top_where_little_is_known(bound: bool) -> None:
    rng = generator(0, "data")
    points = rng.random((14, 4))
    values = -((points - 0.5) ** 2).sum(1) + 0.3 * rng.normal(size=14)
    observations = Observations(points, values, np.ones(14), np.zeros(14))
    model = fit(Kernel(group_features("abcd", {})), observations)
    best, around = best_known(model)
    acquisition = UpperConfidenceBound() if bound else LogExpectedImprovement(best)
    found = most_promising(model, acquisition, around, generator(0, "search"))
    beside = np.clip(found + 0.01 * rng.normal(size=(500, 4)), 0.0, 1.0)
    reached = acquisition.value(*model.predict(found[None]))[0]
    assert reached >= acquisition.value(*model.predict(beside)).max() - 1e-6


def test_most_promising_looks_around_the_best_known_points() -> None:
    """A narrow hill in many dimensions, from which nothing leads to a random point."""
    rng = generator(0, "data")
    points = rng.random((40, 20))
    values = np.where(np.arange(40) == 7, 3.0, 0.0)
    hyper = Hyperparameters(np.full(20, 0.1), 1.0, 1e-4, 0.0, 0.0, 0.0)
    kernel = Kernel(group_features([f"x{n}" for n in range(20)], {}))
    model = Posterior(kernel, hyper, Observations(points, values, np.ones(40), np.zeros(40)))
    _, around = best_known(model)
    found = most_promising(model, UpperConfidenceBound(), around, generator(0, "search"))
    assert float(np.linalg.norm(found - points[7])) < 0.2
    mean, _ = model.predict(found[None])
    assert mean[0] > 2.0


def test_best_known_is_the_best_mean_not_the_luckiest_score() -> None:
    rng = generator(2, "data")
    points = rng.random((40, 4))
    truth = -((points - 0.5) ** 2).sum(1)
    values = truth + 0.1 * rng.normal(size=40)
    lucky = int(np.argsort(truth)[20])
    values[lucky] = values.max() + 0.01
    model = fit(
        Kernel(group_features("abcd", {})), Observations(points, values, np.ones(40), np.zeros(40))
    )
    best, around = best_known(model)
    means = model.predict(points)[0]
    assert around.tolist() == points[np.argsort(-means)[:3]].tolist()
    assert around[0].tolist() != points[lucky].tolist()
    assert best == pytest.approx(means.max())


def test_what_broke_is_kept_away_from() -> None:
    rng = generator(5, "shunned")
    points = rng.random((40, 4))
    values = -((points - 0.5) ** 2).sum(1)
    values = (values - values.mean()) / values.std()
    model = fit(
        Kernel(group_features("abcd", {})),
        Observations(points, values, np.ones(40), np.zeros(40)),
    )
    best, around = best_known(model)
    shunned = Shunned(np.full((1, 4), 0.5), 5.0)

    def asked(shunned: Shunned | None) -> float:
        rng = generator(0, "search")
        found = most_promising(model, LogExpectedImprovement(best), around, rng, None, shunned)
        return float(np.linalg.norm(found - 0.5))

    assert asked(None) < 0.03 < 0.06 < asked(shunned)


def test_the_gradient_of_what_is_shunned_is_that_of_finite_differences() -> None:
    rng = generator(6, "shunned")
    shunned = Shunned(rng.random((3, 4)), 2.0)
    for center in shunned.points:
        point = center + 0.05 * rng.normal(size=4)
        numeric = approx_fprime(point, lambda x: -float(shunned.bumps(x[None]).sum()), 1e-7)
        assert -shunned.gradient(point) == pytest.approx(numeric, abs=1e-4)
