from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL.Image import Image
from PIL.Image import open as open_image

from lib_automerge.errors import RewardError
from lib_automerge.reward import create
from lib_automerge.reward.selftest import PUBLISHED, SAMPLES, selftest

SAMPLE_BRIGHTNESS = [
    float(np.asarray(open_image(SAMPLES / f"{number}.png")).mean()) for number in range(1, 5)
]

Change = Callable[["Judge", list[float]], list[float]]


def unchanged(judge: Judge, scores: list[float]) -> list[float]:
    return scores


class Judge:
    """Knows the published scores of ImageReward's samples; other images by their brightness."""

    def __init__(
        self, change: Change = unchanged, name: str = "image_reward", dtype: str = "fp32"
    ) -> None:
        self.name = name
        self.fingerprint = f"{name}:1.0:{dtype}:abc"
        self._change = change
        self.calls = 0

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        self.calls += 1
        means = [float(np.asarray(image).mean()) for image in images]
        known = dict(zip(SAMPLE_BRIGHTNESS, PUBLISHED, strict=True))
        return self._change(self, [known.get(mean, mean / 100) for mean in means])

    def read(self, prompts: Sequence[str]) -> None: ...

    def place(self, device: str) -> None: ...

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def shifted(by: float) -> Change:
    return lambda judge, scores: [score + by for score in scores]


def test_the_published_scores_make_image_reward_sound() -> None:
    told = selftest(Judge())
    assert told.startswith("image_reward is sound: steady and finite: ")
    assert "score 0.5812, 0.2745, -1.4132, -2.0296, published 0.5812, 0.2745, -1.4132" in told


@pytest.mark.parametrize(
    ("by", "dtype", "sound"),
    [(0.005, "fp32", True), (0.02, "fp32", False), (0.02, "fp16", True), (0.2, "bf16", False)],
)
@pytest.mark.parametrize("name", ["image_reward", "image_reward_pip"])
def test_how_near_the_published_scores_depends_on_the_precision(
    by: float, dtype: str, sound: bool, name: str
) -> None:
    judge = Judge(shifted(by), name, dtype)
    if sound:
        selftest(judge)
    else:
        with pytest.raises(RewardError, match="does not give the published scores: "):
            selftest(judge)


def test_other_rewards_are_not_compared_with_them() -> None:
    assert "published" not in selftest(Judge(shifted(1.0), "clip_score"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda judge, scores: [math.nan for _ in scores], "gave no number: nan, nan"),
        (lambda judge, scores: [1.0 for _ in scores], "cannot tell two pictures apart"),
        (lambda judge, scores: [s + judge.calls for s in scores], "then .* for the same pictures"),
        (lambda judge, scores: [s + len(scores) for s in scores], "at once, but .* one by one"),
        (lambda judge, scores: scores[::-1], "at once, but .* one by one"),
    ],
)
def test_a_judge_that_does_not_keep_the_contract_is_not_sound(change: Change, words: str) -> None:
    with pytest.raises(RewardError, match=words):
        selftest(Judge(change))


def test_the_demo_is_sound() -> None:
    assert selftest(create("demo")).startswith("demo is sound")


def test_the_samples_are_what_the_model_sees_of_the_published_ones() -> None:
    """Of the size that is not scaled again, and four different ones."""
    images = [open_image(SAMPLES / f"{number}.png") for number in range(1, 5)]
    assert [(image.size, image.mode) for image in images] == [((224, 224), "RGB")] * 4
    assert len(set(SAMPLE_BRIGHTNESS)) == 4
    assert "Apache" in (SAMPLES / "LICENSE").read_text()
