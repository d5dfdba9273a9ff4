"""What a merged file tells about itself, for WebUIs and for merging it again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import lib_automerge
from lib_automerge.domain.recipe import Recipe, primary, recipe_json

KEPT_METADATA = ("modelspec.prediction_type", "modelspec.architecture", "modelspec.resolution")
"""What the first model's metadata says of the kind of model, which a merge does not change."""


def merged_metadata(recipe: Recipe, metadata: Mapping[str, str]) -> dict[str, str]:
    """Format: AUTOMATIC1111's own merge metadata, plus the whole recipe without local paths.

    Args:
        recipe: what is merged.
        metadata: of model A (or the base, or the first model).
    """
    kept = {name: value for name, value in metadata.items() if name in KEPT_METADATA}
    first = primary(recipe.models)
    others = [role for role in sorted(recipe.models) if role != first]
    hashes = [recipe.models[role].sha256 for role in others] + [None, None]
    webui_recipe = {
        "type": "automerge",
        "version": lib_automerge.__version__,
        "primary_model_hash": recipe.models[first].sha256,
        "secondary_model_hash": hashes[0],
        "tertiary_model_hash": hashes[1],
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
