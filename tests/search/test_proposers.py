from __future__ import annotations

import numpy as np
from scipy import stats

from lib_automerge.search.design import SobolSequence
from lib_automerge.search.proposers import RandomProposer, SobolProposer
from tests.contracts.proposer import grown, unet


def test_random_points_are_uniform() -> None:
    space = unet()
    history = grown(RandomProposer(space, seed=2), space, 43)
    values = np.array([space.vector(e.weights) for e in history[3:]]).ravel()
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_sobol_points_come_in_order_after_the_baselines() -> None:
    space = unet()
    history = grown(SobolProposer(space, seed=2), space, 12)
    sequence = SobolSequence(27, 2, "sobol")
    for index, evaluation in enumerate(history[3:]):
        expected = space.scaled(sequence.point(index)).tolist()
        assert space.vector(evaluation.weights).tolist() == expected


def test_sobol_points_fill_the_space_evenly() -> None:
    sequence = SobolSequence(5, 0, "test")
    points = np.array([sequence.point(index) for index in range(16)])
    for column in points.T:
        # One point in each sixteenth: the defining property in one dimension.
        assert sorted((column * 16).astype(int).tolist()) == list(range(16))


def test_a_sequence_can_be_entered_anywhere() -> None:
    walked, jumped = (SobolSequence(3, 7, "test") for _ in range(2))
    points = [walked.point(index).tolist() for index in range(10)]
    assert jumped.point(9).tolist() == points[9]
    assert next(jumped.points(start=4)).tolist() == points[4]
