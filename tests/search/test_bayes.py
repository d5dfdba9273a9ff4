from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.bayes import BayesProposer
from lib_automerge.search.design import SobolSequence, design_size
from lib_automerge.search.kernel import Kernel
from lib_automerge.search.model import Model
from lib_automerge.search.observations import observed
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from lib_automerge.search.surrogate import Observations, Posterior, fit
from tests.contracts.proposer import grown, ruled, unet

PLANE = Space.box({"x": (0.0, 1.0), "y": (0.0, 2.0)})


def at(number: int, x: float, y: float, score: float | None = None, images: int = 0) -> Evaluation:
    return Evaluation(
        number=number,
        origin=Origin.SEARCH,
        weights={"x": x, "y": y},
        score=score,
        images=images,
        rejected="black images" if score is None else None,
    )


def scattered(count: int) -> list[Evaluation]:
    """Evaluations of a bowl with its best at (0.3, 1.4)."""
    points = np.round(generator(0, "scattered").random((count, 2)) * [1.0, 2.0], 4)
    return [
        at(n, x, y, score=-((x - 0.3) ** 2) - (y / 2 - 0.7) ** 2, images=4)
        for n, (x, y) in enumerate(points.tolist(), start=1)
    ]


def test_the_design_is_uniform_merges_then_sobol_points() -> None:
    space = unet()
    history = grown(BayesProposer(space, seed=5), space, 16)
    # B and 50:50 merge the text encoder too, so they are not points of this space.
    assert [space.contains(e.weights) for e in history[:3]] == [True, False, False]
    uniform = [set(space.vector(e.weights).tolist()) for e in history[3:6]]
    assert uniform == [{0.3}, {0.7}, {0.5}]
    sequence = SobolSequence(27, 5, "start design")
    for index, evaluation in enumerate(history[6:14]):
        expected = space.scaled(sequence.point(index)).tolist()
        assert space.vector(evaluation.weights).tolist() == expected
    assert [e.origin for e in history[3:]] == [Origin.DESIGN] * 11 + [Origin.SEARCH] * 2


