"""Runs that were begun before a run knew what it knows now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from lib_automerge.app import plan
from lib_automerge.app.service import Service
from lib_automerge.domain.events import (
    BASELINES,
    FAILED,
    Origin,
    Proposed,
    Rejected,
    SearchEnded,
)
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.search.space import Space
from lib_automerge.study.store import RunFolder, RunManifest
from tests.fake_host import FakeHost, tiny_config


def finished(models: Mapping[str, str], folder: Path) -> tuple[RunManifest, RunState]:
    Service(FakeHost()).start(tiny_config(models, evaluations=9), folder)
    found = RunFolder.open(folder)
    return found.manifest(), found.state()


def test_a_block_that_does_not_differ_means_nothing_whatever_was_written(
    models: Mapping[str, str], folder: Path
) -> None:
    manifest, state = finished(models, folder)
    equal = msgspec.structs.replace(manifest, distances=manifest.distances | {"IN03": 0.0})
    space = plan.space_of(equal)
    assert "IN03" not in space.names
    candidates = [e for e in plan.known(equal, state) if e.origin not in BASELINES]
    assert candidates
    assert any(state.evaluations[e.number].weights["IN03"] for e in candidates)
    assert all(space.contains(e.weights) for e in candidates)


def test_what_could_not_be_made_says_nothing_of_its_weights(
    models: Mapping[str, str], folder: Path
) -> None:
    manifest, state = finished(models, folder)
    number = len(state.evaluations) + 1
    unmade = Evaluation(
        number=number,
        origin=Origin.SEARCH,
        weights=state.evaluations[9].weights,
        rejected=f"{FAILED}: out of memory",
    )
    state.evaluations[number] = unmade
    known = next(e for e in plan.known(manifest, state) if e.number == number)
    assert not plan.space_of(manifest).contains(known.weights)


def test_a_run_without_a_rule_of_the_model_goes_on_without_one(
    models: Mapping[str, str], folder: Path
) -> None:
    manifest, _ = finished(models, folder)
    assert manifest.config.search.stop == "regret"
    path = folder / "run.json"
    told = json.loads(path.read_text())
    del told["config"]["search"]["stop"]
    path.write_text(json.dumps(told))
    assert RunFolder.open(folder).manifest().config.search.stop == "never"


def test_the_limit_on_images_counts_all_that_were_made(
    models: Mapping[str, str], folder: Path
) -> None:
    config = tiny_config(models, evaluations=30, images=25)  # 6 images each
    state = Service(FakeHost()).start(config, folder)
    assert state.search_ended is not None
    assert state.search_ended.reason == "the budget of 25 images is used up"
    assert state.images_before_proof == 30
    given_up = state.copy()
    given_up.evaluations[5] = msgspec.structs.replace(given_up.evaluations[5], images=0)
    assert given_up.images_before_proof == 30


def test_the_hours_end_a_search_by_all_that_it_did(models: Mapping[str, str], folder: Path) -> None:
    manifest, state = finished(models, folder)
    assert state.search_ended is not None
    search = msgspec.structs.replace(manifest.config.search, evaluations=100, hours=1.0)
    config = msgspec.structs.replace(manifest.config, search=search)
    longer = plan.Plan(msgspec.structs.replace(manifest, config=config))
    assert isinstance(longer.next(state), Proposed)
    state.add(Proposed(evaluation=10, origin=Origin.SEARCH, weights={}))
    state.add(Rejected(evaluation=10, reason=f"{FAILED}: no memory", seconds={"total": 3600.0}))
    ended = longer.next(state)
    assert isinstance(ended, SearchEnded)
    assert ended.reason == "the budget of 1 hours is used up"


def test_the_model_of_a_run_knows_how_much_its_payloads_count(
    models: Mapping[str, str], folder: Path
) -> None:
    """A candidate that was given up without the payload that decides is less surely known."""
    manifest, _ = finished(models, folder)
    found = []
    for weight in (1.0, 20.0):
        heavy, *others = manifest.config.payloads
        names = [heavy.name, *(payload.name for payload in others), "third", "fourth"]
        extra = [msgspec.structs.replace(heavy, name=name) for name in names[-2:]]
        payloads = (msgspec.structs.replace(heavy, weight=weight), *others, *extra)
        config = msgspec.structs.replace(manifest.config, payloads=payloads)
        model = plan.model_of(msgspec.structs.replace(manifest, config=config))
        fitted = model.fitted(_scattered(model.space, names))
        assert fitted is not None
        found.append(float(fitted.posterior.predict(fitted.posterior.points[-1:])[1][0]))
    assert found[1] > 1.2 * found[0]


def _scattered(space: Space, names: list[str]) -> list[Evaluation]:
    """Ten evaluations whose payloads scatter, and one without the first payload."""
    draw = np.random.default_rng(0)
    history = []
    for number in range(1, 12):
        scores = dict(zip(names, draw.normal(size=len(names)).tolist(), strict=True))
        whole = number < 11
        history.append(
            Evaluation(
                number=number,
                origin=Origin.SEARCH,
                weights=space.weights(space.scaled(draw.random(space.dimension))),
                score=sum(scores.values()) / len(names) if whole else None,
                rejected=None if whole else "given up",
                images=len(names) - (not whole),
                per_payload=scores if whole else {n: scores[n] for n in names[1:]},
            )
        )
    return history


def test_earlier_runs_leave_room_for_a_candidate(models: Mapping[str, str]) -> None:
    config = tiny_config(models, evaluations=6)
    config = msgspec.structs.replace(
        config, verdict=msgspec.structs.replace(config.verdict, finalists=8)
    )
    assert plan.room_for_earlier(config, 0) == 2
    assert plan.room_for_earlier(config, 1) == 1
    assert plan.room_for_earlier(config, 5) == 0
