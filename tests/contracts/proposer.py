"""What every proposer must do. Subclass with a fixture `name`, a registered proposer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lib_automerge.domain.architectures import get
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.errors import SearchError
from lib_automerge.search.proposers import Proposer, create
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space


def unet() -> Space:
    """The 27 blocks of SD1, from A to B."""
    return Space.of(SearchConfig(), get("sd1"))


def ruled() -> Space:
    """SDXL with a wider range, fixed and tied blocks, and a text encoder opted in."""
    rules = {
        "IN00": BlockRule(fixed=0.25),
        "M00": BlockRule(low=-0.5, high=0.5),
        "OUT00": BlockRule(tied_to="M00"),
        "OUT01": BlockRule(tied_to="OUT00"),
        "OUT02": BlockRule(tied_to="IN00"),
        "BASE_L": BlockRule(),
    }
    return Space.of(SearchConfig(low=-1.0, high=2.0, blocks=rules), get("sdxl"))


def single() -> Space:
    """One free parameter."""
    return Space.box({"x": (0.2, 0.9)})


def score(space: Space, weights: dict[str, float]) -> float:
    """A smooth score with its best a third into every range; negative everywhere."""
    fraction = (space.vector(weights) - space.low) / (space.high - space.low)
    return -1.0 - float(((fraction - 1 / 3) ** 2).sum())


def baselines(space: Space) -> list[Evaluation]:
    """A, B and 50:50 as a run records them; not all of them lie in every space."""
    uniform = ((Origin.MODEL_A, 0.0), (Origin.MODEL_B, 1.0), (Origin.HALF, 0.5))
    return [
        Evaluation(
            number=number,
            origin=origin,
            weights=dict.fromkeys(space.blocks, value),
            score=-3.0,
            images=4,
        )
        for number, (origin, value) in enumerate(uniform, start=1)
    ]


def grown(proposer: Proposer, space: Space, evaluations: int) -> list[Evaluation]:
    """A history of this many evaluations, as the proposer makes it: every fifth is rejected and
    every seventh is partial."""
    history = baselines(space)
    for number in range(4, evaluations + 1):
        proposal = proposer.propose(history, (), number)
        evaluation = Evaluation(
            number=number,
            origin=proposal.origin,
            weights=proposal.weights,
            score=None if number % 5 == 0 else score(space, proposal.weights),
            rejected="black images" if number % 5 == 0 else None,
            images=1 if number % 7 == 0 else 4,
        )
        history.append(evaluation)
    return history


def pending(evaluation: Evaluation) -> Evaluation:
    """The evaluation as it was before it was scored."""
    return Evaluation(
        number=evaluation.number, origin=evaluation.origin, weights=evaluation.weights
    )


class ProposerContract:
    """Tests that hold for any proposer."""

    @pytest.fixture(params=[unet, ruled, single])
    def space(self, request: pytest.FixtureRequest) -> Space:
        make: Callable[[], Space] = request.param
        return make()

    def test_stays_within_the_space_and_never_repeats_itself(self, name: str, space: Space) -> None:
        history = grown(create(name, space, seed=3), space, 20)
        proposed = [e.weights for e in history if e.number > 3]
        assert all(space.contains(weights) for weights in proposed)
        assert all(weights.keys() == space.blocks.keys() for weights in proposed)
        assert len({tuple(e.weights.values()) for e in history}) == 20

    def test_rounds_so_that_a_recipe_is_exact(self, name: str, space: Space) -> None:
        for evaluation in grown(create(name, space, seed=3), space, 16)[3:]:
            for weight in evaluation.weights.values():
                assert type(weight) is float
                assert weight == round(weight, space.decimals)

    def test_answers_from_its_arguments_alone(self, name: str, space: Space) -> None:
        used = create(name, space, seed=3)
        history = grown(used, space, 18)
        for count in (3, 8, 15, 18):
            fresh = create(name, space, seed=3).propose(history[:count], (), count + 1)
            assert used.propose(history[:count], (), count + 1) == fresh
            if count < 18:
                assert fresh.weights == history[count].weights

    def test_the_order_of_the_history_does_not_matter(self, name: str, space: Space) -> None:
        proposer = create(name, space, seed=3)
        history = grown(proposer, space, 15)
        assert proposer.propose(history[::-1], (), 16) == proposer.propose(history, (), 16)

    def test_other_seeds_give_other_proposals(self, name: str) -> None:
        history = grown(create(name, unet(), seed=3), unet(), 14)
        proposals = [create(name, unet(), seed=s).propose(history, (), 15) for s in (1, 2)]
        assert proposals[0] != proposals[1]

    def test_avoids_what_others_are_evaluating(self, name: str, space: Space) -> None:
        proposer = create(name, space, seed=3)
        history = grown(proposer, space, 14)
        waiting: list[Evaluation] = []
        for number in range(15, 20):
            proposal = proposer.propose(history, waiting, number)
            assert space.contains(proposal.weights)
            waiting.append(
                Evaluation(number=number, origin=proposal.origin, weights=proposal.weights)
            )
        seen = [tuple(e.weights.values()) for e in (*history, *waiting)]
        assert len(set(seen)) == len(seen)

    def test_begins_without_any_history(self, name: str, space: Space) -> None:
        proposal = create(name, space, seed=3).propose((), (), 1)
        assert space.contains(proposal.weights)

    def test_works_when_everything_is_still_pending(self, name: str, space: Space) -> None:
        proposer = create(name, space, seed=3)
        waiting = [pending(e) for e in grown(proposer, space, 16)]
        proposal = proposer.propose((), waiting, 17)
        assert space.contains(proposal.weights)
        assert proposal.weights not in [e.weights for e in waiting]

    def test_works_when_everything_was_rejected(self, name: str, space: Space) -> None:
        proposer = create(name, space, seed=3)
        history = [
            Evaluation(number=e.number, origin=e.origin, weights=e.weights, rejected="black")
            for e in grown(proposer, space, 16)
        ]
        proposal = proposer.propose(history, (), 17)
        assert space.contains(proposal.weights)
        assert proposal.weights not in [e.weights for e in history]

    def test_is_not_upset_by_equal_scores(self, name: str, space: Space) -> None:
        proposer = create(name, space, seed=3)
        history = [
            Evaluation(number=e.number, origin=e.origin, weights=e.weights, score=0.5)
            for e in grown(proposer, space, 15)
        ]
        assert space.contains(proposer.propose(history, (), 16).weights)

    def test_ignores_evaluations_outside_the_space(self, name: str) -> None:
        space = Space.box({"x": (0.0, 1.0), "y": (0.0, 1.0)})
        proposer = create(name, space, seed=3)
        rng = generator(5, "test")
        inside = [
            Evaluation(number=n, origin=Origin.DESIGN, weights={"x": x, "y": y}, score=x - y)
            for n, (x, y) in enumerate(np.round(rng.random((12, 2)), 4).tolist(), start=1)
        ]
        outside = Evaluation(
            number=13, origin=Origin.DESIGN, weights={"x": 1.5, "y": 0.5}, score=99.0
        )
        foreign = Evaluation(number=14, origin=Origin.DESIGN, weights={"z": 0.5}, score=99.0)
        assert proposer.propose([*inside, outside, foreign], [outside], 15) == proposer.propose(
            inside, (), 15
        )

    def test_takes_the_last_free_point_and_then_says_so(self, name: str) -> None:
        space = Space(names=("x",), bounds=((0.0, 0.3),), blocks={"x": "x"}, decimals=1)
        proposer = create(name, space, seed=3)
        history: list[Evaluation] = []
        for number in range(1, 5):
            proposal = proposer.propose(history, (), number)
            history.append(
                Evaluation(
                    number=number, origin=proposal.origin, weights=proposal.weights, score=0.1
                )
            )
        assert sorted(e.weights["x"] for e in history) == [0.0, 0.1, 0.2, 0.3]
        with pytest.raises(SearchError, match="nothing is left to propose"):
            proposer.propose(history, (), 5)
