"""Tiny random checkpoints with every UNet and VAE key of the real ones, that really make images.

Unlike those of `tests.checkpoints` their shapes fit together, as a pipeline needs: UNet widths are
a twentieth, VAE widths an eighth, text encoders have two narrow layers and the real vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_automerge.domain import architectures

LAYERS = 2
"""Layers of each text encoder."""

UNET_SHRINK = 20
VAE_SHRINK = 8
TEXT_WIDTH = {768: 32, 1024: 32, 1280: 48}
"""Width of a real text encoder -> here; SDXL's two must differ, for diffusers tells them apart by
their width."""

_CROSS = {768: 32, 1024: 32, 2048: 32 + 48}
_CLASSES = {2816: 48 + 6 * 16}
_WORDS, _POSITIONS = 49408, 77
_DEEPER = re.compile(r"\.(?:layers|resblocks)\.(\d+)\.")


def tiny_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Return canonical key -> shape of the tiny model."""
    reference = architectures.get(architecture).reference_keys
    shapes = {}
    for key, shape in reference.items():
        layer = _DEEPER.search(key)
        if "diffusion_model" not in key and layer and int(layer[1]) >= LAYERS:
            continue
        shapes[key] = tuple(_size(key, size) for size in shape)
    return shapes


def tiny_pipeline_state(
    architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return random weights that keep activations at about their size; every tensor is random.

    The same seed gives the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in tiny_shapes(architecture).items():
        if key.endswith("position_ids"):
            state[key] = torch.arange(shape[-1]).expand(shape).clone()
            continue
        numbers = torch.randn(shape, generator=generator)
        if key.endswith("bias"):
            tensor = 0.05 * numbers
        elif len(shape) < 2:
            tensor = 1 + 0.1 * numbers
        elif "embedding" in key:
            tensor = 0.5 * numbers
        else:
            tensor = numbers / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        state[key] = tensor.to(dtype)
    return state


def write_tiny_pipeline(
    path: Path,
    architecture: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    extra: Mapping[str, Tensor] | None = None,
    drop: str | None = None,
    rename: Callable[[str], str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint of `tiny_pipeline_state` and return its path.

    Args:
        path: of the safetensors file.
        architecture: `sd1`, `sd2` or `sdxl`.
        seed: of the weights.
        dtype: in which they are stored.
        extra: tensors to add or to replace, by canonical key.
        drop: prefix of keys to leave out.
        rename: canonical key -> key in the file.
        metadata: of the file.
    """
    state = tiny_pipeline_state(architecture, seed=seed, dtype=dtype) | dict(extra or {})
    kept = {
        (rename(key) if rename else key): tensor
        for key, tensor in state.items()
        if drop is None or not key.startswith(drop)
    }
    save_file(kept, path, metadata=dict(metadata) if metadata else None)
    return path


def _size(key: str, size: int) -> int:
    if key.startswith("model.diffusion_model."):
        if "attn2.to_k" in key or "attn2.to_v" in key:
            return _CROSS.get(size, size // UNET_SHRINK)
        if key.endswith("label_emb.0.0.weight") and size in _CLASSES:
            return _CLASSES[size]
        return size // UNET_SHRINK if size % 320 == 0 else size
    if key.startswith("first_stage_model."):
        return size // VAE_SHRINK if size % 128 == 0 else size
    if size in (_WORDS, _POSITIONS):
        return size
    for width, tiny in TEXT_WIDTH.items():
        # The second encoder of SDXL is the only one of width 1280; a multiple of it is its own.
        if size % width == 0 and _text_width(key) == width:
            return size // width * tiny
    return size


def _text_width(key: str) -> int:
    if key.startswith("conditioner.embedders.1."):
        return 1280
    return 1024 if key.startswith("cond_stage_model.model.") else 768
