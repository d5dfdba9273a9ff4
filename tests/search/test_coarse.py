"""Searching groups of blocks before single ones."""

from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.domain.architectures import get
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.bayes import BayesProposer
from lib_automerge.search.design import design_size
from lib_automerge.search.model import Model
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from lib_automerge.search.subspace import Subspace, groups_of
from tests.contracts.proposer import baselines, score, unet


def history_of(space: Space, evaluations: int, seed: int = 1) -> list[Evaluation]:
    """What a coarse search proposes, scored by a smooth landscape."""
    proposer = BayesProposer(space, seed=seed, coarse_first=True)
    history = baselines(space)
    for number in range(4, evaluations + 1):
        proposal = proposer.propose(history, (), number)
        history.append(
            Evaluation(
                number=number,
                origin=proposal.origin,
                weights=proposal.weights,
                score=score(space, proposal.weights),
            )
        )
    return history


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_blocks_are_grouped_with_their_neighbours(name: str) -> None:
    space = Space.of(SearchConfig(), get(name))
    groups = groups_of(space)
    assert sorted(position for group in groups for position in group) == list(
        range(len(space.names))
    )
    assert 5 <= len(groups) <= 9
    for group in groups:
        prefixes = {space.names[position].rstrip("0123456789") for position in group}
        assert len(prefixes) == 1 or prefixes <= {"TIME_EMBED", "OUT", "LABEL_EMB"}
        assert list(group) == list(range(group[0], group[0] + len(group)))


def test_a_space_without_groups_is_cut_too() -> None:
    space = Space.box({f"x{i}": (0.0, 1.0) for i in range(110)})
    groups = groups_of(space)
    assert len(groups) <= 9
    assert sorted(position for group in groups for position in group) == list(range(110))
    assert groups_of(Space.box({"x": (0.0, 1.0)})) == ((0,),)


def test_a_subspace_maps_both_ways() -> None:
    grouped = Subspace.grouped(((0, 2), (1,)))
    assert grouped.points(np.array([[0.3, 0.8]])).tolist() == [[0.3, 0.8, 0.3]]
    assert grouped.inner(np.array([[0.2, 0.5, 0.4]])) == pytest.approx(np.array([[0.3, 0.5]]))
    part = Subspace.around(np.array([0.1, 0.2, 0.3]), [2, 0])
    assert part.points(np.array([[0.7, 0.9]])).tolist() == [[0.7, 0.2, 0.9]]
    assert part.inner(np.array([[0.7, 0.2, 0.9]])).tolist() == [[0.7, 0.9]]


def test_groups_first_then_single_blocks_then_all() -> None:
    space = unet()
    groups = groups_of(space)
    history = history_of(space, 64)
    coarse = design_size(len(groups)) + 3 * len(groups)
    vectors = {e.number: space.vector(e.weights) for e in history if e.number > 3}
    uneven = {
        number: [group for group in groups if np.ptp(vector[list(group)]) > 0.01]
        for number, vector in vectors.items()
    }
    # model A is the only baseline within the space, so it is the first of those that count
    first_fine = coarse + 3
    assert not any(uneven[number] for number in uneven if number < first_fine)
    assert len(uneven[first_fine]) == 1
    known = [e for e in history if e.number < first_fine]
    knowledge = Model(space).learn(known)
    assert knowledge is not None
    best = space.vector(history[knowledge.leader.number - 1].weights)
    moved = np.flatnonzero(np.abs(vectors[first_fine] - best) > 1e-9)
    assert set(moved) <= set(uneven[first_fine][0])
    assert len(uneven[64]) > 1


def test_a_coarse_search_answers_from_its_arguments_alone() -> None:
    rules = {"IN00": BlockRule(fixed=0.25), "OUT00": BlockRule(tied_to="M00")}
    space = Space.of(SearchConfig(low=-1.0, high=2.0, blocks=rules), get("sdxl"))
    history = history_of(space, 48)
    for count in (3, 20, 40, 47):
        fresh = BayesProposer(space, seed=1, coarse_first=True)
        proposal = fresh.propose(history[:count][::-1], (), count + 1)
        assert proposal.weights == history[count].weights
    assert all(space.contains(e.weights) for e in history[3:])


def test_one_parameter_is_a_group_of_its_own() -> None:
    space = Space.box({"x": (0.2, 0.9)})
    proposer = BayesProposer(space, seed=0, coarse_first=True)
    rng = generator(0, "line")
    history: list[Evaluation] = []
    for number in range(1, 16):
        proposal = proposer.propose(history, (), number)
        value = float(rng.normal())
        history.append(
            Evaluation(number=number, origin=proposal.origin, weights=proposal.weights, score=value)
        )
    assert len({e.weights["x"] for e in history}) == 15
