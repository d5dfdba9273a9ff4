"""Writes the configuration folder with which diffusers reads a single checkpoint offline.

The folders in `data/diffusers/` describe models of standard size. Widths, and numbers that follow
from them, are taken from the shapes in the file, so that small models of the same layers load too.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lib_automerge.domain.keylists import DATA
from lib_automerge.domain.widths import SD1_HEADS, heads, norm_groups, unet_heads
from lib_automerge.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
"""Canonical key -> shape."""

UNET = "model.diffusion_model."
VAE = "first_stage_model."
WORDS = 49408
TIME_IDS = 6
"""SDXL is told the original size, the crop and the target size: two numbers each."""

_TEXT_ENCODERS = {
    "sd1": {"text_encoder": "cond_stage_model.transformer.text_model."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.text_model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}


def write_config(folder: Path, architecture: str, shapes: Shapes) -> None:
    """Fill the empty `folder` with what `from_single_file(config=folder)` reads.

    Args:
        folder: an existing directory.
        architecture: `sd1`, `sd2` or `sdxl`.
        shapes: of all keys of the checkpoint.

    Raises:
        ModelError: the shapes are not those of a complete model of this architecture.
    """
    shutil.copytree(DATA / "diffusers" / architecture, folder, dirs_exist_ok=True)
    for tokenizer in folder.glob("tokenizer*"):
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(DATA / "clip_tokenizer" / name, tokenizer / name)
    try:
        texts = {
            component: _text_encoder(prefix, shapes)
            for component, prefix in _TEXT_ENCODERS[architecture].items()
        }
        unet = _unet(architecture, shapes, texts.get("text_encoder_2", {}))
        changes = {**texts, "unet": unet, "vae": _vae(shapes)}
    except KeyError as missing:
        raise ModelError(
            f"the checkpoint lacks the weight {missing}. Pick a full checkpoint as A."
        ) from missing
    for component, change in changes.items():
        path = folder / component / "config.json"
        standard = msgspec.json.decode(path.read_bytes())
        path.write_bytes(msgspec.json.encode(standard | change))


def _unet(architecture: str, shapes: Shapes, text_2: Mapping[str, Any]) -> dict[str, Any]:
    levels = 3 if architecture == "sdxl" else 4
    # Each level has three blocks, after block 0; the first one's output has the level's width.
    widths = [
        shapes[f"{UNET}input_blocks.{3 * level + 1}.0.out_layers.3.weight"][0]
        for level in range(levels)
    ]
    first = shapes[f"{UNET}input_blocks.0.0.weight"]
    cross = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    # diffusers calls the number of heads "attention_head_dim". SD1 has 8, the others 64 wide ones.
    attention_heads: Any = (
        SD1_HEADS if architecture == "sd1" else [unet_heads(architecture, w) for w in widths]
    )
    change: dict[str, Any] = {
        "block_out_channels": widths,
        "in_channels": first[1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "cross_attention_dim": shapes[cross][1],
        "attention_head_dim": attention_heads,
        "norm_num_groups": norm_groups(widths),
        "use_linear_projection": len(shapes[f"{UNET}middle_block.1.proj_in.weight"]) == 2,
    }
    if architecture == "sdxl":
        columns = shapes[f"{UNET}label_emb.0.0.weight"][1]
        width, rest = divmod(columns - text_2["projection_dim"], TIME_IDS)
        if rest or width < 2 or width % 2:
            raise ModelError(
                f"label_emb of the checkpoint has {columns} columns, which do not fit a text "
                f"projection of {text_2['projection_dim']}. Use a plain SDXL checkpoint."
            )
        change["projection_class_embeddings_input_dim"] = columns
        change["addition_time_embed_dim"] = width
    return change


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, VAE + r"encoder\.down\.(\d+)\.")
    widths = [shapes[f"{VAE}encoder.down.{i}.block.0.conv2.weight"][0] for i in range(levels)]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(shapes, VAE + r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "norm_num_groups": norm_groups(widths),
    }


def _text_encoder(prefix: str, shapes: Shapes) -> dict[str, Any]:
    openclip = prefix.endswith(".model.")
    if openclip:
        layers, inner = (
            r"transformer\.resblocks\.(\d+)\.",
            "transformer.resblocks.0.mlp.c_fc.weight",
        )
        words, positions = "token_embedding.weight", "positional_embedding"
    else:
        layers, inner = r"encoder\.layers\.(\d+)\.", "encoder.layers.0.mlp.fc1.weight"
        words = "embeddings.token_embedding.weight"
        positions = "embeddings.position_embedding.weight"
    vocabulary, width = shapes[prefix + words]
    if vocabulary < WORDS:
        raise ModelError(
            f"the text encoder knows {vocabulary} tokens, but CLIP's vocabulary has {WORDS}. "
            "Pick a checkpoint with the original text encoder as A."
        )
    depth = _count(shapes, re.escape(prefix) + layers)
    if prefix == _TEXT_ENCODERS["sd2"]["text_encoder"]:
        # diffusers never computes block 23, the last of a full-size SD2 text encoder.
        depth = min(depth, 23)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[prefix + inner][0],
        "num_hidden_layers": depth,
        "num_attention_heads": heads(width),
        "max_position_embeddings": shapes[prefix + positions][0],
        "projection_dim": shapes.get(f"{prefix}text_projection", (width, width))[1],
    }


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many indices from 0 on the pattern's only group takes."""
    found = (re.match(pattern, key) for key in shapes)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
