from __future__ import annotations

import io
import logging
import warnings

import numpy as np
import pytest

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.proposers import create, missing
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space
from tests.contracts.proposer import Array, baselines, grown, unet

optuna = pytest.importorskip("optuna")

SPACE = Space.box({"x": (0.0, 1.0), "y": (10.0, 30.0), "z": (0.0, 1.0)})


@pytest.fixture(params=["tpe", "gp"])
def name(request: pytest.FixtureRequest) -> str:
    if missing(request.param):
        pytest.skip("a package is missing")
    return str(request.param)


def loss(vector: Array) -> float:
    """Least near x = 0.2, y = 26, z = 0.5."""
    fractions = (vector - SPACE.low) / (SPACE.high - SPACE.low)
    return float(((fractions - [0.2, 0.8, 0.5]) ** 2).sum())


def known(count: int) -> list[Evaluation]:
    """Random points."""
    rng = generator(1, "test")
    history = []
    for number in range(1, count + 1):
        vector = SPACE.scaled(rng.random(3))
        history.append(
            Evaluation(
                number=number,
                origin=Origin.EARLIER,
                weights=SPACE.weights(vector),
                score=-loss(vector),
            )
        )
    return history


def test_it_begins_with_the_start_design(name: str) -> None:
    history = grown(create(name, SPACE, seed=3), SPACE, 13)
    design = grown(create("bayes", SPACE, seed=3), SPACE, 12)
    assert [e.origin for e in history[3:]] == [Origin.DESIGN] * 9 + [Origin.SEARCH]
    assert history[3:12] == design[3:12]


def test_what_came_before_takes_the_place_of_the_start_design(name: str) -> None:
    assert create(name, SPACE).propose(known(12), (), 13).origin is Origin.SEARCH
    assert create(name, unet()).propose(baselines(unet()), (), 4).origin is Origin.DESIGN


def test_it_proposes_near_the_best(name: str) -> None:
    history = known(60)
    proposals = [
        SPACE.vector(create(name, SPACE, seed=seed).propose(history, (), 61).weights)
        for seed in range(12)
    ]
    found = np.array([loss(vector) for vector in proposals])
    assert np.median(found) < 0.5 * np.median([-(e.score or 0.0) for e in history])


def test_it_keeps_away_from_what_others_evaluate() -> None:
    """Six evaluators at once look at six places, not at the same one six times."""
    if missing("gp"):
        pytest.skip("a package is missing")
    proposer = create("gp", SPACE, seed=1)
    history, waiting = known(25), []
    for number in range(26, 31):
        proposal = proposer.propose(history, waiting, number)
        waiting.append(Evaluation(number=number, origin=Origin.SEARCH, weights=proposal.weights))
    points = np.array([SPACE.vector(e.weights) / [1.0, 20.0, 1.0] for e in waiting])
    alone = np.array(
        [
            SPACE.vector(proposer.propose(history, (), number).weights) / [1.0, 20.0, 1.0]
            for number in range(26, 31)
        ]
    )
    assert alone.std(axis=0).sum() < 0.01
    assert points.std(axis=0).sum() > 0.1


def test_optuna_is_silent_and_its_settings_stay(name: str) -> None:
    optuna.logging.set_verbosity(logging.INFO)
    heard = io.StringIO()
    listener = logging.StreamHandler(heard)
    logging.getLogger("optuna").addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            create(name, SPACE).propose(known(20), known(2)[:1], 21)
    finally:
        logging.getLogger("optuna").removeHandler(listener)
    assert heard.getvalue() == ""
    assert [str(w.message) for w in warned] == []
    assert optuna.logging.get_verbosity() == logging.INFO
