from __future__ import annotations

import pytest

from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.search.stopping import AnyOf, Budget, Patience, from_config


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
    rule = from_config(config)
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
