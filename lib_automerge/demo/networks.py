"""The demo's networks: Stable Diffusion 1 with reduced widths, and its single-file layout.

Block counts, layer names and tensor ranks are those of SD1, so every loader of SD1 checkpoints
reads the file; only the widths differ. Widths are multiples of 32, because LDM's group norms have
32 groups, and neighbouring levels are as wide as each other exactly where SD1's are, because only
then the same shortcuts exist. No group norm sees the text width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_automerge.domain import architectures
from lib_automerge.generate.key_mapping import Place, key_map

UNET_WIDTHS = (32, 96, 32, 32)
VAE_WIDTHS = (32, 64, 32, 32)
TEXT_WIDTH = 16
TEXT_LAYERS = 12
VOCABULARY_SIZE = 49408
POSITIONS = 77
END_TOKEN = 49407
LATENT_SIZE = 8
SCALING_FACTOR = 0.18215

TOKENIZER = Path(__file__).parent.parent / "data" / "clip_tokenizer"


def text_encoder() -> CLIPTextModel:
    """A CLIP text model with random weights: 12 layers of width 16, one attention head."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=1,
        max_position_embeddings=POSITIONS,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=END_TOKEN - 1,
        eos_token_id=END_TOKEN,
        pad_token_id=END_TOKEN,
    )
    return CLIPTextModel(config)


def unet() -> UNet2DConditionModel:
    """A noise-predicting UNet with random weights, for latents (N, 4, 8, 8)."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=UNET_WIDTHS,
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        # Named so for history's sake in diffusers: for SD1 this is the number of heads.
        attention_head_dim=8,
        norm_num_groups=32,
    )


def vae() -> AutoencoderKL:
    """An autoencoder with random weights: pictures (N, 3, 64, 64), latents (N, 4, 8, 8)."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=VAE_WIDTHS,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=64,
        scaling_factor=SCALING_FACTOR,
    )


def tokenizer() -> CLIPTokenizer:
    """The CLIP tokenizer from the vocabulary that ships with the package."""
    return CLIPTokenizer.from_pretrained(str(TOKENIZER))


def token_ids(prompts: list[str], tokens: CLIPTokenizer) -> Tensor:
    """Token numbers (N, 77), padded with the end token as SD1's are."""
    encoded = tokens(
        prompts, padding="max_length", max_length=POSITIONS, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids


def to_checkpoint(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All weights under SD1's keys and in its ranks, fp16, sorted by key.

    Args:
        modules: diffusers' names ("unet", "vae", "text_encoder") -> modules.
    """
    states = {part: _plain_names(module) for part, module in modules.items()}
    tensors = {}
    for key, place in sd1_places().items():
        value = states[place.component][place.name]
        if place.change == "squeezed":
            value = value[:, :, None, None]
        tensors[key] = value.to(torch.float16).contiguous()
    return {key: tensors[key] for key in sorted(tensors)}


@cache
def sd1_places() -> dict[str, Place]:
    """SD1 key -> where diffusers keeps it, for all trained keys of a full checkpoint."""
    sd1 = architectures.get("sd1")
    keys = [key for key in sd1.reference_keys if not sd1.is_copied(key)]
    return {key: places[0] for key, places in key_map(keys).items()}


@cache
def unet_blocks() -> dict[str, str]:
    """Name of a parameter in diffusers' UNet -> its block (IN00 to OUT11, TIME_EMBED, OUT)."""
    sd1 = architectures.get("sd1")
    return {
        place.name: str(sd1.block_of(key))
        for key, place in sd1_places().items()
        if place.component == "unet"
    }


def _plain_names(module: nn.Module) -> dict[str, Tensor]:
    # Some versions of transformers put the text model one level deeper than others.
    return {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
