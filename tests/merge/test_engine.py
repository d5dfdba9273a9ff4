from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import merge_files
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.sinks import DictSink
from tests.checkpoints import write_tiny


@contextmanager
def opened(*paths: Path) -> Iterator[dict[str, Checkpoint]]:
    with ExitStack() as stack:
        yield {
            role: stack.enter_context(open_checkpoint(path))
            for role, path in zip("abc", paths, strict=False)
        }


def merged(
    models: dict[str, Checkpoint], method: str, weights: dict[str, float], **options: str
) -> dict[str, Tensor]:
    sink = DictSink()
    Merger(models, method, **options).merge(weights, sink)
    return sink.tensors


def spread_weights(architecture: str) -> dict[str, float]:
    """A different weight for every block, none of them 0 or 1."""
    blocks = architectures.get(architecture).blocks
    return {block: 0.05 + 0.9 * n / len(blocks) for n, block in enumerate(blocks)}


class LiveSink:
    """Live parameters in memory, some of them in another dtype, as a loaded model has."""

    def __init__(self, live: dict[str, Tensor]) -> None:
        self.live = live
        self.touched: list[str] = []

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        self.touched.append(key)
        return self.live[key] if self.live[key].dtype == dtype else None

    def put(self, key: str, tensor: Tensor) -> None:
        self.live[key].copy_(tensor)


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("method", ["weighted_sum", "add_difference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_every_key_equals_the_float64_reference(
    tmp_path: Path, architecture: str, method: str, dtype: torch.dtype
) -> None:
    paths = [
        write_tiny(tmp_path / f"{seed}.safetensors", architecture, seed=seed, dtype=dtype)
        for seed in range(3)
    ]
    weights = spread_weights(architecture)
    blocks = architectures.get(architecture)
    with opened(*paths) as models:
        result = merged(models, method, weights)
        sources = {role: {k: m.tensor(k) for k in m.keys()} for role, m in models.items()}  # noqa: SIM118
        assert set(result) == set(sources["a"])
        exact, total = 0, 0
        for key, tensor in result.items():
            block = blocks.block_of(key)
            a, b, c = (sources[role][key].double() for role in "abc")
            if block is None:
                assert torch.equal(tensor, sources["a"][key])
                continue
            w = weights[block]
            reference = a + w * ((b - a) if method == "weighted_sum" else (b - c))
            assert tensor.dtype == dtype
            # half a unit in the last place of the stored dtype, and float32's own arithmetic
            rounding = torch.finfo(dtype).eps / 2 * reference.abs() + torch.finfo(dtype).tiny
            arithmetic = 4 * torch.finfo(torch.float32).eps * (a.abs() + b.abs() + c.abs())
            assert ((tensor.double() - reference).abs() <= rounding + arithmetic).all(), key
            exact += int((tensor == reference.to(dtype)).sum())
            total += tensor.numel()
    # rounding once: all but the rare values that lie next to a tie
    assert dtype == torch.float32 or exact / total > 0.998


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_0_and_1_return_the_parents_bits(tmp_path: Path, weight: float) -> None:
    odd = torch.tensor([-0.0, 0.0, 1e-7, 65504.0, -65504.0], dtype=torch.float16)
    key = "model.diffusion_model.out.2.bias"
    extra = {key: odd[:4]}
    paths = [
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed, extra=extra)
        for seed in range(2)
    ]
    blocks = architectures.get("sd1").blocks
    with opened(*paths) as models:
        result = merged(models, "weighted_sum", dict.fromkeys(blocks, weight))
        parent = models["b" if weight else "a"]
        for name, tensor in result.items():
            if architectures.get("sd1").block_of(name) is not None:
                assert tensor.view(torch.uint8).equal(parent.tensor(name).view(torch.uint8)), name


def test_live_parameters_get_the_bits_of_the_dictionary(tmp_path: Path) -> None:
    paths = [write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed) for seed in range(2)]
    weights = spread_weights("sd1")
    with opened(*paths) as models:
        wanted = merged(models, "weighted_sum", weights)
        same = {key: torch.zeros_like(tensor) for key, tensor in wanted.items()}
        wider = {
            key: torch.zeros(t.shape, dtype=torch.float32 if t.is_floating_point() else t.dtype)
            for key, t in wanted.items()
        }
        merger = Merger(models, "weighted_sum")
        merger.merge(weights, LiveSink(same))
        merger.merge(weights, LiveSink(wider))
    for key, tensor in wanted.items():
        assert torch.equal(same[key], tensor), key
        assert torch.equal(wider[key], tensor.to(wider[key].dtype)), key


