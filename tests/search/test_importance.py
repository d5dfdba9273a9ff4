from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.domain import architectures
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.search.importance import importance
from lib_automerge.search.space import Space

SD1 = architectures.get("sd1")


def history_of(space: Space, count: int, noise: float) -> list[Evaluation]:
    """Scores that depend on IN04 (peak at 0.75, worth 1.0) and on OUT03 (rising, worth 0.5)."""
    random = np.random.default_rng(3)
    found = []
    for number in range(1, count + 1):
        weights = space.weights(space.scaled(random.random(space.dimension)))
        score = 1.0 - (weights["IN04"] - 0.75) ** 2 / 0.5625 + 0.5 * weights["OUT03"]
        found.append(
            Evaluation(
                number=number,
                origin=Origin.SEARCH,
                weights=weights,
                score=score + noise * random.normal(),
                images=8,
            )
        )
    return found


def test_the_blocks_that_decide_the_score_come_first_with_their_effect() -> None:
    space = Space.of(SearchConfig(), SD1)
    effects = importance(space, history_of(space, 80, 0.02))
    assert [effect.name for effect in effects[:2]] == ["IN04", "OUT03"]
    first, second, *others = effects
    assert first.difference == pytest.approx(1.0, abs=0.25)
    assert first.best == 0.75
    assert second.difference == pytest.approx(0.5, abs=0.15)
    assert second.best == 1.0
    assert all(effect.difference < 0.25 for effect in others)
    assert len(effects) == space.dimension


def test_what_was_never_varied_is_uncertain() -> None:
    space = Space.of(SearchConfig(), SD1)
    few = importance(space, history_of(space, 12, 0.02))
    many = importance(space, history_of(space, 80, 0.02))
    error = {effect.name: effect.standard_error for effect in many}
    assert np.mean([e.standard_error for e in few]) > 2 * np.mean(list(error.values()))


def test_frozen_blocks_have_no_effect_and_weights_are_in_their_units() -> None:
    rules = {name: BlockRule(fixed=0.0) for name in SD1.parameters if name not in ("IN04", "OUT03")}
    space = Space.of(SearchConfig(low=-1.0, high=2.0, blocks=rules), SD1)
    effects = importance(space, history_of(space, 30, 0.0))
    assert {effect.name for effect in effects} == {"IN04", "OUT03"}
    assert [weight for weight, _ in effects[0].curve] == [-1.0, -0.25, 0.5, 1.25, 2.0]
    by_name = {effect.name: effect for effect in effects}
    assert by_name["IN04"].best == 0.5
    assert by_name["OUT03"].best == 2.0


def test_too_little_is_known_to_say_anything() -> None:
    space = Space.of(SearchConfig(), SD1)
    history = history_of(space, 4, 0.0)
    assert importance(space, history) == ()
    equal = [Evaluation(**{**_fields(e), "score": 1.0}) for e in history_of(space, 9, 0.0)]
    assert importance(space, equal) == ()


def _fields(evaluation: Evaluation) -> dict[str, object]:
    return {name: getattr(evaluation, name) for name in evaluation.__struct_fields__}
