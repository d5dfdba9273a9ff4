"""The metadata that A1111's own checkpoint merger writes.

    {"type": "webui", "primary_model_hash": SHA-256, "secondary_model_hash": ...,
     "interp_method": "Weighted sum", "multiplier": 0.3, "save_as_half": true, ...}

The multiplier is for the whole model. The merger blends EMA copies too; here they are A's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.sketch import Everywhere, Hint, Named, Sketch
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

TYPE = "webui"
OURS = "automerge"
"""The type of the same fields in our own checkpoints, for tools that know no other."""

_METHODS = {
    "Weighted sum": ("weighted_sum", "ab"),
    "Add difference": ("add_difference", "abc"),
}
_ROLES = {"a": "primary_model_hash", "b": "secondary_model_hash", "c": "tertiary_model_hash"}


def read(recipe: Mapping[str, object], models: Mapping[str, object]) -> Sketch:
    """Read `sd_merge_recipe` and `sd_merge_models` of a checkpoint that the WebUI merged.

    Raises:
        ConfigError: a method that only copies, or damaged fields.
    """
    if recipe.get("type") == OURS:
        return _ours(recipe, models)
    told = tables.text(recipe, "interp_method")
    if told not in _METHODS:
        raise ConfigError(
            f"the WebUI's merger made this with {told!r}, which is no merge of two models. Use "
            "the model that it was made of."
        )
    method, roles = _METHODS[told]
    half = bool(recipe.get("save_as_half"))
    return Sketch(
        dialect="the metadata of the WebUI's merger",
        method=method,
        models={role: _model(recipe, role, models) for role in roles},
        spread=Everywhere(tables.number(recipe.get("multiplier"))),
        notes=("the WebUI saved it as half precision: add --dtype fp16 to merge",) if half else (),
        unsaid=tuple(_unsaid(recipe)),
    )


def write(recipe: Recipe, architecture: Architecture) -> dict[str, str]:
    """Write the two fields, as strings, that the WebUI's merger puts in a checkpoint's header.

    Raises:
        ConfigError: it has no such method or no weights of blocks, or a SHA-256 is not known.
    """
    methods = {method: (told, roles) for told, (method, roles) in _METHODS.items()}
    told, roles = methods.get(recipe.method, ("", ""))
    multiplier = tables.everywhere(recipe.weights, architecture)
    if not told or set(roles) != set(recipe.models) or recipe.parameters or multiplier is None:
        raise ConfigError(
            f"the WebUI's merger knows one weight for the whole model; this recipe is "
            f"{recipe.method} with weights for blocks. Use json, yaml or supermerger-metadata."
        )
    digests = tables.digests(recipe, "the metadata of the WebUI's merger")
    content = {
        "type": TYPE,
        **{field: digests.get(role) for role, field in _ROLES.items()},
        "interp_method": told,
        "multiplier": multiplier,
        "save_as_half": False,
        "custom_name": "",
        "config_source": 0,
        "bake_in_vae": "None",
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
    }
    known = {
        ref.sha256: {"name": ref.name, "legacy_hash": None, "sd_merge_recipe": None}
        for ref in recipe.models.values()
    }
    return {"sd_merge_recipe": json.dumps(content), "sd_merge_models": json.dumps(known)}


def _ours(recipe: Mapping[str, object], models: Mapping[str, object]) -> Sketch:
    method = tables.text(recipe, "interp_method")
    if method not in {known for known, _ in _METHODS.values()}:
        raise ConfigError(
            f"this part of Automerge's metadata does not say enough of a merge by {method!r}. "
            "Give the checkpoint, or its field 'automerge_recipe'."
        )
    weights = tables.mapping(recipe.get("weights"), "the field 'weights'")
    return Sketch(
        dialect="the WebUI's part of Automerge's metadata",
        method=method,
        models={
            role: _model(recipe, role, models)
            for role, field in _ROLES.items()
            if recipe.get(field)
        },
        spread=Named({block: tables.number(weight) for block, weight in weights.items()}),
    )


def _model(recipe: Mapping[str, object], role: str, models: Mapping[str, object]) -> Hint:
    return tables.model(tables.text(recipe, _ROLES[role]), models)


def _unsaid(recipe: Mapping[str, object]) -> list[str]:
    """What the merger did besides."""
    told = []
    vae = recipe.get("bake_in_vae")
    if vae and vae != "None":
        told.append(f"that the VAE {vae} was baked in")
    discarded = recipe.get("discard_weights")
    if discarded:
        told.append(f"that weights were discarded: {discarded}")
    if recipe.get("is_inpainting") or recipe.get("is_instruct_pix2pix"):
        told.append("that A's additional input channels were kept")
    return told
