"""Rewards with hardware of their own judge a batch while the next one is made."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from lib_automerge.app.service import Service
from lib_automerge.domain.config import RewardConfig, RewardMember, RunConfig
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import GenerationError, RewardError
from lib_automerge.reward import panel
from lib_automerge.reward.panel import Make, Panel
from lib_automerge.study.store import RunFolder
from tests.fake_host import BrightnessReward, FakeHost, tiny_config


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that makes images on a graphics card and judges on the processor."""

    def assemble(config: RewardConfig, make: Make) -> Panel:
        rewards = {m.name: make(m) for m in config.judges}
        return Panel(rewards, looks=bool(config.ensemble), apart=True)

    monkeypatch.setattr(panel, "assemble", assemble)


def play(host: FakeHost, config: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(config, folder)


def scored(folder: Path) -> list[tuple[int, str, int, float | None]]:
    events = RunFolder.open(folder).events()
    return [(e.evaluation, e.stage.value, e.job, e.score) for e in events if isinstance(e, Scored)]


class Waiting(BrightnessReward):
    """A reward that waits for the next batch of an evaluation, but for its last."""

    def __init__(self) -> None:
        super().__init__()
        self.next = threading.Semaphore(0)
        self.waited = 0
        self.gave_up = 0

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        if list(prompts) == ["a red ball"] * 2:  # the first batch of the search
            self.waited += 1
            self.gave_up += not self.next.acquire(timeout=10)
        return super().score(images, prompts)


@pytest.mark.usefixtures("apart")
def test_the_next_batch_is_made_while_one_is_judged(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    host.judge = judge = Waiting()

    def before(jobs: Sequence[ImageJob]) -> None:
        if [job.number for job in jobs] == [2, 3]:  # the batch after [0, 1]
            judge.next.release()

    host.before_batch = before
    state = play(host, tiny_config(models), folder)
    assert state.status is Status.FINISHED
    assert judge.waited >= 7
    assert judge.gave_up == 0


def test_what_is_journalled_is_the_same(
    models: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(FakeHost(), tiny_config(models), folder)
    one_by_one = scored(folder)
    monkeypatch.setattr(
        panel,
        "assemble",
        lambda config, make: Panel({m.name: make(m) for m in config.judges}, apart=True),
    )
    other = folder.with_name("overlapping")
    play(FakeHost(), tiny_config(models), other)
    assert scored(other) == one_by_one


@pytest.mark.usefixtures("apart")
def test_a_batch_that_was_made_is_judged_when_the_next_one_fails(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    failed: list[int] = []

    def before(jobs: Sequence[ImageJob]) -> None:
        if len(host.applied) == 4 and jobs[0].number == 2 and not failed:
            failed.append(1)
            state = RunFolder.open(folder).events()
            assert all(not (isinstance(e, Scored) and e.evaluation == 4) for e in state)
            raise GenerationError("the driver was reset. Try again.")

    host.before_batch = before
    state = play(host, tiny_config(models), folder)
    assert failed
    assert state.status is Status.FINISHED
    made = [numbers for numbers in host.batches if numbers == [0, 1]]
    candidates = [n for stage, n in state.scores if stage is Stage.SEARCH]
    # the first batch of evaluation 4 was kept: it is not made again
    assert len(made) <= len(candidates) + len(state.stages)
    assert any("is tried again" in text for text in state.warnings)


@pytest.mark.usefixtures("apart")
def test_a_broken_image_still_ends_its_candidate(models: Mapping[str, str], folder: Path) -> None:
    host = FakeHost()
    host.broken = lambda weights, job: (
        "black" if weights.get("IN00") not in (0.0, 0.5, 1.0) and job.number == 1 else None
    )
    state = play(host, tiny_config(models), folder)
    given_up = [e for e in state.history if e.rejected]
    assert given_up
    for evaluation in given_up:
        images = state.scores[Stage.SEARCH, evaluation.number]
        assert sorted(images) == [0, 1]
        assert images[0].score is not None
        assert images[1].broken == "black"


def test_only_another_device_counts_as_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(member: object) -> BrightnessReward:
        return BrightnessReward()

    monkeypatch.setattr(panel, "_accelerator", lambda: ("cuda", 24 * 2**30))
    assert panel.assemble(RewardConfig(name="image_reward", place="cpu"), make).apart
    assert panel.assemble(RewardConfig(name="external"), make).apart
    assert not panel.assemble(RewardConfig(name="image_reward"), make).apart
    on_card = RewardConfig(name="image_reward", options={"device": "cuda:1"}, place="cpu")
    assert not panel.assemble(on_card, make).apart
    monkeypatch.setattr(panel, "_accelerator", lambda: (None, 0))
    assert not panel.assemble(RewardConfig(name="image_reward", place="cpu"), make).apart


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("fails", [10, 11, 12, 13, 14])
def test_a_second_try_leaves_no_trace_in_what_is_compared_with_earlier_images(
    models: Mapping[str, str], tmp_path: Path, fails: int
) -> None:
    class Moody(BrightnessReward):
        calls = 0

        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
            self.calls += 1
            if self.calls == fails:
                raise RewardError("no answer. Try again.")
            return super().score(images, prompts)

    reward = RewardConfig(
        name="ensemble",
        members=(RewardMember(name="demo", options={"device": "cpu"}),),
        guards=("duplicate",),
    )
    config = msgspec.structs.replace(tiny_config(models), reward=reward)
    looks = []
    for name, judge in (("whole", BrightnessReward()), ("moody", Moody())):
        host = FakeHost()
        host.judge = judge
        state = play(host, config, tmp_path / name)
        looks.append({k: {j: i.looks for j, i in v.items()} for k, v in state.scores.items()})
    assert any("tried again" in text for text in state.warnings)
    assert looks[0] == looks[1]
    assert any(seen["duplicate"] == 1.0 for images in looks[0].values() for seen in images.values())
