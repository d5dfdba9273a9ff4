"""Changes to whole components of a checkpoint while it is written.

A checkpoint to come is a mapping from canonical key to `Piece`: what it will be, and a function
that reads or computes it when its turn comes. Every operation here takes such a mapping and returns
another one, so that operations follow each other, and follow a merge, without anything being held
in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.detection import EMA_COUNTERS
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.engine import DTYPES
from lib_automerge.merge.lab.number_types import NUMBER_TYPES, narrow
from lib_automerge.merge.readers import Checkpoint, widened

COMPONENTS = ("denoiser", "text_encoder", "vae")
"""The components whose number type can be chosen."""

POSITIONS = ".position_ids"


@dataclass(frozen=True)
class Piece:
    """A tensor of the checkpoint to come: number type, shape, and what returns it when asked."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


Pieces = Mapping[str, Piece]


def pieces_of(model: Checkpoint) -> dict[str, Piece]:
    """Return a checkpoint as it is."""

    def piece(key: str) -> Piece:
        tensor = model.tensor(key)  # a view: nothing is read yet
        return Piece(tensor.dtype, tuple(tensor.shape), lambda: model.tensor(key))

    return {key: piece(key) for key in model.keys()}  # noqa: SIM118 - not a mapping


def without_ema(pieces: Pieces) -> dict[str, Piece]:
    """Leave out the averaged copies that training keeps, of the denoiser and of the VAE."""
    return {
        key: piece
        for key, piece in pieces.items()
        if not key.startswith("model_ema.") and ".model_ema." not in key
    }


def with_positions_reset(pieces: Pieces) -> dict[str, Piece]:
    """Set the position indices of CLIP text encoders to 0, 1, 2, ... as 64-bit integers.

    Merge tools that average them, or round them to 16 bits, make the encoder read words twice.
    """

    def reset(piece: Piece) -> Piece:
        count = piece.shape[-1] if piece.shape else 1
        shape = piece.shape or (1,)
        return Piece(torch.int64, shape, lambda: torch.arange(count).expand(shape).contiguous())

    return {
        key: reset(piece) if key.endswith(POSITIONS) else piece for key, piece in pieces.items()
    }


def with_text_encoders(
    pieces: Pieces, donor: Checkpoint, architecture: Architecture
) -> dict[str, Piece]:
    """Take every text encoder from another model of the family.

    Raises:
        ModelError: the other model is of another family, holds no text encoder, an incomplete one,
            or one of another size.
    """
    if donor.detection.architecture != architecture.name:
        label = architectures.get(donor.detection.architecture).label
        raise ModelError(
            f"the text encoder of {donor.path.name} is that of {label}, not of "
            f"{architecture.label}. Take it from a model of the same family."
        )
    blocks = architecture.text_encoders
    given = {k: p for k, p in pieces_of(donor).items() if architecture.block_of(k) in blocks}
    if not given:
        raise ModelError(
            f"{donor.path.name} holds no text encoder. Take it from a complete checkpoint."
        )
    held = {key for key in pieces if architecture.block_of(key) in blocks}
    needed = held or {k for k in architecture.reference_keys if architecture.block_of(k) in blocks}
    missing = sorted(k for k in needed if k not in given and not architecture.is_optional(k))
    if missing:
        raise ModelError(
            f"the text encoder of {donor.path.name} is incomplete: {len(missing)} of "
            f"{len(needed)} weights are not there, first {missing[0]!r}. Take it from a complete "
            "checkpoint."
        )
    return _replaced(pieces, given, donor, set(blocks))


def with_vae(pieces: Pieces, donor: Checkpoint, architecture: Architecture) -> dict[str, Piece]:
    """Put in the VAE of another model, or one that a file holds alone.

    Args:
        pieces: the checkpoint, with or without a VAE.
        donor: what holds it; see `parts.open_vae` for files that hold nothing else.
        architecture: the family of the checkpoint.

    Raises:
        ModelError: it has another size.
    """
    given = {
        key: piece
        for key, piece in pieces_of(donor).items()
        if architecture.has_block(key) and architecture.block_of(key) in architecture.vae
    }
    return _replaced(pieces, given, donor, set(architecture.vae))


def _replaced(
    pieces: Pieces, given: Pieces, donor: Checkpoint, blocks: set[str | None]
) -> dict[str, Piece]:
    """Swap the weights of some blocks; those that only one side has go or come with it."""
    for key, piece in given.items():
        if key in pieces and pieces[key].shape != piece.shape:
            raise ModelError(
                f"{key!r} has the shape {_times(piece.shape)} in {donor.path.name} and "
                f"{_times(pieces[key].shape)} in the checkpoint. Take it from a model of this size."
            )
    architecture = architectures.get(donor.detection.architecture)
    kept = {
        key: piece
        for key, piece in pieces.items()
        if key in given
        or not (architecture.has_block(key) and architecture.block_of(key) in blocks)
    }
    return kept | dict(given)


def converted(
    pieces: Pieces, dtypes: Mapping[str, str], architecture: Architecture
) -> dict[str, Piece]:
    """Store the floating point weights of components in other number types.

    A kept EMA copy goes with the denoiser. Indices, schedules and markers stay as they are.

    Args:
        pieces: the checkpoint.
        dtypes: component (`denoiser`, `text_encoder` or `vae`) -> `fp16`, `bf16` or `fp32`.
        architecture: its family.

    Raises:
        ConfigError: an unknown component or number type.
    """
    for component, name in dtypes.items():
        if component not in COMPONENTS:
            raise ConfigError(
                f"unknown component: {component!r}. Name one of: {', '.join(COMPONENTS)}."
            )
        if name not in DTYPES:
            raise ConfigError(f"unknown dtype: {name!r}. Use one of: {', '.join(DTYPES)}.")

    def stored(key: str, piece: Piece) -> Piece:
        name = dtypes.get(_component(key, architecture) or "")
        if name is None or not piece.dtype.is_floating_point or piece.dtype == DTYPES[name]:
            return piece
        return replace(
            piece, dtype=DTYPES[name], read=lambda: _cast(key, piece.read(), DTYPES[name])
        )

    return {key: stored(key, piece) for key, piece in pieces.items()}


def components_of(pieces: Pieces, architecture: Architecture) -> set[str]:
    """Return which of `COMPONENTS` a checkpoint holds."""
    found = {_component(key, architecture) for key in pieces}
    return {component for component in COMPONENTS if component in found}


def _component(key: str, architecture: Architecture) -> str | None:
    block = architecture.block_of(key)
    averaged = key.startswith("model_ema.") and key not in EMA_COUNTERS
    if block in architecture.parameters or averaged:
        return "denoiser"
    if block in architecture.text_encoders:
        return "text_encoder"
    return "vae" if block in architecture.vae else None


def _cast(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round once to another number type.

    Raises:
        ModelError: a finite number becomes infinite in it.
    """
    result = _rounded(tensor, dtype)
    if not result.isfinite().all() and widened(tensor).isfinite().all():
        largest = widened(tensor).abs().max().item()
        name = next(name for name, known in DTYPES.items() if known == dtype)
        raise ModelError(
            f"{key!r} holds {largest:g}, which {name} cannot. Store this component as bf16 or fp32."
        )
    return result


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round each number once: PyTorch takes float64 to 16 bits through float32, which is twice."""
    if tensor.dtype != torch.float64:
        return tensor.to(dtype)
    number_type = next(name for name, known in NUMBER_TYPES.items() if known == dtype)
    values = tensor.reshape(-1).numpy().copy()
    return torch.from_numpy(narrow(values, number_type)).view(dtype).view(tensor.shape)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
