"""Tiny checkpoints with every real key name of an architecture, for tests."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_automerge.domain import architectures

SHRINK = 64
"""What every size that it divides is divided by: 320 channels become 5."""

INPUT_CONV = "model.diffusion_model.input_blocks.0.0.weight"


def tiny_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with small widths and the same number of dimensions."""
    return tuple(size // SHRINK if size % SHRINK == 0 else size for size in shape)


def tiny_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Return every key of the architecture with a tiny shape that tells the same variant."""
    found = architectures.get(architecture)
    shapes = {key: tiny_shape(shape) for key, shape in found.reference_keys.items()}
    if found.inputs is not None:
        key = found.unet_prefix + found.inputs.key
        shapes[key] = (shapes[key][0], found.inputs.plain, *shapes[key][2:])
    return shapes


def tiny_state(
    architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float16
) -> dict[str, Tensor]:
    """Return a model with all keys of the architecture, tiny shapes and normal random weights.

    The same seed gives the same numbers. Position indices are int64, as in real files.
    """
    shapes = tiny_shapes(architecture)
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(sum(sizes), generator=generator).mul_(0.05).to(dtype).split(sizes)
    state = {
        key: part.view(shape).clone()
        for (key, shape), part in zip(shapes.items(), numbers, strict=True)
    }
    for key, shape in shapes.items():
        if key.endswith("position_ids"):
            state[key] = torch.arange(torch.Size(shape).numel()).view(shape)
    return state


def write_tiny(
    path: Path,
    architecture: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
    channels: int = 4,
) -> Path:
    """Write a tiny model as safetensors and return the path.

    Args:
        path: the file to write.
        architecture: a name of `architectures.names()`.
        seed: of the weights.
        dtype: of the weights.
        metadata: of the file.
        drop: globs of keys to leave out.
        rename: key -> key in the file.
        extra: tensors to add or to replace, by canonical key.
        channels: input channels of a UNet; 9 makes an inpainting model.
    """
    state = tiny_state(architecture, seed=seed, dtype=dtype)
    if INPUT_CONV in state and channels != state[INPUT_CONV].shape[1]:
        width, _, *kernel = state[INPUT_CONV].shape
        state[INPUT_CONV] = torch.full((width, channels, *kernel), 0.01, dtype=dtype)
    state.update(extra or {})
    patterns = tuple(drop)
    kept = {
        (rename(key) if rename else key): tensor
        for key, tensor in state.items()
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, path, metadata=dict(metadata) if metadata else None)
    return path
