from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.app import proof
from lib_automerge.domain.events import Origin, Verdict

BASELINES = {1: Origin.MODEL_A, 2: Origin.MODEL_B, 3: Origin.HALF}


def scores(
    gains: tuple[float, float, float], *, spread: float = 0.1, payloads: int = 12, seeds: int = 4
) -> dict[int, dict[tuple[str, int], float]]:
    """Winner 9 and the baselines; `gains` is the winner's true lead over A, B and 50:50."""
    random = np.random.default_rng(5)
    keys = [(f"p{p}", s) for p in range(payloads) for s in range(seeds)]
    shared = {key: float(random.normal()) for key in keys}
    result = {9: {key: shared[key] for key in keys}}
    for number, gain in zip(BASELINES, gains, strict=True):
        result[number] = {key: shared[key] - gain + float(random.normal(0, spread)) for key in keys}
    return result


def judge(data: dict[int, dict[tuple[str, int], float]], held_out: bool = True) -> Verdict:
    weights = {payload: 1.0 for payload, _ in data[9]}
    baselines = {n: origin for n, origin in BASELINES.items() if n in data}
    return proof.judge(9, data, baselines, weights, held_out=held_out)


def test_a_clear_lead_over_all_three_is_a_gain() -> None:
    verdict = judge(scores((0.5, 0.3, 0.2)))
    assert verdict.gain
    assert verdict.better_parent is Origin.MODEL_B
    assert verdict.sentence.startswith("Better: on 48 images of prompts and seeds that the search")
    assert "the better parent (model B) by +0.2" in verdict.sentence
    assert "the 50:50 merge by +0.1" in verdict.sentence
    by = {c.baseline: c for c in verdict.comparisons}
    assert by[Origin.MODEL_A].difference == pytest.approx(0.5, abs=0.05)
    assert by[Origin.MODEL_A].low < 0.5 < by[Origin.MODEL_A].high


def test_pairing_finds_a_lead_far_below_the_spread_of_scores() -> None:
    """Scores vary with sd 1 between images; only on the same image is 0.1 visible."""
    assert judge(scores((0.1, 0.1, 0.1), spread=0.05)).gain


def test_a_lead_over_the_parents_alone_is_no_gain() -> None:
    verdict = judge(scores((0.5, 0.3, 0.0)))
    assert not verdict.gain
    assert verdict.sentence.startswith("No significant gain")
    assert "not enough against the 50:50 merge" in verdict.sentence


def test_luck_is_no_gain() -> None:
    found = [judge(scores((0.0, 0.0, 0.0), spread=1.0)).gain for _ in range(3)]
    assert not any(found)


def test_being_worse_is_never_significant() -> None:
    verdict = judge(scores((-0.5, -0.5, -0.5)))
    assert not any(c.significant for c in verdict.comparisons)


def test_a_gain_needs_every_comparison_to_be_sure_and_no_more() -> None:
    just = judge(scores((0.1, 0.2, 0.15), spread=0.5))
    assert all(0.02 < c.p_value < 0.05 for c in just.comparisons)
    assert just.gain
    short = judge(scores((0.1, 0.2, 0.02), spread=0.5))
    assert [c.significant for c in short.comparisons] == [True, True, False]
    assert not short.gain


def test_it_says_when_no_prompts_were_held_out() -> None:
    assert "no held-out prompts were given" in judge(scores((1, 1, 1)), held_out=False).sentence
