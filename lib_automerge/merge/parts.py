"""Files that hold one component only, such as a VAE, opened as a part of a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from lib_automerge.domain import architectures, refusals
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.detection import Detection, Header, check_floats, detect
from lib_automerge.errors import ModelError
from lib_automerge.merge.readers import Checkpoint, read_file

_SHARED = (
    {"sd1", "sd2"},
    {"sdxl", "sdxl_refiner", "auraflow", "hunyuandit", "pixart_sigma"},
    {"sd3_medium", "sd3.5_medium", "sd3.5_large"},
    {"flux1", "chroma", "lumina2", "z_image"},
)
"""Families that were trained on the same latents: each can use the VAE of the others."""

_PREFIXES = ("first_stage_model.", "vae.", "")
"""How the keys of a VAE start: in checkpoints of both kinds, and in files of its own."""


def open_vae(path: Path, detection: Detection, architecture: Architecture) -> Checkpoint:
    """Open a checkpoint, or a file that holds nothing but a VAE, for the VAE in it.

    Args:
        path: a safetensors file, or a pickled one without code.
        detection: of the checkpoint that the VAE is for.
        architecture: its family, whose VAE has the same layers.

    Returns:
        A checkpoint with no other keys than those of the VAE, by their canonical names.

    Raises:
        ModelError: the file cannot be read, holds no VAE, an incomplete or a quantised one, one
            with other layers, or one of a family with other latents; or the family keeps its VAE in
            a file of its own.
    """
    if not architecture.vae:
        raise ModelError(
            f"checkpoints of {architecture.label} hold no VAE: it is a file of its own. "
            "Choose it where images are made."
        )
    header, tensors = read_file(path)
    _check_family(path, header, architecture)
    wanted = {
        key: shape
        for key, shape in architecture.reference_keys.items()
        if architecture.block_of(key) in architecture.vae
    }
    canonical = next(p for p in _PREFIXES if all(key.startswith(p) for key in wanted))
    names = [key.removeprefix(canonical) for key in wanted]
    prefix = max(_PREFIXES, key=lambda p: sum(p + name in header.tensors for name in names))
    missing = [name for name in names if prefix + name not in header.tensors]
    if missing:
        raise ModelError(_why_not(path, header, names, missing, architecture))
    keys = {canonical + name: prefix + name for name in names}
    for key, stored in keys.items():
        found = header.tensors[stored].shape
        alike = found == wanted[key] if detection.standard_size else len(found) == len(wanted[key])
        if not alike:
            raise ModelError(
                f"{path.name}: {stored!r} has the shape {'x'.join(map(str, found))}, which the VAE "
                f"of {architecture.label} cannot have. Use a VAE of this family."
            )
    reason = refusals.quantised(
        (key for key in header.tensors if key.startswith(prefix)),
        (header.tensors[stored].dtype for stored in keys.values()),
    )
    if reason is not None:
        raise ModelError(f"{path.name}: {reason}")
    try:
        check_floats({stored: header.tensors[stored].dtype for stored in keys.values()})
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    part = msgspec.structs.replace(detection, keys=keys, strays=(), has_text_encoder=False)
    return Checkpoint(path, header, part, tensors)


def _check_family(path: Path, header: Header, architecture: Architecture) -> None:
    """Refuse a checkpoint whose VAE has the right layers, but was made for other latents."""
    found = family_of(header)
    if found is None or found == architecture.name:
        return
    if not any({found, architecture.name} <= families for families in _SHARED):
        raise ModelError(
            f"{path.name}: its VAE is that of {architectures.get(found).label}, which "
            f"{architecture.label} cannot use: its images would be noise. Use a VAE of this family."
        )


def family_of(header: Header) -> str | None:
    """Return the family of a checkpoint, None if the file is not a whole one."""
    try:
        return detect(header).architecture
    except ModelError:
        return None


def _why_not(
    path: Path, header: Header, names: list[str], missing: list[str], architecture: Architecture
) -> str:
    if any("encoder.down_blocks." in key for key in header.tensors):
        return (
            f"{path.name}: its VAE has the names of a diffusers folder. Use one in the original "
            "naming, with keys like 'encoder.down.0.block.0.conv1.weight'."
        )
    if len(missing) == len(names):
        return f"{path.name}: it holds no VAE. Give a checkpoint with one, or a VAE file."
    share = math.floor(100 * (1 - len(missing) / len(names)))
    return (
        f"{path.name}: its VAE is not that of {architecture.label}: it has {share} % of the "
        f"weights, without {missing[0]!r}. Use a complete VAE of this family."
    )
