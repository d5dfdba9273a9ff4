"""Small random CLIPs, SigLIPs and heads in the layouts in which the real ones are published.

Every number comes from the seed and the key, so that the same weights can be given to another
implementation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lib_automerge.reward.aesthetic import AesB32, AestheticV25, Chad, LaionV1, LaionV2
from lib_automerge.reward.clip import Clip, ClipSizes, TowerSizes
from lib_automerge.reward.clip_rewards import ClipScore, EmbeddingReward, HpsV2, PickScore
from lib_automerge.reward.siglip import Siglip, SiglipSizes
from tests.reward.tiny_image_reward import random_tensor

# As OpenAI's: an approximation of GELU, heads as wide in both towers.
TINY_OPENAI = ClipSizes(
    image=TowerSizes(64, 2, 4, 256),
    text=TowerSizes(48, 2, 3, 192),
    image_side=32,
    patch_side=8,
    embedding=40,
    quick_gelu=True,
)
# As LAION's ViT-H/14: GELU, wider image heads.
TINY_LAION = ClipSizes(
    image=TowerSizes(80, 2, 4, 320),
    text=TowerSizes(48, 2, 3, 192),
    image_side=32,
    patch_side=8,
    embedding=24,
    quick_gelu=False,
)
# The patches leave a margin, as 14 does in 384.
TINY_SIGLIP = SiglipSizes(image=TowerSizes(72, 2, 4, 150), image_side=44, patch_side=8)


class TinyHpsV2(HpsV2):
    sizes = TINY_LAION


class TinyPickScore(PickScore):
    sizes = TINY_LAION


class TinyClipScore(ClipScore):
    sizes = TINY_OPENAI


class TinyLaionV1(LaionV1):
    sizes = TINY_OPENAI


class TinyLaionV2(LaionV2):
    sizes = TINY_OPENAI


class TinyChad(Chad):
    sizes = TINY_OPENAI


class TinyAesB32(AesB32):
    sizes = TINY_OPENAI


class TinyAestheticV25(AestheticV25):
    sizes = TINY_SIGLIP


COSINE = {cls.name: cls for cls in (TinyHpsV2, TinyPickScore, TinyClipScore)}
AESTHETIC = {
    cls.name: cls for cls in (TinyLaionV1, TinyLaionV2, TinyChad, TinyAesB32, TinyAestheticV25)
}


def random_encoder(sizes: ClipSizes | SiglipSizes, seed: int = 1) -> dict[str, Tensor]:
    """All tensors of an encoder, named as Hugging Face names them."""
    with torch.device("meta"):
        model = Clip(sizes) if isinstance(sizes, ClipSizes) else Siglip(sizes)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes.pop("logit_scale", None)
    tensors = {key: random_tensor(key, shape, seed) for key, shape in shapes.items()}
    if isinstance(sizes, ClipSizes):
        tensors["logit_scale"] = torch.tensor(math.log(10))
    return tensors


def random_head(reward: str, seed: int = 1) -> dict[str, Tensor]:
    """All tensors of the head of an aesthetic reward, named as in its file."""
    cls = AESTHETIC[reward]
    with torch.device("meta"):
        head = cls._build(cls.sizes.embedding)
    # Not the same numbers for two heads with the same keys.
    return {
        key: random_tensor(f"{reward}.{key}", tuple(tensor.shape), seed)
        for key, tensor in head.state_dict().items()
    }


def as_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a CLIP as open_clip and OpenAI name, join and transpose them."""
    found = dict(tensors)
    renamed = {
        "logit_scale": found.pop("logit_scale"),
        "visual.proj": found.pop("visual_projection.weight").T.contiguous(),
        "text_projection": found.pop("text_projection.weight").T.contiguous(),
    }
    for key in [key for key in found if ".q_proj." in key]:
        parts = [found.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        found[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    replacements = (
        ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
        ("vision_model.embeddings.patch_embedding", "visual.conv1"),
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.embeddings.token_embedding", "token_embedding"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("text_model.final_layer_norm", "ln_final"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("self_attn", "attn"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    )
    for key, tensor in found.items():
        name = key
        for old, new in replacements:
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


class Node(nn.Module):
    """A part of a program that holds tensors and returns what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def write_program(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors as the parameters of a TorchScript program, as OpenAI published CLIP."""
    root = Node()
    for key, tensor in tensors.items():
        *parents, name = key.split(".")
        node: Any = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Node())
            node = getattr(node, parent)
        if tensor.is_floating_point():
            node.register_parameter(name, nn.Parameter(tensor.clone(), requires_grad=False))
        else:
            node.register_buffer(name, tensor.clone())
    torch.jit.save(torch.jit.script(root), str(path))
    return path


def write_encoder(reward: str, folder: Path) -> Path:
    """Write the tiny encoder of a reward in the layout in which its real one is published."""
    sizes = {**COSINE, **AESTHETIC}[reward].sizes
    tensors = random_encoder(sizes)
    if reward == "hpsv2":
        path = folder / "HPS_v2.1_compressed.pt"
        torch.save({"epoch": 10, "name": "hps", "state_dict": as_open_clip(tensors)}, path)
        return path
    path = folder / f"{reward}-encoder.safetensors"
    if isinstance(sizes, ClipSizes):
        tensors["text_model.embeddings.position_ids"] = torch.arange(sizes.positions)[None]
    else:
        tensors |= {"logit_bias": torch.zeros(1), "text_model.head.bias": torch.zeros(3)}
    safetensors.torch.save_file(tensors, path)
    return path


def write_head(reward: str, folder: Path) -> Path:
    """Write the tiny head of an aesthetic reward as the published ones are: by torch.save."""
    path = folder / f"{reward}.pth"
    torch.save(random_head(reward), path)
    return path


def write_tiny(reward: str, folder: Path) -> list[Path]:
    """Write all files of a reward, in the order in which its constructor takes them."""
    heads = [write_head(reward, folder)] if reward in AESTHETIC else []
    return [*heads, write_encoder(reward, folder)]


def make_tiny(reward: str, folder: Path, **options: Any) -> EmbeddingReward:
    """Make a reward of the tiny size from its files."""
    cls: Any = {**COSINE, **AESTHETIC}[reward]
    made: EmbeddingReward = cls(*write_tiny(reward, folder), **{"device": "cpu", **options})
    return made
