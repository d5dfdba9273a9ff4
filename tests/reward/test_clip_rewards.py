"""Rewards over CLIP, held to the packages' numbers that record_goldens.py recorded."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import backbone, create
from lib_automerge.reward.aesthetic import AestheticReward
from lib_automerge.reward.clip import VIT_B_32, VIT_H_14, VIT_L_14, Clip, ClipSizes
from lib_automerge.reward.clip_rewards import EmbeddingReward, PickScore
from lib_automerge.reward.siglip import Siglip, SiglipSizes
from tests.contracts.reward import sample_images
from tests.reward.tiny_clip import (
    AESTHETIC,
    COSINE,
    TINY_OPENAI,
    TinyClipScore,
    TinyHpsV2,
    TinyLaionV1,
    TinyLaionV2,
    TinyPickScore,
    make_tiny,
    random_encoder,
    random_head,
    write_encoder,
    write_head,
    write_tiny,
)

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "clip.json").read_text(encoding="utf-8")
)
PROMPTS: list[str] = GOLDEN["prompts"]
SCORES: dict[str, list[list[float]]] = GOLDEN["scores"]
EVERY = (*COSINE, *AESTHETIC)


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = dict(backbone._open)  # what other modules' tests left open
    yield
    assert backbone._open == before


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    """Make tiny rewards that are closed after the test."""
    opened: list[EmbeddingReward] = []

    def make(name: str, **options: Any) -> EmbeddingReward:
        opened.append(make_tiny(name, tmp_path, **options))
        return opened[-1]

    yield make
    for reward in opened:
        reward.close()


# The numbers of the packages.


@pytest.mark.parametrize("name", COSINE)
def test_scores_equal_those_of_the_packages(name: str, made: Any) -> None:
    reward = made(name)
    for prompt, expected in zip(PROMPTS, SCORES[name], strict=True):
        assert reward.score(sample_images(), [prompt] * 5) == pytest.approx(expected, abs=1e-5)


def embeddings(reward: EmbeddingReward, images: list[Image.Image]) -> np.ndarray:
    framing = type(reward).framing
    return reward._opened().embed_images(images, framing, 8).numpy()


@pytest.mark.parametrize("name", AESTHETIC)
def test_aesthetic_scores_equal_those_of_the_packages(name: str, made: Any) -> None:
    scores = made(name).score(sample_images(), PROMPTS)
    assert scores == pytest.approx(SCORES[name][0], abs=1e-5)


def test_siglip_sees_as_transformers_does(made: Any) -> None:
    vectors = embeddings(made("aesthetic_v25"), sample_images())
    # GELU in place of its approximation would make a difference of 1e-4.
    assert np.abs(vectors - np.array(GOLDEN["siglip"])).max() < 5e-6


@pytest.mark.parametrize("name", EVERY)
def test_the_golden_scores_tell_images_and_prompts_apart(name: str) -> None:
    scores = np.array(SCORES[name])
    assert np.diff(np.sort(scores, axis=1), axis=1).min() > 3e-5
    if name in COSINE:
        assert np.diff(np.sort(scores, axis=0), axis=0).min() > 3e-5


@pytest.mark.parametrize("name", COSINE)
def test_mixed_prompts_score_as_each_prompt_alone(name: str, made: Any) -> None:
    diagonal = [SCORES[name][i][i] for i in range(5)]
    assert made(name).score(sample_images(), PROMPTS) == pytest.approx(diagonal, abs=1e-5)


@pytest.mark.parametrize("name", AESTHETIC)
def test_aesthetic_rewards_do_not_read_prompts(name: str, made: Any) -> None:
    reward = made(name)
    assert reward.score(sample_images(), [""] * 5) == reward.score(sample_images(), PROMPTS)
    assert reward.warnings() == []


@pytest.mark.parametrize("name", ["hpsv2", "clip_score"])
def test_the_activation_is_a_part_of_the_recipe(
    name: str, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = COSINE[name]
    sizes = cls.sizes
    other = ClipSizes(sizes.image, sizes.text, 32, 8, sizes.embedding, not sizes.quick_gelu)
    monkeypatch.setattr(cls, "sizes", other)
    scores = made(name).score(sample_images(), [PROMPTS[0]] * 5)
    assert scores != pytest.approx(SCORES[name][0], abs=1e-4)


def test_the_recipes_bind_sizes_and_activation() -> None:
    from lib_automerge.reward.aesthetic import AesB32, AestheticV25, Chad, LaionV1, LaionV2
    from lib_automerge.reward.clip_rewards import ClipScore, HpsV2

    assert {cls.sizes for cls in (HpsV2, PickScore)} == {VIT_H_14}
    assert {cls.sizes for cls in (ClipScore, LaionV1, LaionV2, Chad)} == {VIT_L_14}
    assert AesB32.sizes == VIT_B_32
    assert AestheticV25.sizes == SiglipSizes()
    assert [s.quick_gelu for s in (VIT_H_14, VIT_L_14, VIT_B_32)] == [False, True, True]
    framings = {cls.name: cls.framing.__name__ for cls in (*COSINE.values(), *AESTHETIC.values())}
    assert framings == {
        "hpsv2": "pad",
        "pickscore": "crop_down",
        "clip_score": "crop",
        "laion_v1": "crop",
        "laion_v2": "crop",
        "chad": "crop",
        "aes_b32": "crop_down",
        "aesthetic_v25": "squeeze",
    }


@pytest.mark.parametrize(
    ("sizes", "count", "keys", "some"),
    [
        (VIT_B_32, 151_277_313, 398, ("vision_model", 11, (768, 768))),
        (VIT_L_14, 427_616_513, 590, ("vision_model", 23, (1024, 1024))),
        (VIT_H_14, 986_109_441, 910, ("vision_model", 31, (1280, 1280))),
        # SiglipVisionModel of transformers 5 at the published sizes
        (SiglipSizes(), 428_225_600, 448, ("vision_model", 26, (1152, 1152))),
    ],
)
def test_the_published_structures(
    sizes: Any, count: int, keys: int, some: tuple[str, int, tuple[int, int]]
) -> None:
    with torch.device("meta"):
        model = Siglip(sizes) if isinstance(sizes, SiglipSizes) else Clip(sizes)
    expected = model.state_dict()
    assert sum(math.prod(tensor.shape) for tensor in expected.values()) == count
    assert len(expected) == keys
    tower, last, shape = some
    key = f"{tower}.encoder.layers.{last}.self_attn.q_proj.weight"
    assert tuple(expected[key].shape) == shape
    assert f"{tower}.encoder.layers.{last + 1}.self_attn.q_proj.weight" not in expected


@pytest.mark.parametrize("sizes", [VIT_B_32, VIT_L_14, VIT_H_14, SiglipSizes()])
def test_the_published_structures_are_those_of_transformers(sizes: Any) -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        ours = Siglip(sizes) if isinstance(sizes, SiglipSizes) else Clip(sizes)
        if isinstance(sizes, SiglipSizes):
            config = transformers.SiglipVisionConfig(
                hidden_size=1152,
                intermediate_size=4304,
                num_hidden_layers=27,
                num_attention_heads=16,
                image_size=384,
                patch_size=14,
            )
            theirs = transformers.SiglipVisionModel(config)
        else:
            towers = [
                {
                    "hidden_size": tower.width,
                    "intermediate_size": tower.hidden,
                    "num_hidden_layers": tower.layers,
                    "num_attention_heads": tower.heads,
                }
                for tower in (sizes.image, sizes.text)
            ]
            config = transformers.CLIPConfig(
                vision_config={**towers[0], "patch_size": sizes.patch_side},
                text_config=towers[1],
                projection_dim=sizes.embedding,
            )
            theirs = transformers.CLIPModel(config)

    def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
        # transformers 5 drops the prefix of a tower that is alone
        return {
            key.removeprefix("vision_model.") if isinstance(sizes, SiglipSizes) else key: tuple(
                tensor.shape
            )
            for key, tensor in model.state_dict().items()
            if not key.endswith("position_ids")
        }

    assert shapes(ours) == shapes(theirs)


# Precision.


@pytest.mark.parametrize("name", EVERY)
def test_bf16_weights_score_nearly_the_same(name: str, made: Any) -> None:
    exact = np.array(made(name).score(sample_images(), PROMPTS))
    rounded = np.array(made(name, dtype="bf16").score(sample_images(), PROMPTS))
    assert np.abs(rounded - exact).max() < 0.1
    assert np.abs(rounded - exact).max() > 0


def test_scale_and_head_keep_their_precision_whatever_the_weights(made: Any) -> None:
    reward = made("pickscore", dtype="bf16")
    assert reward._backbone.scale == pytest.approx(10, abs=1e-5)
    head = made("laion_v2", dtype="bf16")._head.state_dict()
    published = random_head("laion_v2")
    assert all(torch.equal(head[key], published[key]) for key in published)


# Sharing one encoder.


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count loads, images and texts that go through a network."""
    counts = {"loads": 0, "images": 0, "texts": 0}
    load, see, read = backbone._load, Clip.embed_images, Clip.embed_texts

    def counted_load(*arguments: Any) -> Any:
        counts["loads"] += 1
        return load(*arguments)

    def counted_see(self: Clip, pixels: Tensor) -> Tensor:
        counts["images"] += len(pixels)
        return see(self, pixels)

    def counted_read(self: Clip, ids: Tensor) -> Tensor:
        counts["texts"] += len(ids)
        return read(self, ids)

    monkeypatch.setattr(backbone, "_load", counted_load)
    monkeypatch.setattr(Clip, "embed_images", counted_see)
    monkeypatch.setattr(Clip, "embed_texts", counted_read)
    return counts


