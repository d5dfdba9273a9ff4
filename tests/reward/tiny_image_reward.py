"""A small random ImageReward file with the published file's key names.

Every number comes from the seed and the key, so that the same weights can be given to another
implementation.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch

from lib_automerge.reward.blip import BlipReward, BlipSizes
from lib_automerge.reward.image_reward import ImageReward

TINY = BlipSizes(
    image_side=48, image_width=192, image_layers=2, text_width=128, text_layers=2, positions=40
)

PROMPTS = (
    "a cat",
    "A painting of an ocean with clouds and birds, day time, low depth field effect",
    "",
    "masterpiece, (best quality:1.2), [[lowres]], 1girl, naïve café — 東京タワー, " * 4,
    "Photo of $5 & 50% off!!",
)


class TinyImageReward(ImageReward):
    """ImageReward of the tiny size."""

    sizes = TINY


def random_tensor(key: str, shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Weights of a size that keeps activations near 1."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    noise = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        noise /= np.float32(math.sqrt(math.prod(shape[1:])))
    elif "norm" in key.lower() and key.endswith("weight"):
        noise = 1 + np.float32(0.1) * noise
    else:
        noise *= np.float32(0.1)
    return torch.from_numpy(noise)


def random_tensors(sizes: BlipSizes = TINY, seed: int = 1) -> dict[str, torch.Tensor]:
    """Everything that the published file holds, those tensors included that scoring ignores."""
    with torch.device("meta"):
        expected = BlipReward(sizes).state_dict()
    tensors = {key: random_tensor(key, tuple(t.shape), seed) for key, t in expected.items()}
    tensors["blip.text_encoder.embeddings.position_ids"] = torch.arange(sizes.positions)[None]
    for name, width in (("vision", sizes.image_width), ("text", sizes.text_width)):
        tensors[f"blip.{name}_proj.weight"] = torch.zeros(256, width)
        tensors[f"blip.{name}_proj.bias"] = torch.zeros(256)
    return tensors


def write_tiny(folder: Path) -> Path:
    """Write the tiny model as the published one is: a bare state dict by torch.save."""
    path = folder / "ImageReward.pt"
    torch.save(random_tensors(), path)
    return path
