"""Merging files: a recipe in, a checkpoint out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from torch import Tensor

from lib_automerge.domain.recipe import Recipe, check, policies
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import methods
from lib_automerge.merge.edits import (
    EDITED_MERGE,
    Edits,
    changed,
    edited_metadata,
    write_pieces,
)
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.lab.files import LabOptions, is_lab, write_lab
from lib_automerge.merge.metadata import merged_metadata
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.recorded import open_recorded
from lib_automerge.merge.sinks import DictSink, FileSink, check_output
from lib_automerge.merge.surgery import Piece


def merge_files(
    recipe: Recipe,
    output: Path,
    *,
    dtype: str | None = None,
    lab: LabOptions | None = None,
    edits: Edits = Edits(),  # noqa: B008 -- frozen
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Path:
    """Write the recipe's merge as a safetensors file; the same recipe gives the same bytes.

    Model paths come from the recipe; a recorded SHA-256 must match. `dtype` ("fp16", "bf16",
    "fp32"; recipes of the lab also "fp64", "fp8_e4m3", "fp8_e5m2") converts floating point
    tensors; None takes the recipe's, or else keeps model A's. `lab` says how a recipe of the
    merge lab is carried out. `edits` changes components of the result on its way into the file,
    which then is the edited copy of the merge (see `edits.edit_file`), but for what its metadata
    call the source of the edit; number types by component are not for merges. The recipe in the
    metadata records the dtype; with the edits, which stand beside it, it is enough to write the
    file again. `tell` is told what the edits did, in sentences.

    Returns:
        The path that was written.

    Raises:
        ConfigError: the recipe cannot be understood or names an unknown block or method, or
            options of the lab are given for another recipe, or the edits have number types.
        ModelError: a model is missing, changed, damaged or does not fit.
        StorageError: the output exists or cannot be written.
        CancelledError: the lab's options cancelled the merge; tells what was kept.
    """
    recipe = check(_stored_as(recipe, dtype))
    check_output(output)
    if edits.dtypes:
        raise ConfigError(
            "a merge is stored in one number type, with --dtype. Store components in others with "
            "the command edit."
        )
    if is_lab(recipe):
        options = lab or LabOptions()
        done = write_lab(recipe, output, dtype=recipe.dtype or None, options=options, edits=edits)
        _tell(done, tell)
        return output
    if lab is not None:
        raise ConfigError(
            f"options of the merge lab do not reach {recipe.method} in {recipe.precision}. Leave "
            "them out, or set the recipe's precision to fp64."
        )
    if policies(recipe):
        raise ConfigError(
            f"{', '.join(policies(recipe))} of the recipe is for the merge lab, not for "
            f"{recipe.method} in {recipe.precision}. Leave it out, or set the recipe's precision "
            "to fp64."
        )
    methods.check_parameters(recipe.method, recipe.parameters)
    paths = [ref.path for ref in recipe.models.values()]
    with contextlib.ExitStack() as stack:
        models = {
            role: stack.enter_context(open_recorded(ref)) for role, ref in recipe.models.items()
        }
        digests = {role: model.sha256() for role, model in models.items()}
        if len(set(digests.values())) < len(digests):
            raise ModelError(
                f"two models of the recipe are the same file: {', '.join(map(str, paths))}. "
                "Point to different checkpoints."
            )
        found = models["a"].detection.architecture
        if found != recipe.architecture:
            raise ModelError(
                f"the recipe is for {recipe.architecture}, but {models['a'].name} is {found}. "
                "Point to the models that the recipe names."
            )
        # so that the metadata name the inputs by what they are, not by where they were
        named = {
            role: msgspec.structs.replace(ref, sha256=digests[role])
            for role, ref in recipe.models.items()
        }
        recipe = msgspec.structs.replace(recipe, models=named)
        if edits == Edits():
            write_merge(recipe, models, output)
        else:
            _tell(_write_edited(recipe, models, output, edits, stack), tell)
    return output


def _tell(done: Sequence[str], tell: Callable[[str], None]) -> None:
    for words in done:
        tell(f"{words[0].upper()}{words[1:]}.")


def write_merge(
    recipe: Recipe, models: Mapping[str, Checkpoint], output: Path, *, dtype: str | None = None
) -> None:
    """Write the merge of open models; see `merge_files`."""
    recipe = _stored_as(recipe, dtype)
    if is_lab(recipe):
        write_lab(recipe, output, dtype=recipe.dtype or None)
        return
    merger = Merger(models, recipe.method, dtype=recipe.dtype or None)
    merger.check(recipe.weights)
    tensors = {key: (merger.dtype_of(key), merger.shape_of(key)) for key in merger.keys()}  # noqa: SIM118
    metadata = merged_metadata(recipe, models["a"].header.metadata)
    with FileSink(output, tensors, metadata, merger.copied()) as sink:
        merger.merge(recipe.weights, sink, keys=sink.order)


def _write_edited(
    recipe: Recipe,
    models: Mapping[str, Checkpoint],
    output: Path,
    edits: Edits,
    stack: contextlib.ExitStack,
) -> tuple[str, ...]:
    """Write a merge with changed components, and return what was done in words.

    Only what stays of the merge is merged.
    """
    merger = Merger(models, recipe.method, dtype=recipe.dtype or None)
    merger.check(recipe.weights)

    def merged(key: str) -> Tensor:
        sink = DictSink()
        merger.merge(recipe.weights, sink, keys=[key])
        return sink.tensors[key]

    pieces = {
        key: Piece(merger.dtype_of(key), merger.shape_of(key), partial(merged, key))
        for key in merger.keys()  # noqa: SIM118
    }
    first = models["a"]
    done = changed(pieces, edits, "the merge", first.detection, stack)
    metadata = merged_metadata(recipe, first.header.metadata)
    write_pieces(
        output, done.pieces, recipe.architecture, edited_metadata(metadata, EDITED_MERGE, done)
    )
    return done.told


def _stored_as(recipe: Recipe, dtype: str | None) -> Recipe:
    return msgspec.structs.replace(recipe, dtype=dtype) if dtype else recipe
