"""Where each key of a checkpoint lives in the modules of a diffusers pipeline.

Checkpoints keep the names of the original code (CompVis, OpenCLIP); diffusers renames every layer,
turns the convolutions of the VAE's attention into linear layers, cuts OpenCLIP's joint attention
projection in three and transposes its output projection. The rules are written out here instead of
being taken from diffusers' loader, so that the two check each other: `generate.live` compares what
the loader put into the modules with what these rules say should be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from lib_automerge.errors import GenerationError

Change = Literal["same", "squeezed", "thirds", "transposed"]

RESNETS_PER_LEVEL = 2
"""Residual blocks in each level of the UNet's descending half; one more in the ascending one."""


class Place(msgspec.Struct, frozen=True):
    """A live tensor and what it holds of a checkpoint's tensor.

    Attributes:
        component: attribute of the pipeline: `unet`, `vae`, `text_encoder` or `text_encoder_2`.
        name: of the parameter in the component; for text encoders without `text_model.`, which
            some versions of transformers put before it and others do not.
        change: `same`; `squeezed` (a 1x1 convolution (o, i, 1, 1) is a matrix (o, i));
            `thirds` (the `third`-th of three equal ranges of rows); or `transposed`.
        third: 0, 1 or 2 for `thirds`.
    """

    component: str
    name: str
    change: Change = "same"
    third: int = 0


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}

_OPENCLIP_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}

_OPENCLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}

_DROPPED = (
    # SD2 is conditioned on the output of the last layer but one: the last is never computed.
    "cond_stage_model.model.transformer.resblocks.23.",
    # Only the second encoder of SDXL is asked for its projection.
    "cond_stage_model.model.text_projection",
    "cond_stage_model.transformer.text_projection",
    "conditioner.embedders.0.transformer.text_projection",
)


def is_dropped(key: str) -> bool:
    """Whether a pipeline has no use for this trained weight, so that it is in no image."""
    return key.startswith(_DROPPED)


def key_map(keys: Iterable[str]) -> dict[str, tuple[Place, ...]]:
    """Return key -> its places for canonical keys of SD1, SD2 or SDXL, the dropped ones left out.

    Args:
        keys: all keys of one checkpoint that belong to a block.

    Raises:
        GenerationError: a key has no place.
    """
    known = tuple(keys)
    levels = _vae_levels(known)
    return {key: _places(key, levels) for key in known if not is_dropped(key)}


def _vae_levels(keys: Iterable[str]) -> int:
    found = (re.match(r"first_stage_model\.decoder\.up\.(\d+)\.", key) for key in keys)
    return 1 + max((int(level[1]) for level in found if level), default=-1)


def _places(key: str, vae_levels: int) -> tuple[Place, ...]:
    for prefix, component in (
        ("cond_stage_model.transformer.", "text_encoder"),
        ("conditioner.embedders.0.transformer.", "text_encoder"),
    ):
        if key.startswith(prefix):
            return (Place(component, key.removeprefix(prefix).removeprefix("text_model.")),)
    for prefix, component in (
        ("cond_stage_model.model.", "text_encoder"),
        ("conditioner.embedders.1.model.", "text_encoder_2"),
    ):
        if key.startswith(prefix):
            return _openclip(key, key.removeprefix(prefix), component)
    if key.startswith("model.diffusion_model."):
        return (Place("unet", _unet(key, key.removeprefix("model.diffusion_model."))),)
    if key.startswith("first_stage_model."):
        return (_vae(key, key.removeprefix("first_stage_model."), vae_levels),)
    raise _no_place(key)


