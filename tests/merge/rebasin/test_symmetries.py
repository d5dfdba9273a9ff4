"""Every order that a symmetry allows leaves what the networks compute as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lib_automerge.domain import architectures
from lib_automerge.errors import ModelError
from lib_automerge.generate.loading import load_pipeline
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin.orders import Layout, is_valid, shuffled, unchanged
from lib_automerge.merge.rebasin.symmetries import Symmetry, symmetries
from lib_automerge.merge.rebasin.tensors import Permuted, whole
from tests import tiny_pipelines
from tests.merge.rebasin.models import InMemory
from tests.tiny_pipelines import tiny_pipeline_state, write_tiny_pipeline

WIDTHS = {"sd1": 20, "sd2": 10, "sdxl": 20}
"""How much narrower the UNet is; SD2's is wide enough for two of its heads of 64."""


def _permuted(state: Mapping[str, Tensor], found: tuple[Symmetry, ...]) -> dict[str, Tensor]:
    model = Permuted(InMemory(state), Layout(found), shuffled(found, 3))
    return {key: whole(model, key) for key in state}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _outputs(path: Path, architecture: str) -> dict[str, Tensor]:
    """What the text encoders and the UNet of a checkpoint make of fixed inputs, in float64."""
    with open_checkpoint(path) as checkpoint:
        pipeline = load_pipeline(checkpoint, torch.float32)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 49408, (2, 77), generator=generator)
    outputs, states = {}, []
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipeline, name, None) is not None:
            encoded = getattr(pipeline, name).double()(tokens, output_hidden_states=True)
            states.append(encoded.hidden_states[-1])
            outputs[name] = torch.cat([states[-1].flatten(), encoded[0].flatten()])
    unet = pipeline.unet.double()
    latents = torch.randn(2, 4, 16, 16, generator=generator).double()
    added: dict[str, Any] = {}
    if architecture == "sdxl":
        columns = unet.config.projection_class_embeddings_input_dim
        times = unet.config.addition_time_embed_dim * 6
        pooled = torch.randn(2, columns - times, generator=generator).double()
        added = {"text_embeds": pooled, "time_ids": torch.arange(12.0).view(2, 6).double()}
    outputs["unet"] = unet(
        latents, 500, torch.cat(states, -1), added_cond_kwargs=added or None
    ).sample
    return outputs


@pytest.mark.parametrize("architecture", WIDTHS)
def test_shuffled_checkpoints_compute_the_same(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_pipelines, "UNET_SHRINK", WIDTHS[architecture])
    state = tiny_pipeline_state(architecture)
    found = symmetries(architecture, _shapes(state))
    moved = _permuted(state, found)
    touched = {key for symmetry in found for key in symmetry.keys}
    assert all(torch.equal(state[key], moved[key]) == (key not in touched) for key in state)
    paths = [
        write_tiny_pipeline(tmp_path / f"{name}.safetensors", architecture, extra=tensors)
        for name, tensors in (("plain", state), ("moved", moved))
    ]
    plain, other = (_outputs(path, architecture) for path in paths)
    for name, output in plain.items():
        assert output.std() > 1e-3
        torch.testing.assert_close(other[name], output, rtol=0, atol=1e-9 * output.std().item())


def test_heads_of_split_projections_change_places() -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=192,
        intermediate_size=400,
        num_hidden_layers=2,
        num_attention_heads=3,
    )
    encoder = CLIPTextModel(config).double().eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    names = dict(encoder.named_parameters())
    prefix = "cond_stage_model.transformer.text_model."
    keys = {prefix + name.removeprefix("text_model."): name for name in names}
    state = {key: names[name].detach().clone() for key, name in keys.items()}
    found = symmetries("sd1", _shapes(state))
    assert {(s.outer, s.inner) for s in found} == {(3, 64), (1, 400)}
    assert len(found) == 4
    moved = _permuted(state, found)
    tokens = torch.arange(40).view(2, 20)
    before = encoder(tokens).last_hidden_state
    with torch.no_grad():
        for key, name in keys.items():
            names[name].copy_(moved[key])
    torch.testing.assert_close(encoder(tokens).last_hidden_state, before, rtol=0, atol=1e-10)
    assert not torch.equal(moved[keys_of(found)[0]], state[keys_of(found)[0]])


def keys_of(found: tuple[Symmetry, ...]) -> list[str]:
    return sorted(key for symmetry in found for key in symmetry.keys)


