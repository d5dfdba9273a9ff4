"""Recipes: everything that is needed to make a merge again, as a value and as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.errors import ConfigError, StorageError

ROLES = ("a", "b", "c")


class ModelRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint by name, content hash (SHA-256, hex; empty if unknown) and last known path."""

    name: str
    sha256: str = ""
    path: str = ""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models + method + weights (+ parameters): enough to merge again.

    `weights` maps block names to numbers; 0 returns model A. A block that is not named is A's.
    `dtype` is that of the result ("fp16", "bf16", "fp32"); empty keeps model A's.
    """

    architecture: str
    method: str
    models: dict[str, ModelRef]
    weights: dict[str, float]
    parameters: dict[str, float] = {}
    dtype: str = ""
    provenance: dict[str, object] = {}
    format: int = 1
    kind: str = "automerge-recipe"


def check(recipe: Recipe) -> Recipe:
    """Return the recipe if it can be understood.

    Raises:
        ConfigError: another kind or a newer format of file, no model A, an unknown role, or a
            weight that is not a finite number.
    """
    if recipe.kind != "automerge-recipe":
        raise ConfigError(
            f"this is not a recipe: kind is {recipe.kind!r}. Give a recipe.json of a run."
        )
    if recipe.format != 1:
        raise ConfigError(
            f"recipe format {recipe.format} is newer than this version reads (1). Update Automerge."
        )
    if "a" not in recipe.models:
        raise ConfigError(
            f"the recipe has no model 'a': models are {sorted(recipe.models)}. Name the model "
            "that weight 0 returns as 'a'."
        )
    unknown = sorted(set(recipe.models) - set(ROLES))
    if unknown:
        raise ConfigError(f"unknown model role: {unknown[0]!r}. Roles are 'a', 'b' and 'c'.")
    for block, weight in recipe.weights.items():
        if not math.isfinite(weight):
            raise ConfigError(f"the weight of {block} is {weight}. It must be a finite number.")
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        StorageError: the file cannot be read.
        ConfigError: it is not a recipe; the text names the field.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"cannot read the recipe {path}: {error.strerror}. Check the path."
        ) from error
    try:
        return check(msgspec.json.decode(data, type=Recipe))
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path.name} is not a recipe: {error}. Give a recipe.json.") from error


def recipe_json(recipe: Recipe) -> str:
    """The recipe as indented JSON with a fixed order of fields."""
    fields = ["format", "kind", "architecture", "method", "models", "weights", "parameters"]
    fields += ["dtype"] if recipe.dtype else []
    raw: Mapping[str, object] = msgspec.to_builtins(recipe)
    ordered = {name: raw[name] for name in (*fields, "provenance")}
    return msgspec.json.format(msgspec.json.encode(ordered), indent=2).decode() + "\n"
