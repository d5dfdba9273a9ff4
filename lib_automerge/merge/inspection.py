"""What is in a checkpoint, and what two of them have in common.

Inspecting reads the header only. Comparing reads all weights of both files once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.detection import TensorInfo
from lib_automerge.merge.distances import KeyDistance, key_distances, not_finite, relative, scan
from lib_automerge.merge.findings import (
    BlockDistance,
    Comparison,
    Inspection,
    Mismatch,
    Part,
    format_comparison,
    format_inspection,
    format_table,
)
from lib_automerge.merge.readers import Checkpoint, open_checkpoint

__all__ = ["compare", "format_comparison", "format_inspection", "format_table", "inspect", "scan"]


def inspect(path: Path) -> Inspection:
    """Return what a checkpoint holds.

    Raises:
        ModelError: the file cannot be used; see `open_checkpoint`.
    """
    with open_checkpoint(path) as model:
        found = model.detection
        architecture = architectures.get(found.architecture)
        dtypes: Counter[str] = Counter()
        for info in model.header.tensors.values():
            dtypes[info.dtype] += math.prod(info.shape)
        blocks = _blocks(model, architecture)
        return Inspection(
            file=str(path),
            size=path.stat().st_size,
            architecture=architecture.name,
            label=architecture.label,
            variant=found.variant,
            edition=found.edition,
            prediction=found.prediction,
            standard_size=found.standard_size,
            dtypes=dict(dtypes.most_common()),
            layers={group: len(blocks) for group, blocks in architecture.layers.items()},
            components=_components(model, architecture, blocks),
            blocks=blocks,
            missing=_missing(model, architecture, {part.name for part in blocks}),
            renamed=tuple(
                prefix or "(none)"
                for prefix in (found.unet_prefix, *found.aliases)
                if prefix != architecture.unet_prefix
            ),
            strays=found.strays,
            metadata=dict(model.header.metadata),
        )


def compare(path_a: Path, path_b: Path) -> Comparison:
    """Return how two checkpoints differ, including every key that does not match.

    Raises:
        ModelError: one of the files cannot be used; see `open_checkpoint`.
    """
    with open_checkpoint(path_a) as a, open_checkpoint(path_b) as b:
        infos_a, infos_b = (
            {key: m.header.tensors[name] for key, name in m.detection.keys.items()} for m in (a, b)
        )
        both = sorted(infos_a.keys() & infos_b.keys())
        same_family = a.detection.architecture == b.detection.architecture
        distances, broken = _distances(a, b) if same_family else ((), ())
        return Comparison(
            file_a=str(path_a),
            file_b=str(path_b),
            label_a=architectures.get(a.detection.architecture).label,
            label_b=architectures.get(b.detection.architecture).label,
            blocks=distances,
            only_a=tuple(sorted(infos_a.keys() - infos_b.keys())),
            only_b=tuple(sorted(infos_b.keys() - infos_a.keys())),
            shapes=tuple(
                Mismatch(key, _times(infos_a[key].shape), _times(infos_b[key].shape))
                for key in both
                if infos_a[key].shape != infos_b[key].shape
            ),
            dtypes=tuple(
                Mismatch(key, infos_a[key].dtype, infos_b[key].dtype)
                for key in both
                if infos_a[key].dtype != infos_b[key].dtype
            ),
            not_finite=broken,
        )


def _blocks(model: Checkpoint, architecture: Architecture) -> tuple[Part, ...]:
    infos: dict[str, list[TensorInfo]] = {}
    for key, info in _infos(model):
        block = architecture.block_of(key)
        if block:
            infos.setdefault(block, []).append(info)
    return tuple(_part(block, infos[block]) for block in architecture.blocks if block in infos)


def _part(name: str, infos: Sequence[TensorInfo]) -> Part:
    dtypes: Counter[str] = Counter()
    for info in infos:
        dtypes[info.dtype] += math.prod(info.shape)
    return Part(
        name=name,
        keys=len(infos),
        parameters=dtypes.total(),
        size=sum(info.end - info.start for info in infos),
        dtypes=dict(dtypes.most_common()),
    )


def _components(
    model: Checkpoint, architecture: Architecture, blocks: Sequence[Part]
) -> tuple[Part, ...]:
    def joined(name: str, members: Iterable[str]) -> Part:
        parts = [part for part in blocks if part.name in members]
        dtypes: Counter[str] = Counter()
        for part in parts:
            dtypes.update(part.dtypes)
        return Part(
            name=name,
            keys=sum(part.keys for part in parts),
            parameters=dtypes.total(),
            size=sum(part.size for part in parts),
            dtypes=dict(dtypes.most_common()),
        )

    copied = [(k, info) for k, info in _infos(model) if architecture.block_of(k) is None]
    ema = [info for key, info in copied if key.startswith("model_ema.")]
    rest = [info for key, info in copied if not key.startswith("model_ema.")]
    parts = [joined(architecture.denoiser, architecture.parameters)]
    parts += [joined(f"text encoder {name}", (name,)) for name in architecture.text_encoders]
    parts += [joined("VAE", architecture.vae)]
    parts += [_part("EMA copy", ema), _part("not merged", rest)]
    return tuple(part for part in parts if part.keys)


def _infos(model: Checkpoint) -> Iterable[tuple[str, TensorInfo]]:
    for key, name in model.detection.keys.items():
        yield key, model.header.tensors[name]


def _missing(model: Checkpoint, architecture: Architecture, present: set[str]) -> tuple[str, ...]:
    if not model.detection.standard_size:  # small models may have fewer layers
        return ()
    keys = set(model.keys())
    return tuple(
        key
        for key in architecture.reference_keys
        if key not in keys
        and not architecture.is_optional(key)
        and architecture.block_of(key) in present
    )


def _distances(
    a: Checkpoint, b: Checkpoint
) -> tuple[tuple[BlockDistance, ...], tuple[Mismatch, ...]]:
    architecture = architectures.get(a.detection.architecture)
    by_block: dict[str, list[KeyDistance]] = {}
    for found in key_distances(a, b):
        by_block.setdefault(found.block, []).append(found)
    blocks = tuple(
        BlockDistance(
            name=block,
            distance=relative(sum(k.size for k in members), sum(k.gap for k in members)),
            keys=len(members),
            identical=sum(k.identical for k in members),
        )
        for block in architecture.blocks
        if (members := by_block.get(block))
    )
    compared = [key for members in by_block.values() for key in members]
    sound = {key.key for key in compared if math.isfinite(key.size + key.gap)}
    return blocks, _not_finite(a, b, sound)


def _not_finite(a: Checkpoint, b: Checkpoint, sound: set[str]) -> tuple[Mismatch, ...]:
    """Count bad numbers in every merged weight of either model that is not known to be sound."""
    architecture = architectures.get(a.detection.architecture)
    keys = sorted({*a.keys(), *b.keys()} - sound)
    found = []
    for key in keys:
        if architecture.block_of(key) is not None:
            counts = [
                not_finite(model.tensor(key)) if key in model.detection.keys else 0
                for model in (a, b)
            ]
            if any(counts):
                found.append(Mismatch(key, str(counts[0]), str(counts[1])))
    return tuple(found)


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
