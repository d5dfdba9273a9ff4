"""Recipes: everything that is needed to make a merge again, as a value and as a file."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from lib_automerge.errors import ConfigError, StorageError

ROLES = ("a", "b", "c")
"""Roles of methods that take a fixed number of models."""

BASE = "base"
"""The role of the model that changes are counted from, in methods of any number of models; the
others are `m001`, `m002`, ... without a gap."""

_MANY = re.compile(r"m(\d{3})")

ParameterValue = float | int | str | bool | dict[str, float]
"""One value for the whole merge, or a number for each block (or model) that is named."""

Precision = Literal["fp32", "fp64"]

OnMismatch = Literal["refuse", "keep-a", "fill-base"]
"""Where tensors are missing or of another shape: raise, take the first model's, or let the base
stand for the model that lacks one."""

OnNan = Literal["refuse", "zero"]
"""Where a model holds NaN or infinite numbers: raise, or take them as 0."""


class ModelRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint by name, content hash (SHA-256, hex; empty if unknown) and last known path."""

    name: str
    sha256: str = ""
    path: str = ""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models + method + weights (+ parameters): enough to merge again.

    `weights` maps block names to numbers; 0 returns model A. A block that is not named is A's.
    `precision` is that of the arithmetic: "fp32" is what a search scores and live merging does,
    "fp64" is the merge lab's. Methods of the lab alone are always computed in fp64.
    `dtype` is that of the result ("fp16", ...; see `merge.merge_files`); empty keeps the first
    model's.
    `on_mismatch` and `on_nan` say what the merge lab does about models that do not go together and
    about damaged numbers; they decide bytes. Merges in fp32 refuse both, always.
    """

    architecture: str
    method: str
    models: dict[str, ModelRef]
    weights: dict[str, float] = {}
    parameters: Mapping[str, ParameterValue] = {}
    precision: Precision = "fp32"
    dtype: str = ""
    on_mismatch: OnMismatch = "refuse"
    on_nan: OnNan = "refuse"
    provenance: dict[str, object] = {}
    format: int = 1
    kind: str = "automerge-recipe"


def check(recipe: Recipe) -> Recipe:
    """Return the recipe if it can be understood.

    Raises:
        ConfigError: another kind or a newer format of file, no model A (or base, or m001), roles
            that do not go together, or a weight or parameter that is not a finite number.
    """
    if recipe.kind != "automerge-recipe":
        raise ConfigError(
            f"this is not a recipe: kind is {recipe.kind!r}. Give a recipe.json of a run."
        )
    if recipe.format != 1:
        raise ConfigError(
            f"recipe format {recipe.format} is newer than this version reads (1). Update Automerge."
        )
    check_roles(recipe.models)
    for block, weight in recipe.weights.items():
        if not math.isfinite(weight):
            raise ConfigError(f"the weight of {block} is {weight}. It must be a finite number.")
    for name, value in recipe.parameters.items():
        for number in value.values() if isinstance(value, dict) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{name} is {number}. It must be a finite number.")
    return recipe


def policies(recipe: Recipe) -> dict[str, str]:
    """The fields of a recipe that let pass what is refused otherwise, with their values."""
    told = {"on_mismatch": recipe.on_mismatch, "on_nan": recipe.on_nan}
    return {name: value for name, value in told.items() if value != "refuse"}


def primary(models: Collection[str]) -> str:
    """The role of the model whose other keys and metadata a merge keeps: `a`, `base` or `m001`."""
    return next(role for role in ("a", BASE, "m001") if role in models)


_REFERENCES = {"add_difference": "c", "train_difference": "c"}
"""Method -> the role of a model that is only subtracted."""


def parents(method: str, models: Collection[str]) -> tuple[str, ...]:
    """The roles of the models whose images a merge should beat; the primary one first.

    Args:
        method: how they are merged.
        models: all roles.
    """
    if not models:
        return ()
    aside = _REFERENCES.get(method)
    first = primary(models)
    return (first, *sorted(role for role in models if role not in (first, aside)))


def check_roles(models: Collection[str]) -> None:
    """Raise ConfigError unless these roles go together: a (b, c), or (base and) m001, m002, ..."""
    fixed = sorted(set(models) & set(ROLES))
    many = sorted(role for role in models if _MANY.fullmatch(role))
    unknown = sorted(set(models) - set(ROLES) - {BASE} - set(many))
    if unknown:
        raise ConfigError(
            f"unknown model role: {unknown[0]!r}. Roles are 'a', 'b' and 'c', or 'base' and "
            "'m001', 'm002' and so on."
        )
    if many or BASE in models:
        if fixed:
            raise ConfigError(
                f"models with roles of two kinds: {fixed[0]!r} and {(many or [BASE])[0]!r}. Use "
                "'a', 'b' and 'c', or 'base' and 'm001', 'm002' and so on."
            )
        numbers = [f"m{number:03d}" for number in range(1, len(many) + 1)]
        if not many or many != numbers:
            raise ConfigError(
                f"models of many are called m001, m002 and so on: {many} were given. Number them "
                "without a gap."
            )
    elif "a" not in models:
        raise ConfigError(
            f"the recipe has no model 'a': models are {sorted(models)}. Name the model "
            "that weight 0 returns as 'a'."
        )


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
    fields = ("format", "kind", "architecture", "method", "models", "weights", "parameters")
    raw: Mapping[str, object] = msgspec.to_builtins(recipe)
    # recipes that say nothing new are written as before, so that files with them keep their bytes
    more: tuple[str, ...] = () if recipe.precision == "fp32" else ("precision",)
    more += ("dtype",) if recipe.dtype else ()
    more += tuple(policies(recipe))
    ordered = {name: raw[name] for name in (*fields, *more, "provenance")}
    return msgspec.json.format(msgspec.json.encode(ordered), indent=2).decode() + "\n"
