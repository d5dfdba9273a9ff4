"""Editing a checkpoint: what to change in it, and writing the result as another file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

import lib_automerge
from lib_automerge.domain import architectures
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import surgery
from lib_automerge.merge.files import check_output
from lib_automerge.merge.parts import family_of, open_vae
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.sinks import FileSink
from lib_automerge.merge.surgery import Pieces

METADATA = "automerge_edit"
"""Where a file says how it was edited: a JSON list, the oldest edit first."""

_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
"""Metadata that would be wrong of the new file."""


class Edits(msgspec.Struct, frozen=True, kw_only=True):
    """What to change in a checkpoint; the operations are those of `merge.surgery`, in this order.

    Attributes:
        drop_ema: leave out averaged copies.
        text_encoder: a checkpoint of the family, whose text encoders to take.
        vae: a checkpoint or a VAE file, whose VAE to put in.
        fix_positions: reset CLIP's position indices.
        dtypes: component -> number type, see `surgery.converted`.
    """

    drop_ema: bool = False
    text_encoder: Path | None = None
    vae: Path | None = None
    fix_positions: bool = False
    dtypes: Mapping[str, str] = {}


class Edited(msgspec.Struct, frozen=True):
    """The file that was written, and what was done, one sentence each."""

    path: Path
    told: tuple[str, ...]


def edit_file(source: Path, output: Path, edits: Edits) -> Edited:
    """Write an edited copy of a checkpoint; its keys have their canonical names.

    The same files and edits give the same bytes. Nothing is written unless all of it can be.

    Raises:
        ConfigError: there is nothing to do, or an unknown component or number type.
        ModelError: a file cannot be used, a component does not fit, or nothing to drop or fix
            is there.
        StorageError: the output exists or cannot be written.
    """
    check_output(output)
    if edits == Edits():
        raise ConfigError("there is nothing to change. Say what to take, drop, fix or convert.")
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(open_checkpoint(source))
        pieces, steps, told = _changed(model, edits, stack)
        layout = {key: (piece.dtype, piece.shape) for key, piece in pieces.items()}
        architecture = architectures.get(model.detection.architecture)
        kept = [key for key in pieces if architecture.block_of(key) is None]
        with FileSink(output, layout, _metadata(model, steps), kept) as sink:
            for key in sink.order:
                sink.put(key, pieces[key].read())
    return Edited(output, tuple(told))


def _changed(
    model: Checkpoint, edits: Edits, stack: contextlib.ExitStack
) -> tuple[Pieces, list[dict[str, object]], list[str]]:
    """Return the edited checkpoint, each step as data, and each step in words."""
    architecture = architectures.get(model.detection.architecture)
    pieces: Pieces = surgery.pieces_of(model)
    steps: list[dict[str, object]] = []
    told: list[str] = []
    if edits.drop_ema:
        before, pieces = len(pieces), surgery.without_ema(pieces)
        if len(pieces) == before:
            raise ModelError(f"{model.path.name} holds no EMA copy. Leave out that step.")
        steps.append({"step": "drop_ema"})
        told.append(f"dropped {before - len(pieces)} weights of the EMA copy")
    if edits.text_encoder is not None:
        donor = stack.enter_context(open_checkpoint(edits.text_encoder))
        pieces = surgery.with_text_encoders(pieces, donor, architecture)
        steps.append({"step": "text_encoder", **_reference(donor)})
        told.append(f"took the text encoder of {donor.path.name}")
    if edits.vae is not None:
        donor = stack.enter_context(open_vae(edits.vae, model.detection, architecture))
        pieces = surgery.with_vae(pieces, donor, architecture)
        steps.append({"step": "vae", **_reference(donor)})
        alone = family_of(donor.header) is None
        doubt = f"; the file does not say whether it was made for {architecture.label}"
        told.append(f"put in the VAE of {donor.path.name}{doubt if alone else ''}")
    if edits.fix_positions:
        found = [key for key in pieces if key.endswith(surgery.POSITIONS)]
        if not found:
            raise ModelError(f"{model.path.name} holds no position indices. Leave out that step.")
        pieces = surgery.with_positions_reset(pieces)
        steps.append({"step": "fix_positions"})
        told.append(f"reset {', '.join(found)}")
    if edits.dtypes:
        pieces = surgery.converted(pieces, edits.dtypes, architecture)
        held = surgery.components_of(pieces, architecture)
        dtypes = {part: name for part, name in edits.dtypes.items() if part in held}
        if not dtypes:
            parts = " or ".join(part.replace("_", " ") for part in edits.dtypes)
            raise ModelError(f"{model.path.name} holds no {parts}. Leave out that step.")
        steps.append({"step": "dtypes", **dtypes})
        told += [f"stored the {part.replace('_', ' ')} as {name}" for part, name in dtypes.items()]
    return pieces, steps, told


def _reference(model: Checkpoint) -> dict[str, object]:
    return {"name": model.name, "sha256": model.sha256()}


def _metadata(model: Checkpoint, steps: list[dict[str, object]]) -> dict[str, str]:
    """The file's own, and the edit with all that is needed to do it again."""
    own = {name: value for name, value in model.header.metadata.items() if name not in _STALE}
    edit = {"version": lib_automerge.__version__, "source": _reference(model), "steps": steps}
    return {**own, "format": "pt", METADATA: json.dumps([*_earlier(own), edit])}


def _earlier(metadata: Mapping[str, str]) -> list[object]:
    try:
        found = json.loads(metadata.get(METADATA, "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []
