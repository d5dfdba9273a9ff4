from __future__ import annotations

import msgspec
import numpy as np
import pytest

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.space import Space
from tests.contracts.proposer import Array

pytest.importorskip("cma")

from lib_automerge.search.evolution import CmaProposer

SPACE = Space.box(dict.fromkeys("abcd", (0.0, 2.0)))
BEST = np.array([0.62, 0.17, 0.35, 0.0])


def bowl(vector: Array) -> float:
    return -float(((vector / 2.0 - BEST) ** 2).sum())


def start(*values: float) -> Evaluation:
    return Evaluation(
        number=1,
        origin=Origin.START,
        weights=dict(zip("abcd", values, strict=True)),
        score=bowl(np.array(values)),
    )


def searched(count: int, history: list[Evaluation], seed: int = 5) -> list[Evaluation]:
    for number in range(len(history) + 1, count + 1):
        proposal = CmaProposer(SPACE, seed=seed).propose(history, (), number)
        found = bowl(SPACE.vector(proposal.weights))
        history = [
            *history,
            Evaluation(
                number=number, origin=proposal.origin, weights=proposal.weights, score=found
            ),
        ]
    return history


def test_it_closes_in_on_the_best_even_at_the_edge() -> None:
    history = searched(110, [start(1.0, 1.0, 1.0, 1.0)])
    assert max(e.score or -np.inf for e in history) > -5e-3
    late = [bowl(SPACE.vector(e.weights)) for e in history[-16:]]
    early = [bowl(SPACE.vector(e.weights)) for e in history[1:17]]
    assert np.median(late) > 0.1 * np.median(early)


def test_it_begins_around_the_best_that_is_known() -> None:
    history = [start(1.6, 1.6, 0.4, 0.4)]
    members = [
        SPACE.vector(CmaProposer(SPACE, seed=seed).propose(history, (), 2).weights)
        for seed in range(40)
    ]
    assert np.allclose(np.mean(members, axis=0), [1.6, 1.6, 0.4, 0.4], atol=0.25)


def test_members_of_a_generation_do_not_depend_on_scores_of_the_same() -> None:
    history = [start(1.0, 1.0, 1.0, 1.0)]
    waiting: list[Evaluation] = []
    for number in range(2, 8):
        proposal = CmaProposer(SPACE, seed=5).propose(history, waiting, number)
        waiting.append(Evaluation(number=number, origin=proposal.origin, weights=proposal.weights))
    assert [e.weights for e in waiting] == [e.weights for e in searched(7, history)[1:]]


def test_the_random_numbers_of_others_are_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.random(3).tolist()
    np.random.seed(3)
    searched(12, [start(1.0, 1.0, 1.0, 1.0)])
    assert np.random.random(3).tolist() == expected


def test_it_begins_again_elsewhere_when_generations_show_no_difference() -> None:
    flat = [msgspec.structs.replace(start(0.4, 0.4, 0.4, 0.4), score=-1.0)]
    rng = np.random.default_rng(1)
    for number in range(2, 34):
        weights = SPACE.weights(rng.normal(0.4, 0.2, 4))
        flat.append(Evaluation(number=number, origin=Origin.SEARCH, weights=weights, score=-1.0))
    again = [
        SPACE.vector(CmaProposer(SPACE, seed=seed).propose(flat, (), 34).weights)
        for seed in range(30)
    ]
    assert np.allclose(np.mean(again, axis=0), 1.0, atol=0.3)
