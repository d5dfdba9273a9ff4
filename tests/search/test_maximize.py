from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

import lib_automerge.search
from lib_automerge.errors import ConfigError, SearchError
from lib_automerge.search import maximize
from lib_automerge.search.randomness import generator

PLANE = {"x": (0.0, 1.0), "y": (-1.0, 1.0)}


def bowl(values: dict[str, float]) -> float:
    return 2.0 - (values["x"] - 0.3) ** 2 - (values["y"] + 0.5) ** 2


def test_the_public_names() -> None:
    assert lib_automerge.search.__all__ == ["SearchResult", "maximize"]


def test_finds_the_top_of_a_bowl() -> None:
    result = maximize(bowl, PLANE, evaluations=25)
    assert result.best_y > 2.0 - 1e-3
    assert result.best_x == pytest.approx({"x": 0.3, "y": -0.5}, abs=0.05)
    assert [e.number for e in result.history] == list(range(1, 26))
    assert result.best_y == max(e.score for e in result.history if e.score is not None)
    assert result.best_y == bowl(result.best_x)


def test_repeats_itself_and_follows_its_seed() -> None:
    one, same, other = (maximize(bowl, PLANE, evaluations=12, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("optimizer", ["bayes", "sobol", "random"])
def test_a_longer_search_begins_like_a_shorter_one(optimizer: str) -> None:
    short, long = (maximize(bowl, PLANE, optimizer=optimizer, evaluations=n) for n in (11, 14))
    assert long.history[:11] == short.history


def test_initial_values_come_first_and_unchanged() -> None:
    initial = [{"x": 0.123456789, "y": -0.5}, {"y": 1.0, "x": 0.0}]
    result = maximize(bowl, PLANE, evaluations=10, initial=iter(initial))
    assert [e.weights for e in result.history[:2]] == initial
    assert len(result.history) == 10
    assert len(maximize(bowl, PLANE, evaluations=1, initial=initial).history) == 1


@pytest.mark.parametrize("failure", [None, math.nan, math.inf, -math.inf])
def test_failures_are_recorded_and_avoided(failure: float | None) -> None:
    def half_broken(values: dict[str, float]) -> float | None:
        return failure if values["x"] > 0.5 else bowl(values)

    result = maximize(half_broken, PLANE, evaluations=25)
    broken = [e for e in result.history if e.rejected is not None]
    assert all(e.score is None and e.weights["x"] > 0.5 for e in broken)
    assert broken[0].rejected == f"the objective returned {failure}"
    assert result.best_y > 2.0 - 1e-2
    assert sum(e.weights["x"] > 0.5 for e in result.history[12:]) <= 4


def test_only_failures_are_an_error() -> None:
    with pytest.raises(SearchError, match="all 9 failed"):
        maximize(lambda _: None, PLANE, evaluations=9)


def test_an_exception_of_the_objective_is_passed_on() -> None:
    def broken(values: dict[str, float]) -> float:
        raise ZeroDivisionError

    for parallel in (1, 3):
        with pytest.raises(ZeroDivisionError):
            maximize(broken, PLANE, evaluations=9, parallel=parallel)


def test_parallel_evaluations_overlap_and_differ() -> None:
    lock = threading.Lock()
    active: list[int] = [0, 0]

    def slow(values: dict[str, float]) -> float:
        with lock:
            active[0] += 1
            active[1] = max(active)
        time.sleep(0.02)
        with lock:
            active[0] -= 1
        return bowl(values)

    result = maximize(slow, PLANE, evaluations=24, parallel=4)
    assert active[1] == 4
    assert [e.number for e in result.history] == list(range(1, 25))
    assert len({tuple(e.weights.values()) for e in result.history}) == 24
    assert result.best_y > 2.0 - 1e-2


def test_one_evaluation_at_a_time_stays_in_the_calling_thread() -> None:
    threads = set()

    def objective(values: dict[str, float]) -> float:
        threads.add(threading.current_thread())
        return bowl(values)

    maximize(objective, PLANE, evaluations=4)
    assert threads == {threading.current_thread()}


def test_any_scale_works() -> None:
    space = {"rate": (1e-6, 1e-4), "size": (10.0, 5000.0)}

    def objective(values: dict[str, float]) -> float:
        return -abs(values["rate"] - 3e-5) / 1e-4 - abs(values["size"] - 1234) / 5000

    result = maximize(objective, space, evaluations=30)
    assert result.best_y > -0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "baies"}, "Did you mean 'bayes'"),
        ({"evaluations": 0}, "evaluations is 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"seed": -1}, "negative"),
        ({"initial": [{"x": 0.5}]}, "not in the space"),
        ({"initial": [{"x": 0.5, "y": 3.0}]}, "not in the space"),
        ({"initial": [{"x": 0.5, "y": math.nan}]}, "not in the space"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        maximize(bowl, PLANE, **{"evaluations": 4, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beats_sobol_clearly_in_27_dimensions(seed: int) -> None:
    # A smooth, noisy profile of best weights, with blocks of very different importance.
    rng = generator(seed, "landscape")
    optimum = np.clip(0.5 + 0.5 * np.sin(np.linspace(0, 4, 27) + rng.uniform(0, 6)), 0, 1)
    importance = rng.lognormal(0.0, 0.8, 27)

    def truth(values: dict[str, float]) -> float:
        return -float(importance @ (np.array(list(values.values())) - optimum) ** 2)

    def objective(values: dict[str, float]) -> float:
        return truth(values) + 0.05 * rng.normal()

    space = {f"block{n:02d}": (0.0, 1.0) for n in range(27)}
    found = {
        name: maximize(objective, space, optimizer=name, evaluations=60, seed=seed)
        for name in ("bayes", "sobol")
    }
    assert truth(found["bayes"].best_x) > 0.35 * truth(found["sobol"].best_x)


def test_the_luckiest_draw_is_not_handed_out() -> None:
    rng = generator(8, "noise")

    def noisy(values: dict[str, float]) -> float:
        return bowl(values) + 0.3 * float(rng.normal())

    result = maximize(noisy, PLANE, optimizer="sobol", evaluations=60)
    lucky = max(result.history, key=lambda e: e.score or -9.0)
    assert bowl(result.best_x) > bowl(lucky.weights)
    assert result.best_y == next(e.score for e in result.history if e.weights == result.best_x)


def test_a_score_may_come_with_its_standard_error() -> None:
    def told(values: dict[str, float]) -> tuple[float, float]:
        return bowl(values), 0.1

    result = maximize(told, PLANE, evaluations=9)
    assert [e.standard_error for e in result.history] == [0.1] * 9
    assert result.best_y == bowl(result.best_x)


@pytest.mark.parametrize("error", [0.0, math.nan, math.inf])
def test_a_standard_error_that_says_nothing_is_left_out(error: float) -> None:
    result = maximize(lambda values: (bowl(values), error), PLANE, evaluations=8)
    assert {e.standard_error for e in result.history} == {None}


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e9, 0.0), (1.0, -1e6)])
def test_any_scale_of_scores_is_searched_alike(scale: float, offset: float) -> None:
    result = maximize(lambda values: offset + scale * bowl(values), PLANE, evaluations=25)
    assert result.best_x == pytest.approx({"x": 0.3, "y": -0.5}, abs=0.05)


@pytest.mark.parametrize("corner", [{"x": 0.0, "y": -1.0}, {"x": 1.0, "y": 1.0}])
def test_a_corner_may_be_the_best(corner: dict[str, float]) -> None:
    def score(values: dict[str, float]) -> float:
        return -sum((values[name] - corner[name]) ** 2 for name in corner)

    assert maximize(score, PLANE, evaluations=25).best_x == pytest.approx(corner, abs=0.02)


def test_a_constant_objective_is_searched_to_the_end() -> None:
    result = maximize(lambda _: 1.0, PLANE, evaluations=25)
    assert len(result.history) == 25
    assert result.best_y == 1.0


def test_a_range_without_width_is_left_alone() -> None:
    result = maximize(
        lambda values: -((values["x"] - 0.3) ** 2) + values["y"],
        {"x": (0.0, 1.0), "y": (2.0, 2.0)},
        evaluations=15,
    )
    assert {e.weights["y"] for e in result.history} == {2.0}
    with pytest.raises(ConfigError, match="nothing is left to search: 1 range without width"):
        maximize(bowl, {"y": (2.0, 2.0)}, evaluations=5)


def test_a_budget_may_be_smaller_than_the_start_design() -> None:
    assert len(maximize(bowl, PLANE, evaluations=2).history) == 2
