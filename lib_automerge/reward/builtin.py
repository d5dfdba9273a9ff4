"""The rewards that come with Automerge: the one place that lists them.

Each factory imports its model when it is called, never before; its parameters are the options that
users see (`lib_automerge.reward.registry`).
"""

from __future__ import annotations

from pathlib import Path

from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from lib_automerge.reward.registry import register

IMAGE_REWARD = tuple(
    WeightFile(
        option="weights",
        name="ImageReward.pt",
        repo=repo,
        path="ImageReward.pt",
        size=1_790_000_000,
        licence="Apache-2.0",
        kept=".cache/ImageReward/ImageReward.pt",
    )
    # the organisation was renamed; a cache knows the file by the name it was asked for
    for repo in ("THUDM/ImageReward", "zai-org/ImageReward")
)


@register(
    "demo",
    label="Demo",
    help="Judges the images of the built-in demo; says nothing about real images.",
)
def demo(weights: Path | None = None) -> Reward:
    """Make a `lib_automerge.reward.demo.DemoReward`."""
    from lib_automerge.reward.demo import DemoReward

    return DemoReward(weights)


@register(
    "image_reward",
    label="ImageReward",
    help=(
        "Human preference for an image given its prompt (ImageReward v1.0, about -2 to 2); "
        "needs the file ImageReward.pt (1.8 GB)."
    ),
    files=IMAGE_REWARD,
)
def image_reward(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> Reward:
    """Make a `lib_automerge.reward.image_reward.ImageReward`."""
    from lib_automerge.reward.image_reward import ImageReward

    return ImageReward(weights, dtype, device, batch_size)
