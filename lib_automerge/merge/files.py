"""Merging files: a recipe in, a checkpoint out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import lib_automerge
from lib_automerge.domain.recipe import ModelRef, Recipe, check, recipe_json
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import methods
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.sinks import FileSink

KEPT_METADATA = ("modelspec.prediction_type", "modelspec.architecture", "modelspec.resolution")
"""What model A's metadata says of the kind of model, which a merge does not change."""


def merge_files(recipe: Recipe, output: Path, *, dtype: str | None = None) -> Path:
    """Write the recipe's merge as a safetensors file; the same recipe gives the same bytes.

    Model paths come from the recipe; a recorded SHA-256 must match. `dtype` ("fp16", "bf16",
    "fp32") converts floating point tensors; None keeps model A's.

    Returns:
        The path that was written.

    Raises:
        ConfigError: the recipe cannot be understood or names an unknown block or method.
        ModelError: a model is missing, changed, damaged or does not fit.
        StorageError: the output exists or cannot be written.
    """
    check(recipe)
    methods.check_parameters(recipe.method, recipe.parameters)
    check_output(output)
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
        write_merge(recipe, models, output, dtype=dtype)
    return output


def check_output(output: Path) -> None:
    """Raise ConfigError unless a checkpoint to write has the ending of what is written."""
    if output.suffix != ".safetensors":
        raise ConfigError(
            f"the output is called {output.name}, but safetensors is what is written. Give it the "
            "ending .safetensors."
        )


def open_recorded(ref: ModelRef) -> Checkpoint:
    """Open a recipe's model and check that it is the one that was recorded.

    Raises:
        ModelError: it is not there, or its content has another SHA-256.
    """
    if not ref.path:
        raise ModelError(f"the recipe gives no path for {ref.name}. Add the path of the file.")
    checkpoint = open_checkpoint(Path(ref.path))
    if ref.sha256 and checkpoint.sha256() != ref.sha256:
        found = checkpoint.sha256()
        checkpoint.close()
        raise ModelError(
            f"{ref.path} is not the model of the recipe: its SHA-256 is {found[:12]}..., the "
            f"recipe's {ref.sha256[:12]}.... Point to the right file."
        )
    return checkpoint


def write_merge(
    recipe: Recipe, models: Mapping[str, Checkpoint], output: Path, *, dtype: str | None = None
) -> None:
    """Write the merge of open models; see `merge_files`."""
    merger = Merger(models, recipe.method, dtype=dtype)
    merger.check(recipe.weights)
    tensors = {key: (merger.dtype_of(key), merger.shape_of(key)) for key in merger.keys()}  # noqa: SIM118
    with FileSink(output, tensors, _metadata(recipe, models), merger.copied()) as sink:
        merger.merge(recipe.weights, sink, keys=sink.order)


def _metadata(recipe: Recipe, models: Mapping[str, Checkpoint]) -> dict[str, str]:
    """Format: AUTOMATIC1111's own merge metadata, plus the whole recipe without local paths."""
    kept = {
        name: value for name, value in models["a"].header.metadata.items() if name in KEPT_METADATA
    }
    webui_recipe = {
        "type": "automerge",
        "version": lib_automerge.__version__,
        "primary_model_hash": recipe.models["a"].sha256,
        "secondary_model_hash": recipe.models["b"].sha256 if "b" in recipe.models else None,
        "tertiary_model_hash": recipe.models["c"].sha256 if "c" in recipe.models else None,
        "interp_method": recipe.method,
        "weights": recipe.weights,
    }
    webui_models = {
        ref.sha256: {"name": ref.name, "legacy_hash": None, "sd_merge_recipe": None}
        for ref in recipe.models.values()
    }
    shared = json.loads(recipe_json(recipe))
    for model in shared["models"].values():
        model["path"] = ""
    return {
        **kept,
        "format": "pt",
        "sd_merge_recipe": json.dumps(webui_recipe),
        "sd_merge_models": json.dumps(webui_models),
        "automerge_recipe": json.dumps(shared),
    }
