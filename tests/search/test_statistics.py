from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib_automerge.errors import ConfigError
from lib_automerge.search.randomness import generator
from lib_automerge.search.statistics import ENOUGH_PAYLOADS, compare, summarize

FIVE = ("p1", "p2", "p3", "p4", "p5")
EVEN = dict.fromkeys(FIVE, 1.0)


def test_mean_and_error_over_images_when_payloads_are_few() -> None:
    # By hand: images 1, 2, 3, 6; mean 3; squares 4 + 1 + 0 + 9 = 14; sqrt(14 / 3 / 4).
    summary = summarize({"a": [1.0, 2.0], "b": [3.0, 6.0]}, {"a": 1.0, "b": 1.0})
    assert summary.mean == 3.0
    assert summary.standard_error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert summary.images == 4
    assert summary.per_payload == {"a": 1.5, "b": 4.5}


def test_error_over_payloads_when_there_are_five() -> None:
    # By hand: payload means 1 to 5; mean 3; variance 2.5; sqrt(2.5 / 5).
    scores = {name: [n - 0.5, n + 0.5] for n, name in enumerate(FIVE, start=1)}
    summary = summarize(scores, EVEN)
    assert summary.mean == pytest.approx(3.0)
    assert summary.standard_error == pytest.approx(math.sqrt(0.5))
    assert summary.standard_error == pytest.approx(stats.sem([1, 2, 3, 4, 5]))
    assert summary.images == 10


def test_weights_are_shares_in_any_unit() -> None:
    # By hand: shares 3/4 and 1/4; mean 0.75 * 1.5 + 0.25 * 4.5 = 2.25.
    scores = {"a": [1.0, 2.0], "b": [3.0, 6.0]}
    summary = summarize(scores, {"a": 3.0, "b": 1.0, "unused": 9.0})
    assert summary.mean == pytest.approx(2.25)
    assert summary == summarize(scores, {"a": 0.3, "b": 0.1})
    # Shares of images 3/8, 3/8, 1/8, 1/8; sum of squares 5/16, so the factor is 5/11.
    squares = (3 * 1.25**2 + 3 * 0.25**2 + 0.75**2 + 3.75**2) / 8
    assert summary.standard_error == pytest.approx(math.sqrt(5 / 11 * squares))


def test_uneven_numbers_of_images_do_not_shift_the_mean() -> None:
    summary = summarize({"a": [1.0, 1.0, 1.0], "b": [3.0]}, {"a": 1.0, "b": 1.0})
    assert summary.mean == pytest.approx(2.0)


def test_a_single_image_has_no_error() -> None:
    summary = summarize({"a": [-0.7]}, {"a": 2.0})
    assert summary.mean == -0.7
    assert math.isnan(summary.standard_error)


def test_the_error_is_unbiased_with_uneven_weights() -> None:
    rng = generator(0, "test")
    weights = dict(zip(FIVE, (1.0, 1.0, 2.0, 3.0, 5.0), strict=True))
    summaries = [
        summarize({name: [value] for name, value in zip(FIVE, draw, strict=True)}, weights)
        for draw in rng.normal(size=(4000, 5)).tolist()
    ]
    true = np.var([s.mean for s in summaries])
    assert np.mean([s.standard_error**2 for s in summaries]) == pytest.approx(true, rel=0.08)


