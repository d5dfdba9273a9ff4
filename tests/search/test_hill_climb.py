from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.hill_climb import Climb, HillClimbProposer
from tests.contracts.proposer import baselines, score, unet

HERE = np.array([0.5])


def test_five_steps_with_one_success_leave_the_width() -> None:
    climb = Climb(HERE, 0.0, 0.1)
    for found in (-1.0, -1.0, 1.0, -1.0, -1.0):
        climb = climb.after(HERE, found, step=True)
    assert climb.width == pytest.approx(0.1)
    assert climb.score == 1.0


def test_success_widens_and_failure_narrows() -> None:
    assert Climb(HERE, 0.0, 0.1).after(HERE, 1.0, step=True).width > 0.1
    assert Climb(HERE, 0.0, 0.1).after(HERE, 0.0, step=True).width < 0.1
    assert Climb(HERE, 0.0, 0.1).after(HERE, 1.0, step=False).width == 0.1


def test_it_starts_again_when_steps_no_longer_matter() -> None:
    climb = Climb(HERE, 0.0, 0.001)
    assert climb.after(HERE, -1.0, step=True).at is None
    again = climb.after(HERE, -1.0, step=True).after(HERE, -5.0, step=True)
    assert again.at is HERE
    assert again.score == -5.0


def test_it_steps_from_the_best_whoever_found_it() -> None:
    space = unet()
    found = dict.fromkeys(space.blocks, 0.0) | dict.fromkeys(space.names, 0.31)
    best = Evaluation(number=4, origin=Origin.EARLIER, weights=found, score=-1.5, images=4)
    proposal = HillClimbProposer(space, seed=1).propose([*baselines(space), best], (), 5)
    moved = [name for name in space.names if proposal.weights[name] != 0.31]
    assert 1 <= len(moved) <= 12


def test_a_smooth_score_improves_step_by_step() -> None:
    space = unet()
    proposer = HillClimbProposer(space, seed=2)
    history: list[Evaluation] = []
    for number in range(1, 101):
        proposal = proposer.propose(history, (), number)
        found = score(space, proposal.weights)
        history.append(
            Evaluation(number=number, origin=proposal.origin, weights=proposal.weights, score=found)
        )
    gaps = [-1.0 - max(e.score or -np.inf for e in history[:count]) for count in (1, 40, 100)]
    assert gaps[1] < 0.85 * gaps[0]
    assert gaps[2] < 0.6 * gaps[0]
