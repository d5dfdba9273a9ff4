"""The rewards that come with Automerge: the one place that lists them.

Each factory imports its model when it is called, never before; its parameters are the options that
users see (`lib_automerge.reward.registry`).
"""

from __future__ import annotations

from pathlib import Path

from lib_automerge.domain.human_judge import CHOOSE, RATE
from lib_automerge.errors import RewardError
from lib_automerge.reward import published
from lib_automerge.reward.base import Reward
from lib_automerge.reward.image_reward_package import check_ready
from lib_automerge.reward.registry import register


@register(
    "demo",
    label="Demo",
    help="Judges the images of the built-in demo; says nothing about real images.",
    keep_scores=False,
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
    files=published.IMAGE_REWARD,
)
def image_reward(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> Reward:
    """Make a `lib_automerge.reward.image_reward.ImageReward`."""
    from lib_automerge.reward.image_reward import ImageReward

    return ImageReward(weights, dtype, device, batch_size)


@register(
    "image_reward_pip",
    label="ImageReward (package)",
    help=(
        "The same as ImageReward, computed by its authors' package image-reward where that can be "
        "imported; slower, to compare."
    ),
    files=published.IMAGE_REWARD,
    ready=check_ready,
)
def image_reward_pip(weights: Path, dtype: str | None = None, device: str | None = None) -> Reward:
    """Make a `lib_automerge.reward.image_reward_pip.ImageRewardPip`."""
    from lib_automerge.reward.image_reward_pip import ImageRewardPip

    return ImageRewardPip(weights, dtype, device)


@register(
    "hpsv2",
    label="HPSv2.1",
    help=(
        "Human preference for an image given its prompt (HPSv2.1, about 0.2 to 0.35); "
        "needs a file of 2 GB."
    ),
    files=published.HPS_V2,
)
def hpsv2(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> Reward:
    """Make a `lib_automerge.reward.clip_rewards.HpsV2`."""
    from lib_automerge.reward.clip_rewards import HpsV2

    return HpsV2(weights, dtype, device, batch_size)


@register(
    "pickscore",
    label="PickScore",
    help=(
        "What visitors of a web page preferred, given the prompt (PickScore v1, about 15 to 25); "
        "needs a file of 3.9 GB."
    ),
    files=published.PICK_SCORE,
)
def pickscore(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> Reward:
    """Make a `lib_automerge.reward.clip_rewards.PickScore`."""
    from lib_automerge.reward.clip_rewards import PickScore

    return PickScore(weights, dtype, device, batch_size)


@register(
    "clip_score",
    label="CLIPScore",
    help=(
        "Whether the image shows its prompt at all (cosine of CLIP ViT-L/14, about 0.1 to 0.35); "
        "a weak judge of quality, a good referee."
    ),
    files=published.clip_l_14("weights"),
)
def clip_score(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> Reward:
    """Make a `lib_automerge.reward.clip_rewards.ClipScore`."""
    from lib_automerge.reward.clip_rewards import ClipScore

    return ClipScore(weights, dtype, device, batch_size)


@register(
    "laion_v1",
    label="LAION aesthetic V1",
    help="How people rate the look of an image, without its prompt (about 1 to 10); for photos.",
    files=(published.LAION_V1, *published.clip_l_14("encoder")),
)
def laion_v1(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Reward:
    """Make a `lib_automerge.reward.aesthetic.LaionV1`."""
    from lib_automerge.reward.aesthetic import LaionV1

    return LaionV1(weights, encoder, dtype, device, batch_size)


@register(
    "laion_v2",
    label="LAION aesthetic V2",
    help=(
        "How people rate the look of an image, without its prompt (about 1 to 10); for photos, "
        "never for anime; likes gloss."
    ),
    files=(published.LAION_V2, *published.clip_l_14("encoder")),
)
def laion_v2(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Reward:
    """Make a `lib_automerge.reward.aesthetic.LaionV2`."""
    from lib_automerge.reward.aesthetic import LaionV2

    return LaionV2(weights, encoder, dtype, device, batch_size)


@register(
    "chad",
    label="Chad",
    help="LAION's V2 head trained on other ratings (about 1 to 10), without the prompt.",
    files=(published.CHAD, *published.clip_l_14("encoder")),
)
def chad(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Reward:
    """Make a `lib_automerge.reward.aesthetic.Chad`."""
    from lib_automerge.reward.aesthetic import Chad

    return Chad(weights, encoder, dtype, device, batch_size)


@register(
    "aes_b32",
    label="aes-B32-v0 (anime)",
    help="How good an anime picture looks, without its prompt (Waifu Diffusion; logits, any sign).",
    files=(published.AES_B_32, *published.clip_b_32("encoder")),
)
def aes_b32(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Reward:
    """Make a `lib_automerge.reward.aesthetic.AesB32`."""
    from lib_automerge.reward.aesthetic import AesB32

    return AesB32(weights, encoder, dtype, device, batch_size)


@register(
    "aesthetic_v25",
    label="Aesthetic V2.5",
    help=(
        "How people rate the look of an image, photos and paintings, without its prompt (about 1 "
        "to 10); its head's licence is AGPL-3.0."
    ),
    files=published.AESTHETIC_V25,
)
def aesthetic_v25(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Reward:
    """Make a `lib_automerge.reward.aesthetic.AestheticV25`."""
    from lib_automerge.reward.aesthetic import AestheticV25

    return AestheticV25(weights, encoder, dtype, device, batch_size)


@register(
    "external",
    label="External server",
    help=(
        "A judge that you serve on this machine over HTTP, such as HPSv3 or UnifiedReward; "
        "docs/rewards.md describes the contract."
    ),
    keep_scores=False,
)
def external(url: str, timeout_s: float = 120.0, attempts: int = 3, batch_size: int = 4) -> Reward:
    """Make a `lib_automerge.reward.external.ExternalReward`."""
    from lib_automerge.reward.external import ExternalReward

    return ExternalReward(url, timeout_s, attempts, batch_size)


def _asked_in_the_tab() -> None:
    raise RewardError(
        "You are asked in the tab while a run waits for you. There is nothing to load or to test."
    )


@register(
    RATE,
    label="You rate",
    help=(
        "You: the run shows you the pictures of every candidate and waits until you have rated "
        "them with a slider."
    ),
    keep_scores=False,
    ready=_asked_in_the_tab,
)
@register(
    CHOOSE,
    label="You choose",
    help=(
        "You: the run shows you the pictures of a new candidate beside those of an earlier one and "
        "waits until you have chosen, about twice for each candidate."
    ),
    keep_scores=False,
    ready=_asked_in_the_tab,
)
def human() -> Reward:
    """Raise RewardError: runs ask the user (`app.question`), who is no model."""
    _asked_in_the_tab()
    raise AssertionError