def test_models_of_different_precision_are_rounded_once_to_a_s(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0, dtype=torch.float16)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1, dtype=torch.float32)
    with opened(a, b) as models:
        result = merged(models, "weighted_sum", dict.fromkeys(architectures.get("sd1").blocks, 0.3))
        as_b = merged(models, "weighted_sum", dict.fromkeys(architectures.get("sd1").blocks, 1.0))
        key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
        x, y = models["a"].tensor(key).float(), models["b"].tensor(key)
    assert torch.equal(result[key], torch.lerp(x, y, 0.3).half())
    assert torch.equal(as_b[key], y.half())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_8_bits_are_widened_and_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    paths = [
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed, dtype=dtype)
        for seed in range(2)
    ]
    blocks = architectures.get("sd1").blocks
    key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    with opened(*paths) as models:
        same = merged(models, "weighted_sum", dict.fromkeys(blocks, 0.3))[key]
        wide = merged(models, "weighted_sum", dict.fromkeys(blocks, 0.3), dtype="fp32")[key]
        x, y = (models[role].tensor(key).float() for role in "ab")
    assert torch.equal(wide, torch.lerp(x, y, 0.3))
    assert same.dtype == dtype
    assert torch.equal(same.float(), torch.lerp(x, y, 0.3).to(dtype).float())


def test_output_dtype_is_rounded_to_directly(tmp_path: Path) -> None:
    paths = [
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed, dtype=torch.float32)
        for seed in range(2)
    ]
    key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    with opened(*paths) as models:
        result = merged(models, "weighted_sum", {"M00": 0.3}, dtype="bf16")
        x, y = (models[role].tensor(key) for role in "ab")
        positions = next(name for name in result if name.endswith("position_ids"))
    assert torch.equal(result[key], torch.lerp(x, y, 0.3).bfloat16())
    assert result[positions].dtype == torch.int64


def test_what_is_no_weight_keeps_its_dtype(tmp_path: Path) -> None:
    schedule = torch.linspace(1, 0.0047, 1000).cumprod(0)
    kept = {
        "alphas_cumprod": schedule,
        "model_ema.decay": torch.tensor(0.9999),
        "elsewhere": torch.rand(3, dtype=torch.float64),
    }
    paths = [
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed, extra=kept)
        for seed in range(2)
    ]
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        result = merged({"a": a, "b": b}, "weighted_sum", {"M00": 0.3}, dtype="bf16")
        recipe = Recipe(
            architecture="sd1",
            method="weighted_sum",
            models={r: ModelRef(r, path=str(p)) for r, p in zip("ab", paths, strict=True)},
            weights={"M00": 0.3},
        )
    # A1111 computes with the file's own schedule, so 16 bits of it would show in every image
    assert all(torch.equal(result[key], value) for key, value in kept.items())
    lab = msgspec.structs.replace(recipe, precision="fp64")
    files = [
        load_file(merge_files(given, tmp_path / f"{given.precision}.safetensors", dtype="bf16"))
        for given in (recipe, lab)
    ]
    assert [{key: t.dtype for key, t in found.items()} for found in files] == [
        {key: t.dtype for key, t in result.items()}
    ] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("weight", [0.1, 0.5, 0.83, 1.7, -0.4])
def test_lerp_rounds_once_wherever_a_tensor_is_cut(dtype: torch.dtype, weight: float) -> None:
    """The engine relies on it: sinks may cut tensors differently, threads do."""
    random = torch.Generator().manual_seed(1)
    a, b = (torch.randn(100_003, generator=random).to(dtype) for _ in range(2))
    whole = torch.lerp(a, b, weight)
    assert torch.equal(whole, torch.lerp(a.float(), b.float(), weight).to(dtype))
    pieces = [torch.lerp(x, y, weight) for x, y in zip(a.split(37), b.split(37), strict=True)]
    assert torch.equal(whole, torch.cat(pieces))


def test_what_b_lacks_stays_a_s_and_cannot_be_asked_for(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1, drop=("cond_stage_model.*",))
    with opened(a, b) as models:
        result = merged(models, "weighted_sum", {"M00": 0.5})
        key = next(
            name
            for name in result
            if name.startswith("cond_stage_model.") and architectures.get("sd1").block_of(name)
        )
        assert torch.equal(result[key], models["a"].tensor(key))
        with pytest.raises(ModelError, match=r"block BASE has weight 0\.5, but b holds no such"):
            merged(models, "weighted_sum", {"BASE": 0.5})


def test_mistakes_are_named(tmp_path: Path) -> None:
    paths = [write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed) for seed in range(2)]
    other = write_tiny(tmp_path / "xl.safetensors", "sdxl")
    with opened(*paths) as models:
        with pytest.raises(ConfigError, match=r"unknown block: 'IN99'\. Did you mean 'IN09'"):
            merged(models, "weighted_sum", {"IN99": 1.0})
        with pytest.raises(ConfigError, match="Did you mean 'weighted_sum'"):
            Merger(models, "weightedsum")
        with pytest.raises(ConfigError, match="add_difference needs model"):
            Merger(models, "add_difference")
        with pytest.raises(ConfigError, match="unknown dtype: 'fp8'"):
            Merger(models, "weighted_sum", dtype="fp8")
    with opened(paths[0], other) as models, pytest.raises(ModelError):
        Merger(models, "weighted_sum")
