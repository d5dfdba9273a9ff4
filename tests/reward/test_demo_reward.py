from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lib_automerge.demo import drawing
from lib_automerge.demo.drawing import COLOURS, SCENES, SUBJECTS, Attributes
from lib_automerge.errors import RewardError
from lib_automerge.reward.demo import DemoReward


@pytest.fixture(scope="module")
def reward() -> DemoReward:
    return DemoReward()


def pictures(attributes: Attributes, seed: int = 987) -> list[Image.Image]:
    drawn = drawing.draw(attributes, torch.Generator().manual_seed(seed))
    bytes_: Tensor = ((drawn + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [Image.fromarray(picture.numpy()) for picture in bytes_]


@pytest.fixture(scope="module")
def shown() -> Attributes:
    return drawing.random_attributes(96, torch.Generator().manual_seed(986))


def prompt(subject: int, colour: int, scene: int) -> str:
    return drawing.caption(SUBJECTS[subject], COLOURS[colour], SCENES[scene])


def test_true_prompt_scores_above_every_prompt_with_one_wrong_word(
    reward: DemoReward, shown: Attributes
) -> None:
    images = pictures(shown)
    triples = list(
        zip(shown.subject.tolist(), shown.colour.tolist(), shown.scene.tolist(), strict=True)
    )
    true = reward.score(images, [prompt(s, c, z) for s, c, z in triples])
    for wrong in (
        [prompt((s + 1) % 6, c, z) for s, c, z in triples],
        [prompt(s, (c + 2) % 6, z) for s, c, z in triples],
        [prompt(s, c, (z + 3) % 4) for s, c, z in triples],
    ):
        scores = reward.score(images, wrong)
        assert sum(t > w for t, w in zip(true, scores, strict=True)) >= 95
        assert sum(scores) / len(scores) < 0.15
    assert sum(true) / len(true) > 0.75


def test_words_that_are_not_named_do_not_count(reward: DemoReward, shown: Attributes) -> None:
    images = pictures(shown)[:8]
    scenes = [f"a picture {'at' if z == 0 else 'of the'} {SCENES[z]}" for z in shown.scene[:8]]
    full = [
        prompt(int(shown.subject[i]), int(shown.colour[i]), int(shown.scene[i])) for i in range(8)
    ]
    for part, whole in zip(reward.score(images, scenes), reward.score(images, full), strict=True):
        assert part >= whole


def test_scores_do_not_depend_on_the_batch(reward: DemoReward, shown: Attributes) -> None:
    images, texts = pictures(shown), ["a red ball at night"] * 96
    together = reward.score(images, texts)
    alone = [reward.score([image], [text])[0] for image, text in zip(images, texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert reward.score([], []) == []


def test_other_sizes_and_modes_are_read(reward: DemoReward, shown: Attributes) -> None:
    image = pictures(shown)[0]
    text = prompt(int(shown.subject[0]), int(shown.colour[0]), int(shown.scene[0]))
    larger = image.resize((128, 128)).convert("RGBA")
    assert reward.score([larger], [text])[0] == pytest.approx(
        reward.score([image], [text])[0], abs=0.15
    )


def test_noise_does_not_score_well(reward: DemoReward) -> None:
    noise = torch.randint(0, 256, (16, 64, 64, 3), generator=torch.Generator().manual_seed(1))
    images = [Image.fromarray(one.to(torch.uint8).numpy()) for one in noise]
    scores = reward.score(images, ["a red ball at night"] * 16)
    assert max(scores) < 0.5


def test_prompt_without_a_known_word_is_refused(reward: DemoReward) -> None:
    with pytest.raises(RewardError, match="knows no word of this prompt: 'portrait of a woman'"):
        reward.score([Image.new("RGB", (64, 64))], ["portrait of a woman"])


def test_lengths_must_agree(reward: DemoReward) -> None:
    with pytest.raises(RewardError, match="1 images, 2 prompts"):
        reward.score([Image.new("RGB", (64, 64))], ["a ball", "a star"])


def test_closed_reward_says_so() -> None:
    reward = DemoReward()
    reward.close()
    reward.close()
    with pytest.raises(RewardError, match="was closed"):
        reward.score([Image.new("RGB", (64, 64))], ["a ball"])
    assert reward.fingerprint.startswith("demo:")


def test_missing_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"cannot be read.*nothing\.safetensors"):
        DemoReward(tmp_path / "nothing.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RewardError, match="no vocabulary"):
        DemoReward(tmp_path / "other.safetensors")