def test_rewards_of_one_encoder_load_it_once_and_embed_an_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(monkeypatch)
    encoder = write_encoder("laion_v2", tmp_path)
    rewards = [
        TinyLaionV2(write_head("laion_v2", tmp_path), encoder, device="cpu"),
        TinyLaionV1(write_head("laion_v1", tmp_path), encoder, device="cpu"),
        TinyClipScore(encoder, device="cpu"),
    ]
    for reward in rewards:
        expected = SCORES[reward.name]
        scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
        assert scores == pytest.approx(expected[0], abs=1e-5)
    assert counts == {"loads": 1, "images": 5, "texts": 1}
    # Others go on after one has closed; the last one frees the memory.
    rewards[0].close()
    rewards[0].close()
    assert rewards[2].score(sample_images()[:1], PROMPTS[:1])
    shared = rewards[2]._backbone
    assert shared is not None
    weight = weakref.ref(shared._loaded().visual_projection.weight)  # type: ignore[union-attr]
    rewards[1].close()
    assert weight() is not None
    rewards[2].close()
    assert weight() is None


def test_a_prompt_is_read_once(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = made("hpsv2")
    counts = counted(monkeypatch)
    images = sample_images()
    reward.score(images, [PROMPTS[0]] * 4 + [PROMPTS[1]])
    reward.score([image.rotate(90) for image in images], [PROMPTS[1]] * 5)
    assert counts["texts"] == 2
    assert counts["images"] == 10


def test_equal_images_are_embedded_once(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = made("laion_v2")
    counts = counted(monkeypatch)
    image = sample_images()[0]
    scores = reward.score([image, image.copy(), image.convert("RGBA")], [""] * 3)
    assert len(set(scores)) == 1
    assert counts["images"] == 1


def test_a_palette_is_a_part_of_an_image(made: Any) -> None:
    reward = made("laion_v2")
    image = sample_images()[0].quantize(4)
    other = image.copy()
    other.putpalette([255 - value for value in image.getpalette() or []])
    first, second = reward.score([image, other], ["", ""])
    assert first != second


def test_what_is_kept_is_bounded(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "_KEPT", 2)
    reward = made("clip_score")
    scores = reward.score(sample_images(), PROMPTS)
    assert scores == pytest.approx([SCORES["clip_score"][i][i] for i in range(5)], abs=1e-5)
    assert len(reward._backbone._images) == 2
    assert len(reward._backbone._texts) == 2
    counts = counted(monkeypatch)
    reward.score(sample_images()[3:], PROMPTS[3:])
    assert counts == {"loads": 0, "images": 0, "texts": 0}


def test_one_file_framed_in_two_ways_is_embedded_twice(tmp_path: Path) -> None:
    encoder = write_encoder("pickscore", tmp_path)
    pick, hps = TinyPickScore(encoder, device="cpu"), TinyHpsV2(encoder, device="cpu")
    assert pick._backbone is hps._backbone
    for reward in (pick, hps):
        expected = SCORES[reward.name][0]
        scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
        assert scores == pytest.approx(expected, abs=1e-5)
        reward.close()


def test_other_precision_or_other_file_is_another_encoder(tmp_path: Path, made: Any) -> None:
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(random_encoder(TINY_OPENAI, seed=2), other)
    rewards = [
        made("clip_score"),
        made("clip_score", dtype="bf16"),
        TinyClipScore(other, device="cpu"),
    ]
    assert len({id(reward._backbone) for reward in rewards}) == 3
    assert len({reward.fingerprint for reward in rewards}) == 3
    rewards[2].close()


def test_threads_may_share_an_encoder(tmp_path: Path) -> None:
    encoder = write_encoder("laion_v2", tmp_path)
    rewards = [
        TinyLaionV1(write_head("laion_v1", tmp_path), encoder, device="cpu", batch_size=1),
        TinyClipScore(encoder, device="cpu", batch_size=2),
    ] * 2

    def score(reward: EmbeddingReward) -> list[float]:
        for _ in range(5):
            reward.place("cpu")
            scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
        return scores

    with ThreadPoolExecutor(4) as pool:
        for reward, scores in zip(rewards, pool.map(score, rewards), strict=True):
            assert scores == pytest.approx(SCORES[reward.name][0], abs=1e-5)
    for reward in rewards:
        reward.close()


# Embeddings.


@pytest.mark.parametrize("name", EVERY)
def test_embeddings_are_unit_vectors_of_images(name: str, made: Any) -> None:
    reward = made(name)
    vectors = embeddings(reward, sample_images())
    assert vectors.shape == (5, type(reward).sizes.embedding)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[np.triu_indices(5, 1)].max() < 0.9999
    assert embeddings(reward, []).shape == (0, type(reward).sizes.embedding)


# What the user should know.


@pytest.mark.parametrize("name", COSINE)
def test_a_long_prompt_is_cut_and_said_once(name: str, made: Any) -> None:
    reward = made(name)
    long = "a cat " * 40
    reward.score(sample_images()[:3], [long, "a cat " * 37, long])
    reward.score(sample_images()[:1], [long])
    assert reward.warnings() == [
        f"{name} reads only the first 75 word pieces of a prompt; the last 5 are ignored: "
        f"{long[:100] + '…'!r}"
    ]
    assert reward.warnings() == []


@pytest.mark.parametrize("name", COSINE)
def test_what_is_cut_off_does_not_count(name: str, made: Any) -> None:
    reward = made(name)
    image = sample_images()[:1]
    assert reward.score(image, ["a cat " * 40]) == reward.score(image, ["a cat " * 37 + "a dog"])


@pytest.mark.parametrize("name", EVERY)
def test_the_fingerprint_names_version_precision_and_every_file(
    name: str, made: Any, tmp_path: Path
) -> None:
    reward = made(name)
    assert reward.fingerprint.startswith(f"{name}:{type(reward).version}:fp32:")
    assert made(name, batch_size=1).fingerprint == reward.fingerprint
    if isinstance(reward, AestheticReward):
        head, encoder = write_tiny(name, tmp_path)
        torch.save(random_head(name, seed=2), head)
        other = AESTHETIC[name](head, encoder, device="cpu")
        assert other.fingerprint != reward.fingerprint
        other.close()


def test_is_made_by_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in EVERY:
        cls: Any = ({**COSINE, **AESTHETIC}[name]).__mro__[1]
        monkeypatch.setattr(cls, "sizes", {**COSINE, **AESTHETIC}[name].sizes)
        files = write_tiny(name, tmp_path)
        options = dict(zip(("weights", "encoder"), files, strict=False))
        reward = create(name, **options, device="cpu", batch_size=2)
        assert reward.name == name
        scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
        assert scores == pytest.approx(SCORES[name][0], abs=1e-5)
        reward.close()


# Memory and devices.


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_halves_the_batch_when_memory_runs_out(
    error: type[RuntimeError], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    see = Clip.embed_images

    def small_memory(self: Clip, pixels: Tensor) -> Tensor:
        batches.append(len(pixels))
        if len(pixels) > 2:
            raise error("DefaultCPUAllocator: can't allocate memory")
        return see(self, pixels)

    monkeypatch.setattr(Clip, "embed_images", small_memory)
    reward = made("clip_score", batch_size=8)
    scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
    assert scores == pytest.approx(SCORES["clip_score"][0], abs=1e-5)
    assert batches == [5, 4, 2, 2, 1]
    batches.clear()
    reward.score([image.rotate(90) for image in sample_images()], PROMPTS)
    assert batches == [2, 2, 1]


def test_other_failures_are_not_taken_for_lack_of_memory(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Clip, "embed_images", fail)
    with pytest.raises(RewardError, match="shapes do not match"):
        made("clip_score").score(sample_images(), PROMPTS)


def test_moves_for_all_that_share_it(made: Any) -> None:
    first, second = made("laion_v2"), made("clip_score")
    # Made of two files of one content.
    assert first._backbone is second._backbone
    before = second.score(sample_images()[:1], PROMPTS[:1])
    first.place("meta")
    assert second._backbone._device.type == "meta"
    assert {p.device.type for p in second._backbone._model.parameters()} == {"meta"}
    assert before == second.score(sample_images()[:1], PROMPTS[:1])


def test_a_device_that_is_not_there_is_refused(made: Any) -> None:
    reward = made("clip_score")
    with pytest.raises(ConfigError, match="'gpu9'"):
        reward.place("gpu9")
    assert reward.score(sample_images()[:1], PROMPTS[:1])


@pytest.mark.parametrize("name", EVERY)
def test_a_closed_reward_refuses_to_score(name: str, made: Any) -> None:
    reward = made(name)
    fingerprint = reward.fingerprint
    reward.close()
    reward.close()
    reward.place("cpu")
    with pytest.raises(RewardError, match=f"reward is closed: '{name}'"):
        reward.score(sample_images(), PROMPTS)
    assert reward.fingerprint == fingerprint


# Images and prompts as they come.


@pytest.mark.parametrize("name", EVERY)
def test_takes_images_of_every_kind(name: str, made: Any) -> None:
    base = sample_images()[0]
    images = [base.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I")]
    images += [Image.new("RGB", (1, 1)), Image.new("RGB", (2, 700)), Image.new("L", (700, 2))]
    scores = made(name).score(images, ["a cat"] * len(images))
    assert all(math.isfinite(score) for score in scores)


@pytest.mark.parametrize("name", ["hpsv2", "laion_v2"])
def test_takes_an_image_of_8k(name: str, made: Any) -> None:
    small = sample_images()[0].resize((768, 432))
    large = small.resize((7680, 4320), Image.Resampling.NEAREST)
    first, second = made(name).score([small, large], ["", ""])
    assert first == pytest.approx(second, abs=0.05)


@pytest.mark.parametrize("name", COSINE)
@pytest.mark.parametrize(
    "prompt", ["", " \n", "a cat, " * 1430, "x" * 10_000, "👩‍👩‍👧🔥" * 30, "東京タワー", "\ud83d"]
)
def test_takes_prompts_of_every_kind(name: str, prompt: str, made: Any) -> None:
    (score,) = made(name).score(sample_images()[:1], [prompt])
    assert math.isfinite(score)


@pytest.mark.parametrize("name", EVERY)
def test_a_score_that_is_no_number_is_an_error(name: str, tmp_path: Path) -> None:
    files = write_tiny(name, tmp_path)
    cls: Any = {**COSINE, **AESTHETIC}[name]
    tensors = random_encoder(cls.sizes)
    next(t for key, t in tensors.items() if "post_layernorm.bias" in key).fill_(math.nan)
    broken = tmp_path / "broken.safetensors"
    safetensors.torch.save_file(tensors, broken)
    reward = cls(*files[:-1], broken, device="cpu")
    with pytest.raises(RewardError, match=f"'{name}' gave no number: nan for image 0"):
        reward.score(sample_images()[:1], ["a cat"])
    reward.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp8"}, "unknown dtype: 'fp8'"),
        ({"dtype": "fp16"}, "needs a GPU: 'fp16'"),
        ({"device": "gpu9"}, "device cannot be used: 'gpu9'"),
        ({"batch_size": 0}, "at least 1: 0"),
    ],
)
@pytest.mark.parametrize("name", ["hpsv2", "laion_v2"])
def test_impossible_options_are_refused(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_tiny(name, tmp_path, **options)


def test_lengths_that_differ_are_counted(made: Any) -> None:
    with pytest.raises(RewardError, match="2 images, 1 prompts"):
        made("laion_v2").score(sample_images()[:2], PROMPTS[:1])
