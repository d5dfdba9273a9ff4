"""Merging files: a recipe in, a checkpoint out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.domain.recipe import Recipe, check, policies
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import methods
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.lab.files import LabOptions, is_lab, write_lab
from lib_automerge.merge.metadata import merged_metadata
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.recorded import open_recorded
from lib_automerge.merge.sinks import FileSink


def merge_files(
    recipe: Recipe, output: Path, *, dtype: str | None = None, lab: LabOptions | None = None
) -> Path:
    """Write the recipe's merge as a safetensors file; the same recipe gives the same bytes.

    Model paths come from the recipe; a recorded SHA-256 must match. `dtype` ("fp16", "bf16",
    "fp32"; recipes of the lab also "fp64", "fp8_e4m3", "fp8_e5m2") converts floating point
    tensors; None takes the recipe's, or else keeps model A's. `lab` says how a recipe of the
    merge lab is carried out. The recipe in the file's metadata records the dtype, and is enough to
    write the file again.

    Returns:
        The path that was written.

    Raises:
        ConfigError: the recipe cannot be understood or names an unknown block or method, or
            options of the lab are given for another recipe.
        ModelError: a model is missing, changed, damaged or does not fit.
        StorageError: the output exists or cannot be written.
        CancelledError: the lab's options cancelled the merge; tells what was kept.
    """
    recipe = check(_stored_as(recipe, dtype))
    check_output(output)
    if is_lab(recipe):
        write_lab(recipe, output, dtype=recipe.dtype or None, options=lab or LabOptions())
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
        write_merge(msgspec.structs.replace(recipe, models=named), models, output)
    return output


def check_output(output: Path) -> None:
    """Raise ConfigError unless a checkpoint to write has the ending of what is written."""
    if output.suffix != ".safetensors":
        raise ConfigError(
            f"the output is called {output.name}, but safetensors is what is written. Give it the "
            "ending .safetensors."
        )


def write_merge(
    recipe: Recipe, models: Mapping[str, Checkpoint], output: Path, *, dtype: str | None = None
) -> None:
    """Write the merge of open models; see `merge_files`."""
    recipe = _stored_as(recipe, dtype)
    merger = Merger(models, recipe.method, dtype=recipe.dtype or None)
    merger.check(recipe.weights)
    tensors = {key: (merger.dtype_of(key), merger.shape_of(key)) for key in merger.keys()}  # noqa: SIM118
    metadata = merged_metadata(recipe, models["a"].header.metadata)
    with FileSink(output, tensors, metadata, merger.copied()) as sink:
        merger.merge(recipe.weights, sink, keys=sink.order)


def _stored_as(recipe: Recipe, dtype: str | None) -> Recipe:
    return msgspec.structs.replace(recipe, dtype=dtype) if dtype else recipe
