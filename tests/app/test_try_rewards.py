"""One image judged outside any run."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from lib_automerge.app.checks import Level
from lib_automerge.app.desk import Desk
from lib_automerge.app.ports import Host
from lib_automerge.app.try_rewards import RewardTry, TryPhase
from lib_automerge.domain.config import ENSEMBLE, RewardConfig, RewardMember
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import BusyError, ConfigError, RewardError
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from tests.fake_host import BrightnessReward, FakeCatalogue, FakeHost, tiny_config

FILE = WeightFile("weights", "Judge.pt", "people/judge", "w.pt", 7000, "MIT")


class Judge(BrightnessReward):
    """Tells what it was asked; refuses, crashes or waits if it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.prompts: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def score(self, images, prompts):
        assert self.go.wait(10)
        self.prompts += prompts
        if self.error is not None:
            raise self.error
        return super().score(images, prompts)

    def warnings(self) -> list[str]:
        return ["the prompt is cut off."]

    def close(self) -> None:
        self.closed = True


class JudgesHost(FakeHost):
    def __init__(self, judges: dict[str, Judge]) -> None:
        super().__init__()
        self.judges = judges

    def reward(self, member: RewardMember) -> Reward:
        return self.judges[member.name]


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Judge]:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    made = {"one": Judge(), "two": Judge()}
    for name in made:

        @registry.register(name, label=name.title(), help="Judges.")
        def make() -> Reward:
            raise NotImplementedError

    return made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a cat.png"
    Image.new("RGBA", (40, 20), (255, 0, 0, 255)).save(path)
    return path


def both(**changes: object) -> RewardConfig:
    members = (RewardMember(name="one"), RewardMember(name="two", role="referee"))
    return RewardConfig(name=ENSEMBLE, members=members, **changes)  # type: ignore[arg-type]


def work(judges: dict[str, Judge]) -> RewardTry:
    host: Host = JudgesHost(judges)
    return RewardTry(host, [])


def test_every_reward_scores_the_image_with_the_cleaned_prompt(judges, image) -> None:
    trying = work(judges)
    assert trying.snapshot().number == 0
    trying.start(both(guards=("contrast", "saturation")), image, "(a cat:1.3) <lora:x:1>")
    trying.wait(20)
    found = trying.snapshot()
    assert (found.number, found.phase, found.told, found.read) == (1, TryPhase.DONE, "", "a cat")
    assert [(one.reward, one.label, one.score) for one in found.tried] == [
        ("one", "One", judges["one"].score([Image.open(image).convert("RGB")], ["x"])[0]),
        ("two", "Two", found.tried[0].score),
    ]
    assert judges["two"].prompts == ["a cat"]
    assert found.looks.keys() == {"contrast", "saturation"}
    assert found.looks["saturation"] == pytest.approx(1.0)
    assert found.warnings == ("the prompt is cut off.",) * 2
    assert found.preview.startswith("data:image/jpeg;base64,")
    assert judges["one"].closed
    assert judges["two"].closed


def test_a_reward_that_fails_keeps_no_other_from_judging(judges, image) -> None:
    for error, words in (
        (RewardError("it is ill."), "it is ill."),
        (ValueError("odd"), "it failed: ValueError: odd. See the log."),
    ):
        judges["one"].error = error
        trying = work(judges)
        trying.start(both(), image, "a cat")
        trying.wait(20)
        ill, well = trying.snapshot().tried
        assert (ill.score, ill.told) == (None, words)
        assert well.score is not None
        assert judges["one"].closed


def test_one_at_a_time_and_the_caller_does_not_wait(judges, image) -> None:
    judges["one"].go.clear()
    trying = work(judges)
    trying.start(both(), image, "a cat")
    first = trying.snapshot()
    assert first.running
    with pytest.raises(BusyError, match="an image is being judged"):
        trying.start(both(), image, "a dog")
    judges["one"].go.set()
    trying.wait(20)
    assert not trying.snapshot().running
    assert trying.snapshot().version != first.version
    trying.start(both(), image, "a dog")
    trying.wait(20)
    assert trying.snapshot().number == 2


