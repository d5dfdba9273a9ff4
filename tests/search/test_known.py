from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.known import key_of, scores, scores_then, start_of, within
from lib_automerge.search.space import Space

SPACE = Space.box({"x": (0.0, 1.0), "y": (-2.0, 2.0)})


def evaluated(
    number: int,
    x: float,
    y: float,
    score: float | None,
    *,
    origin: Origin = Origin.SEARCH,
    images: int = 4,
) -> Evaluation:
    return Evaluation(
        number=number,
        origin=origin,
        weights={"x": x, "y": y},
        score=score,
        images=images,
        rejected="black images" if score is None else None,
    )


def test_only_the_space_counts_and_in_order_of_numbers() -> None:
    history = [
        evaluated(9, 0.1, 0.0, 1.0),
        evaluated(2, 0.2, 0.0, 1.0),
        evaluated(3, 1.2, 0.0, 1.0),
        Evaluation(number=1, origin=Origin.SEARCH, weights={"z": 0.1}, score=1.0),
    ]
    assert [e.number for e in within(SPACE, history)] == [2, 9]


def test_a_rejected_evaluation_counts_as_the_worst() -> None:
    history = [evaluated(1, 0.1, 0.0, 3.0), evaluated(2, 0.2, 0.0, None), evaluated(3, 1, 1, -5.0)]
    assert scores(SPACE, history) == {(0.1, 0.0): 3.0, (0.2, 0.0): -5.0, (1.0, 1.0): -5.0}


def test_points_are_equal_while_nothing_has_a_score() -> None:
    history = [evaluated(1, 0.1, 0.0, None), evaluated(2, 0.2, 0.0, None)]
    assert scores(SPACE, history) == scores_then(SPACE, history) == {(0.1, 0.0): 0, (0.2, 0.0): 0}
    assert start_of(SPACE, history) is None


def test_what_a_point_was_worth_then_does_not_change_any_more() -> None:
    history = [
        evaluated(1, 0.0, 0.0, None),
        evaluated(2, 0.1, 0.0, 3.0),
        evaluated(3, 0.2, 0.0, 2.0),
        evaluated(4, 0.3, 0.0, None),
        evaluated(5, 0.4, 0.0, -9.0),
        evaluated(6, 0.1, 0.0, 7.0),
        evaluated(7, 0.3, 0.0, 1.0),
    ]
    worth = {(0.0, 0.0): 3.0, (0.1, 0.0): 3.0, (0.2, 0.0): 2.0, (0.3, 0.0): 2.0, (0.4, 0.0): -9.0}
    assert scores_then(SPACE, history) == worth
    for count in range(2, 8):
        part = scores_then(SPACE, history[:count])
        assert part == {key_of(SPACE, e): worth[key_of(SPACE, e)] for e in history[:count]}


@pytest.mark.parametrize(
    ("images", "expected"), [((4, 4, 4), 0.75), ((4, 1, 4), 0.5), ((1, 1, 1), 0.75)]
)
def test_the_start_is_the_best_that_was_given_and_complete(
    images: tuple[int, int, int], expected: float
) -> None:
    history = [
        evaluated(1, 0.0, 0.0, -1.0, origin=Origin.MODEL_A, images=images[0]),
        evaluated(2, 0.75, 1.0, 5.0, origin=Origin.START, images=images[1]),
        evaluated(3, 0.5, 0.0, 4.0, origin=Origin.HALF, images=images[2]),
        evaluated(4, 0.2, 0.0, 9.0),
    ]
    start = start_of(SPACE, history)
    assert start is not None
    assert start[0] == expected
    assert np.all((start >= 0.0) & (start <= 1.0))


def test_the_start_is_a_fraction_of_every_range() -> None:
    start = start_of(SPACE, [evaluated(1, 0.25, 1.0, 2.0, origin=Origin.START)])
    assert start is not None
    assert start.tolist() == [0.25, 0.75]