def _unet(key: str, name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if layer in _UNET_ENDS:
        return f"{_UNET_ENDS[layer]}.{kind}"
    middle = re.fullmatch(r"middle_block\.([012])\.(.+)", name)
    if middle:
        index, rest = int(middle[1]), middle[2]
        if index == 1:
            return f"mid_block.attentions.0.{rest}"
        return f"mid_block.resnets.{index // 2}.{_renamed(key, rest, _RESNET)}"
    half = re.fullmatch(r"(input|output)_blocks\.(\d+)\.([012])\.(.+)", name)
    if half is None:
        raise _no_place(key)
    side, number, part, rest = half[1], int(half[2]), half[3], half[4]
    per_level = RESNETS_PER_LEVEL + 1
    if side == "input":
        # Block 0 is the first convolution; each level ends in its downsampler.
        level, index = divmod(number - 1, per_level)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{kind}"
        at = f"down_blocks.{level}"
    else:
        level, index = divmod(number, per_level)
        if rest.startswith("conv."):
            return f"up_blocks.{level}.upsamplers.0.conv.{kind}"
        at = f"up_blocks.{level}"
    if part == "0":
        return f"{at}.resnets.{index}.{_renamed(key, rest, _RESNET)}"
    return f"{at}.attentions.{index}.{rest}"


def _vae(key: str, name: str, levels: int) -> Place:
    attention = re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(.+)\.(weight|bias)", name)
    if attention and attention[2] in _VAE_ATTENTION:
        side, layer, kind = attention.groups()
        projection = kind == "weight" and layer != "norm"
        return Place(
            "vae",
            f"{side}.mid_block.attentions.0.{_VAE_ATTENTION[layer]}.{kind}",
            "squeezed" if projection else "same",
        )
    return Place("vae", _vae_convolution(key, name, levels))


def _vae_convolution(key: str, name: str, levels: int) -> str:
    if re.fullmatch(r"(post_)?quant_conv\.(weight|bias)", name):
        return name
    ends = re.fullmatch(r"(encoder|decoder)\.(conv_in|conv_out|norm_out)\.(weight|bias)", name)
    if ends:
        return f"{ends[1]}.{'conv_norm_out' if ends[2] == 'norm_out' else ends[2]}.{ends[3]}"
    middle = re.fullmatch(r"(encoder|decoder)\.mid\.block_([12])\.(.+)", name)
    if middle:
        return f"{middle[1]}.mid_block.resnets.{int(middle[2]) - 1}.{middle[3]}"
    level = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(.+)", name)
    if level is None:
        raise _no_place(key)
    number, rest = int(level[2]), level[3]
    if level[1] == "encoder.down":
        at, sampler = f"encoder.down_blocks.{number}", "downsample"
    else:
        # The original numbers the decoder's levels by resolution, diffusers by order of use.
        at, sampler = f"decoder.up_blocks.{levels - 1 - number}", "upsample"
    if rest.startswith(f"{sampler}.conv."):
        return f"{at}.{sampler}rs.0.conv.{rest.rpartition('.')[2]}"
    block = re.fullmatch(r"block\.(\d+)\.(.+)", rest)
    if block is None:
        raise _no_place(key)
    return f"{at}.resnets.{block[1]}.{block[2].replace('nin_shortcut', 'conv_shortcut')}"


def _openclip(key: str, name: str, component: str) -> tuple[Place, ...]:
    if name == "text_projection":
        return (Place(component, "text_projection.weight", "transposed"),)
    if name in _OPENCLIP_ENDS:
        return (Place(component, _OPENCLIP_ENDS[name]),)
    layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if layer is None:
        raise _no_place(key)
    at, rest = f"encoder.layers.{layer[1]}", layer[2]
    joint = re.fullmatch(r"attn\.in_proj_(weight|bias)", rest)
    if joint:
        return tuple(
            Place(component, f"{at}.self_attn.{part}_proj.{joint[1]}", "thirds", third)
            for third, part in enumerate("qkv")
        )
    return (Place(component, f"{at}.{_renamed(key, rest, _OPENCLIP_LAYER)}"),)


def _renamed(key: str, rest: str, names: Mapping[str, str]) -> str:
    layer, _, kind = rest.rpartition(".")
    if layer not in names:
        raise _no_place(key)
    return f"{names[layer]}.{kind}"


def _no_place(key: str) -> GenerationError:
    return GenerationError(
        f"the weight {key!r} has no place in a diffusers pipeline. "
        "Use a checkpoint with the layers of the original model."
    )
