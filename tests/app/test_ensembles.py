"""Runs that several rewards judge: the parents first, then everything in their units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from lib_automerge.app.service import Service
from lib_automerge.domain.config import RewardConfig, RewardMember, RunConfig
from lib_automerge.domain.events import PARENTS, Evaluated, Origin, Scaled, Scored, Stage
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError, RunFailedError
from lib_automerge.study.store import RunFolder
from tests.fake_host import BrightnessReward, FakeHost, tiny_config

Measure = Callable[[Image.Image], float]


def red(image: Image.Image) -> float:
    return float(np.asarray(image)[..., 0].mean()) / 255


class Measuring(BrightnessReward):
    """A reward that is a function of the image; notes when it was asked and moved."""

    def __init__(self, name: str, measure: Measure, log: list[str]) -> None:
        super().__init__(f"{name}-1")
        self.name = name
        self._measure = measure
        self._log = log
        self.told: list[str] = []

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        self._log.append(f"{self.name} scores")
        return [self._measure(image) for image in images]

    def warnings(self) -> list[str]:
        told, self.told = self.told, []
        return told


class EnsembleHost(FakeHost):
    """A host with rewards by name."""

    def __init__(self, **measures: Measure) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.rewards = {n: Measuring(n, measure, self.asked) for n, measure in measures.items()}

    def reward(self, member: RewardMember) -> Measuring:
        return self.rewards[member.name]


def ensemble(models: Mapping[str, str], *members: RewardMember, **changes: object) -> RunConfig:
    reward = RewardConfig(
        name="ensemble", members=members, **{"guards": (), "diversity_strength": 0.0, **changes}
    )
    return msgspec.structs.replace(tiny_config(models), reward=reward)


def two(models: Mapping[str, str], **changes: object) -> RunConfig:
    return ensemble(models, RewardMember(name="one"), RewardMember(name="two"), **changes)


def play(host: FakeHost, config: RunConfig, folder: Path) -> tuple[RunState, list[object]]:
    state = Service(host, clock=lambda: 0.0).start(config, folder)
    return state, list(RunFolder.open(folder).events())


def honest() -> EnsembleHost:
    return EnsembleHost(one=red, two=lambda image: 100 * red(image) - 7)


def test_both_parents_are_measured_before_anything_is_judged(
    models: Mapping[str, str], folder: Path
) -> None:
    state, events = play(honest(), two(models), folder)
    kinds = [type(event) for event in events]
    at = kinds.index(Scaled)
    before = [event for event in events[:at] if isinstance(event, Scored)]
    assert {event.evaluation for event in before} == {1, 2}
    assert all(event.score is None and len(event.raw) == 2 for event in before)
    assert Evaluated not in kinds[:at]
    assert state.status is Status.FINISHED
    for images in state.scores.values():
        assert all(image.score is not None for image in images.values())


def test_a_candidate_is_judged_in_the_spread_of_the_parents(
    models: Mapping[str, str], folder: Path
) -> None:
    state, _ = play(honest(), two(models), folder)
    searched = {
        number: [image for _, image in sorted(images.items())]
        for (stage, number), images in state.scores.items()
        if stage is Stage.SEARCH
    }
    parents = searched[1] + searched[2]
    for payload in ("p01", "p02"):
        own = [image.raw["one"] for image in parents if image.payload == payload]
        assert state.scale is not None
        assert state.scale.centres["one"][payload] == pytest.approx(np.mean(own))
    # both rewards say the same in other units, so they never disagree
    for image in searched[4]:
        z = (image.raw["one"] - state.scale.centres["one"][image.payload]) / state.scale.scales[
            "one"
        ]
        # far from the parents only its logarithm counts
        expected = math.copysign(4 + math.log1p(abs(z) - 4), z) if abs(z) > 4 else z
        assert image.score == pytest.approx(expected, abs=1e-6)
    for evaluation in state.history:
        judged = evaluation.judgement
        assert judged is not None
        assert evaluation.score == pytest.approx(0.7 * judged.mean + 0.3 * judged.worst_quarter)


def test_units_of_held_out_prompts_come_from_the_parents_there(
    models: Mapping[str, str], folder: Path
) -> None:
    state, events = play(honest(), two(models), folder)
    scaled = [event for event in events if isinstance(event, Scaled)]
    assert [event.stage for event in scaled] == [Stage.SEARCH, Stage.VERDICT]
    assert set(scaled[0].scale.centres["one"]) == {"p01", "p02"}
    assert set(scaled[1].scale.centres["one"]) == {"p01", "p02", "p03"}
    assert scaled[1].scale.scales == scaled[0].scale.scales
    assert state.verdict is not None
    assert state.verdict.held_out
    told = json.loads((folder / "verdict.json").read_text())
    assert "standard deviations of the parents' images" in told["unit"]
    assert len(state.verdict.comparisons) == 3


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_a_reward_that_finds_all_parents_alike_is_told_and_does_not_count(
    models: Mapping[str, str], folder: Path, spread: float
) -> None:
    host = EnsembleHost(one=red, two=lambda image: 4.0 + spread * red(image))
    state, _ = play(host, two(models), folder)
    assert sum("two gave all images of a prompt by the parents" in w for w in state.warnings) == 1
    assert all(z == 0.0 for e in state.history if e.judgement for z in [e.judgement.z["two"]])


def test_every_raw_score_is_kept(models: Mapping[str, str], folder: Path) -> None:
    play(honest(), two(models), folder)
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line.get("event") == "scored"]
    assert scored
    for line in scored:
        assert line["raw"]["two"] == pytest.approx(100 * line["raw"]["one"] - 7)


def test_a_reward_that_disagrees_pulls_down_what_it_alone_likes(
    models: Mapping[str, str], folder: Path
) -> None:
    gamed = EnsembleHost(one=red, two=red, three=lambda image: -red(image))
    members = [RewardMember(name=name) for name in gamed.rewards]
    state, _ = play(gamed, ensemble(models, *members), folder)
    better = [e for e in state.history if e.judgement and e.judgement.z["one"] > 1]
    assert better
    for evaluation in better:
        assert evaluation.score is not None
        assert evaluation.judgement is not None
        plain = sum(evaluation.judgement.z.values()) / 3
        assert evaluation.score < plain - 0.1


def test_a_referee_is_measured_and_never_counts(models: Mapping[str, str], folder: Path) -> None:
    host = EnsembleHost(one=red, judge=lambda image: -1000 * red(image))
    alone, _ = play(EnsembleHost(one=red), ensemble(models, RewardMember(name="one")), folder)
    watched, _ = play(
        host,
        ensemble(models, RewardMember(name="one"), RewardMember(name="judge", role="referee")),
        folder.with_name("watched"),
    )
    assert [e.score for e in watched.history] == [e.score for e in alone.history]
    assert all(e.judgement is not None and "judge" in e.judgement.z for e in watched.history)


def test_a_candidate_below_a_cap_is_no_finalist(models: Mapping[str, str], folder: Path) -> None:
    host = EnsembleHost(one=red, cap=lambda image: -red(image))
    config = ensemble(models, RewardMember(name="one"), RewardMember(name="cap", role="cap"))
    state, _ = play(host, config, folder)
    undercut = {e.number for e in state.history if e.judgement and e.judgement.below_caps}
    assert undercut
    proved = {number for stage, number in state.stages if stage is Stage.FINALISTS}
    assert not proved & undercut
    # nor in a run that takes it over without making its images again
    warm = msgspec.structs.replace(config.search, warm_start=(str(folder),))
    taken, _ = play(host, msgspec.structs.replace(config, search=warm), folder.with_name("warm"))
    earlier = {e.number for e in taken.history if e.origin is Origin.EARLIER}
    undercut = {e.number for e in taken.history if e.judgement and e.judgement.below_caps}
    assert earlier & undercut
    proved = {number for stage, number in taken.stages if stage is Stage.FINALISTS}
    assert not proved & undercut


class Turning(Measuring):
    """A cap that candidates of some weights fall below, on unseen prompts only."""

    def __init__(self, host: FakeHost, falls: Callable[[Mapping[str, float]], bool]) -> None:
        super().__init__("cap", red, [])
        self._host = host
        self._falls = falls

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        applied = self._host.applied
        if applied and self._falls(applied[-1].weights) and "a green moon" in prompts:
            return [-9.0 for _ in images]
        return super().score(images, prompts)


CAPPED = (RewardMember(name="one"), RewardMember(name="cap", role="cap"))


def test_a_winner_that_falls_below_a_cap_on_unseen_prompts_gives_way(
    models: Mapping[str, str], tmp_path: Path
) -> None:
    host = EnsembleHost(one=red, cap=red)
    config = ensemble(models, *CAPPED)
    whole, _ = play(host, config, tmp_path / "whole")
    assert whole.verdict is not None
    winner = whole.evaluations[whole.verdict.winner].weights
    host.rewards["cap"] = Turning(host, lambda weights: weights == winner)
    state, _ = play(host, config, tmp_path / "first")
    assert state.verdict is not None
    assert state.verdict.winner not in (1, 2, 3, whole.verdict.winner)
    assert any("falls below the cap of cap on unseen images" in text for text in state.warnings)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("searched", "falls below the cap of cap"),
        ("unseen", "the best candidates fall below a cap"),
    ],
)
def test_where_every_candidate_is_below_a_cap_the_verdict_says_so(
    models: Mapping[str, str], folder: Path, where: str, words: str
) -> None:
    seen: dict[bytes, float] = {}

    def falling(image: Image.Image) -> float:
        """The first pictures, those of the parents, are the best ever."""
        return seen.setdefault(image.tobytes(), 1.0 if len(seen) < 12 else -9.0)

    host = EnsembleHost(one=red, cap=falling)
    if where == "unseen":
        # baselines have one weight for all blocks
        host.rewards["cap"] = Turning(host, lambda weights: len(set(weights.values())) > 1)
    state, _ = play(host, ensemble(models, *CAPPED), folder)
    assert state.verdict is not None
    assert not state.verdict.gain
    assert words in state.verdict.sentence


def test_runs_that_put_their_rewards_together_in_another_way_are_another_scale(
    models: Mapping[str, str], folder: Path
) -> None:
    one = two(models)
    play(honest(), one, folder)
    heavy = ensemble(models, RewardMember(name="one"), RewardMember(name="two", weight=9.0))
    for config, known in ((one, True), (heavy, False)):
        warm = msgspec.structs.replace(config.search, warm_start=(str(folder),))
        begun = msgspec.structs.replace(config, search=warm)
        state, _ = play(honest(), begun, folder.with_name(f"known-{known}"))
        assert any(e.origin is Origin.EARLIER for e in state.history) is known


def test_guards_measure_every_image_and_the_parents_give_their_range(
    models: Mapping[str, str], folder: Path
) -> None:
    state, _ = play(honest(), two(models, guards=("brightness", "duplicate")), folder)
    assert state.scale is not None
    assert set(state.scale.ranges["brightness"]) == {"p01", "p02", "p03"}
    looks = [image.looks for images in state.scores.values() for image in images.values()]
    assert all({"brightness", "duplicate"} <= set(found) for found in looks)
    for (stage, number), images in state.scores.items():
        if number in (1, 2) and stage is Stage.SEARCH:
            for image in images.values():
                low, high = state.scale.ranges["brightness"][image.payload]
                assert low <= image.looks["brightness"] <= high
    # the green and blue of these images are chance, which condemns nobody
    assert not [e for e in state.history if e.judgement and e.judgement.outside.get("brightness")]


def test_lost_diversity_costs_something(models: Mapping[str, str], folder: Path) -> None:
    free, _ = play(honest(), two(models), folder)
    strict, _ = play(honest(), two(models, diversity_strength=5.0), folder.with_name("strict"))
    ratios = [e.judgement.diversity_ratio for e in strict.history if e.judgement]
    assert all(ratio is not None for ratio in ratios)
    for one, other in zip(free.history, strict.history, strict=True):
        assert one.judgement is not None
        assert other.judgement is not None
        assert one.judgement.diversity_ratio is None
        ratio = other.judgement.diversity_ratio
        assert ratio is not None
        assert other.judgement.diversity_penalty == pytest.approx(5 * max(0, 1 - ratio))


@pytest.mark.parametrize(("kind", "every"), [(Scored, 3), (Scaled, 1), (Evaluated, 2)])
def test_a_run_that_is_cut_anywhere_goes_on_as_if_nothing_happened(
    models: Mapping[str, str], folder: Path, kind: type, every: int
) -> None:
    config = two(models, guards=("brightness", "duplicate"), diversity_strength=0.5)
    play(honest(), config, folder)
    whole = (folder / "journal.jsonl").read_bytes()
    events = list(RunFolder.open(folder).events())
    lines = whole.splitlines(keepends=True)
    found = [n for n, event in enumerate(events, 1) if isinstance(event, kind)]
    # each of the parents' images between their measures and their scores counts
    scaled = [n for n, event in enumerate(events, 1) if isinstance(event, Scaled)]
    near = {n for n in found if any(0 < n - at <= 3 for at in scaled)}
    cuts = sorted({*found[::every], *near})
    assert cuts
    for cut in cuts:
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        Service(honest(), clock=lambda: 0.0).resume(folder)
        again = RunFolder.open(folder).events()
        assert facts(again) == facts(events), f"cut after line {cut}"


def facts(events: Sequence[object]) -> list[object]:
    """The events without what a resumed run may have differently."""
    return [
        msgspec.to_builtins(
            msgspec.structs.replace(
                event, **{n: z for n, z in ZERO.items() if n in event.__struct_fields__}
            )
        )
        for event in events
        if isinstance(event, msgspec.Struct) and type(event).__name__ != "Resumed"
    ]


ZERO: dict[str, object] = {"time": 0.0, "seconds": {}, "memory_bytes": 0}


def test_what_a_reward_has_to_say_becomes_a_warning_of_the_run(
    models: Mapping[str, str], folder: Path
) -> None:
    host = honest()
    host.rewards["two"].told = ["two reads 33 words only"]
    state, _ = play(host, two(models), folder)
    assert "two reads 33 words only" in state.warnings


def test_prompts_without_words_are_told_once(models: Mapping[str, str], folder: Path) -> None:
    config = two(models)
    payloads = [
        msgspec.structs.replace(payload, prompt=prompt)
        for payload, prompt in zip(config.payloads, ["<lora:a:1>", " , ", "a cat"], strict=False)
    ]
    wordless = msgspec.structs.replace(config, payloads=(*payloads, *config.payloads[3:]))
    state, _ = play(honest(), wordless, folder)
    told = [text for text in state.warnings if "has no words that a reward could read" in text]
    assert len(told) == 1
    assert Service(honest(), clock=lambda: 0.0).resume(folder).warnings == state.warnings


def test_prompts_with_words_are_not(models: Mapping[str, str], folder: Path) -> None:
    state, _ = play(honest(), two(models), folder)
    assert not any("has no words" in text for text in state.warnings)


def test_what_rewards_say_again_after_a_restart_is_told_once(
    models: Mapping[str, str], folder: Path
) -> None:
    host = honest()
    host.rewards["two"].told = ["two reads 33 words only"]
    play(host, two(models), folder)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    again = honest()
    again.rewards["two"].told = ["two reads 33 words only", "two is slow"]
    state = Service(again, clock=lambda: 0.0).resume(folder)
    assert state.warnings.count("two reads 33 words only") == 1
    assert state.warnings.count("two is slow") == 1


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_no_number_of_one_reward_is_a_sentence_with_its_name(
    models: Mapping[str, str], folder: Path, wrong: float
) -> None:
    host = EnsembleHost(one=red, two=lambda image: wrong)
    with pytest.raises(RunFailedError, match="the reward 'two' gave"):
        play(host, two(models), folder)


def test_rewards_are_asked_one_after_the_other(models: Mapping[str, str], folder: Path) -> None:
    host = honest()
    play(host, two(models), folder)
    assert set(host.asked[::2]) == {"one scores"}
    assert set(host.asked[1::2]) == {"two scores"}


def test_members_without_an_ensemble_are_refused(models: Mapping[str, str]) -> None:
    config = tiny_config(models)
    raw = msgspec.to_builtins(config)
    raw["reward"]["members"] = [{"name": "one"}]
    from lib_automerge.domain.config import decode_config

    with pytest.raises(ConfigError, match=r"reward.members has 1 rewards, but reward.name is"):
        decode_config(raw)
    raw["reward"] = {"name": "ensemble", "members": [{"name": "a"}, {"name": "a"}]}
    with pytest.raises(ConfigError, match="'a' is listed twice"):
        decode_config(raw)
    raw["reward"] = {"name": "ensemble", "members": [{"name": "a", "role": "referee"}]}
    with pytest.raises(ConfigError, match="no reward is to be maximised"):
        decode_config(raw)
    raw["reward"] = {"name": "demo", "place": "moon"}
    with pytest.raises(ConfigError, match=r"reward\.place is 'moon'"):
        decode_config(raw)


def test_the_parents_are_the_first_two_baselines() -> None:
    assert [origin.value for origin in PARENTS] == ["A", "B"]
