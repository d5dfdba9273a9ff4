from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.model import Belief, Knowledge, Model
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from lib_automerge.search.stopping import (
    AnyOf,
    Budget,
    Patience,
    RegretBound,
    SmallImprovement,
    from_config,
    outlook,
    significant,
)

SPACE = Space.box({"x": (0.0, 1.0), "y": (0.0, 1.0)})


def history(*scores: float | None, design: int = 0) -> list[Evaluation]:
    """Evaluations with these scores; the first `design` are of the start design."""
    return [
        Evaluation(
            number=number,
            origin=Origin.DESIGN if number <= design else Origin.SEARCH,
            weights={},
            score=score,
            rejected="black" if score is None else None,
        )
        for number, score in enumerate(scores, start=1)
    ]


def test_evaluations_count_rejected_ones() -> None:
    budget = Budget(evaluations=3)
    assert budget.reason(history(0.1, None), 0.0) is None
    assert budget.reason(history(0.1, None, 0.2), 0.0) == "the budget of 3 evaluations is used up"


def test_hours_are_reached_to_the_second() -> None:
    budget = Budget(hours=1.5)
    assert budget.reason(history(0.1), 5399.0) is None
    assert budget.reason(history(0.1), 5400.0) == "the budget of 1.5 hours is used up"


def test_a_target_may_be_negative() -> None:
    budget = Budget(target=-0.5)
    assert budget.reason(history(-0.6, None), 0.0) is None
    assert budget.reason([], 0.0) is None
    reason = budget.reason(history(-0.6, -0.4), 0.0)
    assert reason == "the best score, -0.4000, reached the target of -0.5"


def test_no_limit_never_ends() -> None:
    assert Budget().reason(history(*range(500)), 1e9) is None


def test_patience_counts_from_the_best() -> None:
    patience = Patience(3)
    assert patience.reason(history(0.1, 0.5, 0.2, 0.3), 0.0) is None
    reason = patience.reason(history(0.1, 0.5, 0.2, None, 0.3), 0.0)
    assert reason == "3 evaluations brought no better score than evaluation 2"
    assert patience.reason(history(0.1, 0.5, 0.2, 0.3, 0.6), 0.0) is None


def test_an_equal_score_is_not_better() -> None:
    assert Patience(2).reason(history(0.5, 0.5, 0.5), 0.0) is not None


def test_patience_never_ends_the_start_design() -> None:
    scores = [0.9] + [0.1] * 11
    assert Patience(3).reason(history(*scores, design=12), 0.0) is None
    assert Patience(3).reason(history(*scores, 0.1, 0.1, design=12), 0.0) is None
    assert Patience(3).reason(history(*scores, 0.1, 0.1, 0.1, design=12), 0.0) is not None


def test_patience_runs_out_when_everything_fails() -> None:
    assert Patience(2).reason([], 0.0) is None
    reason = Patience(2).reason(history(None, None), 0.0)
    assert reason == "none of the last 2 evaluations gave a score"


def test_the_first_rule_that_applies_is_told() -> None:
    rules = AnyOf((Budget(evaluations=9), Patience(2), Budget(evaluations=3)))
    assert rules.reason(history(0.1, 0.2), 0.0) is None
    assert rules.reason(history(0.3, 0.2, 0.1), 0.0) == (
        "2 evaluations brought no better score than evaluation 1"
    )


@pytest.mark.parametrize(
    ("config", "seconds", "scores", "word"),
    [
        (SearchConfig(evaluations=3), 0.0, (0.1, 0.2, 0.3), "3 evaluations"),
        (SearchConfig(hours=0.5), 1800.0, (0.1,), "0.5 hours"),
        (SearchConfig(target=0.2), 0.0, (0.1, 0.2), "target of 0.2"),
        (SearchConfig(patience=2), 0.0, (0.3, 0.2, 0.1), "no better score"),
    ],
)
def test_a_configuration_sets_every_limit(
    config: SearchConfig, seconds: float, scores: tuple[float, ...], word: str
) -> None:
    rule = from_config(config, Model(SPACE))
    assert word in (rule.reason(history(*scores), seconds) or "")
    assert rule.reason(history(0.05), 0.0) is None


def test_observations_of_earlier_runs_use_up_no_budget() -> None:
    earlier = [
        Evaluation(number=number, origin=Origin.EARLIER, weights={}, score=0.1)
        for number in range(-9, 0)
    ]
    own = [Evaluation(number=n, origin=Origin.SEARCH, weights={}, score=0.1) for n in (1, 2, 3)]
    assert Budget(evaluations=4).reason([*earlier, *own], 0.0) is None
    assert Budget(evaluations=3).reason([*earlier, *own], 0.0) is not None


def bowl(count: int, noise: float = 0.0) -> list[Evaluation]:
    """Evaluations all over a bowl, the first at its top; the model knows it by heart after some."""
    rng = generator(2, "bowl")
    result = []
    for number in range(1, count + 1):
        x, y = np.round(rng.random(2), 4).tolist() if number > 1 else (0.3, 0.7)
        score = -((x - 0.3) ** 2) - (y - 0.7) ** 2 + noise * float(rng.normal())
        weights = {"x": x, "y": y}
        result.append(Evaluation(number=number, origin=Origin.SEARCH, weights=weights, score=score))
    return result


