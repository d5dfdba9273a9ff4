from __future__ import annotations

import math
import random
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_automerge.domain.preferences import Choice, Judgements, Opinion, Rating
from lib_automerge.errors import ConfigError


def won(winner: int, loser: int) -> Choice:
    return Choice(winner=winner, loser=loser)


def tie(first: int, second: int) -> Choice:
    return Choice(winner=first, loser=second, tie=True)


def rated(candidate: int, rating: float) -> Rating:
    return Rating(candidate=candidate, rating=rating)


def asked(truth: list[float], pair: tuple[int, int], chance: random.Random) -> Choice:
    first, second = pair
    if chance.random() < 1 / (1 + math.exp(truth[second] - truth[first])):
        return won(first, second)
    return won(second, first)


JUDGEMENTS = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.booleans())
        .filter(lambda pair: pair[0] != pair[1])
        .map(lambda pair: Choice(winner=pair[0], loser=pair[1], tie=pair[2])),
        st.builds(Rating, candidate=st.integers(1, 5), rating=st.floats(0, 1)),
    ),
    max_size=12,
)


def test_nobody_said_anything() -> None:
    value = Opinion([]).value(3)
    assert (value.value, value.standard_error) == (0.0, 1.0)
    difference = Opinion([]).difference(3, 4)
    assert (difference.value, difference.standard_error) == (0.0, pytest.approx(math.sqrt(2)))


def test_one_choice_by_hand() -> None:
    opinion = Opinion([won(1, 2)])
    # the highest point of log sigma(2 t) - t^2, where t = sigma(-2 t)
    value = opinion.value(1).value
    assert value == pytest.approx(1 / (1 + math.exp(2 * value)))
    assert opinion.value(2).value == pytest.approx(-value)
    # precision of the difference: 1/2 by the prior, p (1 - p) by the choice
    chance = 1 / (1 + math.exp(-2 * value))
    expected = 1 / math.sqrt(0.5 + chance * (1 - chance))
    assert opinion.difference(1, 2).standard_error == pytest.approx(expected)


def test_one_slider_by_hand() -> None:
    opinion = Opinion([rated(1, 1.0)])
    # a normal prior with precision 1 and an observation of 2 with precision 4
    assert opinion.value(1).value == pytest.approx(2 * 4 / 5)
    assert opinion.value(1).standard_error == pytest.approx(math.sqrt(1 / 5))
    assert Opinion([rated(1, 0.5)]).value(1).value == 0.0


@given(st.integers(1, 300))
def test_who_always_wins_stays_finite_and_moves_with_the_evidence(times: int) -> None:
    few, more = Opinion([won(1, 2)] * times), Opinion([won(1, 2)] * (times + 1))
    assert 0 < few.value(1).value < more.value(1).value < 5
    assert 0 < more.value(1).standard_error < few.value(1).standard_error < 1


def test_a_tie_draws_two_together() -> None:
    apart = [rated(1, 0.9), rated(2, 0.1)]
    assert Opinion([tie(1, 2)]).value(1).value == pytest.approx(0.0)
    assert (
        Opinion([*apart, tie(1, 2)]).difference(1, 2).value < Opinion(apart).difference(1, 2).value
    )
    assert Opinion([tie(1, 2)]).difference(1, 2).standard_error < math.sqrt(2)


@given(JUDGEMENTS, st.integers(1, 5), st.integers(1, 5))
def test_a_win_raises_the_winner(judgements: Judgements, winner: int, loser: int) -> None:
    if winner != loser:
        before, after = Opinion(judgements), Opinion([*judgements, won(winner, loser)])
        assert after.difference(winner, loser).value > before.difference(winner, loser).value
        assert after.value(winner).value > before.value(winner).value


@settings(max_examples=60)
@given(JUDGEMENTS, st.permutations(range(1, 6)), st.randoms())
def test_order_and_names_play_no_part(
    judgements: list[Choice | Rating], names: list[int], random_: random.Random
) -> None:
    opinion = Opinion(judgements)
    other = dict(zip(range(1, 6), names))
    renamed: list[Choice | Rating] = []
    for one in judgements:
        if isinstance(one, Rating):
            renamed.append(rated(other[one.candidate], one.rating))
        elif one.tie:
            # nobody won
            renamed.append(tie(other[one.loser], other[one.winner]))
        else:
            renamed.append(won(other[one.winner], other[one.loser]))
    random_.shuffle(renamed)
    again = Opinion(renamed)
    for candidate in range(1, 6):
        value, same = opinion.value(candidate), again.value(other[candidate])
        assert same.value == pytest.approx(value.value, abs=1e-6)
        assert same.standard_error == pytest.approx(value.standard_error, abs=1e-6)


