"""What a run taught, on functions of which everything is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pytest

from lib_automerge.domain import architectures
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.insights import Insights
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.effects import LEVELS
from lib_automerge.search.insights import insights
from lib_automerge.search.model import Model
from lib_automerge.search.space import Space

SD1 = architectures.get("sd1")
Score = Callable[[Mapping[str, float]], float]


def few(*names: str, low: float = 0.0, high: float = 1.0) -> Space:
    rules = {name: BlockRule(fixed=0.0) for name in SD1.parameters if name not in names}
    return Space.of(SearchConfig(low=low, high=high, blocks=rules), SD1)


def history_of(space: Space, score: Score, count: int, noise: float = 0.0) -> list[Evaluation]:
    random = np.random.default_rng(3)
    found = []
    for number in range(1, count + 1):
        weights = space.weights(space.scaled(random.random(space.dimension)))
        value = score(weights) + noise * random.normal()
        found.append(
            Evaluation(
                number=number, origin=Origin.SEARCH, weights=weights, score=float(value), images=8
            )
        )
    return found


def learned(
    space: Space, score: Score, count: int, noise: float = 0.0, leader: int | None = None
) -> Insights:
    found = insights(Model(space), history_of(space, score, count, noise), leader)
    assert found is not None
    return found


def additive(weights: Mapping[str, float]) -> float:
    """Depends on IN04 (peak at 0.75, worth 1.0) and on OUT03 (rising, worth 0.5)."""
    return 1.0 - (weights["IN04"] - 0.75) ** 2 / 0.5625 + 0.5 * weights["OUT03"]


@pytest.fixture(scope="module")
def two_of_27() -> Insights:
    return learned(Space.of(SearchConfig(), SD1), additive, 80, 0.02)


# --- which blocks mattered ----------------------------------------------------------------------


def test_the_blocks_that_decide_the_score_come_first_with_their_effect(
    two_of_27: Insights,
) -> None:
    effects = two_of_27.effects
    assert [effect.name for effect in effects[:2]] == ["IN04", "OUT03"]
    first, second, *others = effects
    assert first.difference == pytest.approx(1.0, abs=0.25)
    assert first.best == pytest.approx(0.75, abs=0.07)
    assert second.difference == pytest.approx(0.5, abs=0.15)
    assert second.best == 1.0
    assert first.sure
    assert second.sure
    assert all(effect.difference < 0.25 for effect in others)
    assert len(effects) == len(SD1.parameters)


def test_errors_of_effects_are_as_large_as_the_errors_made(two_of_27: Insights) -> None:
    truth = {"IN04": 1.0, "OUT03": 0.5}
    away = [
        abs(e.difference - truth.get(e.name, 0.0)) / e.standard_error for e in two_of_27.effects
    ]
    assert np.mean(np.array(away) < 2.0) > 0.85
    assert 0.2 < float(np.sqrt(np.mean(np.square(away)))) < 2.0


def test_what_was_hardly_varied_is_uncertain(two_of_27: Insights) -> None:
    scarce = learned(Space.of(SearchConfig(), SD1), additive, 12, 0.02)
    mean = np.mean([e.standard_error for e in scarce.effects])
    assert mean > 2 * np.mean([e.standard_error for e in two_of_27.effects])
    assert not any(effect.sure for effect in scarce.effects)
    assert sum(length.determined for length in scarce.lengths) <= 2
    assert any(length.length < 10 for length in scarce.lengths if not length.determined)


def test_hills_of_an_eighth_of_the_range_are_seen() -> None:
    """At every quarter of the range there is a top: levels that far apart see a plain."""
    space = few("IN04", "OUT03", "M00")
    found = learned(space, lambda w: 0.5 * np.cos(8.0 * np.pi * w["IN04"]) + 0.1 * w["OUT03"], 90)
    first, *_, last = found.effects
    assert (first.name, last.name) == ("IN04", "M00")
    assert abs(first.difference - 1.0) < 2.0 * first.standard_error
    assert first.sure
    assert first.best % 0.25 == 0.0


def test_frozen_blocks_are_left_out_and_weights_are_in_their_units() -> None:
    space = few("IN04", "OUT03", low=-1.0, high=2.0)
    found = learned(space, additive, 30)
    assert {effect.name for effect in found.effects} == {"IN04", "OUT03"}
    weights = [weight for weight, _ in found.effects[0].curve]
    assert weights == pytest.approx(np.linspace(-1.0, 2.0, LEVELS))
    by_name = {effect.name: effect for effect in found.effects}
    assert by_name["IN04"].best == pytest.approx(0.75, abs=0.1)
    assert by_name["OUT03"].best == 2.0
    assert {block.name for block in found.rounding.blocks} == {"IN04", "OUT03"}
    # OUT03 alone: rising by 0.5 for each 1 of weight, over a range of 3
    assert by_name["OUT03"].difference == pytest.approx(1.5, abs=0.05)


def test_a_block_that_bends_the_score_has_a_short_length_and_an_idle_one_is_not_known() -> None:
    space = few("IN04", "OUT03", "M00", "OUT08")
    found = learned(space, lambda w: np.sin(9.0 * w["IN04"]) + 0.3 * w["OUT03"], 60, 0.01)
    lengths = {length.name: length for length in found.lengths}
    assert [length.name for length in found.lengths] == list(space.names)
    wavy, idle = lengths["IN04"], lengths["M00"]
    assert wavy.determined
    assert 0.05 < wavy.low < wavy.length < wavy.high < 3.0
    assert not idle.determined
    assert idle.low > 3 * wavy.high


# --- pairs --------------------------------------------------------------------------------------


def test_a_product_of_two_blocks_is_that_pair_and_no_other() -> None:
    space = few("IN04", "IN07", "OUT03", "M00", "OUT08", "OUT11")

    def product(weights: Mapping[str, float]) -> float:
        return additive(weights) + 2.0 * weights["IN07"] * weights["OUT08"]

    found = learned(space, product, 60, 0.01)
    (pair,) = found.interactions
    assert (pair.first, pair.second) == ("IN07", "OUT08")
    assert pair.difference == pytest.approx(2.0, abs=0.3)
    assert abs(pair.difference - 2.0) < 3 * pair.standard_error + 0.05


def test_the_sign_of_a_pair_says_whether_its_blocks_go_together() -> None:
    space = few("IN04", "IN07", "OUT03")
    one_of_two = learned(space, lambda w: additive(w) - 2.0 * w["IN07"] * w["IN04"], 50)
    (pair,) = one_of_two.interactions
    assert (pair.first, pair.second) == ("IN04", "IN07")
    assert pair.difference == pytest.approx(-2.0, abs=0.3)


def test_effects_that_add_up_are_no_pairs(two_of_27: Insights) -> None:
    assert two_of_27.interactions == ()
    assert learned(few("IN04", "IN07", "OUT03", "M00"), additive, 40, 0.02).interactions == ()


def test_a_pair_that_is_certain_but_tiny_is_not_worth_knowing() -> None:
    space = few("IN04", "IN07", "OUT03")

    def nearly(weights: Mapping[str, float]) -> float:
        return additive(weights) + 0.06 * weights["IN07"] * weights["OUT03"]

    assert learned(space, nearly, 60).interactions == ()


def test_noise_makes_no_pairs() -> None:
    space = few("IN04", "IN07", "OUT03", "M00", "OUT08", "OUT11")
    found = learned(space, additive, 30, 0.3)
    assert found.noise > 0.1
    assert found.interactions == ()


# --- the predicted best -------------------------------------------------------------------------


def test_the_predicted_best_is_near_the_optimum_and_its_gain_is_believed() -> None:
    space = few("IN04", "OUT03", "M00")

    def peak(weights: Mapping[str, float]) -> float:
        return additive(weights) - 2.0 * (weights["M00"] - 0.3) ** 2

    found = learned(space, peak, 25, 0.002)
    predicted = found.predicted
    assert predicted is not None
    assert predicted.weights["IN04"] == pytest.approx(0.75, abs=0.1)
    assert predicted.weights["OUT03"] == 1.0
    assert predicted.weights["M00"] == pytest.approx(0.3, abs=0.1)
    assert predicted.weights["IN00"] == 0.0
    assert predicted.score == pytest.approx(1.5, abs=0.1)
    assert abs(predicted.score - 1.5) < 4 * predicted.sd
    assert predicted.score == pytest.approx(found.score + predicted.gain.difference)
    assert predicted.gain.sure
    assert predicted.weights == space.weights(space.vector(predicted.weights))


def test_nothing_better_than_a_leader_at_the_optimum_is_surely_predicted() -> None:
    space = few("IN04", "OUT03")
    history = history_of(space, additive, 30, 0.05)
    best = space.weights(np.array([0.75, 1.0]))
    # looked at so often that the model is sure of it
    for number in range(31, 41):
        history.append(
            Evaluation(number=number, origin=Origin.SEARCH, weights=best, score=1.5, images=8)
        )
    found = insights(Model(space), history, 31)
    assert found is not None
    assert found.leader == 31
    assert found.score == pytest.approx(1.5, abs=0.05)
    assert found.predicted is None or not found.predicted.gain.sure


def test_nothing_is_predicted_beyond_a_leader_at_the_end_of_the_range() -> None:
    space = few("OUT03", "M00")
    history = history_of(space, lambda w: w["OUT03"] + 0.5 * w["M00"], 20)
    top = Evaluation(
        number=21,
        origin=Origin.SEARCH,
        weights=space.weights(np.array([1.0, 1.0])),
        score=1.5,
        images=8,
    )
    found = insights(Model(space), [*history, top])
    assert found is not None
    assert found.leader == 21
    assert found.predicted is None


# --- rounding -----------------------------------------------------------------------------------


def test_rounding_is_harmless_where_the_score_is_flat(two_of_27: Insights) -> None:
    rounding = two_of_27.rounding
    assert rounding.harmless
    assert abs(rounding.change.difference) < 0.02
    assert [block.name for block in rounding.blocks] == list(SD1.parameters)


def test_rounding_does_harm_where_the_score_is_sharp() -> None:
    # the whole hill fits between two hundredths
    rules = {name: BlockRule(fixed=0.0) for name in SD1.parameters}
    rules |= {name: BlockRule(low=0.38, high=0.42) for name in ("IN04", "OUT03")}
    space = Space.of(SearchConfig(blocks=rules), SD1)

    def sharp(weights: Mapping[str, float]) -> float:
        return 1.0 - ((weights["IN04"] - 0.4048) / 0.01) ** 2

    history = history_of(space, sharp, 40)
    top = max(history, key=lambda e: e.score or 0.0)
    found = insights(Model(space), history, top.number)
    assert found is not None
    rounded = {**top.weights, "IN04": round(top.weights["IN04"], 2)}
    loss = sharp(rounded) - sharp(top.weights)
    assert loss < -0.1
    assert found.rounding.change.difference == pytest.approx(loss, abs=0.05)
    assert not found.rounding.harmless


def test_being_off_by_a_hundredth_costs_what_it_costs_in_the_worse_direction() -> None:
    space = few("IN04", "OUT03")
    history = history_of(space, additive, 40)
    leader = max(history, key=lambda e: e.score or 0.0)
    found = insights(Model(space), history, leader.number)
    assert found is not None
    blocks = {block.name: block for block in found.rounding.blocks}
    for name, block in blocks.items():
        for step, change in ((0.01, block.hundredth), (0.05, block.twentieth)):
            around = (leader.weights[name] - step, leader.weights[name] + step)
            costs = [
                additive({**leader.weights, name: min(max(w, 0.0), 1.0)}) - additive(leader.weights)
                for w in around
            ]
            assert change.difference == pytest.approx(min(costs), abs=0.002)
    # a twentieth of 0.5, and of a flat hill top
    assert blocks["OUT03"].twentieth.difference == pytest.approx(-0.025, abs=0.002)


def test_a_range_of_next_to_nothing_is_stepped_through_to_its_ends() -> None:
    rules = {name: BlockRule(fixed=0.0) for name in SD1.parameters}
    rules |= {"IN04": BlockRule(low=0.3, high=0.3 + 5e-10), "OUT03": BlockRule(low=0.0, high=1.0)}
    space = Space.of(SearchConfig(blocks=rules), SD1)
    found = learned(space, lambda w: w["OUT03"], 12)
    (narrow, wide) = found.rounding.blocks
    assert (narrow.name, wide.name) == ("IN04", "OUT03")
    assert not narrow.twentieth.sure  # all candidates had one and the same weight there
    assert wide.twentieth.difference == pytest.approx(-0.05, abs=0.02)


# --- when it says nothing, and that it always says the same ---------------------------------------


def test_too_little_is_known_to_say_anything() -> None:
    space = Space.of(SearchConfig(), SD1)
    history = history_of(space, additive, 9)
    assert insights(Model(space), history[:4]) is None
    assert insights(Model(space), []) is None
    equal = [Evaluation(**{**_fields(e), "score": 1.0}) for e in history]
    assert insights(Model(space), equal) is None
    rejected = [Evaluation(**{**_fields(e), "score": None, "rejected": "black"}) for e in history]
    assert insights(Model(space), rejected) is None
    assert insights(Model(space), history[:4] + rejected[4:]) is None


def _fields(evaluation: Evaluation) -> dict[str, object]:
    return {name: getattr(evaluation, name) for name in evaluation.__struct_fields__}


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_any_scale_gives_the_same_in_its_units(scale: float) -> None:
    space = few("IN04", "OUT03")
    usual = learned(space, additive, 20)
    scaled = learned(space, lambda w: scale * additive(w), 20)
    assert scaled.effects[0].difference == pytest.approx(
        scale * usual.effects[0].difference, rel=1e-3
    )
    assert scaled.leader == usual.leader


def test_an_earlier_run_informs_but_does_not_lead() -> None:
    space = few("IN04", "OUT03")
    history = history_of(space, additive, 10)
    best = Evaluation(
        number=-1,
        origin=Origin.EARLIER,
        weights=space.weights(np.array([0.75, 1.0])),
        score=1.5,
        images=8,
    )
    found = insights(Model(space), [best, *history])
    assert found is not None
    assert found.evaluations == 11
    assert found.leader == max(history, key=lambda e: e.score or 0.0).number
    earlier = [msgspec.structs.replace(e, number=-e.number) for e in history]
    assert insights(Model(space), earlier) is None


def test_one_parameter_is_enough_and_a_leader_outside_the_space_is_replaced() -> None:
    space = few("IN04")
    history = history_of(space, lambda w: w["IN04"], 8)
    stranger = Evaluation(
        number=99, origin=Origin.START, weights={"IN04": 0.5, "OUT03": 0.5}, score=7.0, images=8
    )
    found = insights(Model(space), [*history, stranger], 99)
    assert found is not None
    assert found.leader == max(history, key=lambda e: e.score or 0.0).number
    assert found.evaluations == 8
    assert found.interactions == ()
    assert found == insights(Model(space), [*history, stranger], 99)


def test_a_step_that_the_range_forbids_is_not_the_worse_one() -> None:
    space = few("IN04", "OUT03")
    history = history_of(space, additive, 40)
    edge = Evaluation(
        number=41,
        origin=Origin.SEARCH,
        weights=space.weights(np.array([0.75, 0.0])),
        score=1.0,
        images=8,
    )
    found = insights(Model(space), [*history, edge], 41)
    assert found is not None
    _, rising = found.rounding.blocks
    assert rising.name == "OUT03"
    assert rising.twentieth.difference == pytest.approx(0.025, abs=0.002)
