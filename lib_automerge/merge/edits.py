"""Editing a checkpoint: what to change in it, on its way into a file.

That is another file's copy (`edit_file`), or a merge that is being written (`changed`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

import lib_automerge
from lib_automerge.domain import architectures
from lib_automerge.domain.detection import Detection
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import surgery
from lib_automerge.merge.parts import family_of, open_vae
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.sinks import FileSink, check_output
from lib_automerge.merge.surgery import Pieces

METADATA = "automerge_edit"
"""Where a file says how it was edited: a JSON list, the oldest edit first."""

EDITED_MERGE: Mapping[str, object] = {"recipe": "automerge_recipe"}
"""The source of an edit of a merge that was not written without it: what these metadata hold."""

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


@dataclass(frozen=True)
class Changed:
    """An edited checkpoint to come.

    Attributes:
        pieces: what it will be; untouched ones are those that were given.
        steps: what was done, as data.
        told: the same in sentences.
        donors: the files that parts are from.
    """

    pieces: Pieces
    steps: tuple[dict[str, object], ...]
    told: tuple[str, ...]
    donors: tuple[Path, ...]


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
        name = model.path.name
        after = changed(surgery.pieces_of(model), edits, name, model.detection, stack)
        own = {key: text for key, text in model.header.metadata.items() if key not in _STALE}
        metadata = edited_metadata({**own, "format": "pt"}, _reference(model), after)
        write_pieces(output, after.pieces, model.detection.architecture, metadata)
    return Edited(output, after.told)


def write_pieces(
    output: Path, pieces: Pieces, architecture: str, metadata: Mapping[str, str]
) -> None:
    """Write a checkpoint to come.

    Raises:
        ModelError: a trained weight is NaN or infinite.
        StorageError: the output exists or cannot be written.
    """
    family = architectures.get(architecture)
    layout = {key: (piece.dtype, piece.shape) for key, piece in pieces.items()}
    kept = [key for key in pieces if family.block_of(key) is None]
    with FileSink(output, layout, metadata, kept) as sink:
        for key in sink.order:
            sink.put(key, pieces[key].read())


def changed(
    pieces: Pieces, edits: Edits, name: str, detection: Detection, stack: contextlib.ExitStack
) -> Changed:
    """Edit a checkpoint to come.

    Args:
        pieces: what it would be.
        edits: what to change.
        name: what to call it in errors.
        detection: its family and kind.
        stack: takes the files that pieces come from; what is returned is readable until it closes.

    Raises:
        ConfigError: an unknown component or number type.
        ModelError: a file cannot be used, a component does not fit, or nothing to drop or fix
            is there.
    """
    architecture = architectures.get(detection.architecture)
    donors: list[Checkpoint] = []
    steps: list[dict[str, object]] = []
    told: list[str] = []
    if edits.drop_ema:
        before, pieces = len(pieces), surgery.without_ema(pieces)
        if len(pieces) == before:
            raise ModelError(f"{name} holds no EMA copy. Leave out that step.")
        steps.append({"step": "drop_ema"})
        told.append(f"dropped {before - len(pieces)} weights of the EMA copy")
    if edits.text_encoder is not None:
        donor = stack.enter_context(open_checkpoint(edits.text_encoder))
        donors.append(donor)
        pieces = surgery.with_text_encoders(pieces, donor, architecture)
        steps.append({"step": "text_encoder", **_reference(donor)})
        told.append(f"took the text encoder of {donor.path.name}")
    if edits.vae is not None:
        donor = stack.enter_context(open_vae(edits.vae, detection, architecture))
        donors.append(donor)
        pieces = surgery.with_vae(pieces, donor, architecture)
        steps.append({"step": "vae", **_reference(donor)})
        alone = family_of(donor.header) is None
        doubt = f"; the file does not say whether it was made for {architecture.label}"
        told.append(f"put in the VAE of {donor.path.name}{doubt if alone else ''}")
    if edits.fix_positions:
        found = [key for key in pieces if key.endswith(surgery.POSITIONS)]
        if not found:
            raise ModelError(f"{name} holds no position indices. Leave out that step.")
        pieces = surgery.with_positions_reset(pieces)
        steps.append({"step": "fix_positions"})
        told.append(f"reset {', '.join(found)}")
    if edits.dtypes:
        pieces = surgery.converted(pieces, edits.dtypes, architecture)
        held = surgery.components_of(pieces, architecture)
        dtypes = {part: name for part, name in edits.dtypes.items() if part in held}
        if not dtypes:
            parts = " or ".join(part.replace("_", " ") for part in edits.dtypes)
            raise ModelError(f"{name} holds no {parts}. Leave out that step.")
        steps.append({"step": "dtypes", **dtypes})
        told += [f"stored the {part.replace('_', ' ')} as {name}" for part, name in dtypes.items()]
    return Changed(pieces, tuple(steps), tuple(told), tuple(donor.path for donor in donors))


def _reference(model: Checkpoint) -> dict[str, object]:
    return {"name": model.name, "sha256": model.sha256()}


def edited_metadata(
    metadata: Mapping[str, str], source: Mapping[str, object], done: Changed
) -> dict[str, str]:
    """Return metadata with the edit, and with all that is needed to do it again.

    Args:
        metadata: of the checkpoint as it would be, with its earlier edits.
        source: what was edited.
        done: the edit.
    """
    edit = {"version": lib_automerge.__version__, "source": source, "steps": done.steps}
    return {**metadata, METADATA: json.dumps([*_earlier(metadata), edit])}


def _earlier(metadata: Mapping[str, str]) -> list[object]:
    try:
        found = json.loads(metadata.get(METADATA, "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []
