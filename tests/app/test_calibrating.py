"""The noise is measured after the baselines, journalled, resumed, and told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.app.standing import standing
from lib_automerge.app.worker import Phase, Snapshot
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import (
    Calibrated,
    Evaluated,
    Origin,
    Proposed,
    Scored,
    Stage,
    StageDone,
)
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError
from lib_automerge.study.library import Library
from lib_automerge.study.store import RunFolder
from tests.app.test_learning import noisy
from tests.fake_host import FakeHost, tiny_config


def run(host: FakeHost, config: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(config, folder)


def test_the_half_merge_is_scored_on_fresh_seeds_between_baselines_and_search(
    models: Mapping[str, str], folder: Path
) -> None:
    state = run(noisy(0.1), tiny_config(models, calibration=3), folder)
    events = RunFolder(folder).events()
    kinds = [
        (type(e), getattr(e, "evaluation", None))
        for e in events
        if isinstance(e, Proposed | Evaluated | StageDone | Calibrated)
    ]
    at = kinds.index((Calibrated, 3))
    assert kinds[at - 2 : at + 2] == [
        (Evaluated, 3),
        (StageDone, 3),
        (Calibrated, 3),
        (Proposed, 4),
    ]
    assert sum(isinstance(e, Calibrated) for e in events) == 1
    images = state.scores[Stage.CALIBRATION, 3]
    assert len(images) == 3 * 6
    assert {image.payload for image in images.values()} == {"p01", "p02"}
    assert not {image.seed for image in images.values()} & {1, 2, 3, 4, 5, 6}
    assert len({image.seed for image in images.values()}) == 18
    used = {
        i.seed
        for (s, _), found in state.scores.items()
        if s is not Stage.SEARCH and s is not Stage.CALIBRATION
        for i in found.values()
    }
    assert not used & {image.seed for image in images.values()}
    assert state.calibrated is not None
    assert state.calibrated.seed_sd == pytest.approx(0.1 / np.sqrt(6), rel=0.5)


def test_nothing_is_measured_unless_asked_for(models: Mapping[str, str], folder: Path) -> None:
    state = run(FakeHost(), tiny_config(models), folder)
    assert state.calibrated is None
    assert not any(stage is Stage.CALIBRATION for stage, _ in state.scores)


def test_it_is_told_in_the_log_and_in_the_report(models: Mapping[str, str], folder: Path) -> None:
    state = run(noisy(0.1), tiny_config(models, calibration=2), folder)
    assert state.calibrated is not None
    said = state.calibrated.sentence
    assert said.startswith("Other seeds move the score of a recipe by ±")
    assert "2 prompts with 3 seeds each" in said
    for name in ("log.txt", "report.html"):
        assert said in (folder / name).read_text()


def test_the_standing_knows_what_is_measured(models: Mapping[str, str], tmp_path: Path) -> None:
    library = Library(tmp_path / "runs")
    folder = tmp_path / "runs" / "one"
    stages: list[tuple[Stage, int, int]] = []

    def look(event: object, state: RunState) -> None:
        if isinstance(event, Scored) and event.stage is Stage.CALIBRATION:
            snapshot = Snapshot(
                sequence=1,
                phase=Phase.RUNNING,
                folder=folder,
                state=state,
                activity=None,
                failure="",
            )
            shown = standing(snapshot, library.entries(), 0.0).run
            assert shown is not None
            stages.append((shown.stage, shown.images, shown.images_planned))

    Service(noisy(0.1)).start(tiny_config(models, calibration=2), folder, listener=look)
    assert stages
    assert {stage for stage, _, _ in stages} == {Stage.CALIBRATION}
    assert {planned for _, _, planned in stages} == {12}
    assert max(images for _, images, _ in stages) == 12


def test_a_broken_image_of_the_calibration_is_left_out(
    models: Mapping[str, str], folder: Path
) -> None:
    host = noisy(0.1)

    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        return "black" if len(host.applied) == 4 and job.number == 1 else None

    host.broken = broken
    state = run(host, tiny_config(models, calibration=1), folder)
    assert state.stages[Stage.CALIBRATION, 3].images == 5
    assert state.calibrated is not None
    assert state.status is Status.FINISHED


def test_without_the_half_merge_nothing_is_measured(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    host.broken = lambda weights, job: "black" if set(weights.values()) == {0.5} else None
    state = run(host, tiny_config(models, calibration=1), folder)
    assert state.calibrated is None
    assert state.status is Status.FINISHED


# --- measuring and nothing else -----------------------------------------------------------------


def only(models: Mapping[str, str], **search: object) -> RunConfig:
    return tiny_config(models, evaluations=3, calibration=2, **search)


def test_three_evaluations_measure_and_search_nothing(
    models: Mapping[str, str], folder: Path
) -> None:
    state = run(noisy(0.1), only(models), folder)
    assert [e.origin for e in state.history] == [Origin.MODEL_A, Origin.MODEL_B, Origin.HALF]
    assert {stage for stage, _ in state.scores} == {Stage.SEARCH, Stage.CALIBRATION}
    assert state.status is Status.FINISHED
    assert state.verdict is None
    assert state.finished is not None
    assert state.calibrated is not None
    assert state.finished.reason.lower() + "." == state.calibrated.sentence.lower()
    report = (folder / "report.html").read_text()
    assert f"<h1>{state.calibrated.sentence}</h1>" in report
    assert "Measured" in report
    assert not (folder / "recipe.json").exists()
    assert not (folder / "verdict.json").exists()


def test_three_evaluations_without_a_calibration_are_refused(models: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"search\.evaluations is 3"):
        tiny_config(models, evaluations=3)


def test_a_measurement_that_was_stopped_is_taken_up(
    models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    whole = run(noisy(0.1), only(models), tmp_path / "whole")
    asked = iter([False] * (1 + 2 * 2 + 2 * 3 * 3 + 2 * 2))
    state = Service(noisy(0.1)).start(
        only(models), folder, controls=Controls(stop=lambda: next(asked, True))
    )
    assert state.status is Status.STOPPED
    assert 0 < len(state.scores[Stage.CALIBRATION, 3]) < 12
    state = Service(noisy(0.1)).resume(folder)
    assert state.calibrated is not None
    assert whole.calibrated is not None
    assert msgspec.structs.replace(state.calibrated, time=0.0) == whole.calibrated
    assert Service(noisy(0.1)).resume(folder).status is Status.FINISHED


def test_the_calibration_is_a_function_of_the_journal(
    models: Mapping[str, str], folder: Path
) -> None:
    run(noisy(0.1), only(models), folder)
    events: Sequence[object] = RunFolder(folder).events()
    told = next(e for e in events if isinstance(e, Calibrated))
    assert Plan(RunFolder(folder).manifest()).calibration(RunState(events)) == told  # type: ignore[arg-type]
