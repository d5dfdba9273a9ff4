"""Why a file of weights is not a checkpoint that can be merged, in one sentence each.

Everything is judged by the names and number types in the header.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from lib_automerge.domain import architectures

if TYPE_CHECKING:
    from lib_automerge.domain.detection import Detection

UNSUPPORTED_FAMILIES = (
    ("single_stream_modulation.lin.weight", "a Flux.2 model"),
    ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "a Hunyuan Video model"),
    ("csize_embedder.mlp.0.weight", "a PixArt-Alpha model"),
    ("blocks.0.adaln_modulation_cross_attn.1.weight", "a Cosmos model"),
    ("joint_blocks.0.context_block.attn.qkv.weight", "a broken Stable Diffusion 3 model"),
    ("double_blocks.0.img_attn.qkv.weight", "a changed or broken Flux model"),
    ("double_layers.0.attn.w1q.weight", "a broken AuraFlow model"),
    ("blocks.0.default_modulation.1.weight", "a broken Hunyuan-DiT model"),
    ("layers.0.attention.qkv.weight", "a changed or broken Lumina 2 or Z-Image model"),
    ("blocks.0.scale_shift_table", "a broken PixArt model"),
    ("down_blocks.0.attentions.0.norm.weight", "one part of a diffusers folder"),
    ("conv_in.weight", "one part of a diffusers folder"),
    ("transformer_blocks.0.attn.to_q.weight", "one part of a diffusers folder"),
)
"""Key that only this kind of file has, after a prefix -> what it is; the first match wins."""

_PREFIXES = (
    "",
    "model.diffusion_model.",
    "model.diffusion_model.net.",
    "diffusion_model.",
    "model.model.",
    "model.",
    "net.",
    "transformer.",
    "unet.",
)

# Plain casts to the two common 8-bit types can be averaged; all others need companions to be read.
_SMALL_FLOAT = re.compile(r"F([46])(?:_|$)|F(8)_(?!(?:E4M3|E5M2)$)")
_ADAPTER = re.compile(
    r"lora_(up|down|A|B|te|unet)|hada_w1|lokr_w1|oft_blocks|\.dora_scale|glora"
    r"|^control_model\.|^ip_adapter\.|motion_modules\.|^string_to_param|^emb_params$|^clip_[lg]$"
)
_QUANTISED = re.compile(
    r"\.(absmax|quant_map|scale_weight|weight_scale(_2)?|input_scale|scale_input|comfy_quant"
    r"|qweight|qzeros|wscales|SCB)$|\.quant_state|\.nested_|(^|\.)scaled_fp8$"
)
_PART = re.compile(r"^(first_stage_model|vae|encoder|decoder|text_model|cond_stage_model)\.")


def quantised(keys: Iterable[str], dtypes: Iterable[str]) -> str | None:
    """Return why these weights cannot be averaged as they are stored, or None if they can.

    Args:
        keys: all keys of the file.
        dtypes: the number types in it, as safetensors names them.
    """
    small = sorted(dtype for dtype in set(dtypes) if _SMALL_FLOAT.match(dtype))
    if small:
        return (
            f"its weights are stored in {small[0][1]} bits of a kind that cannot be averaged: "
            f"{small[0]}. "
            "Use the fp16, bf16 or fp32 version of this model."
        )
    companion = next((key for key in keys if _QUANTISED.search(key)), None)
    if companion is not None:
        return (
            f"its weights are quantised: it holds {companion!r}. "
            "Use the fp16, bf16 or fp32 version of this model."
        )
    return None


def no_denoiser(keys: Iterable[str]) -> str:
    """Return what a file is that holds no denoiser that can be merged, and what to use instead."""
    names = set(keys)
    if not names:
        return "it holds no weights. Download it again or choose another file."
    for key, description in UNSUPPORTED_FAMILIES:
        if any(prefix + key in names for prefix in _PREFIXES):
            return f"it is {description}. Use {_supported()}."
    adapter = next((name for name in sorted(names) if _ADAPTER.search(name)), None)
    if adapter is not None:
        return (
            f"it is an adapter or an embedding, not a checkpoint: it holds {adapter!r}. "
            "Use a full checkpoint, or merge the adapter into one first."
        )
    if all(_PART.match(name) for name in names):
        return "it is only a VAE or a text encoder. Use a checkpoint with a UNet or transformer."
    return (
        f"its kind is unknown: the first of its {len(names)} tensors is {min(names)!r}. "
        f"Use {_supported()}."
    )


def no_images(detection: Detection, families: Container[str]) -> str | None:
    """Return why a generator makes no images of a model from prompts, or None if it does.

    Args:
        detection: what the model is.
        families: the architectures that the generator can run.
    """
    label = architectures.get(detection.architecture).label
    able = [architectures.get(name).label for name in architectures.names() if name in families]
    if detection.architecture == "sdxl_refiner" or detection.variant is not None:
        kind = f"{label} ({detection.variant})" if detection.variant else label
        return (
            f"it is {kind}, which makes no images from prompts alone "
            f"here. Pick a plain text-to-image checkpoint of {_either(able)}."
        )
    if detection.architecture not in families:
        return (
            f"it is {label}, of which no images can be made here, so there is nothing to search. "
            f"Pick a checkpoint of {_either(able)}; files of {label} can be merged, compared and "
            "edited without images."
        )
    return None


def _either(labels: list[str]) -> str:
    return f"{', '.join(labels[:-1])} or {labels[-1]}" if len(labels) > 1 else "".join(labels)


def _supported() -> str:
    labels = [architectures.get(name).label for name in architectures.names()]
    return f"a complete single-file checkpoint of one of: {', '.join(labels)}"