class _Block(nn.Module):
    """A layer of OpenCLIP's text encoder, as torch's own attention computes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        hidden = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)))
        return x + self.mlp["c_proj"](hidden)


@pytest.mark.parametrize(
    ("architecture", "prefix"),
    [
        ("sd2", "cond_stage_model.model.transformer.resblocks.0."),
        ("sdxl", "conditioner.embedders.1.model.transformer.resblocks.0."),
    ],
)
def test_heads_of_a_joint_projection_change_places(architecture: str, prefix: str) -> None:
    torch.manual_seed(0)
    block = _Block(192, 3).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = {prefix + name: tensor.clone() for name, tensor in block.state_dict().items()}
    found = symmetries(architecture, _shapes(state))
    assert {(s.outer, s.inner, len(s.parts)) for s in found} == {(3, 64, 2), (1, 768, 1)}
    x = torch.randn(2, 7, 192).double()
    before = block(x)
    moved = _permuted(state, found)
    assert not torch.equal(moved[prefix + "attn.in_proj_bias"], state[prefix + "attn.in_proj_bias"])
    block.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in moved.items()})
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("architecture", "count"), [("sd1", 112), ("sd2", 136), ("sdxl", 329), ("sdxl_refiner", 232)]
)
def test_the_real_models_have_all_their_symmetries(architecture: str, count: int) -> None:
    family = architectures.get(architecture)
    found = symmetries(architecture, family.reference_keys)
    assert len({symmetry.name for symmetry in found}) == len(found) == count
    # the widest, and every kind: two parts with heads, groups of norms, neither
    assert max(symmetry.size for symmetry in found) == (6144 if "refiner" in architecture else 5120)
    assert {len(symmetry.parts) for symmetry in found if symmetry.name.endswith("heads")} == {2}
    resnets = [s for s in found if s.name.endswith(".inner") and s.outer > 1]
    assert {symmetry.outer for symmetry in resnets} == {32}
    assert len(resnets) == sum(key.endswith("in_layers.2.weight") for key in family.reference_keys)


def test_what_other_files_connect_to_stays_in_place() -> None:
    for architecture in ("sd1", "sd2", "sdxl"):
        family = architectures.get(architecture)
        touched = {
            (touch.key, touch.axis)
            for symmetry in symmetries(architecture, family.reference_keys)
            for part in symmetry.parts
            for touch in part
        }
        keys = {key for key, _ in touched}
        assert not any(key.startswith("first_stage_model.") for key in keys)
        assert not any("token_embedding" in key or "final" in key for key in keys)
        assert not any(".out_layers.3.weight" in key and axis == 0 for key, axis in touched)
        assert not any(".in_layers.2.weight" in key and axis == 1 for key, axis in touched)
        # the prompt's features
        assert not any(".attn2.to_k." in key and axis == 1 for key, axis in touched)


def test_a_layer_that_is_not_complete_stays_in_place() -> None:
    shapes = dict(architectures.get("sd1").reference_keys)
    at = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0."
    assert f"{at}ff.inner" in {symmetry.name for symmetry in symmetries("sd1", shapes)}
    del shapes[f"{at}ff.net.2.weight"]
    names = {symmetry.name for symmetry in symmetries("sd1", shapes)}
    assert f"{at}ff.inner" not in names
    assert "model.diffusion_model.input_blocks.1.1.stream" not in names
    assert f"{at}attn1.heads" in names


def test_heads_that_do_not_divide_the_width_stay_in_place() -> None:
    shapes = {
        f"model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.{name}": (12, 12)
        for name in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    }
    assert symmetries("sd1", shapes) == ()
    assert len(symmetries("sdxl", shapes)) == 1


def test_only_orders_that_keep_groups_together_are_valid() -> None:
    symmetry = Symmetry("s", 2, 2, ((), ()))
    orders = unchanged(symmetry)
    assert is_valid(symmetry, orders)
    swapped, inside = orders[0][[2, 3, 0, 1]], orders[0][[1, 0, 2, 3]]
    assert is_valid(symmetry, (swapped, swapped[[1, 0, 2, 3]]))
    assert is_valid(symmetry, (inside, orders[1]))
    assert not is_valid(symmetry, (swapped, orders[1]))  # the groups of the parts differ
    assert not is_valid(symmetry, (orders[0][[0, 2, 1, 3]], orders[1]))  # a group is torn
    assert not is_valid(symmetry, (orders[0][[0, 0, 2, 3]], orders[1]))
    assert not is_valid(symmetry, (orders[0],))
    assert not is_valid(symmetry, (orders[0][:2], orders[1]))


def test_other_families_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_automerge.merge.rebasin.symmetries.ARCHITECTURES", ("sd1", "sdxl"))
    with pytest.raises(ModelError, match="does not know the layers of Stable Diffusion 2"):
        symmetries("sd2", {})
