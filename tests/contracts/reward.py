"""What every reward must do.

Subclass with fixtures `reward`, an open reward, and `prompts`, five prompts that it can judge.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from lib_automerge.errors import AutomergeError
from lib_automerge.reward import Reward

_SIZES = ((64, 64), (96, 48), (60, 72), (128, 128), (64, 65))
"""None that is much taller than wide: those Pillow 13 scales to other bits than Pillow 9 to 12."""

Prompts = tuple[str, str, str, str, str]


def sample_images() -> list[Image.Image]:
    """Five different colour images of different sizes."""
    rng = np.random.default_rng(11)
    images = []
    for width, height in _SIZES:
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        images.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return images


class RewardContract:
    """Tests that hold for any reward."""

    def test_gives_one_finite_float_per_image(self, reward: Reward, prompts: Prompts) -> None:
        scores = reward.score(sample_images(), prompts)
        assert len(scores) == len(prompts)
        assert all(type(score) is float and math.isfinite(score) for score in scores)

    def test_tells_images_apart(self, reward: Reward, prompts: Prompts) -> None:
        assert len(set(reward.score(sample_images(), [prompts[0]] * len(_SIZES)))) == len(_SIZES)

    def test_a_batch_scores_as_its_images_do_one_by_one(
        self, reward: Reward, prompts: Prompts
    ) -> None:
        images = sample_images()
        together = reward.score(images, prompts)
        alone = [
            score
            for image, prompt in zip(images, prompts, strict=True)
            for score in reward.score([image], [prompt])
        ]
        assert together == pytest.approx(alone, abs=1e-4)

    def test_keeps_the_order(self, reward: Reward, prompts: Prompts) -> None:
        images = sample_images()
        backwards = reward.score(images[::-1], prompts[::-1])
        assert backwards[::-1] == pytest.approx(reward.score(images, prompts), abs=1e-4)

    def test_repeats_itself_exactly(self, reward: Reward, prompts: Prompts) -> None:
        images = sample_images()
        assert reward.score(images, prompts) == reward.score(images, prompts)

    def test_leaves_the_images_alone(self, reward: Reward, prompts: Prompts) -> None:
        images = sample_images()
        reward.score(images, prompts)
        assert [image.tobytes() for image in images] == [i.tobytes() for i in sample_images()]

    def test_takes_any_image_mode(self, reward: Reward, prompts: Prompts) -> None:
        image = sample_images()[0]
        opaque = reward.score([image, image.convert("RGBA")], [prompts[0]] * 2)
        assert opaque[0] == pytest.approx(opaque[1], abs=1e-4)
        other_modes = [image.convert(mode) for mode in ("L", "P", "CMYK")]
        assert len(reward.score(other_modes, [prompts[0]] * 3)) == 3

    def test_grey_of_16_bits_is_the_picture_that_it_shows(
        self, reward: Reward, prompts: Prompts
    ) -> None:
        plain = sample_images()[0].convert("L")
        levels = np.asarray(plain).astype("<u2") * 257
        deep = Image.frombytes("I;16", plain.size, levels.tobytes())
        scores = reward.score([plain, deep], [prompts[0]] * 2)
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        with pytest.raises(AutomergeError, match="floating-point"):
            reward.score([plain.convert("F")], prompts[:1])

    def test_no_images_give_no_scores(self, reward: Reward) -> None:
        assert reward.score([], []) == []

    @pytest.mark.parametrize(("image_count", "prompt_count"), [(2, 1), (1, 2), (0, 1)])
    def test_refuses_lengths_that_differ(
        self, reward: Reward, prompts: Prompts, image_count: int, prompt_count: int
    ) -> None:
        with pytest.raises(AutomergeError):
            reward.score(sample_images()[:image_count], prompts[:prompt_count])

    def test_has_a_name_and_a_fingerprint_that_starts_with_it(self, reward: Reward) -> None:
        assert reward.name
        assert reward.fingerprint.startswith(reward.name)
        assert reward.fingerprint != reward.name

    def test_says_each_warning_once(self, reward: Reward, prompts: Prompts) -> None:
        reward.score(sample_images(), prompts)
        said = reward.warnings()
        assert all(type(sentence) is str for sentence in said)
        reward.score(sample_images(), prompts)
        assert reward.warnings() == []

    def test_says_of_a_prompt_what_scoring_it_would_say(
        self, reward: Reward, prompts: Prompts
    ) -> None:
        reward.score(sample_images()[:1], prompts[:1])
        reward.warnings()
        new = [f"{prompt} and so on" for prompt in prompts]
        reward.read(new)
        assert all(type(sentence) is str for sentence in reward.warnings())
        reward.score(sample_images(), new)
        assert reward.warnings() == []

    def test_can_be_placed_where_it_is(self, reward: Reward, prompts: Prompts) -> None:
        before = reward.score(sample_images(), prompts)
        reward.place("cpu")
        assert reward.score(sample_images(), prompts) == pytest.approx(before, abs=1e-4)