@pytest.mark.parametrize(
    ("scores", "weights", "message"),
    [
        ({}, {}, "there are no scores"),
        ({"a": []}, {"a": 1.0}, "payload 'a' has no scores"),
        ({"a": [math.nan]}, {"a": 1.0}, "payload 'a' has the score nan"),
        ({"a": [math.inf]}, {"a": 1.0}, "payload 'a' has the score inf"),
        ({"a": [1.0]}, {}, "weight of payload 'a' is None"),
        ({"a": [1.0]}, {"a": 0.0}, "weight of payload 'a' is 0.0"),
    ],
)
def test_what_cannot_be_summarized_is_refused(
    scores: dict[str, list[float]], weights: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        summarize(scores, weights)


def pairs(differences: dict[str, list[float]]) -> tuple[dict[tuple[str, int], float], ...]:
    """Scores of a winner and a baseline that differ by these numbers."""
    keys = [(name, seed) for name, values in differences.items() for seed in range(len(values))]
    base = {key: float(value) for key, value in zip(keys, generator(1, "b").normal(size=99))}
    return {key: base[key] + differences[key[0]][key[1]] for key in keys}, base


def test_few_payloads_are_compared_image_by_image() -> None:
    values = [0.1, 0.3, -0.1, 0.5]
    winner, baseline = pairs({"a": values[:2], "b": values[2:]})
    result = compare(winner, baseline, {"a": 1.0, "b": 1.0})
    reference = stats.ttest_1samp(values, 0.0, alternative="greater")
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert result.difference == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(stats.sem(values))
    assert result.p_value == pytest.approx(reference.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.pairs == 4


def test_five_payloads_are_compared_payload_by_payload() -> None:
    means = [0.1, 0.3, -0.1, 0.5, 0.2]
    winner, baseline = pairs(
        {name: [m - 1.0, m + 1.0] for name, m in zip(FIVE, means, strict=True)}
    )
    result = compare(winner, baseline, EVEN)
    reference = stats.ttest_1samp(means, 0.0, alternative="greater")
    assert result.difference == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(stats.sem(means))
    assert result.p_value == pytest.approx(reference.pvalue)
    assert result.pairs == 10


def test_uneven_weights_leave_fewer_degrees_of_freedom() -> None:
    # Shares 0.1, 0.1, 0.2, 0.2, 0.4: sum of squares 0.26, effective number 1 / 0.26.
    weights = dict(zip(FIVE, (1.0, 1.0, 2.0, 2.0, 4.0), strict=True))
    values = [0.1, 0.3, -0.1, 0.5, 0.2]
    winner, baseline = pairs({name: [v] for name, v in zip(FIVE, values, strict=True)})
    result = compare(winner, baseline, weights)
    freedom = 1 / 0.26 - 1
    squares = 0.1 * 0.1**2 + 0.1 * 0.1**2 + 0.2 * 0.3**2 + 0.2 * 0.3**2
    assert result.difference == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(math.sqrt(0.26 / 0.74 * squares))
    assert result.high == pytest.approx(0.2 + stats.t.ppf(0.975, freedom) * result.standard_error)
    assert result.p_value == pytest.approx(stats.t.sf(0.2 / result.standard_error, freedom))


def test_a_loss_has_a_high_p_value() -> None:
    winner, baseline = pairs({"a": [0.1, 0.3], "b": [0.2, 0.4]})
    gain, loss = (
        compare(*order, {"a": 1.0, "b": 1.0}) for order in ((winner, baseline), (baseline, winner))
    )
    assert gain.p_value + loss.p_value == pytest.approx(1.0)
    assert loss.difference == pytest.approx(-gain.difference)
    assert loss.p_value > 0.5 > gain.p_value


def test_pairing_removes_what_prompts_have_in_common() -> None:
    rng = generator(2, "test")
    hard = rng.normal(0, 5, 8)
    baseline = {(f"p{i}", 0): float(value) for i, value in enumerate(hard)}
    winner = {key: value + 0.1 + 0.05 * rng.normal() for key, value in baseline.items()}
    weights = {name: 1.0 for name, _ in baseline}
    assert compare(winner, baseline, weights).p_value < 0.05


def test_equal_differences_are_decided_by_their_sign() -> None:
    # Powers of two, so that subtraction leaves no rounding error.
    base = {("a", 0): 0.5, ("a", 1): 2.0}
    better = {key: value + 0.25 for key, value in base.items()}
    gain, same, loss = (
        compare(one, other, {"a": 1.0})
        for one, other in ((better, base), (base, base), (base, better))
    )
    assert (gain.p_value, gain.low, gain.high) == (0.25, 0.25, 0.25)  # two units, one half each
    assert (same.p_value, same.difference) == (1.0, 0.0)
    assert loss.p_value == 1.0


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_rounding_makes_no_difference_of_equal_ones(scale: float) -> None:
    """1.1 - 1.0 and 0.3 - 0.2 are not quite equal, and 0.1 + 0.2 is not quite 0.3."""
    better = compare(
        {("a", 0): 1.1 * scale, ("a", 1): 0.3 * scale},
        {("a", 0): 1.0 * scale, ("a", 1): 0.2 * scale},
        {"a": 1.0},
    )
    assert (better.p_value, better.standard_error) == (0.25, 0.0)
    assert better.low == better.high == better.difference
    sums, same = (0.1 + 0.2) * scale, 0.3 * scale
    equal = compare({("a", 0): sums, ("a", 1): sums}, {("a", 0): same, ("a", 1): same}, {"a": 1.0})
    assert equal.p_value == 1.0
    real = compare(
        {("a", 0): (1.0 + 1e-9) * scale, ("a", 1): (1.0 + 3e-9) * scale},
        {("a", 0): scale, ("a", 1): scale},
        {"a": 1.0},
    )
    assert real.standard_error == pytest.approx(1e-9 * scale, rel=1e-3)


def test_the_test_keeps_its_level_with_uneven_weights() -> None:
    rng = generator(3, "test")
    names = [f"p{i}" for i in range(6)]
    weights = dict(zip(names, (1.0, 1.0, 1.0, 2.0, 2.0, 3.0), strict=True))
    base = {(name, 0): 0.0 for name in names}
    rejected = [
        compare({(n, 0): v for n, v in zip(names, draw)}, base, weights).p_value < 0.05
        for draw in rng.normal(size=(2000, 6)).tolist()
    ]
    assert 0.035 < np.mean(rejected) < 0.065


def test_unpaired_scores_are_refused() -> None:
    with pytest.raises(ConfigError, match="payload 'a' with seed 2 was scored for one"):
        compare({("a", 1): 0.0, ("a", 2): 0.0}, {("a", 1): 0.0}, {"a": 1.0})


def test_one_pair_is_not_enough() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        compare({("a", 1): 1.0}, {("a", 1): 0.0}, {"a": 1.0})


@given(
    values=st.lists(st.floats(-5, 5), min_size=10, max_size=10),
    shift=st.floats(-3, 3),
    scale=st.floats(0.1, 10),
)
def test_a_difference_moves_and_stretches_with_its_scores(
    values: list[float], shift: float, scale: float
) -> None:
    keys = [(f"p{n}", 0) for n in range(10)]
    zeros = dict.fromkeys(keys, 0.0)
    weights = {name: 1.0 for name, _ in keys}
    plain = compare(dict(zip(keys, values, strict=True)), zeros, weights)
    moved = compare(
        {key: shift + scale * value for key, value in zip(keys, values, strict=True)},
        zeros,
        weights,
    )
    assert moved.difference == pytest.approx(shift + scale * plain.difference, abs=1e-9)
    assert moved.standard_error == pytest.approx(scale * plain.standard_error, abs=1e-9)


@given(values=st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_the_other_way_round_a_difference_changes_its_sign(values: list[float]) -> None:
    keys = [(f"p{n}", 0) for n in range(6)]
    scores = dict(zip(keys, values, strict=True))
    zeros = dict.fromkeys(keys, 0.0)
    weights = {name: 1.0 + n for n, (name, _) in enumerate(keys)}
    there, back = compare(scores, zeros, weights), compare(zeros, scores, weights)
    assert back.difference == -there.difference
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    if there.standard_error > 0:
        assert there.p_value + back.p_value == pytest.approx(1.0)


@pytest.mark.parametrize(("payloads", "seeds"), [(8, 4), (3, 4), (16, 1)])
def test_the_interval_holds_the_truth_as_often_as_it_says(payloads: int, seeds: int) -> None:
    # payloads of their own difficulty and their own gain, and images of their own luck
    rng = np.random.default_rng(1)
    gain, held, runs = 0.3, 0, 1000
    names = [f"p{n}" for n in range(payloads)]
    for _ in range(runs):
        # with few payloads the claim is about these: their gains are what they are
        own = np.full(payloads, gain)
        if payloads >= ENOUGH_PAYLOADS:
            own += 0.5 * rng.normal(size=payloads)
        ease = 2.0 * rng.normal(size=payloads)
        winner, baseline = {}, {}
        for n, name in enumerate(names):
            for seed in range(seeds):
                baseline[name, seed] = float(ease[n] + rng.normal())
                winner[name, seed] = float(ease[n] + own[n] + rng.normal())
        found = compare(winner, baseline, dict.fromkeys(names, 1.0))
        held += found.low <= gain <= found.high
    assert held / runs == pytest.approx(0.95, abs=0.025)
