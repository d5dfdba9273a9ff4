"""What a search knows: the leader, the noise, what is left to gain."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.model import MOST, Model
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

SPACE = Space.box({"x": (0.0, 1.0), "y": (0.0, 2.0)})


def bowl(
    count: int, noise: float = 0.0, scale: float = 1.0, offset: float = 0.0
) -> list[Evaluation]:
    """Evaluations of a bowl with its best, 0, at (0.3, 1.4)."""
    rng = generator(1, "bowl")
    result = []
    for number in range(1, count + 1):
        x, y = np.round(rng.random(2) * [1.0, 2.0], 4).tolist()
        value = -((x - 0.3) ** 2) - (y / 2 - 0.7) ** 2 + noise * float(rng.normal())
        result.append(
            Evaluation(
                number=number,
                origin=Origin.SEARCH,
                weights={"x": x, "y": y},
                score=offset + scale * value,
            )
        )
    return result


def test_the_leader_is_not_the_luckiest_draw() -> None:
    history = bowl(40, noise=0.05)
    lucky = Evaluation(number=41, origin=Origin.SEARCH, weights={"x": 0.95, "y": 0.2}, score=0.15)
    knowledge = Model(SPACE).learn([*history, lucky])
    assert knowledge is not None
    assert max((*history, lucky), key=lambda e: e.score or 0.0).number == 41
    assert knowledge.leader.number != 41
    leader = history[knowledge.leader.number - 1].weights
    assert np.hypot(leader["x"] - 0.3, leader["y"] / 2 - 0.7) < 0.25


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e9, -4e9), (1.0, 1e6)])
def test_knowledge_is_in_units_of_the_score(scale: float, offset: float) -> None:
    plain = Model(SPACE).learn(bowl(20, noise=0.05))
    scaled = Model(SPACE).learn(bowl(20, noise=0.05, scale=scale, offset=offset))
    assert plain is not None
    assert scaled is not None
    assert [b.number for b in scaled.ranking] == [b.number for b in plain.ranking]
    assert scaled.leader.mean == pytest.approx(offset + scale * plain.leader.mean, rel=1e-3)
    for name in ("noise", "spread", "gain", "bound"):
        assert getattr(scaled, name) == pytest.approx(scale * getattr(plain, name), rel=0.05)


def test_the_learned_noise_is_that_of_the_scores() -> None:
    quiet, loud = (Model(SPACE).learn(bowl(60, noise=noise)) for noise in (0.0, 0.05))
    assert quiet is not None
    assert loud is not None
    assert quiet.noise < 0.01
    assert loud.noise == pytest.approx(0.05, rel=0.3)


def test_less_is_left_to_gain_the_more_is_known() -> None:
    model = Model(SPACE)
    early, late = model.learn(bowl(6)), model.learn(bowl(40))
    assert early is not None
    assert late is not None
    assert 0.0 <= late.gain < early.gain
    assert 0.0 <= late.bound < early.bound
    # the best of the bowl is 0: what is left is at least what the leader lacks
    assert late.bound >= -late.leader.mean - 0.01


def test_equal_scores_leave_the_first_in_front_and_nothing_is_learned_from_them() -> None:
    equal = [msgspec.structs.replace(e, score=0.7) for e in bowl(12)]
    knowledge = Model(SPACE).learn(equal)
    assert knowledge is not None
    assert knowledge.leader.mean == pytest.approx(0.7)
    assert (knowledge.noise, knowledge.gain, knowledge.bound) == (0.0, 0.0, 0.0)


def test_says_nothing_of_too_little() -> None:
    assert Model(SPACE).learn(bowl(4)) is None
    rejected = [msgspec.structs.replace(e, score=None, rejected="black") for e in bowl(9)]
    assert Model(SPACE).learn(rejected) is None
    assert Model(SPACE).fitted(rejected) is None


def test_only_this_runs_complete_evaluations_can_lead() -> None:
    history = bowl(12)
    best = {"x": 0.3, "y": 1.4}
    earlier = Evaluation(number=-3, origin=Origin.EARLIER, weights=best, score=0.0)
    given_up = Evaluation(
        number=13, origin=Origin.SEARCH, weights={"x": 0.31, "y": 1.4}, rejected="worse"
    )
    knowledge = Model(SPACE).learn([earlier, *history, given_up])
    assert knowledge is not None
    assert {b.number for b in knowledge.ranking} == set(range(1, 13))


def test_a_baseline_outside_the_space_can_lead() -> None:
    outside = Evaluation(number=13, origin=Origin.MODEL_B, weights={"x": 3.0, "y": 1.0}, score=2.0)
    knowledge = Model(SPACE).learn([*bowl(12), outside])
    assert knowledge is not None
    assert knowledge.leader.number == 13


def test_the_order_of_the_history_does_not_matter() -> None:
    history = bowl(15)
    assert Model(SPACE).learn(history[::-1]) == Model(SPACE).learn(history)


def test_an_answer_is_kept_for_its_history_only() -> None:
    model = Model(SPACE)
    first = model.learn(bowl(10))
    changed = [*bowl(9), msgspec.structs.replace(bowl(10)[-1], score=5.0)]
    assert model.learn(changed) != first
    assert model.learn(bowl(10)) == first


def test_the_score_is_expected_to_change_faster_where_the_models_differ_more() -> None:
    near = Model(SPACE, {"x": 0.01, "y": 0.1}).kernel.prior().mean
    even = Model(SPACE, {"x": 0.1, "y": 0.1}).kernel.prior().mean
    unknown = Model(SPACE).kernel.prior().mean
    assert near[1] < unknown[1] < near[0]
    assert even == pytest.approx(unknown)


def test_many_parameters_are_expected_to_have_longer_scales() -> None:
    def typical(dimension: int) -> float:
        space = Space.box({f"x{i}": (0.0, 1.0) for i in range(dimension)})
        return float(Model(space).kernel.prior().mean[0])

    assert typical(27) == pytest.approx(math.sqrt(2) + math.log(27) / 2 - 2)
    assert typical(110) == pytest.approx(math.sqrt(2) + math.log(110) / 2 - 2)
    assert typical(2) == 1.0


def test_scores_beyond_all_measure_teach_nothing_and_break_nothing() -> None:
    huge = [msgspec.structs.replace(e, score=(e.score or 0.0) * 1e200) for e in bowl(12)]
    fitted = Model(SPACE).fitted(huge)
    assert fitted is not None
    assert fitted.noise == 0.0


def test_scores_may_be_those_of_numpy() -> None:
    numpy_scores = [msgspec.structs.replace(e, score=np.float64(e.score or 0.0)) for e in bowl(12)]
    assert Model(SPACE).learn(numpy_scores) == Model(SPACE).learn(bowl(12))


def test_broken_candidates_say_nothing_of_how_good_the_others_are() -> None:
    known = bowl(30, noise=0.05)
    black = [
        Evaluation(
            number=n,
            origin=Origin.SEARCH,
            weights={"x": 0.3, "y": 0.04 * n},
            rejected="black image",
        )
        for n in (31, 32, 33)
    ]
    without, with_them = Model(SPACE).learn(known), Model(SPACE).learn([*known, *black])
    assert without is not None
    assert with_them is not None
    assert with_them.ranking == without.ranking
    assert with_them.noise == without.noise


def test_the_bound_reaches_from_what_the_best_has_for_sure_to_the_highest_hope() -> None:
    knowledge = Model(SPACE).learn(bowl(40, noise=0.1))
    assert knowledge is not None
    # wherever both are, the hope there is two deviations above the mean, the surety two below
    assert knowledge.bound >= 4.0 * min(belief.sd for belief in knowledge.ranking)
    assert knowledge.bound < 12.0 * knowledge.leader.sd


def test_a_long_search_is_bounded_to_the_best_and_the_latest() -> None:
    history = bowl(MOST + 40)
    fitted = Model(SPACE).fitted(history)
    assert fitted is not None
    seen = {number for numbers in fitted.numbers for number in numbers}
    assert len(seen) == MOST
    best = sorted(history, key=lambda e: -(e.score or 0.0))[: MOST // 2]
    assert {e.number for e in best} <= seen
    assert set(range(MOST - 100, MOST + 41)) <= seen
