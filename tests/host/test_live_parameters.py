"""The sink over a loaded model: names, number types, and the LoRA extension's copies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_automerge.domain import architectures
from lib_automerge.errors import HostError
from lib_automerge.host.live_parameters import Casts, LiveParameters
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.checkpoints import tiny_state, write_tiny

SD1 = architectures.get("sd1")
PROJECTION = "model.diffusion_model.input_blocks.4.1.proj_in.weight"
TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


def tree(state: Mapping[str, Tensor], wrap: tuple[str, ...] = ()) -> nn.Module:
    """A module with these parameters; a module named in `wrap` hides behind `.wrapped`."""
    root = nn.Module()
    for key, tensor in state.items():
        *path, name = key.split(".")
        module, so_far = root, ""
        for part in path:
            so_far = f"{so_far}.{part}".lstrip(".")
            if not hasattr(module, part):
                inner = nn.Module()
                module.add_module(part, inner)
                if so_far in wrap:
                    inner.add_module("wrapped", nn.Module())
            module = getattr(module, part)
            module = module.wrapped if so_far in wrap else module
        if tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor.clone(), requires_grad=False))
        else:
            module.register_buffer(name, tensor.clone())
    return root


def module_of(model: nn.Module, key: str) -> Any:
    return model.get_submodule(key.rpartition(".")[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    folder = tmp_path_factory.mktemp("models")
    made = {
        "a": write_tiny(folder / "a.safetensors", "sd1", seed=1),
        "b": write_tiny(folder / "b.safetensors", "sd1", seed=2),
    }
    return {role: open_checkpoint(path) for role, path in made.items()}


def live(
    files: Mapping[str, Checkpoint],
    *,
    dtype: torch.dtype = torch.float16,
    casts: Casts | None = None,
    drop: tuple[str, ...] = (),
    extra: Mapping[str, Tensor] | None = None,
) -> LiveParameters:
    a = files["a"]
    state = {key: a.tensor(key) for key in a.keys() if key not in drop}  # noqa: SIM118
    through = casts.model if casts and casts.model else dtype
    state = {k: t.to(through).to(dtype) if t.is_floating_point() else t for k, t in state.items()}
    wrap = ("cond_stage_model", TOKENS.removesuffix(".weight"))
    model = tree(state | dict(extra or {}), wrap)
    return LiveParameters(model, SD1, a.keys(), casts or Casts(None, None))


def merge(sink: LiveParameters, files: Mapping[str, Checkpoint], **weights: float) -> None:
    sink.begin(set(weights))
    Merger(files, "weighted_sum").merge(weights, sink, blocks=set(weights))
    sink.finish()


def test_hijacked_names_are_found(files: Mapping[str, Checkpoint]) -> None:
    sink = live(files)
    assert sink.difference(files["a"], vae=True) is None
    merge(sink, files, BASE=1.0, IN04=0.5)
    wrapped: Any = sink.model.get_submodule("cond_stage_model.wrapped")
    tokens = wrapped.transformer.text_model.embeddings.token_embedding.wrapped.weight
    assert torch.equal(tokens.data, files["b"].tensor(TOKENS))
    expected = torch.lerp(*(files[r].tensor(PROJECTION).float() for r in "ab"), 0.5).half()
    assert torch.equal(module_of(sink.model, PROJECTION).weight.data, expected)


def test_the_difference_names_a_key_and_can_leave_out_the_vae(
    files: Mapping[str, Checkpoint],
) -> None:
    sink = live(files)
    merge(sink, files, VAE=0.5)
    assert sink.difference(files["a"], vae=False) is None
    key = sink.difference(files["a"], vae=True)
    assert key is not None
    assert key.startswith("first_stage_model.")


@pytest.mark.parametrize("path", ["half", "full", "through half", "8-bit"])
def test_live_values_are_those_of_loading_the_saved_merge(
    files: Mapping[str, Checkpoint], path: str, tmp_path: Path
) -> None:
    """File type -> the loader's type -> live type, each rounding in its turn."""
    full = {
        role: open_checkpoint(
            write_tiny(tmp_path / f"{role}.safetensors", "sd1", seed=seed, dtype=torch.float32)
        )
        for role, seed in (("a", 1), ("b", 2))
    }
    half, single = torch.float16, torch.float32
    models, dtype, cast = {
        "half": (files, half, half),
        "full": (files, single, single),
        "through half": (full, torch.bfloat16, half),
        "8-bit": (full, torch.float8_e4m3fn, half),
    }[path]
    sink = live(models, dtype=dtype, casts=Casts(cast, cast))
    merge(sink, models, IN04=0.3)
    merged = torch.lerp(*(models[r].tensor(PROJECTION).float() for r in "ab"), 0.3)
    stored = merged.to(models["a"].tensor(PROJECTION).dtype)
    now = module_of(sink.model, PROJECTION).weight.data
    assert torch.equal(now.float(), stored.to(cast).to(dtype).float())
    if path == "through half":
        # rounding once would give another value somewhere: the way over half shows
        assert not torch.equal(now, stored.to(dtype))
    merge(sink, models, IN04=0.0)
    assert sink.difference(models["a"], vae=True) is None


def test_the_fast_path_writes_into_the_parameter_itself(files: Mapping[str, Checkpoint]) -> None:
    sink = live(files)
    parameter = module_of(sink.model, PROJECTION).weight
    sink.begin({"IN04"})
    target = sink.target(PROJECTION, torch.float16)
    assert target is not None
    assert target.data_ptr() == parameter.data_ptr()
    assert live(files, dtype=torch.float32).target(PROJECTION, torch.float16) is None
    through = live(files, casts=Casts(torch.float32, None))
    through.begin({"IN04"})
    assert through.target(PROJECTION, torch.float16) is None


