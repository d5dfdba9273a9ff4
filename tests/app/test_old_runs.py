"""Runs that were begun before a run knew what it knows now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.app import plan
from lib_automerge.app.service import Service
from lib_automerge.domain.events import BASELINES, FAILED, Origin
from lib_automerge.domain.run import Evaluation, RunState
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


def test_earlier_runs_leave_room_for_a_candidate(models: Mapping[str, str]) -> None:
    config = tiny_config(models, evaluations=6)
    config = msgspec.structs.replace(
        config, verdict=msgspec.structs.replace(config.verdict, finalists=8)
    )
    assert plan.room_for_earlier(config, 0) == 2
    assert plan.room_for_earlier(config, 1) == 1
    assert plan.room_for_earlier(config, 5) == 0
