from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search import sequential
from lib_automerge.search.proposers import Proposer, create
from lib_automerge.search.space import Space

Array = NDArray[np.float64]

BEST = np.array([0.62, 0.17, 0.35, 0.81])
SPACE = Space.box(dict.fromkeys("abcd", (0.0, 2.0)))


def bowl(vector: Array) -> float:
    """Smooth, with its best where every parameter is at `BEST` of its range."""
    return -float(((vector / 2.0 - BEST) ** 2 * np.arange(1, 5)).sum())


def searched(
    proposer: Proposer, objective: Callable[[Array], float | None], count: int
) -> list[Evaluation]:
    history = [
        Evaluation(
            number=1,
            origin=Origin.START,
            weights=dict.fromkeys("abcd", 0.8),
            score=objective(np.full(4, 0.8)),
        )
    ]
    for number in range(2, count + 1):
        proposal = proposer.propose(history, (), number)
        found = objective(SPACE.vector(proposal.weights))
        history.append(
            Evaluation(
                number=number,
                origin=proposal.origin,
                weights=proposal.weights,
                score=found,
                rejected="black images" if found is None else None,
            )
        )
    return history


def vectors(history: list[Evaluation]) -> list[list[float]]:
    return [SPACE.vector(e.weights).tolist() for e in history]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_cobyqa_finds_the_best_of_a_smooth_score(scale: float) -> None:
    history = searched(create("cobyqa", SPACE), lambda x: scale * bowl(x), 35)
    assert max(e.score or -np.inf for e in history) > -1e-4 * scale


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_coordinate_finds_the_best_of_a_smooth_score(scale: float) -> None:
    history = searched(create("coordinate", SPACE), lambda x: scale * bowl(x), 60)
    assert max(e.score or -np.inf for e in history) > -1e-3 * scale


def test_cobyqa_asks_for_what_its_package_would_evaluate() -> None:
    asked: list[list[float]] = []

    def recorded(fractions: Array) -> float:
        asked.append(SPACE.scaled(fractions).tolist())
        return bowl(SPACE.scaled(fractions))

    sequential.cobyqa(recorded, np.full(4, 0.4))
    distinct = [point for i, point in enumerate(asked) if point not in asked[:i]]
    count = len(distinct)
    assert count > 15
    assert vectors(searched(create("cobyqa", SPACE), bowl, count)) == distinct


def test_cobyqa_comes_from_its_own_package_where_scipy_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("cobyqa")
    newer = searched(create("cobyqa", SPACE), bowl, 18)
    monkeypatch.setattr(sequential, "SCIPY_HAS_COBYQA", False)
    monkeypatch.setattr("scipy.optimize.minimize", None)
    older = searched(create("cobyqa", SPACE), bowl, 18)
    assert np.allclose(vectors(newer), vectors(older), atol=1e-3)


def test_coordinate_changes_one_block_at_a_time_and_keeps_what_is_better() -> None:
    history = searched(create("coordinate", SPACE), bowl, 9)
    tried = vectors(history)[1:]
    # A third of the range down and up. The best of `a` is above, of `b` below, of `c` in between.
    assert tried[:2] == [[0.1, 0.8, 0.8, 0.8], [1.5, 0.8, 0.8, 0.8]]
    assert tried[2:4] == [[1.5, 0.1, 0.8, 0.8], [1.5, 1.5, 0.8, 0.8]]
    assert tried[4:6] == [[1.5, 0.1, 0.1, 0.8], [1.5, 0.1, 1.5, 0.8]]
    assert tried[6:8] == [[1.5, 0.1, 0.8, 0.1], [1.5, 0.1, 0.8, 1.5]]


def test_coordinate_stays_where_nothing_is_better() -> None:
    history = searched(create("coordinate", SPACE), lambda x: 0.5, 9)
    moved = [[name for name, value in e.weights.items() if value != 0.8] for e in history[1:]]
    assert moved == [["a"], ["a"], ["b"], ["b"], ["c"], ["c"], ["d"], ["d"]]


def test_a_rejected_candidate_is_no_improvement() -> None:
    def broken(vector: Array) -> float | None:
        return None if vector[0] < 0.5 else bowl(vector)

    for name in ("cobyqa", "coordinate"):
        history = searched(create(name, SPACE), broken, 40)
        assert max(e.score or -np.inf for e in history) > -5e-3


def test_a_rejection_counts_as_the_worst_of_its_time_for_good() -> None:
    """That the worst score is a lower one later must not make a strategy begin anew."""
    asked: list[list[float]] = []
    worst = 0.0

    def falling(vector: Array) -> float | None:
        return None if vector[1] > 1.0 else bowl(vector) - 5.0 * float(vector[3] < 0.5)

    def online(fractions: Array) -> float:
        nonlocal worst
        vector = SPACE.scaled(fractions)
        asked.append(vector.tolist())
        found = falling(vector)
        worst = min(worst, 0.0 if found is None else found)
        return worst if found is None else found

    sequential.cobyqa(online, np.full(4, 0.4))
    distinct = [point for i, point in enumerate(asked) if point not in asked[:i]][:22]
    history = searched(create("cobyqa", SPACE), falling, 22)
    assert vectors(history) == distinct
    rejected = [i for i, e in enumerate(history) if e.score is None]
    assert rejected
    lows = np.minimum.accumulate([0.0 if e.score is None else e.score for e in history])
    assert lows[rejected[0]] > lows[-1]


@pytest.mark.parametrize("name", ["cobyqa", "coordinate"])
def test_it_starts_again_elsewhere_when_it_has_ended(name: str) -> None:
    line = Space.box({"x": (0.0, 1.0)})
    history: list[Evaluation] = []
    for number in range(1, 41):
        proposal = create(name, line, seed=4).propose(history, (), number)
        found = -((proposal.weights["x"] - 0.45) ** 2)
        history.append(
            Evaluation(number=number, origin=proposal.origin, weights=proposal.weights, score=found)
        )
    distances = [abs(e.weights["x"] - 0.45) for e in history]
    near = next(i for i, distance in enumerate(distances) if distance < 0.002)
    assert max(distances[near:]) > 0.2


@pytest.mark.parametrize("name", ["cobyqa", "coordinate"])
def test_pending_points_are_no_improvement_until_they_are_known(name: str) -> None:
    history = searched(create(name, SPACE), bowl, 12)
    waiting = [
        Evaluation(number=13, origin=Origin.SEARCH, weights=w)
        for w in [create(name, SPACE).propose(history, (), 13).weights]
    ]
    ahead = create(name, SPACE).propose(history, waiting, 14)
    worse = [
        *history,
        Evaluation(number=13, origin=Origin.SEARCH, weights=waiting[0].weights, score=-2.0),
    ]
    if name == "coordinate":
        assert ahead == create(name, SPACE).propose(worse, (), 14)
    assert ahead.weights != waiting[0].weights
