"""The recipe in a checkpoint's metadata, whichever tool wrote it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lib_automerge.domain.dialects import autombw, mecha_read, supermerger, tables, webui
from lib_automerge.domain.dialects.sketch import Hint, Sketch
from lib_automerge.domain.recipe import Recipe, check
from lib_automerge.errors import ConfigError

OURS = "automerge_recipe"
_MECHA = "mecha_recipe"
_RECIPE, _MODELS = "sd_merge_recipe", "sd_merge_models"
FIELDS = (OURS, _RECIPE, _MECHA, autombw.METADATA)
"""The fields that hold a recipe; the first that is there counts, as it says most."""


def holds_recipe(fields: Mapping[str, object]) -> bool:
    """Tell whether decoded JSON is such metadata."""
    return any(fields.get(name) for name in FIELDS)


def read(fields: Mapping[str, object], order: str | None = None) -> Sketch | Recipe:
    """Read a header's metadata; values are strings, or objects as some viewers show them.

    Args:
        fields: the metadata.
        order: of a list in them, where it must be told.

    Raises:
        ConfigError: there is no recipe in them, or one that cannot be read.
    """
    if fields.get(OURS):
        return ours(tables.mapping(fields[OURS], f"the field {OURS!r}"))
    if fields.get(_RECIPE):
        recipe = tables.mapping(fields[_RECIPE], f"the field {_RECIPE!r}")
        models = tables.mapping(fields.get(_MODELS), f"the field {_MODELS!r}")
        return merged(recipe, models, order)
    if fields.get(_MECHA):
        return mecha_read.read(tables.text(fields, _MECHA))
    if fields.get(autombw.METADATA):
        described = tables.mapping(fields[autombw.METADATA], f"the field {autombw.METADATA!r}")
        return autombw.read_metadata(described, order)
    raise ConfigError(
        f"the metadata hold no recipe: none of {', '.join(FIELDS)} is there. Use the recipe that "
        "the checkpoint was made with."
    )


def merged(
    recipe: Mapping[str, object], models: Mapping[str, object], order: str | None = None
) -> Sketch:
    """Read `sd_merge_recipe` by its type.

    Raises:
        ConfigError: a type that is not known.
    """
    kind = recipe.get("type")
    if kind == supermerger.TYPE:
        return supermerger.read_metadata(recipe, models, order)
    if kind in (webui.TYPE, webui.OURS):
        return webui.read(recipe, models)
    raise ConfigError(
        f"the metadata were written by {kind!r}, which is not known. Those of SuperMerger, the "
        "WebUI's merger, AutoMBW, sd-mecha and Automerge can be read."
    )


def ours(fields: Mapping[str, object]) -> Recipe:
    """Read a recipe of Automerge.

    Raises:
        ConfigError: it is none; names the field.
    """
    try:
        return check(msgspec.convert(fields, type=Recipe))
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"this is not a recipe: {error}. Give a recipe.json as it was written."
        ) from error


def hints(recipe: Recipe) -> Mapping[str, Hint]:
    """How a recipe of ours names its models."""
    return {
        role: Hint(name=ref.name, sha256=ref.sha256, path=ref.path)
        for role, ref in recipe.models.items()
    }
