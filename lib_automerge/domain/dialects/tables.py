"""Fields of decoded JSON, read so that damage becomes a sentence; and what writers share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects.sketch import SHA256_DIGITS, Hint, model_name
from lib_automerge.domain.recipe import ParameterValue, Recipe
from lib_automerge.errors import ConfigError


def mapping(value: object, what: str) -> Mapping[str, object]:
    """An object, which tools store as such or as a string of JSON; nothing is an empty one.

    Raises:
        ConfigError: it is neither.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(
                f"{what} is damaged: {error}. Use a copy of the file or text that is whole."
            ) from error
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what} is {value!r}, but an object was expected. Check the text.")
    return value


def text(fields: Mapping[str, object], name: str, default: str | None = None) -> str:
    """A field that is a string; nothing counts as an empty one.

    Raises:
        ConfigError: it is missing and has no default, or is no string.
    """
    value = fields.get(name, default)
    if value is None and name in fields:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"the field {name!r} is {value!r}, but a text was expected.")
    return value


def number(value: object) -> float:
    """A finite number, which some tools store as text.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or isinstance(value, bool):
        raise ConfigError(f"not a number: {value!r}. Copy the whole list of weights.")
    return found


def model(digest: str, known: Mapping[str, object]) -> Hint:
    """A model by its SHA-256, with the name and old hash that `sd_merge_models` tells.

    Raises:
        ConfigError: the text names no model there.
    """
    if not digest:
        raise ConfigError("the metadata leave out the SHA-256 of a model that takes part.")
    described = known.get(digest)
    fields = described if isinstance(described, Mapping) else {}
    legacy = fields.get("legacy_hash")
    return Hint(
        name=model_name(str(fields.get("name") or "")),
        sha256=digest.lower(),
        legacy_hash=legacy if isinstance(legacy, str) else "",
    )


def digests(recipe: Recipe, what: str) -> dict[str, str]:
    """The SHA-256 of every model.

    Raises:
        ConfigError: one is not known.
    """
    found = {role: ref.sha256 for role, ref in recipe.models.items()}
    for role, digest in found.items():
        if len(digest) != SHA256_DIGITS:
            raise ConfigError(
                f"{what} name models by their SHA-256, and that of model {role!r} "
                f"({recipe.models[role].name}) is not known. Add --models with its folder."
            )
    return found


def everywhere(weights: Mapping[str, float], architecture: Architecture) -> float | None:
    """The weight that every block has; None if they differ."""
    values = {weights.get(block, 0.0) for block in architecture.blocks}
    return values.pop() if len(values) == 1 else None


def by_block(value: ParameterValue, architecture: Architecture, unnamed: float) -> dict[str, float]:
    """A parameter as a number for every block.

    Args:
        value: a number, or numbers by block.
        architecture: whose blocks they are.
        unnamed: the number of the blocks that are not named.

    Raises:
        ConfigError: it is no number.
    """
    if isinstance(value, Mapping):
        return {block: float(value.get(block, unnamed)) for block in architecture.blocks}
    return dict.fromkeys(architecture.blocks, number(value))
