from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_automerge.domain import aggregation
from lib_automerge.domain.aggregation import (
    across_payloads,
    across_rewards,
    error_across_payloads,
    error_of_mean,
    tilted,
    weighted_median,
    worst,
)

VALUES = st.lists(st.floats(-4, 4), min_size=1, max_size=9)
WEIGHTS = st.floats(0.01, 100)


@st.composite
def weighted(draw: st.DrawFn, most: int = 9) -> tuple[list[float], list[float]]:
    values = draw(st.lists(st.floats(-4, 4), min_size=1, max_size=most))
    return values, draw(st.lists(WEIGHTS, min_size=len(values), max_size=len(values)))


def test_disagreement_costs_half_a_sample_standard_deviation() -> None:
    # By hand: mean 1, squares 1 + 0 + 1 over 2.
    assert across_rewards([0.0, 1.0, 2.0], [1, 1, 1]) == pytest.approx(1 - 0.5)
    assert across_rewards([0.0, 2.0], [5, 5]) == pytest.approx(1 - 0.5 * math.sqrt(2))
    assert across_rewards([0.7], [3]) == 0.7
    assert across_rewards([0.7, 0.7, 0.7], [1, 2, 3]) == pytest.approx(0.7)


def test_weights_count_as_shares() -> None:
    # By hand: shares 1/2, 1/4, 1/4; mean 1; squares 1/2 + 1/4 + 1/4 over 1 - 3/8; the caution is
    # sqrt(1/4 * 5/8 / (3/4)).
    caution = math.sqrt(5 / 24)
    assert caution < 0.5
    expected = 1 - caution * math.sqrt(1 / (5 / 8))
    assert across_rewards([0.0, 2.0, 2.0], [2, 1, 1]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "weights", "median"),
    [
        ([3.0, 1.0, 2.0], [1, 1, 1], 2.0),
        ([4.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], 2.5),
        ([1.0, 2.0, 9.0], [1, 1, 3], 9.0),
        ([1.0, 2.0, 9.0], [1, 1, 2], 5.5),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], 2.5),
        ([5.0], [0.1], 5.0),
    ],
)
def test_weighted_median(values: list[float], weights: list[float], median: float) -> None:
    assert weighted_median(values, weights) == pytest.approx(median)


def test_four_rewards_are_judged_by_their_median() -> None:
    assert across_rewards([0.0, 1.0, 2.0, 99.0], [1, 1, 1, 1]) == 1.5
    assert across_rewards([0.0, 1.0, 2.0, 99.0], [1, 1, 1, 9]) == 99.0


@given(weighted(most=6), st.data())
def test_a_better_score_never_lowers_the_value(
    one: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    values, weights = one
    position = data.draw(st.integers(0, len(values) - 1))
    better = list(values)
    better[position] += data.draw(st.floats(0, 8))
    for combine in (across_rewards, across_payloads):
        assert combine(better, weights) >= combine(values, weights) - 1e-9


@given(weighted(), st.floats(0.1, 10), st.floats(-5, 5), st.randoms())
def test_all_follow_the_units_and_ignore_the_order(
    one: tuple[list[float], list[float]], factor: float, shift: float, random_: random.Random
) -> None:
    values, weights = one
    order = list(range(len(values)))
    random_.shuffle(order)
    for combine in (across_rewards, across_payloads, worst):
        expected = factor * combine(values, weights) + shift
        moved = [factor * values[i] + shift for i in order]
        again = combine(moved, [3 * weights[i] for i in order])
        assert again == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        # eight payloads: the worst two
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [1] * 8, 1.5),
        # six: the worst and half of the next, (1 + 2 / 2) / 1.5
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1] * 6, 4 / 3),
        # three: the worst alone
        ([1.0, 2.0, 3.0], [1] * 3, 1.0),
        # weights 1, 1, 8 of 10: a quarter is 2.5, so 1, 1 and 0.5 of the heavy one
        ([1.0, 2.0, 3.0], [1, 1, 8], (1 + 2 + 0.5 * 3) / 2.5),
        ([2.0], [7], 2.0),
    ],
)
def test_the_worst_quarter_by_hand(
    values: list[float], weights: list[float], expected: float
) -> None:
    assert worst(values, weights) == pytest.approx(expected)
    mean = sum(w * v for v, w in zip(values, weights)) / sum(weights)
    assert across_payloads(values, weights) == pytest.approx(0.7 * mean + 0.3 * expected)


@given(VALUES, st.integers(2, 4))
def test_a_weight_of_two_is_two_payloads(values: list[float], times: int) -> None:
    weights = [times] + [1] * (len(values) - 1)
    repeated = [values[0]] * (times - 1) + values
    assert across_payloads(values, weights) == pytest.approx(
        across_payloads(repeated, [1] * len(repeated)), abs=1e-9
    )


@given(weighted())
def test_tilted_shares_give_the_same_total(one: tuple[list[float], list[float]]) -> None:
    values, weights = one
    shares = tilted(values, weights)
    assert sum(shares) == pytest.approx(1)
    assert sum(s * v for s, v in zip(shares, values)) == pytest.approx(
        across_payloads(values, weights), abs=1e-9
    )


def test_a_single_value_has_no_error() -> None:
    assert math.isnan(error_across_payloads([1.0], [1]))
    assert math.isnan(error_of_mean([1.0], [1]))


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    values = [1.0, 2.0, 3.0, 6.0]
    assert error_of_mean(values, [2] * 4) == pytest.approx(math.sqrt(14 / 3 / 4))


@pytest.mark.parametrize("weights", [[1.0] * 5, [1.0] * 12, [3.0] * 4 + [1.0] * 8])
def test_the_error_is_the_spread_over_draws_of_payloads(
    weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(len(weights))
    totals, squares = [], []
    for _ in range(1500):
        values = [random_.gauss(0, 1) for _ in weights]
        totals.append(across_payloads(values, weights))
        squares.append(error_across_payloads(values, weights) ** 2)
    assert math.sqrt(statistics.fmean(squares)) == pytest.approx(statistics.stdev(totals), rel=0.08)
    # without the tail it is the textbook error, exactly, for equal weights
    monkeypatch.setattr(aggregation, "TAIL_SHARE", 0.0)
    if len(set(weights)) == 1:
        assert error_across_payloads(values, weights) == pytest.approx(
            error_of_mean(values, weights)
        )