def test_the_ends_of_odd_ranges_are_within_them() -> None:
    """low + 1 * (high - low) is above high by the last digit: the package would complain."""
    low, high = -0.34, 0.27
    assert low + 1.0 * (high - low) > high
    space = Space.box({"x": (low, high), "y": (0.0, 2.0)})
    history = [at(n, (low, high)[n % 2], 0.1 * n, score=float(n), images=4) for n in range(1, 9)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposed = BayesProposer(space, seed=0).propose(history, (), 9)
    assert low <= proposed.weights["x"] <= high


def test_baselines_within_the_space_are_part_of_the_design() -> None:
    history = [
        Evaluation(number=n, origin=origin, weights={"x": w, "y": 2 * w}, score=w)
        for n, (origin, w) in enumerate(
            [(Origin.MODEL_A, 0.0), (Origin.MODEL_B, 1.0), (Origin.HALF, 0.5)], start=1
        )
    ]
    proposer = BayesProposer(PLANE, seed=0)
    while len(history) < 8:
        number = len(history) + 1
        proposal = proposer.propose(history, (), number)
        history.append(
            Evaluation(number=number, origin=proposal.origin, weights=proposal.weights, score=0.5)
        )
    assert [e.weights for e in history[3:5]] == [{"x": 0.3, "y": 0.6}, {"x": 0.7, "y": 1.4}]
    assert {"x": 0.5, "y": 1.0} not in [e.weights for e in history[3:]]
    assert [e.origin for e in history[3:]] == [Origin.DESIGN] * 4 + [Origin.SEARCH]


@pytest.mark.parametrize(("dimension", "size"), [(1, 5), (2, 7), (4, 11), (5, 12), (27, 12)])
def test_few_parameters_need_a_smaller_design(dimension: int, size: int) -> None:
    assert design_size(dimension) == size


def test_fractions_are_of_each_range() -> None:
    space = ruled()
    proposal = BayesProposer(space, seed=0).propose((), (), 1)
    assert proposal.weights["M00"] == pytest.approx(-0.2)
    assert proposal.weights["IN01"] == pytest.approx(-0.1)


def test_finds_the_top_of_a_bowl() -> None:
    history = scattered(14)
    found = [BayesProposer(PLANE, seed=0).propose(history, (), n).weights for n in (15, 16)]
    assert [w["x"] for w in found] == pytest.approx([0.3, 0.3], abs=0.05)
    assert [w["y"] for w in found] == pytest.approx([1.4, 1.4], abs=0.1)


def test_moves_away_from_rejected_candidates() -> None:
    history = scattered(14)
    tempting = BayesProposer(PLANE, seed=0).propose(history, (), 16).weights
    around = [(0.3, 1.4), (0.32, 1.42), (0.28, 1.38), (0.32, 1.38), (0.28, 1.42)]
    rejected = [at(15 + i, x, y) for i, (x, y) in enumerate(around)]
    moved = BayesProposer(PLANE, seed=0).propose(history + rejected, (), 20).weights
    distance = np.hypot(moved["x"] - 0.3, (moved["y"] - 1.4) / 2)
    # the rejected ones lie within 0.03 of the top
    assert np.hypot(tempting["x"] - 0.3, (tempting["y"] - 1.4) / 2) < 0.02 < 0.06 < distance


def test_pending_points_push_the_next_one_away() -> None:
    history = [
        at(n, x, y, score=float(np.sin(5 * x) + np.cos(3 * y) + 0.3 * np.sin(11 * x * y)))
        for n, (x, y) in enumerate(
            np.round(generator(3, "pending").random((10, 2)) * [1.0, 2.0], 4).tolist(), start=1
        )
    ]
    proposer = BayesProposer(PLANE, seed=0)
    first = proposer.propose(history, (), 11).weights
    waiting = [Evaluation(number=11, origin=Origin.SEARCH, weights=first)]
    alone = proposer.propose(history, (), 13).weights
    beside = proposer.propose(history, waiting, 13).weights

    def distance(weights: dict[str, float]) -> float:
        return float(np.hypot(weights["x"] - first["x"], weights["y"] - first["y"]))

    # A repeated proposal alone would move by 0.002 at most, to be another point.
    assert distance(alone) < 0.001 < 0.01 < distance(beside)


def test_partial_scores_count_less_than_complete_ones() -> None:
    history = scattered(14)
    whole = observed(PLANE, [*history, at(15, 0.9, 0.2, score=0.5, images=4)])
    assert whole.noise.tolist() == [1.0] * 15
    part = observed(PLANE, [*history, at(15, 0.9, 0.2, score=0.5, images=1)])
    assert part.noise.tolist() == [1.0] * 14 + [4.0]


def test_the_model_is_told_how_noisy_each_score_is() -> None:
    rng = generator(4, "noisy")
    complete = [
        at(n, x, y, score=-((x - 0.3) ** 2) + 0.1 * float(rng.normal()), images=8)
        for n, (x, y) in enumerate(np.round(rng.random((20, 2)), 4).tolist(), start=1)
    ]
    model = Model(PLANE)
    trusted, doubted = (
        model.learn([*complete, at(21, 0.9, 1.5, score=0.4, images=images)]) for images in (8, 1)
    )
    assert trusted is not None
    assert doubted is not None
    believed = [
        next(b.mean for b in knowledge.ranking if b.number == 21)
        for knowledge in (trusted, doubted)
    ]
    assert believed[0] > believed[1] + 0.1


def test_rejected_candidates_get_the_worst_score_seen() -> None:
    known = [at(1, 0.1, 0.1, score=-3.0), at(2, 0.2, 0.2), at(3, 0.3, 0.3, score=5.0)]
    found = observed(PLANE, known)
    assert found.vectors.tolist() == [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]
    assert found.scores.tolist() == [-3.0, -3.0, 5.0]
    assert found.noise.tolist() == [1.0, 1.0, 1.0]
    # made up, so it may be wrong by as much as scores differ: the variance of -3 and 5
    assert found.error.tolist() == [0.0, 16.0, 0.0]


def test_repeated_points_become_one_that_is_surer() -> None:
    known = [
        at(1, 0.1, 0.1, score=1.0, images=4),
        at(2, 0.2, 0.2, score=0.0, images=4),
        at(3, 0.1, 0.1, score=4.0, images=2),
    ]
    found = observed(PLANE, known)
    assert found.vectors.tolist() == [[0.1, 0.1], [0.2, 0.2]]
    assert found.scores.tolist() == [2.0, 0.0]
    assert found.noise.tolist() == pytest.approx([1 / 1.5, 1.0])
    assert found.numbers == ((1, 3), (2,))


def test_observations_come_in_the_order_of_their_numbers() -> None:
    # The order decides the last digits of the model.
    known = scattered(6)
    forwards, backwards = observed(PLANE, known), observed(PLANE, known[::-1])
    assert forwards.vectors.tolist() == backwards.vectors.tolist()
    assert forwards.scores.tolist() == backwards.scores.tolist()


def test_says_nothing_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    history = scattered(14)
    twice = [*history, at(15, *history[3].weights.values(), score=-0.1, images=4)]
    BayesProposer(PLANE, seed=0).propose(twice, (), 16)
    assert capsys.readouterr() == ("", "")


def test_the_package_is_loaded_for_bayes_only() -> None:
    code = (
        "import sys\n"
        "from lib_automerge.search.proposers import create, names\n"
        "from lib_automerge.search.space import Space\n"
        "space = Space.box({'x': (0.0, 1.0)})\n"
        "create('sobol', space, seed=0).propose((), (), 4)\n"
        "assert not {'bayes_opt', 'sklearn'} & set(sys.modules)\n"
        "create('bayes', space, seed=0)\n"
        "assert 'bayes_opt' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_thread_computes_whatever_the_host_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    # How many threads share a sum decides its last digits, and small matrices gain nothing.
    threads: list[int] = []

    def watched(kernel: Kernel, observations: Observations) -> Posterior:
        threads.extend(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")
        return fit(kernel, observations)

    monkeypatch.setattr("lib_automerge.search.model.fit", watched)
    with threadpool_limits(2, user_api="blas"):
        BayesProposer(PLANE, seed=0).propose(scattered(14), (), 15)
    assert set(threads) == {1}
