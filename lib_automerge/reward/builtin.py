"""The rewards that come with Automerge: the one place that lists them.

Each imports its model when it is made, never before. What is in its files, how big they are and
under which licence stands in `lib_automerge.reward.published` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from lib_automerge.domain.human_judge import CHOOSE, RATE
from lib_automerge.errors import RewardError
from lib_automerge.reward import published
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
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


def options_of_a_model(
    weights: Path, dtype: str | None = None, device: str | None = None, batch_size: int = 8
) -> None:
    """The options of a reward that is one file."""


def options_of_a_head(
    weights: Path,
    encoder: Path,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> None:
    """The options of a reward that is a small head on another model."""


def _learned(
    name: str,
    where: str,
    *,
    label: str,
    help: str,
    files: Sequence[WeightFile],
    options: Callable[..., None] = options_of_a_model,
) -> None:
    """Register a class of `lib_automerge.reward`, which is imported when it is needed.

    Args:
        name: as for `register`, and so the rest.
        where: the class, "module.Class".
        options: with the parameters of its constructor, which may call the first by another name.
    """
    module, _, attribute = where.partition(".")

    def make(weights: Path, **given: object) -> Reward:
        its_class = getattr(import_module(f"lib_automerge.reward.{module}"), attribute)
        made: Reward = its_class(weights, **given)
        return made

    register(name, label=label, help=help, files=files, options_of=options)(make)


_learned(
    "image_reward",
    "image_reward.ImageReward",
    label="ImageReward",
    help="Human preference for an image given its prompt (ImageReward v1.0, about -2 to 2).",
    files=published.IMAGE_REWARD,
)
_learned(
    "hpsv2",
    "clip_rewards.HpsV2",
    label="HPSv2.1",
    help="Human preference for an image given its prompt (HPSv2.1, about 0.2 to 0.35).",
    files=published.HPS_V2,
)
_learned(
    "pickscore",
    "clip_rewards.PickScore",
    label="PickScore",
    help="What visitors of a web page preferred, given the prompt (PickScore v1, about 15 to 25).",
    files=published.PICK_SCORE,
)
_learned(
    "clip_score",
    "clip_rewards.ClipScore",
    label="CLIPScore",
    help=(
        "Whether the image shows its prompt at all (cosine of CLIP ViT-L/14, about 0.1 to 0.35); "
        "a weak judge of quality, a good referee."
    ),
    files=published.clip_l_14("weights"),
)
_learned(
    "laion_v1",
    "aesthetic.LaionV1",
    label="LAION aesthetic V1",
    help="How people rate the look of an image, without its prompt (about 1 to 10); for photos.",
    files=(published.LAION_V1, *published.clip_l_14("encoder")),
    options=options_of_a_head,
)
_learned(
    "laion_v2",
    "aesthetic.LaionV2",
    label="LAION aesthetic V2",
    help=(
        "How people rate the look of an image, without its prompt (about 1 to 10); for photos, "
        "never for anime; likes gloss."
    ),
    files=(published.LAION_V2, *published.clip_l_14("encoder")),
    options=options_of_a_head,
)
_learned(
    "chad",
    "aesthetic.Chad",
    label="Chad",
    help="LAION's V2 head trained on other ratings (about 1 to 10), without the prompt.",
    files=(published.CHAD, *published.clip_l_14("encoder")),
    options=options_of_a_head,
)
_learned(
    "aes_b32",
    "aesthetic.AesB32",
    label="aes-B32-v0 (anime)",
    help="How good an anime picture looks, without its prompt (Waifu Diffusion; logits, any sign).",
    files=(published.AES_B_32, *published.clip_b_32("encoder")),
    options=options_of_a_head,
)
_learned(
    "aesthetic_v25",
    "aesthetic.AestheticV25",
    label="Aesthetic V2.5",
    help=(
        "How people rate the look of an image, photos and paintings, without its prompt (about 1 "
        "to 10)."
    ),
    files=published.AESTHETIC_V25,
    options=options_of_a_head,
)


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
