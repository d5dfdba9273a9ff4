"""What a user can ask of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain.events import Origin
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError, GenerationError, RewardError, RunFailedError
from lib_automerge.generate.base import PauseRequested
from lib_automerge.study.store import RunFolder
from tests.fake_host import BrightnessReward, FakeHost, tiny_config


def service(host: FakeHost) -> Service:
    return Service(host, clock=lambda: 0.0)


def proposals(state: RunState) -> list[dict[str, float]]:
    return [e.weights for _, e in sorted(state.evaluations.items())]


def test_pause_waits_for_the_evaluation_and_resume_goes_on_as_if_nothing_had_been(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    config = tiny_config(models)
    whole = service(host).start(config, tmp_path / "whole")
    paused_host = FakeHost()
    # the wish comes in the middle of evaluation 4
    controls = Controls(pause=lambda: len(paused_host.batches) >= 2 + 3 * 3 + 2)
    state = service(paused_host).start(config, tmp_path / "paused", controls=controls)
    assert state.status is Status.PAUSED
    assert len(state.history) == 4
    assert paused_host.open_sessions == 0
    resumed = service(FakeHost()).resume(tmp_path / "paused")
    assert resumed.status is Status.FINISHED
    assert proposals(resumed) == proposals(whole)
    assert resumed.verdict == whole.verdict


def test_an_interrupt_of_the_backend_pauses_the_run_and_says_so(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    def interrupt(jobs: Sequence[ImageJob]) -> None:
        if len(host.batches) == 2 + 3 * 3 + 2:
            raise PauseRequested("Interrupt was pressed in the WebUI")

    host.before_batch = interrupt
    state = service(host).start(tiny_config(models), folder)
    assert state.status is Status.PAUSED
    assert state.pause_reason == "Interrupt was pressed in the WebUI"
    # the images of the batch before are kept
    assert len(state.scores[next(iter(state.scores))]) > 0
    assert service(FakeHost()).resume(folder).status is Status.FINISHED


def test_finish_ends_the_search_and_goes_on_to_the_verdict(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    controls = Controls(finish=lambda: True)
    state = service(host).start(tiny_config(models, evaluations=40), folder, controls=controls)
    assert state.status is Status.FINISHED
    assert state.search_ended is not None
    assert state.search_ended.reason == "you ended the search"
    # a candidate is tried whatever the user wishes: else there is nothing to prove
    assert len(state.history) == 4
    assert state.verdict is not None


def test_others_may_use_the_device_after_every_evaluation(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    state = service(host).start(tiny_config(models), folder)
    assert host.rests == len(state.history) + len(state.stages)


def test_start_points_are_evaluated_after_the_baselines(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    points = ({"IN00": 0.25, "OUT11": 1.0}, {"M00": 0.123456})
    state = service(host).start(tiny_config(models, start=points), folder)
    fourth, fifth, sixth = (state.evaluations[number] for number in (4, 5, 6))
    assert [fourth.origin, fifth.origin, sixth.origin] == [
        Origin.START,
        Origin.START,
        Origin.SEARCH,
    ]
    assert fourth.weights["IN00"] == 0.25
    assert fourth.weights["OUT11"] == 1.0
    assert fourth.weights["M00"] == 0.0
    assert fifth.weights["M00"] == 0.1235


def test_a_start_point_outside_the_space_is_refused_before_anything_is_written(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    with pytest.raises(ConfigError, match=r"IN00 = 1\.5, outside its range 0 to 1"):
        service(host).start(tiny_config(models, start=({"IN00": 1.5},)), folder)
    with pytest.raises(ConfigError, match="IN0X"):
        service(host).start(tiny_config(models, start=({"IN0X": 1.0},)), folder)
    assert not folder.exists()


def failing(host: FakeHost, times: int, after: int, seconds: float = 0.0) -> None:
    """Make the generator fail `times` times, after so many batches, each time after some time."""
    left = [times]

    def fail(jobs: Sequence[ImageJob]) -> None:
        if len(host.batches) > after and left[0]:
            left[0] -= 1
            time.sleep(seconds)
            raise GenerationError("out of memory with a single image. Close other programs.")

    host.before_batch = fail


BASELINES_DONE = 2 + 3 * 3


def test_what_fails_once_is_tried_again(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    whole = service(FakeHost()).start(tiny_config(models), tmp_path / "whole")
    failing(host, 1, BASELINES_DONE)
    state = service(host).start(tiny_config(models), tmp_path / "run")
    assert state.status is Status.FINISHED
    assert any("tried again: out of memory" in text for text in state.warnings)
    assert [e.score for e in state.history] == [e.score for e in whole.history]


def test_what_fails_twice_is_left_out_and_the_run_goes_on(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    failing(host, 2, BASELINES_DONE)
    state = service(host).start(tiny_config(models), folder)
    assert state.status is Status.FINISHED
    reason = state.evaluations[4].rejected
    assert reason is not None
    assert reason.startswith("failed twice: out of memory")
    assert len(state.history) == 7


@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_counts_its_time(
    host: FakeHost, models: Mapping[str, str], folder: Path, times: int
) -> None:
    failing(host, times, BASELINES_DONE, seconds=0.2)
    state = service(host).start(tiny_config(models), folder)
    lost = state.evaluations[4]
    assert (lost.score is None) == (times == 2)
    assert 0.2 * times < lost.seconds["total"] < state.seconds_before_proof
    assert all(e.seconds["total"] < 0.2 for e in state.history if e is not lost)


class Moody(BrightnessReward):
    """Fails when it is asked the nth times."""

    def __init__(self, fails: Iterable[int]) -> None:
        super().__init__()
        self.calls, self.fails = 0, set(fails)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        self.calls += 1
        if self.calls in self.fails:
            raise RewardError("the server gave no answer: timed out. Start it.")
        return super().score(images, prompts)


@pytest.mark.parametrize("times", [1, 2])
def test_a_reward_that_fails_costs_one_candidate_at_most(
    host: FakeHost, models: Mapping[str, str], folder: Path, times: int
) -> None:
    host.judge = Moody(range(BASELINES_DONE + 1, BASELINES_DONE + 1 + times))
    state = service(host).start(tiny_config(models), folder)
    assert state.status is Status.FINISHED
    assert any("tried again: the server gave no answer" in text for text in state.warnings)
    rejected = [e.rejected for e in state.history if e.score is None]
    assert len(rejected) == times - 1
    assert all(text and "failed twice: the server gave no" in text for text in rejected)


def test_a_reward_that_fails_once_in_any_stage_is_asked_again(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    host.judge = patient = Moody(())
    whole = service(host).start(tiny_config(models), tmp_path / "whole")
    # of a finalist, of the winner in the verdict, and of a baseline there
    late = [patient.calls - before for before in (10, 5, 0)]
    host.judge = Moody(late)
    state = service(host).start(tiny_config(models), tmp_path / "moody")
    assert state.status is Status.FINISHED
    assert state.verdict == whole.verdict
    assert sum("tried again" in text for text in state.warnings) == len(late)


def test_a_half_that_cannot_be_scored_does_not_end_the_run(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    # after the rehearsal and four batches of each parent
    host.judge = Moody((10, 11))
    state = service(host).start(tiny_config(models), folder)
    assert state.status is Status.FINISHED
    half = state.baseline(Origin.HALF)
    assert half is not None
    assert (half.rejected or "").startswith("failed twice")


def test_three_failures_in_a_row_end_the_run_with_the_reason(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    failing(host, 100, BASELINES_DONE)
    with pytest.raises(RunFailedError, match="out of memory"):
        service(host).start(tiny_config(models, evaluations=12), folder)
    state = RunFolder(folder).state()
    assert state.status is Status.FAILED
    assert [e.number for e in state.history if e.rejected] == [4, 5]
    # the third is not lost: it is made again when the cause is gone
    assert service(FakeHost()).resume(folder).evaluations[6].score is not None


def test_a_failing_baseline_ends_the_run(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    failing(host, 2, 4)
    with pytest.raises(RunFailedError, match="out of memory"):
        service(host).start(tiny_config(models), folder)


def test_fields_of_later_versions_do_not_make_a_run_foreign(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    """A run.json without a field that this version knows is the same run."""
    controls = Controls(pause=lambda: True)
    service(host).start(tiny_config(models), folder, controls=controls)
    manifest = RunFolder(folder).manifest()
    changed = msgspec.structs.replace(manifest, architecture="sd2")
    assert service(host).resume(folder, controls=controls).status is Status.PAUSED
    (folder / "run.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(ConfigError, match="has been changed since the run began"):
        service(host).resume(folder)