@given(JUDGEMENTS)
def test_no_point_is_more_likely(judgements: Judgements) -> None:
    opinion = Opinion(judgements)

    def likelihood(shift: dict[int, float]) -> float:
        t = {n: opinion.value(n).value + shift.get(n, 0.0) for n in range(1, 6)}
        total = -0.5 * sum(value * value for value in t.values())
        for one in judgements:
            if isinstance(one, Rating):
                total -= 0.5 * ((t[one.candidate] - 4 * (one.rating - 0.5)) / 0.5) ** 2
            else:
                ahead = t[one.winner] - t[one.loser]
                lost = math.log1p(math.exp(ahead)) if one.tie else math.log1p(math.exp(-ahead))
                total -= (lost + math.log1p(math.exp(-ahead))) / 2
        return total

    best = likelihood({})
    for candidate in range(1, 6):
        for step in (-0.01, 0.01):
            assert likelihood({candidate: step}) < best


def test_the_order_is_recovered() -> None:
    chance = random.Random(5)
    truth = [chance.gauss(0, 1) for _ in range(10)]
    judgements: list[Choice] = []
    for _ in range(400):
        first, second = chance.sample(range(10), 2)
        judgements.append(asked(truth, (first, second), chance))
    opinion = Opinion(judgements)
    values = [opinion.value(n).value for n in range(10)]
    assert statistics.correlation(values, truth) > 0.97
    assert max(range(10), key=values.__getitem__) == max(range(10), key=truth.__getitem__)


@pytest.mark.parametrize("sliders", [0, 4])
def test_errors_cover_the_truth(sliders: int) -> None:
    chance = random.Random(sliders)
    covered = total = 0
    for _ in range(120):
        truth = [chance.gauss(0, 1) for _ in range(8)]
        judgements: list[Choice | Rating] = []
        for _ in range(chance.randrange(4, 50)):
            first, second = chance.sample(range(8), 2)
            judgements.append(asked(truth, (first, second), chance))
        for candidate in chance.sample(range(8), sliders):
            felt = 0.5 + (truth[candidate] + chance.gauss(0, 0.5)) / 4
            judgements.append(rated(candidate, min(1.0, max(0.0, felt))))
        opinion = Opinion(judgements)
        for candidate in range(8):
            value = opinion.value(candidate)
            total += 1
            covered += abs(value.value - truth[candidate]) < 1.96 * value.standard_error
    # 95 % of 960; the standard error of the share is 0.7 %
    assert 0.93 < covered / total < 0.97


def test_the_next_question_is_between_the_unknown_and_near() -> None:
    assert Opinion([]).next_pair([7, 5, 6, 5]) == (5, 6)
    assert Opinion([]).next_pair([7]) is None
    assert Opinion([]).next_pair([]) is None
    # 1 and 2 are known to be far apart; 3 is unknown
    known = [rated(1, 1.0), rated(2, 0.4)] * 20
    assert Opinion(known).next_pair([1, 2, 3]) == (2, 3)
    assert Opinion(known).next_pair([1, 2, 3], including=1) == (1, 3)
    assert Opinion(known).next_pair([1, 2]) == (1, 2)
    assert Opinion(known).next_pair([2, 3], including=1) is None


def test_chosen_questions_teach_more_than_random_ones() -> None:
    def error(chosen: bool) -> float:
        squares = []
        for seed in range(25):
            chance = random.Random(seed)
            truth = [chance.gauss(0, 1) for _ in range(8)]
            judgements: list[Choice] = []
            for _ in range(24):
                pair = Opinion(judgements).next_pair(range(8)) if chosen else None
                first, second = pair or chance.sample(range(8), 2)
                judgements.append(asked(truth, (first, second), chance))
            opinion = Opinion(judgements)
            errors = [opinion.value(n).standard_error ** 2 for n in range(8)]
            squares.append(statistics.fmean(errors))
        return statistics.fmean(squares)

    assert error(chosen=True) < 0.97 * error(chosen=False)


def test_a_hundred_candidates_are_quick() -> None:
    chance = random.Random(0)
    judgements = [won(*chance.sample(range(100), 2)) for _ in range(400)]
    start = time.process_time()
    assert Opinion(judgements).next_pair(range(100)) is not None
    # about 0.2 s
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("rating", [-0.1, 1.1, math.nan])
def test_a_rating_outside_the_slider_is_refused(rating: float) -> None:
    with pytest.raises(ConfigError, match=f"candidate 3 was rated {rating}"):
        Opinion([rated(3, rating)])


def test_a_candidate_is_not_compared_with_itself() -> None:
    with pytest.raises(ConfigError, match="candidate 3 was compared with itself"):
        Opinion([won(3, 3)])
