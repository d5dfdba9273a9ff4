"""Does a reward on this machine give the numbers that it should?

ImageReward is compared with the scores that its authors publish. For the others no such numbers
come with pictures; they are checked for what every reward must keep: finite scores, the same ones
again, the same ones whatever else is scored at once, and different ones for different pictures.
How long one picture takes is told besides: of a server or a plug-in nothing else says it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import Reward
from lib_automerge.reward.registry import describe

SAMPLES = Path(__file__).parent.parent / "data" / "image_reward"
PROMPT = "a painting of an ocean with clouds and birds, day time, low depth field effect"
PUBLISHED = (0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492)
"""What ImageReward's own page says of its four sample images and `PROMPT`."""

_NEAR = {"fp32": 0.01, "fp16": 0.03, "bf16": 0.1}
_STEADY = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}
_DRAWN_PROMPT = "a red ball at night"
_UNKNOWN = "fp16"
"""The precision that a server or a plug-in may have: they do not say it."""


def selftest(reward: Reward) -> str:
    """Score some pictures and judge the numbers.

    Args:
        reward: an open reward.

    Returns:
        One sentence: what was checked, with the numbers.

    Raises:
        RewardError: the numbers are not what they should be, or could not be computed.
    """
    images = [_ball((200, 30, 30), (20, 20, 60)), _stripes()]
    prompts = [_DRAWN_PROMPT] * len(images)
    precision = _precision(reward)
    scores = _steady(reward, images, prompts, _STEADY[precision])
    # another picture, which no server remembers
    unseen = _ball((30, 60, 200), (230, 230, 230))
    begin = time.perf_counter()
    reward.score([unseen], prompts[:1])
    seconds = time.perf_counter() - begin
    told = f"steady and finite: {_listed(scores)} for two drawn pictures"
    told += f", {seconds:.2g} seconds for another one"
    if reward.name in ("image_reward", "image_reward_pip"):
        samples = [Image.open(SAMPLES / f"{number}.png") for number in range(1, 5)]
        given = reward.score(samples, [PROMPT] * len(samples))
        furthest = max(abs(g - p) for g, p in zip(given, PUBLISHED, strict=True))
        compared = f"{_listed(given)}, published {_listed(PUBLISHED)}"
        if not furthest <= _NEAR[precision]:
            raise RewardError(
                f"{reward.name} does not give the published scores: {compared}. Download "
                "ImageReward.pt again; if that does not help, report it with your versions."
            )
        told += f"; the four sample images score {compared}"
    return f"{reward.name} is sound: {told}. It is {reward.fingerprint}."


def _steady(
    reward: Reward, images: Sequence[Image.Image], prompts: Sequence[str], tolerance: float
) -> list[float]:
    """The scores, if they come out the same again and one by one."""
    scores = reward.score(images, prompts)
    again = reward.score(images, prompts)
    alone = [reward.score([i], [p])[0] for i, p in zip(images, prompts, strict=True)]
    trouble = ""
    if not all(math.isfinite(score) for score in scores):
        trouble = f"gave no number: {_listed(scores)}"
    elif not _close(scores, again, tolerance):
        trouble = f"gave {_listed(scores)}, then {_listed(again)} for the same pictures"
    elif not _close(scores, alone, tolerance):
        trouble = f"gave {_listed(scores)} at once, but {_listed(alone)} one by one"
    elif scores[0] == scores[1]:
        trouble = f"cannot tell two pictures apart: {_listed(scores)}"
    if trouble:
        raise RewardError(f"{reward.name} {trouble}. {_advice(reward)}")
    return scores


def _close(one: Sequence[float], two: Sequence[float], tolerance: float) -> bool:
    return all(
        math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
        for a, b in zip(one, two, strict=True)
    )


def _precision(reward: Reward) -> str:
    """From the fingerprint, where rewards with weights name it."""
    named = [part for part in reward.fingerprint.split(":") if part in _NEAR]
    return named[0] if named else _UNKNOWN


def _advice(reward: Reward) -> str:
    if describe(reward.name).files:
        return "Download its weights again, or use another dtype or device."
    return "Correct what computes its scores."


def _ball(colour: tuple[int, int, int], background: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (256, 256), background)
    ImageDraw.Draw(picture).ellipse((64, 64, 192, 192), fill=colour)
    return picture


def _stripes() -> Image.Image:
    picture = Image.new("RGB", (320, 256), (240, 230, 120))
    draw = ImageDraw.Draw(picture)
    for left in range(0, 320, 40):
        draw.rectangle((left, 0, left + 19, 255), fill=(30, 120, 60))
    return picture


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"{score:.4f}" for score in scores)