@pytest.mark.parametrize("rule", [RegretBound, SmallImprovement])
def test_no_model_ends_a_search_before_forty_evaluations(rule: type[RegretBound]) -> None:
    known = bowl(41)
    assert rule(Model(SPACE)).reason(known[:39], 0.0) is None
    assert rule(Model(SPACE)).reason(known, 0.0) is not None
    # observations of earlier runs count for the model, not for the forty
    earlier = [
        msgspec.structs.replace(e, number=e.number - 100, origin=Origin.EARLIER) for e in bowl(60)
    ]
    assert rule(Model(SPACE)).reason([*earlier, *known[:30]], 0.0) is None


def test_the_regret_bound_says_what_is_left() -> None:
    reason = RegretBound(Model(SPACE)).reason(bowl(45), 0.0)
    assert reason is not None
    assert reason.startswith("no merge is likely to be better than the best by more than 0.0")


def test_noise_ends_a_search_that_cannot_tell_more_apart() -> None:
    rule = RegretBound(Model(SPACE))
    reason = rule.reason(bowl(80, noise=0.2), 0.0)
    assert reason is not None
    assert reason.endswith("less than the noise of scores can tell apart")
    assert SmallImprovement(Model(SPACE)).reason(bowl(80, noise=0.2), 0.0) is None


class Told(Model):
    """A model that knows, after each number of evaluations, how much is left to gain."""

    def __init__(self, bounds: dict[int, float], noise: float = 0.01) -> None:
        super().__init__(SPACE)
        self._bounds, self._noise = bounds, noise

    def learn(self, history: Sequence[Evaluation]) -> Knowledge | None:
        bound = self._bounds[len(history)]
        belief = Belief(number=1, mean=0.0, sd=0.1)
        gain = bound / 100
        return Knowledge(ranking=(belief,), noise=self._noise, spread=1.0, gain=gain, bound=bound)


@pytest.mark.parametrize("rule", [RegretBound, SmallImprovement])
def test_a_rule_of_the_model_needs_three_in_a_row(rule: type[RegretBound]) -> None:
    small, large = 0.04, 0.5
    model = Told({40: small, 41: small, 42: large, 43: small, 44: small, 45: small})
    ended = [count for count in (42, 43, 44, 45) if rule(model).reason(bowl(count), 0.0)]
    assert ended == [45]


def test_the_limits_are_those_of_the_docs() -> None:
    def ends(rule: type[RegretBound], bound: float, noise: float) -> bool:
        model = Told(dict.fromkeys((40, 41, 42), bound), noise)
        return rule(model).reason(bowl(42), 0.0) is not None

    # 5 % of the spread, or twice the noise, whichever is more
    assert [ends(RegretBound, bound, 0.01) for bound in (0.049, 0.051)] == [True, False]
    assert [ends(RegretBound, bound, 0.04) for bound in (0.079, 0.081)] == [True, False]
    # 0.3 % of the spread, whatever the noise
    assert [ends(SmallImprovement, bound, 0.5) for bound in (0.29, 0.31)] == [True, False]


@pytest.mark.parametrize("score", [0.5, 0.1, 1 / 3, 1e9 / 3])
def test_equal_scores_end_a_search_in_plain_words(score: float) -> None:
    equal = [msgspec.structs.replace(e, score=score) for e in bowl(40)]
    assert RegretBound(Model(SPACE)).reason(equal, 0.0) == (
        "all 40 evaluations gave the same score: the weights change nothing"
    )


def test_failures_alone_never_make_the_model_end_it() -> None:
    failed = [msgspec.structs.replace(e, score=None, rejected="black") for e in bowl(60)]
    assert RegretBound(Model(SPACE)).reason(failed, 0.0) is None


@pytest.mark.parametrize(
    ("stop", "kind"), [("regret", "no merge is likely"), ("improvement", "next candidate")]
)
def test_the_configuration_chooses_the_rule(stop: str, kind: str) -> None:
    rule = from_config(SearchConfig(evaluations=100, stop=stop), Model(SPACE))
    assert kind in (rule.reason(bowl(45), 0.0) or "")
    never = from_config(SearchConfig(evaluations=100, stop="never"), Model(SPACE))
    assert never.reason(bowl(45), 0.0) is None


def test_the_outlook_tells_what_going_on_would_gain() -> None:
    assert outlook(None) == ""
    knowledge = Model(SPACE).learn(bowl(20, noise=0.05))
    assert knowledge is not None
    told = outlook(knowledge)
    for value in (knowledge.gain, knowledge.bound, knowledge.noise):
        assert significant(value) in told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.012"),
        (1.26, "1.3"),
        (23.4, "23"),
        (3e-7, "3.0e-07"),
        (4e8, "4.0e+08"),
    ],
)
def test_numbers_are_told_with_two_digits(value: float, text: str) -> None:
    assert significant(value) == text
