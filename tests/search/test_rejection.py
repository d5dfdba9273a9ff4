from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lib_automerge.search.rejection import Chance, chance

PROMPTS = [f"p{n}" for n in range(12)]
WEIGHTS = dict.fromkeys(PROMPTS, 1.0)


def given(*differences: float) -> Chance | None:
    """A candidate against an incumbent on as many payloads, which differ much from each other."""
    rng = np.random.default_rng(0)
    incumbent = dict(zip(PROMPTS, rng.normal(0.0, 3.0, len(PROMPTS)).tolist(), strict=True))
    shown = zip(PROMPTS, differences, strict=False)
    return chance({name: incumbent[name] + d for name, d in shown}, incumbent, WEIGHTS)


def test_nothing_is_said_before_the_fourth_payload() -> None:
    assert given(-9.0, -9.1, -9.2) is None
    found = given(-9.0, -9.1, -9.2, -9.3)
    assert found is not None
    assert found.hopeless


def test_it_is_the_paired_t_test_of_the_payloads() -> None:
    differences = [-0.3, -0.1, -0.4, 0.1, -0.2, -0.25]
    found = given(*differences)
    assert found is not None
    test = stats.ttest_1samp(differences, 0.0, alternative="greater")
    assert found.better == pytest.approx(1.0 - test.pvalue)
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.standard_error == pytest.approx(stats.sem(differences))
    assert found.payloads == 6


def test_a_better_or_an_equal_candidate_goes_on() -> None:
    for differences in ([0.5, 0.4, 0.6, 0.3], [0.0] * 8, [-0.1, 0.1, -0.1, 0.1]):
        found = given(*differences)
        assert found is not None
        assert not found.hopeless


def test_only_what_both_have_is_compared() -> None:
    candidate = {"p0": 0.0, "p1": 0.0, "p2": 0.0, "p3": 0.0}
    assert chance(candidate, {"p0": 1.0, "p1": 1.1, "p2": 1.2}, WEIGHTS) is None


def test_a_payload_of_great_weight_decides() -> None:
    incumbent = dict.fromkeys(PROMPTS[:5], 1.0)
    candidate = {"p0": 1.3, "p1": 0.9, "p2": 0.91, "p3": 0.89, "p4": 0.9}
    even = chance(candidate, incumbent, WEIGHTS)
    heavy = chance(candidate, incumbent, WEIGHTS | {"p0": 50.0})
    assert even is not None
    assert heavy is not None
    assert heavy.difference > 0 > heavy.difference - 1
    assert heavy.better > even.better


def test_good_candidates_are_hardly_ever_given_up() -> None:
    """A candidate that equals the incumbent, looked at after each of 12 payloads."""
    rng = np.random.default_rng(1)
    lost = 0
    for _ in range(400):
        incumbent = dict(zip(PROMPTS, rng.normal(size=12).tolist(), strict=True))
        noise = rng.normal(0.0, 0.3, 12)
        for count in range(4, 12):
            candidate = {
                name: incumbent[name] + float(noise[n]) for n, name in enumerate(PROMPTS[:count])
            }
            found = chance(candidate, incumbent, WEIGHTS)
            if found is not None and found.hopeless:
                lost += 1
                break
    assert lost / 400 < 0.10
