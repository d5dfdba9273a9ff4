"""The sign test: its level, and that stopping early changes nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lib_automerge.search import sign_test


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (16, 7), (15, 8), (3, 9), (11, 11)])
def test_it_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    wanted = 1.0
    if wins + losses:
        wanted = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    assert sign_test.p_value(wins, losses) == pytest.approx(wanted, abs=1e-12)


def test_five_choices_are_the_fewest() -> None:
    assert sign_test.fewest() == 5
    assert sign_test.settled(0, 0, 4) is False
    assert sign_test.settled(0, 0, 5) is None
    assert sign_test.settled(5, 0, 0) is True


def test_what_is_settled_is_what_all_answers_would_say() -> None:
    """Every sequence of eight answers, wins, losses and ties."""
    early = 0
    for answers in itertools.product("wlt", repeat=8):
        whole = sign_test.p_value(answers.count("w"), answers.count("l")) < sign_test.LEVEL
        for made in range(9):
            seen = answers[:made]
            said = sign_test.settled(seen.count("w"), seen.count("l"), 8 - made)
            assert said in (None, whole), answers
            early += made < 8 and said is not None
        assert sign_test.settled(answers.count("w"), answers.count("l"), 0) is whole
    assert early > 3**8


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_who_answers_at_random_wins_in_less_than_five_percent(ties: float) -> None:
    """Against one baseline; to beat three takes more luck."""
    random = np.random.default_rng(11)
    wins = 0
    for _ in range(2000):
        won, lost, left = 0, 0, 23
        while (said := sign_test.settled(won, lost, left)) is None:
            left -= 1
            if random.random() >= ties:
                better = random.random() < 0.5
                won, lost = won + better, lost + (not better)
        wins += said
    # two standard errors of the simulation above the exact level
    assert wins / 2000 < 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5
    if not ties:
        assert wins / 2000 == pytest.approx(sign_test.p_value(16, 7), abs=0.01)


def test_the_interval_of_a_share() -> None:
    low, high = sign_test.share_interval(16, 4)
    wanted = stats.binomtest(16, 20).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert sign_test.share_interval(0, 0) == (0.0, 1.0)
    assert sign_test.share_interval(3, 0)[1] == 1.0
    assert sign_test.share_interval(0, 3)[0] == 0.0