def test_files_that_are_missing_are_all_named_before_anything_is_loaded(
    judges, image, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("far", "farther"):

        @registry.register(name, label=name.title(), help="Judges.", files=[FILE])
        def make(weights: Path) -> Reward:
            raise NotImplementedError

    members = tuple(RewardMember(name=name) for name in ("far", "one", "farther"))
    trying = work(judges)
    with pytest.raises(ConfigError, match=r"Far needs the file.*Farther needs the file"):
        trying.start(RewardConfig(name=ENSEMBLE, members=members), image, "a cat")
    assert trying.snapshot().number == 0


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"x" * 9, pytest.param(b"P6 1 1 255\n123", id="unusual")]
)
def test_what_is_no_image_is_a_sentence(judges, tmp_path, content) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    trying = work(judges)
    trying.start(both(), path, "a cat")
    trying.wait(20)
    found = trying.snapshot()
    assert "this is no image that can be read" in found.told
    assert (found.phase, found.tried, found.preview) == (TryPhase.DONE, (), "")
    path.unlink()
    with pytest.raises(ConfigError, match=r"the image cannot be read: odd\.png"):
        trying.start(both(), path, "a cat")


def test_a_prompt_of_which_nothing_is_left_is_told(judges, image) -> None:
    trying = work(judges)
    trying.start(RewardConfig(name="one"), image, "<lora:x:1>")
    trying.wait(20)
    found = trying.snapshot()
    assert found.warnings[1:] == ("the prompt is cut off.",)
    assert "empty once its syntax is removed" in found.warnings[0]
    assert found.tried[0].score is not None
    # guards judge only where several rewards do
    assert found.looks == {}


# --- on the desk ------------------------------------------------------------------------------


def test_no_test_while_a_run_is_in_hand_and_no_run_while_a_test_is(
    judges, image, models, tmp_path
) -> None:
    host = JudgesHost(judges)
    begun, gate = threading.Event(), threading.Event()

    def hold(_jobs: object) -> None:
        begun.set()
        gate.wait(20)

    host.before_batch = hold
    desk = Desk(host, FakeCatalogue(tmp_path / "data", models))
    config = msgspec.structs.replace(tiny_config(models), reward=RewardConfig(name="one"))
    run = desk.start(config)
    try:
        assert begun.wait(20)
        with pytest.raises(BusyError, match=f"the run {run} is in progress and needs"):
            desk.try_rewards(both(), image, "a cat")
    finally:
        desk.worker.stop()
        gate.set()
        assert desk.worker.wait(30)
    judges["one"].go.clear()
    desk.try_rewards(both(), image, "a cat")
    for begin in (lambda: desk.start(config), lambda: desk.resume(run)):
        with pytest.raises(BusyError, match="an image is being judged by the rewards"):
            begin()
    judges["one"].go.set()
    desk.reward_try.wait(20)
    desk.resume(run)
    desk.worker.stop()
    assert desk.worker.wait(30)


def test_the_checks_name_every_reward_that_is_not_ready_and_prompts_that_say_nothing(
    host, models, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    desk = Desk(host, FakeCatalogue(tmp_path / "data", models))
    members = tuple(RewardMember(name=name) for name in ("hpsv2", "demo", "pickscore"))
    config = msgspec.structs.replace(
        tiny_config(models),
        reward=RewardConfig(name=ENSEMBLE, members=members),
        payloads=(
            Payload(prompt="<lora:style:1>", name="style"),
            Payload(prompt="(:1.2)", name="told", score_prompt="a cat"),
            Payload(prompt="a dog", name="dog"),
        ),
    )
    checks = desk.preflight(config).checks
    bad = [c.text for c in checks if c.level is Level.ERROR]
    assert [text.split(" needs the file ")[0] for text in bad] == ["HPSv2.1", "PickScore"]
    assert "Demo is ready." in [c.text for c in checks if c.level is Level.OK]
    (silent,) = [c.text for c in checks if "read nothing" in c.text]
    assert silent.startswith("rewards read nothing of style:")
