"""What every proposer must do. Subclass with a fixture `name`, a registered proposer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from lib_automerge.domain.architectures import get
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.errors import SearchError
from lib_automerge.search.proposers import Proposer, create, taken
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

Array = NDArray[np.float64]


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
    return -1.0 - float(((fractions(space, weights) - 1 / 3) ** 2).sum())


def mixed() -> Space:
    """Ranges of very different widths, one of them a millionth."""
    return Space.box({"x": (0.0, 1.0), "narrow": (0.3, 0.300001), "wide": (-500.0, 1000.0)})


def large() -> Space:
    """110 parameters, as many as the finest block maps have."""
    return Space.box({f"block{index:03}": (0.0, 1.0) for index in range(110)})


def fractions(space: Space, weights: dict[str, float]) -> Array:
    """The place of the weights within every range, (d,)."""
    return (space.vector(weights) - space.low) / (space.high - space.low)


LANDSCAPES: dict[str, Callable[[Array], float | None]] = {
    "constant": lambda x: 0.5,
    "best at a parent": lambda x: -float(x.sum()),
    "best at a corner": lambda x: float(x[0] - x[1:].sum()),
    "scores of a billionth": lambda x: -1e-9 * float(((x - 0.3) ** 2).sum()),
    "scores of a billion": lambda x: 1e9 * (5.0 - float(((x - 0.3) ** 2).sum())),
    "half of it broken": lambda x: None if x[0] > 0.5 else float(x.sum()),
    "all broken": lambda x: None,
}


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


def scattered(space: Space, count: int, *, scale: float = 1.0) -> list[Evaluation]:
    """A history that no single optimizer would make: gaps between the numbers, some points twice,
    every fourth rejected, every second of these with what four payloads said, every sixth partial,
    and what is outside of the space."""
    history = baselines(space)
    rng = generator(5, "scattered")
    for index in range(count):
        again = index % 9 == 8
        weights = (
            history[-1].weights
            if again
            else space.weights(space.scaled(rng.random(space.dimension)))
        )
        rejected, given_up = index % 4 == 3, index % 8 == 7
        found = scale * (score(space, weights) + 0.01 * index)
        payloads = [found + scale * (ease + 0.01 * rng.normal()) for ease in (-2, -1, 0, 0, 1, 2)]
        count = 6 if not rejected else 4 if given_up else 0
        history.append(
            Evaluation(
                number=4 + 3 * index,
                origin=Origin.SEARCH,
                weights=weights,
                score=None if rejected else found,
                rejected=("worse" if given_up else "black images") if rejected else None,
                images=1 if index % 6 == 5 else count,
                per_payload={f"p{n}": value for n, value in enumerate(payloads[:count])},
            )
        )
    history[:3] = [msgspec.structs.replace(e, score=scale * (-3.0 - e.number)) for e in history[:3]]
    outside = Evaluation(
        number=5, origin=Origin.EARLIER, weights=dict.fromkeys(space.blocks, 7e7), score=9.0 * scale
    )
    return [*history, outside]


def survives(name: str, space: Space, history: list[Evaluation], count: int = 3) -> None:
    """Check the next proposals: within the space, new, and the same from a new proposer."""
    proposer = create(name, space, seed=3)
    waiting: list[Evaluation] = []
    first = max(e.number for e in history) + 1
    for number in range(first, first + count):
        proposal = proposer.propose(history, waiting, number)
        assert proposal == create(name, space, seed=3).propose(history, waiting, number)
        assert space.contains(proposal.weights)
        assert space.key(space.vector(proposal.weights)) not in taken(space, history, waiting)
        waiting.append(Evaluation(number=number, origin=proposal.origin, weights=proposal.weights))


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
        # Long enough for those that draw only where they start again.
        runs = [grown(create(name, single(), seed=s), single(), 36) for s in (1, 2)]
        assert [e.weights for e in runs[0]] != [e.weights for e in runs[1]]

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

    @pytest.mark.parametrize("landscape", LANDSCAPES)
    def test_survives_any_landscape_and_resumes_in_it(self, name: str, landscape: str) -> None:
        space = mixed()
        proposer = create(name, space, seed=3)
        history: list[Evaluation] = []
        for number in range(1, 25):
            proposal = proposer.propose(history, (), number)
            found = LANDSCAPES[landscape](fractions(space, proposal.weights))
            assert space.contains(proposal.weights)
            assert space.key(space.vector(proposal.weights)) not in taken(space, history)
            history.append(
                Evaluation(
                    number=number,
                    origin=proposal.origin,
                    weights=proposal.weights,
                    score=found,
                    rejected=None if found is not None else "black images",
                )
            )
        for count in (1, 13, 23):
            resumed = create(name, space, seed=3).propose(history[:count], (), count + 1)
            assert resumed.weights == history[count].weights

    def test_survives_gaps_duplicates_and_what_is_foreign(self, name: str, space: Space) -> None:
        survives(name, space, scattered(space, 60))

    def test_survives_110_parameters(self, name: str) -> None:
        space = large()
        survives(name, space, scattered(space, 60), count=2)

    def test_the_unit_of_the_scores_does_not_matter(self, name: str, space: Space) -> None:
        proposals = [
            create(name, space, seed=3).propose(scattered(space, 45, scale=scale), (), 200)
            for scale in (1.0, 2.0**-45, 2.0**45)
        ]
        assert proposals[0] == proposals[1] == proposals[2]

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
        space = Space(names=("x",), bounds=((0.0, 0.9),), blocks={"x": "x"}, decimals=1)
        proposer = create(name, space, seed=3)
        history: list[Evaluation] = []
        for number in range(1, 11):
            proposal = proposer.propose(history, (), number)
            history.append(
                Evaluation(
                    number=number, origin=proposal.origin, weights=proposal.weights, score=0.1
                )
            )
        assert sorted(e.weights["x"] for e in history) == [step / 10 for step in range(10)]
        with pytest.raises(SearchError, match="nothing is left to propose"):
            proposer.propose(history, (), 11)
