"""Every registered reward that can be built from tiny files keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_automerge.domain.human_judge import HUMANS
from lib_automerge.reward import Reward, create, names
from lib_automerge.reward.demo import WEIGHTS
from tests.contracts.reward import Prompts, RewardContract
from tests.reward.tiny_clip import AESTHETIC, COSINE, make_tiny
from tests.reward.tiny_image_reward import TinyImageReward, write_tiny

PROMPTS: dict[str, Prompts] = {
    "demo": (
        "a red ball at night",
        "a yellow star on a meadow",
        "a green heart over a sunset",
        "a red ball at night",
        "a ball",
    ),
    **dict.fromkeys(
        ("image_reward", *COSINE, *AESTHETIC),
        (
            "a red fox",
            "",
            "portrait of a woman, (detailed:1.2), 東京",
            "a red fox",
            "a fox " * 60,
        ),
    ),
}
# Another program does the judging, or a person: checked beside their tests.
ELSEWHERE = {"image_reward_pip", "external", *HUMANS}


def make(name: str, folder: Path) -> Reward:
    """Open a registered reward that is small enough for a test."""
    if name == "image_reward":
        return TinyImageReward(write_tiny(folder), device="cpu", batch_size=2)
    if name in (*COSINE, *AESTHETIC):
        return make_tiny(name, folder, batch_size=2)
    if name == "demo" and not WEIGHTS.exists():
        pytest.skip("the demo's weights have not been trained")
    return create(name)


@pytest.fixture(scope="module", params=sorted(PROMPTS))
def reward(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reward]:
    reward = make(request.param, tmp_path_factory.mktemp(request.param))
    yield reward
    reward.close()


@pytest.fixture
def prompts(reward: Reward) -> Prompts:
    return PROMPTS[reward.name]


class TestEveryReward(RewardContract):
    """Runs the contract on each registered reward."""


def test_no_registered_reward_is_forgotten() -> None:
    assert set(names()) - ELSEWHERE == set(PROMPTS)