def test_copies_for_8_bit_storage_are_renewed(files: Mapping[str, Checkpoint]) -> None:
    sink = live(files, dtype=torch.float8_e4m3fn, casts=Casts(torch.float16, None))
    module = module_of(sink.model, PROJECTION)
    module.fp16_weight = files["a"].tensor(PROJECTION).half()
    module.fp16_bias = files["a"].tensor(PROJECTION.replace("weight", "bias")).half()
    merge(sink, files, IN04=1.0)
    assert torch.equal(module.fp16_weight, files["b"].tensor(PROJECTION))
    assert torch.equal(module.fp16_bias, files["b"].tensor(PROJECTION.replace("weight", "bias")))


def test_backups_of_loras_are_read_and_then_forgotten(files: Mapping[str, Checkpoint]) -> None:
    sink = live(files)
    layer, other = module_of(sink.model, PROJECTION), module_of(sink.model, TOKENS_MODULE)
    for module in (layer, other):
        module.network_weights_backup = module.weight.data.clone()
        module.network_bias_backup = None
        module.network_current_names = (("lora", 1.0, 1.0, None),)
        module.weight.data.add_(1)
    assert sink.difference(files["a"], vae=True) is None
    before = sink.pulse(["IN04"])
    layer.weight.data.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, sink.pulse(["IN04"]), strict=True))
    merge(sink, files, IN04=0.5)
    assert layer.network_weights_backup is None
    assert layer.network_current_names == ()
    # layers that were not written still carry the LoRA, and their way back
    assert other.network_weights_backup is not None


TOKENS_MODULE = "model.diffusion_model.input_blocks.5.1.proj_in.weight"


def test_an_attention_is_told_of_its_output_layer(tmp_path: Path) -> None:
    """SD2's text encoder: the LoRA extension keeps copies at the attention, not at its parts."""
    a, b = (
        open_checkpoint(write_tiny(tmp_path / f"{role}.safetensors", "sd2", seed=seed))
        for role, seed in (("a", 1), ("b", 2))
    )
    state = tiny_state("sd2", seed=1)
    model: Any = tree(state)
    block = "cond_stage_model.model.transformer.resblocks.0"
    width = state[f"{block}.attn.in_proj_weight"].shape[1]
    attention = nn.MultiheadAttention(width, 1, dtype=torch.float16)
    for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
        attention.get_parameter(name).data.copy_(state[f"{block}.attn.{name}"])
    model.get_submodule(block).attn = attention
    copies = (attention.in_proj_weight.data.clone(), attention.out_proj.weight.data.clone())
    attention.network_weights_backup = copies
    attention.network_bias_backup = attention.out_proj.bias.data.clone()
    attention.network_current_names = (("lora",),)
    for parameter in (
        attention.in_proj_weight,
        attention.out_proj.weight,
        attention.out_proj.bias,
    ):
        parameter.data.add_(1)
    sink = LiveParameters(model, architectures.get("sd2"), a.keys(), Casts(None, None))
    assert sink.difference(a, vae=True) is None
    merge(sink, {"a": a, "b": b}, BASE=1.0)
    assert attention.network_weights_backup is None
    assert attention.network_bias_backup is None
    assert attention.network_current_names == ()
    assert torch.equal(attention.out_proj.weight.data, b.tensor(f"{block}.attn.out_proj.weight"))


def test_sdxl_encoders_are_written_once_under_two_names(tmp_path: Path) -> None:
    a, b = (
        open_checkpoint(write_tiny(tmp_path / f"{role}.safetensors", "sdxl", seed=seed))
        for role, seed in (("a", 1), ("b", 2))
    )
    model: Any = tree(tiny_state("sdxl", seed=1), ("conditioner.embedders.1",))
    model.cond_stage_model = model.conditioner
    sink = LiveParameters(model, architectures.get("sdxl"), a.keys(), Casts(None, None))
    merge(sink, {"a": a, "b": b}, BASE_G=1.0, LABEL_EMB=1.0)
    key = "conditioner.embedders.1.model.ln_final.weight"
    assert torch.equal(
        model.conditioner.embedders.get_submodule("1.wrapped.model.ln_final").weight.data,
        b.tensor(key),
    )


def test_what_is_not_covered_is_refused(files: Mapping[str, Checkpoint]) -> None:
    with pytest.raises(HostError, match=r"has no 'model.*proj_in.weight'"):
        live(files, drop=(PROJECTION,))
    added = "model.diffusion_model.input_blocks.4.1.adapter.weight"
    with pytest.raises(HostError, match=r"adapter.weight', which the"):
        live(files, extra={added: torch.zeros(2)})


def test_every_key_is_due_once(files: Mapping[str, Checkpoint]) -> None:
    sink = live(files)
    sink.begin({"IN04"})
    with pytest.raises(HostError, match="left out the weight"):
        sink.finish()
    tensor = files["a"].tensor(PROJECTION)
    sink.put(PROJECTION, tensor)
    with pytest.raises(HostError, match="unasked or twice"):
        sink.put(PROJECTION, tensor)
    with pytest.raises(HostError, match="which model A has not"):
        sink.put("model.diffusion_model.input_blocks.4.1.nothing", tensor)
