"""A search of real models with a gamed reward: it misleads the mean, not the ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import pytest
from PIL import Image

from lib_automerge import demo
from lib_automerge.app.service import Service
from lib_automerge.domain.config import (
    GeneratorConfig,
    OutputConfig,
    RewardConfig,
    RewardMember,
    RunConfig,
    SearchConfig,
    VerdictConfig,
)
from lib_automerge.domain.events import BASELINES, Stage
from lib_automerge.domain.run import Evaluation, RunState, Status
from lib_automerge.host.standalone import StandaloneHost
from lib_automerge.reward.base import Reward
from lib_automerge.reward.looks import looks
from tests.fake_host import BrightnessReward


class Vivid(BrightnessReward):
    """Pays for pure colours, without end; says nothing of what the prompt wants."""

    name = "vivid"

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [math.exp(40 * looks(image)["saturation"]) for image in images]


class Host(StandaloneHost):
    def reward(self, member: RewardMember) -> Reward:
        return Vivid("vivid-1") if member.name == "vivid" else super().reward(member)


def config() -> RunConfig:
    """Few prompts and steps; a range of weights in which images can be spoilt."""
    made = demo.config()
    searched = [p for p in made.payloads if not p.held_out][:4]
    held_out = [p for p in made.payloads if p.held_out][:2]
    return msgspec.structs.replace(
        made,
        payloads=tuple(
            msgspec.structs.replace(p, steps=4, seeds=p.seeds[:2], batch_size=8)
            for p in (*searched, *held_out)
        ),
        reward=RewardConfig(
            name="ensemble", members=(RewardMember(name="demo"), RewardMember(name="vivid"))
        ),
        search=SearchConfig(optimizer="random", evaluations=15, low=-1, high=2, stop="never"),
        verdict=VerdictConfig(finalists=1, finalist_seeds=1, seeds=2),
        generator=GeneratorConfig(device="cpu", threads=1),
        output=OutputConfig(checkpoint="never"),
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunState:
    return Service(Host()).start(config(), tmp_path_factory.mktemp("runs") / "gamed")


def demo_reward(state: RunState, evaluation: Evaluation) -> float:
    images = state.scores[Stage.SEARCH, evaluation.number].values()
    return sum(image.raw["demo"] for image in images) / len(images)


def plain_mean(evaluation: Evaluation) -> float:
    """The mean over rewards in the units of the parents, whatever they disagree about."""
    assert evaluation.judgement is not None
    return sum(evaluation.judgement.z.values()) / 2


def test_the_plain_mean_picks_what_games_one_reward_and_the_ensemble_does_not(
    searched: RunState,
) -> None:
    assert searched.status is Status.FINISHED
    assert searched.verdict is not None
    candidates = [e for e in searched.history if e.origin not in BASELINES and e.judgement]
    misled = max(candidates, key=plain_mean)
    chosen = searched.evaluations[searched.verdict.winner]
    assert misled.judgement is not None
    assert chosen.judgement is not None

    # the gamed reward alone carries the pick of the plain mean, whose images are worthless
    assert misled.judgement.z["vivid"] > 4
    assert misled.judgement.z["demo"] < 1
    assert demo_reward(searched, misled) < demo_reward(searched, chosen) - 0.2
    assert (misled.score or 0.0) < (chosen.score or 0.0)


def test_the_ensembles_pick_is_better_than_both_parents_for_the_honest_reward(
    searched: RunState,
) -> None:
    assert searched.verdict is not None
    chosen = searched.evaluations[searched.verdict.winner]
    parents = [searched.evaluations[number] for number in (1, 2)]
    best = max(demo_reward(searched, parent) for parent in parents)
    assert demo_reward(searched, chosen) > best + 0.2


def test_spoilt_images_are_seen_by_the_guards(searched: RunState) -> None:
    misled = max((e for e in searched.history if e.judgement), key=plain_mean)
    assert misled.judgement is not None
    assert misled.judgement.outside.get("saturation", 0.0) > 0
