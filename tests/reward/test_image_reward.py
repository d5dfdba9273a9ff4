from __future__ import annotations

import json
import logging
import math
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import create, placement
from lib_automerge.reward.blip import BlipReward, BlipSizes
from lib_automerge.reward.image_reward import ImageReward
from lib_automerge.reward.weights import read_tensors, without_memory
from tests.contracts.reward import sample_images
from tests.reward.tiny_image_reward import (
    PROMPTS,
    TINY,
    TinyImageReward,
    random_tensors,
    write_tiny,
)

# ImageReward.score of the package image-reward with its networks built at the sizes TINY and filled
# by random_tensor (record_image_reward_goldens.py): a row per prompt, a column per sample image.
RECORDED = json.loads(
    (Path(__file__).parent / "golden" / "image_reward.json").read_text(encoding="utf-8")
)
GOLDEN = RECORDED["scores"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture
def reward(weights: Path) -> TinyImageReward:
    return TinyImageReward(weights, device="cpu")


def test_scores_equal_those_of_the_package(reward: TinyImageReward) -> None:
    assert tuple(RECORDED["prompts"]) == PROMPTS
    for prompt, expected in zip(PROMPTS, GOLDEN, strict=True):
        scores = reward.score(sample_images(), [prompt] * 5)
        assert scores == pytest.approx(expected, abs=1e-5)


def test_mixed_prompts_score_as_each_prompt_alone(reward: TinyImageReward) -> None:
    diagonal = [GOLDEN[i][i] for i in range(5)]
    assert reward.score(sample_images(), PROMPTS) == pytest.approx(diagonal, abs=1e-5)


def test_the_published_structure_has_the_published_keys() -> None:
    with torch.device("meta"):
        expected = BlipReward(BlipSizes()).state_dict()
    count = sum(math.prod(tensor.shape) for tensor in expected.values())
    # The published file has 625 tensors of 446,666,465 numbers; 4 tensors of projections and the
    # position ids are not used.
    assert len(expected) == 625 - 5
    unused = 256 * (1024 + 768) + 2 * 256 + 512
    assert count == 446_666_465 - unused
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    assert shapes["blip.visual_encoder.pos_embed"] == (1, 197, 1024)
    assert shapes["blip.visual_encoder.blocks.23.attn.qkv.weight"] == (3072, 1024)
    cross = "blip.text_encoder.encoder.layer.11.crossattention.self.key.weight"
    assert shapes[cross] == (768, 1024)
    assert shapes["mlp.layers.7.weight"] == (1, 16)


def test_bf16_weights_score_nearly_the_same(weights: Path, reward: TinyImageReward) -> None:
    half = TinyImageReward(weights, dtype="bf16", device="cpu")
    exact = reward.score(sample_images(), PROMPTS)
    rounded = half.score(sample_images(), PROMPTS)
    assert rounded == pytest.approx(exact, abs=0.1)
    assert rounded != exact


def test_the_head_keeps_its_precision_whatever_the_weights(weights: Path) -> None:
    reward = TinyImageReward(weights, dtype="bf16", device="cpu")
    assert reward._model is not None
    head = reward._model.mlp.state_dict()
    published = random_tensors()
    assert head
    assert all(torch.equal(head[key], published[f"mlp.{key}"]) for key in head)
    assert reward._model.blip.visual_encoder.cls_token.dtype is torch.bfloat16


def test_a_safetensors_copy_scores_the_same(
    weights: Path, reward: TinyImageReward, tmp_path: Path
) -> None:
    copy = tmp_path / "ImageReward.safetensors"
    safetensors.torch.save_file(torch.load(weights, weights_only=True), copy)
    scores = TinyImageReward(copy, device="cpu").score(sample_images(), PROMPTS)
    assert scores == pytest.approx(reward.score(sample_images(), PROMPTS), abs=1e-5)


def test_is_made_by_the_registry(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setattr(ImageReward, "sizes", TINY)
    made = create("image_reward", weights=str(weights), device="cpu", batch_size=3)
    assert made.score(sample_images()[:1], PROMPTS[:1]) == pytest.approx(GOLDEN[0][:1], abs=1e-5)
    assert made.name == "image_reward"


def test_the_fingerprint_names_version_precision_and_weights(weights: Path, tmp_path: Path) -> None:
    first = TinyImageReward(weights, device="cpu").fingerprint
    assert first.startswith("image_reward:1.0:fp32:")
    assert TinyImageReward(weights, device="cpu", batch_size=1).fingerprint == first
    assert TinyImageReward(weights, dtype="bf16", device="cpu").fingerprint != first
    other = tmp_path / "other.pt"
    torch.save(random_tensors(seed=2), other)
    assert TinyImageReward(other, device="cpu").fingerprint != first


# Loading: this model completely, or an error.


def save(tensors: object, path: Path) -> Path:
    torch.save(tensors, path)
    return path


LAST_BLOCK = "blip.visual_encoder.blocks.1."


@pytest.mark.parametrize("unused", ["vision_proj.weight", "text_proj.bias"])
def test_tensors_that_scoring_ignores_may_be_absent(unused: str, tmp_path: Path) -> None:
    tensors = random_tensors()
    del tensors[f"blip.{unused}"]
    TinyImageReward(save(tensors, tmp_path / "a.pt"), device="cpu")


class Computed(TorchDispatchMode):
    """Names of the operators that torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_a_network_is_built_without_drawing_values_that_the_file_replaces() -> None:
    with Computed() as computed, without_memory():
        model = BlipReward(TINY)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert "empty" in computed.names
    assert not {name for name in computed.names if name.endswith("_")}
    drawn = torch.nn.Linear(8, 8).weight
    assert drawn.device.type == "cpu"
    assert drawn.std() > 0


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors()
    del tensors["mlp.layers.7.bias"]
    path = save(tensors, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=r"a\.pt: missing 'mlp\.layers\.7\.bias'\. "):
        TinyImageReward(path, device="cpu")


def test_a_missing_last_layer_is_not_a_smaller_model(tmp_path: Path) -> None:
    tensors = {k: v for k, v in random_tensors().items() if not k.startswith(LAST_BLOCK)}
    path = save(tensors, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=f"missing '{LAST_BLOCK}norm1.weight' and 11 more"):
        TinyImageReward(path, device="cpu")


def test_an_unexpected_tensor_is_named(tmp_path: Path) -> None:
    path = save({**random_tensors(), "blip.visual.extra": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=r"unexpected 'blip\.visual\.extra'"):
        TinyImageReward(path, device="cpu")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors["mlp.layers.7.weight"] = torch.zeros(2, 16)
    path = save(tensors, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=r"'mlp\.layers\.7\.weight' has shape \(2, 16\)"):
        TinyImageReward(path, device="cpu")


KEY = "blip.visual_encoder.norm.weight"


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(192, dtype=torch.int8), "int8"),
        (torch.ones(192, dtype=torch.bool), "bool"),
        (torch.ones(192, dtype=torch.int64), "int64"),
        (torch.ones(192, dtype=torch.complex64), "complex64"),
        (torch.ones(192).to_sparse(), "float32 sparse_coo"),
        (torch.ones(192, device="meta"), "float32 meta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_floating_point_number_is_no_weight(
    tensor: torch.Tensor, kind: str, tmp_path: Path
) -> None:
    path = save({**random_tensors(), KEY: tensor}, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=rf"a\.pt: '{KEY}' is {kind}\. Use the published file"):
        TinyImageReward(path, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = random_tensors()
    path = save({**tensors, KEY: tensors[KEY].to(dtype)}, tmp_path / "a.pt")
    scores = TinyImageReward(path, device="cpu").score(sample_images(), [PROMPTS[0]] * 5)
    assert scores == pytest.approx(GOLDEN[0], abs=0.05)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about what it then refuses
def test_a_damaged_pickle_is_refused_in_a_sentence(weights: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(weights) as archive:
        (entry,) = (item for item in archive.infolist() if item.filename.endswith("data.pkl"))
    whole, path = weights.read_bytes(), tmp_path / "a.pt"
    start, end = entry.header_offset, entry.header_offset + 200 + entry.file_size
    random = Random(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.randrange(start, end)] ^= 1 << random.randrange(8)
        path.unlink(missing_ok=True)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except RewardError:
            refused += 1
    assert refused > 10


def test_an_empty_file_of_tensors_is_refused(tmp_path: Path) -> None:
    path = save({}, tmp_path / "a.pt")
    with pytest.raises(RewardError, match=r"missing .* more"):
        TinyImageReward(path, device="cpu")


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"state_dict": {"a": torch.zeros(1)}}, {"a": 1}, {1: torch.zeros(1)}],
)
def test_anything_but_a_dictionary_of_tensors_is_refused(content: object, tmp_path: Path) -> None:
    path = save(content, tmp_path / "a.pt")
    with pytest.raises(RewardError, match="not a plain dictionary of tensors"):
        TinyImageReward(path, device="cpu")


def test_a_device_without_room_for_the_weights_is_an_error(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate ...")

    monkeypatch.setattr(torch.Tensor, "to", fail)
    with pytest.raises(RewardError, match=r"moved to cpu: .*\(CUDA out of memory\.\)"):
        TinyImageReward(weights, device="cpu")


def test_lengths_that_differ_are_counted(reward: TinyImageReward) -> None:
    with pytest.raises(RewardError, match="2 images, 1 prompts"):
        reward.score(sample_images()[:2], PROMPTS[:1])


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_file_that_may_not_be_read_is_named(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"locked.{ending}"
    path.touch()

    def denied(*_arguments: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lib_automerge.reward.weights.zipfile.ZipFile", denied)
    monkeypatch.setattr("lib_automerge.reward.weights.load_file", denied)
    with pytest.raises(
        RewardError, match=r"cannot be read: .*\(Permission denied\). Check its path"
    ):
        TinyImageReward(path, device="cpu")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"nothing\.pt\. Give the path of ImageReward\.pt"):
        ImageReward(tmp_path / "nothing.pt", device="cpu")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = save({"a": Trap(tmp_path / "sprung")}, tmp_path / "a.pt")
    with pytest.raises(RewardError, match="could run code"):
        TinyImageReward(path, device="cpu")
    assert not (tmp_path / "sprung").exists()


def test_files_for_other_loaders_of_torch_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"a": Trap(tmp_path / "sprung")}))
    old = tmp_path / "old.pt"
    torch.save(random_tensors(), old, _use_new_zipfile_serialization=False)
    program = tmp_path / "program.pt"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("program/data.pkl", pickle.dumps({}))
        archive.writestr("program/constants.pkl", pickle.dumps(()))
    page = tmp_path / "page.pt"
    page.write_text("<html>404</html>")
    for path in (plain, old, program, page):
        with pytest.raises(RewardError, match=f"not a weights file: .*{path.name}"):
            TinyImageReward(path, device="cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_truncated_file_is_refused(suffix: str, weights: Path, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "pt":
        whole.write_bytes(weights.read_bytes())
    else:
        safetensors.torch.save_file(random_tensors(), whole)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(RewardError, match=f"cut.{suffix}.*ownload it again"):
        TinyImageReward(cut, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp8"}, "unknown dtype: 'fp8'"),
        ({"dtype": "fp16", "device": "cpu"}, "needs a GPU: 'fp16'"),
        ({"device": "gpu9"}, "device cannot be used: 'gpu9'"),
        ({"batch_size": 0}, "at least 1: 0"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, str | int], message: str, weights: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        create("image_reward", weights=weights, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="device cannot be used: 'cuda'"):
        ImageReward(weights, device="cuda")


# Scoring.


def test_a_long_prompt_is_cut_which_is_said_once(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reward = TinyImageReward(weights, device="cpu")
    long = "a cat " * 20
    with caplog.at_level(logging.WARNING):
        reward.score(sample_images()[:3], [long, "a cat " * 16, long])
        said = reward.warnings()
        reward.score(sample_images()[:1], [long])
    assert said == [record.getMessage() for record in caplog.records]
    assert said == [
        f"image_reward reads only the first 33 word pieces of a prompt; "
        f"the last 7 are ignored: {long[:100] + '…'!r}"
    ]
    assert reward.warnings() == []


def test_a_warning_does_not_hold_a_whole_book(reward: TinyImageReward) -> None:
    reward.score(sample_images()[:1], ["a cat " * 2000])
    (told,) = reward.warnings()
    assert "a cat a cat" in told
    assert len(told) < 250


def test_is_moved_and_stays_usable(weights: Path) -> None:
    moved = TinyImageReward(weights, device="cpu")
    before = moved.score(sample_images(), PROMPTS)
    moved.place("cpu")
    assert moved.score(sample_images(), PROMPTS) == before
    with pytest.raises(ConfigError, match="device cannot be used: 'gpu9'"):
        moved.place("gpu9")
    assert moved.score(sample_images(), PROMPTS) == before
    moved.close()
    moved.place("cpu")


def test_stays_where_it_is_when_the_other_device_is_full(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = TinyImageReward(weights, device="cpu")
    before = moved.score(sample_images(), PROMPTS)
    asked: list[str] = []

    def full(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        asked.append(device.type)
        if device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return module

    monkeypatch.setattr(placement, "choose_device", torch.device)
    monkeypatch.setattr(BlipReward, "to", full, raising=False)
    with pytest.raises(RewardError, match="cannot be moved to cuda: CUDA out of memory"):
        moved.place("cuda")
    assert asked == ["cuda", "cpu"]
    assert moved.score(sample_images(), PROMPTS) == before


class SmallMemory(TinyImageReward):
    """Runs out of memory above `fits` images; keeps the sizes of the batches it was given."""

    fits = 2
    error: RuntimeError = torch.cuda.OutOfMemoryError("no memory")

    def _score_batch(
        self, model: BlipReward, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        self.batches = [*getattr(self, "batches", []), len(images)]
        if len(images) > self.fits:
            raise self.error
        return super()._score_batch(model, images, prompts)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("no memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_halves_the_batch_when_memory_runs_out(
    error: RuntimeError,
    weights: Path,
    reward: TinyImageReward,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(SmallMemory, "error", error)
    small = SmallMemory(weights, device="cpu", batch_size=8)
    with caplog.at_level(logging.WARNING):
        scores = small.score(sample_images(), PROMPTS)
    assert scores == pytest.approx(reward.score(sample_images(), PROMPTS), abs=1e-5)
    assert small.batches == [5, 4, 2, 2, 1]
    assert "out of memory with 8 images at once; going on with 4" in caplog.text
    small.batches = []
    small.score(sample_images(), PROMPTS)
    assert small.batches == [2, 2, 1]


def test_says_so_when_not_even_one_image_fits(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallMemory, "fits", 0)
    small = SmallMemory(weights, device="cpu", batch_size=2)
    with pytest.raises(RewardError, match="not enough memory to score one image"):
        small.score(sample_images(), PROMPTS)


def test_other_failures_are_not_taken_for_lack_of_memory(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[float]:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(TinyImageReward, "_score_batch", fail)
    with pytest.raises(RewardError, match="shapes do not match"):
        TinyImageReward(weights, device="cpu").score(sample_images(), PROMPTS)


def test_a_score_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors["mlp.layers.7.bias"].fill_(math.nan)
    broken = TinyImageReward(save(tensors, tmp_path / "a.pt"), device="cpu")
    with pytest.raises(RewardError, match="nan for image 0, prompt 'a cat'"):
        broken.score(sample_images()[:1], ["a cat"])


def test_a_closed_reward_refuses_to_score(weights: Path) -> None:
    reward = TinyImageReward(weights, device="cpu")
    fingerprint = reward.fingerprint
    reward.close()
    reward.close()
    with pytest.raises(RewardError, match="reward is closed"):
        reward.score(sample_images(), PROMPTS)
    assert reward.fingerprint == fingerprint
