"""Recipes that are pasted into the lab's form: this program's own, and weights in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures, recipe_text
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.recipe import Recipe, check
from lib_automerge.errors import ConfigError
from lib_automerge.ui.lab_fields import field_name
from lib_automerge.ui.lab_form import Loaded, by_block, method_of, values_of, values_text


def load(
    text: str,
    values: Mapping[str, object],
    models: Sequence[ModelChoice],
    architecture: Architecture | None,
) -> Loaded:
    """The form's values after a recipe was pasted.

    A text that is no recipe is read as weights by block for the chosen method.

    Args:
        text: what was pasted.
        values: of the form.
        models: what is offered.
        architecture: of the chosen models, if some are chosen.

    Raises:
        ConfigError: it is neither a recipe nor weights; says why.
    """
    if not text.strip():
        raise ConfigError("there is no recipe yet. Paste one, or drop a file.")
    recipe = _recipe_in(text)
    if recipe is None:
        return _weights(text, values, architecture)
    loaded = values_of(recipe, models, architectures.get(recipe.architecture))
    if recipe.precision == "fp64":
        return loaded
    told = "The recipe is of a search, which computes in fp32: here it is fp64, rounded once."
    return Loaded(loaded.values, (*loaded.notes, told))


def _weights(text: str, values: Mapping[str, object], architecture: Architecture | None) -> Loaded:
    method = method_of(values)
    if method.weight is None:
        raise ConfigError(
            f"this is no recipe, and {method.label} has no weights by block. Choose the method "
            "that they are for."
        )
    if architecture is None:
        raise ConfigError("weights alone say nothing of the models. Choose these first.")
    weights, *others = recipe_text.parse(text, architecture)
    own = by_block(values) | {method.weight: weights}
    notes = (f"The first of {1 + len(others)} presets was taken.",) if others else ()
    # blocks that a list of weights does not name are those of the first model
    new = {"lab_values": values_text(own), field_name(method.name, method.weight): 0.0}
    return Loaded(new, notes)


def _recipe_in(text: str) -> Recipe | None:
    """The recipe of a text; None if it does not look like one.

    Raises:
        ConfigError: it looks like one and cannot be read.
    """
    try:
        content = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    if not isinstance(content, dict) or "models" not in content:
        return None
    try:
        return check(msgspec.convert(content, type=Recipe))
    except msgspec.ValidationError as error:
        raise ConfigError(f"this is no recipe: {error}. Paste a recipe.json.") from error
