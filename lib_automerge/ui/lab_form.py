"""From the lab form's values to a merge, and from a recipe back to the form. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects.sketch import Hint
from lib_automerge.domain.recipe import BASE, ModelRef, OnMismatch, ParameterValue, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod, role_of, roles_for
from lib_automerge.merge.lab.parameters import Parameter, Settings
from lib_automerge.ui.fields import Field, Kind, Reader, defaults
from lib_automerge.ui.lab_fields import (
    LAB_BY_NAME,
    LAB_DTYPES,
    LAB_METHODS,
    MISMATCHES,
    PARAMETER_FIELDS,
    field_name,
)
from lib_automerge.ui.lab_models import Known, offered
from lib_automerge.ui.texts import reason

Values = Mapping[str, object]
ByBlock = Mapping[str, Mapping[str, float]]
"""Parameter -> block -> value, where it is another one than the parameter's own."""

LAB_READ: tuple[Field, ...] = tuple(LAB_BY_NAME.values())


class Loaded(msgspec.Struct, frozen=True):
    """What a recipe makes of the form, and what the user should know of it."""

    values: dict[str, object]
    notes: tuple[str, ...]


def method_of(values: Values) -> LabMethod:
    """The chosen method."""
    return catalogue.get(LAB_METHODS.name(Reader(LAB_READ, values).text("lab_method")))


def chosen(values: Values) -> dict[str, str]:
    """The chosen models: role -> title; a role without a model is left out."""
    method = method_of(values)
    form = Reader(LAB_READ, values)
    if method.roles:
        titles = {role: form.text(f"lab_{role}") for role in method.roles}
    else:
        titles = {BASE: form.text("lab_base")} if method.based else {}
        many = form.names("lab_models")
        titles |= {role_of(number): title for number, title in enumerate(many)}
    return {role: title for role, title in titles.items() if title}


def needs(values: Values) -> tuple[str, ...]:
    """What the method still needs, in sentences that name the field; empty if nothing."""
    method = method_of(values)
    have = chosen(values)
    found = [
        f"{method.label} needs model {role.upper()}: choose it as Model {role.upper()}."
        for role in method.roles
        if role not in have
    ]
    if method.based and BASE not in have:
        found.append(f"{method.label} needs a base model: choose it as Base.")
    many = len([role for role in have if role != BASE])
    if not method.roles and many < method.minimum:
        count = "one model" if method.minimum == 1 else f"{method.minimum} models"
        besides = " besides the base" if method.based else ""
        found.append(f"{method.label} needs at least {count}{besides}: choose it under Models.")
    return tuple(found)


def with_matching(text: str, titles: Sequence[str], values: Values) -> tuple[list[str], int]:
    """The chosen models of many and those whose titles hold some words, and how many are new.

    Args:
        text: the words, in any order.
        titles: what is offered.
        values: of the form.

    Raises:
        ConfigError: there is no text, or nothing new matches it.
    """
    words = text.lower().split()
    if not words:
        raise ConfigError("there is no text to look for. Enter a part of the models' names.")
    form = Reader(LAB_READ, values)
    before = list(form.names("lab_models"))
    others = [title for title in titles if title not in (*before, form.text("lab_base"))]
    new = [title for title in others if all(word in title.lower() for word in words)]
    if not new:
        raise ConfigError(f"no other model has {text!r} in its name. Enter another part.")
    return [*before, *new], len(new)


def by_block(values: Values) -> dict[str, dict[str, float]]:
    """The values by block, of all parameters that have had some.

    Raises:
        ConfigError: their text cannot be read.
    """
    text = str(values.get("lab_values") or "{}")
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, float]])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the values by block cannot be read: {reason(error)}. Clear them."
        ) from error


def recipe_of(values: Values, models: Sequence[ModelChoice], architecture: Architecture) -> Recipe:
    """The recipe that the form describes; nothing is missing.

    Raises:
        ConfigError: a model is gone, or a parameter is wrong; names it.
    """
    method = method_of(values)
    form = Reader(LAB_READ, values)
    titles = chosen(values)
    roles = roles_for(method, len([role for role in titles if role != BASE]))
    parameters = _parameters(values, method, architecture, roles[method.based :])
    known = {model.title: model.path for model in models}
    digests = _digests(values)
    refs = {}
    for role in roles:
        path = known.get(titles[role])
        if path is None:
            raise ConfigError(
                f"there is no checkpoint {titles[role]!r} any longer. Refresh the list and choose "
                "another."
            )
        refs[role] = ModelRef(name=Path(path).stem, sha256=digests.get(path, ""), path=path)
    weights: dict[str, float] = {}
    if method.weight is not None and isinstance(parameters.get(method.weight), dict):
        weights = parameters.pop(method.weight)  # type: ignore[assignment]
    return Recipe(
        architecture=architecture.name,
        method=method.name,
        models=refs,
        weights=weights,
        parameters=parameters,
        precision="fp64",
        on_mismatch=_on_mismatch(form, method),
        on_nan="zero" if form.check("lab_zero_bad") else "refuse",
    )


def _on_mismatch(form: Reader, method: LabMethod) -> OnMismatch:
    label = form.text("lab_mismatch")
    if MISMATCHES.name(label) == "fill-base":
        if method.based:
            return "fill-base"
        raise ConfigError(
            f'"{label}" needs a method with a base. Choose "{MISMATCHES.label("keep-a")}" or '
            "another method."
        )
    return "keep-a" if MISMATCHES.name(label) == "keep-a" else "refuse"


def _parameters(
    values: Values, method: LabMethod, architecture: Architecture, roles: Sequence[str]
) -> dict[str, ParameterValue]:
    form = Reader(LAB_READ, values)
    own = by_block(values)
    found: dict[str, ParameterValue] = {}
    for parameter in method.parameters:
        name = field_name(method.name, parameter.name)
        value = _read(form, parameter, name, roles)
        if value is None:
            continue
        changed = own.get(parameter.name, {}) if parameter.per_block else {}
        there = {block: one for block, one in changed.items() if block in architecture.blocks}
        if there and isinstance(value, int | float):
            found[parameter.name] = dict.fromkeys(architecture.blocks, float(value)) | there
        else:
            found[parameter.name] = value
    settings = Settings(
        method.label, method.parameters, found, blocks=architecture.blocks, roles=roles
    )
    for block in architecture.blocks:
        method.check(settings.at(block))
    return found


def _read(
    form: Reader, parameter: Parameter, name: str, roles: Sequence[str]
) -> ParameterValue | None:
    if parameter.kind == "true or false":
        return form.check(name)
    if parameter.kind == "choice":
        return form.text(name)
    if parameter.kind == "number per model":
        return _per_model(form.text(name), LAB_BY_NAME[name].label, roles)
    return form.whole(name) if parameter.kind == "whole number" else form.number(name)


def _per_model(text: str, label: str, roles: Sequence[str]) -> ParameterValue | None:
    if not text:
        return None
    try:
        numbers = [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(
            f'"{label}" is not a list of numbers: {text!r}. Write 1, 1, 2.'
        ) from error
    if len(numbers) != len(roles):
        raise ConfigError(
            f'"{label}" has {len(numbers)} numbers, but {len(roles)} models are chosen. Give one '
            "number for each, in their order."
        )
    return dict(zip(roles, numbers, strict=True))


def _digests(values: Values) -> dict[str, str]:
    try:
        text = str(values.get("lab_digests") or "{}")
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


def values_of(
    recipe: Recipe,
    models: Sequence[ModelChoice],
    architecture: Architecture,
    known: Known = lambda _model: "",
) -> Loaded:
    """The form's values that describe a recipe; `recipe_of` gives a merge with the same result.

    Models are found as `lab_models.offered` says; their recorded content is checked when they are
    merged. One that is not offered here leaves its slot empty, and a note tells of it.

    Args:
        recipe: of the lab, or of a search.
        models: what is offered.
        architecture: the recipe's.
        known: the SHA-256 of an offered model, as far as it is known.

    Raises:
        ConfigError: the recipe's method, models or parameters are not those of the lab.
    """
    method = catalogue.get(recipe.method)
    roles = _roles(recipe, method)
    given = dict(recipe.parameters)
    if recipe.weights and method.weight is None:
        raise ConfigError(f"{method.label} has no weights by block. Leave out the weights.")
    if method.weight is not None and method.weight not in given:
        # blocks without a weight are those of the first model
        given[method.weight] = recipe.weights
    # what is wrong is said before anything changes
    Settings(
        method.label,
        method.parameters,
        given,
        blocks=architecture.blocks,
        roles=roles[method.based :],
    )
    values: dict[str, object] = {
        "lab_method": method.label,
        **dict.fromkeys(("lab_a", "lab_b", "lab_c", "lab_base"), ""),
        "lab_models": [],
        **defaults(PARAMETER_FIELDS),
    }
    notes, digests, many = [], {}, []
    for role in roles:
        ref = recipe.models[role]
        hint = Hint(name=ref.name, sha256=ref.sha256, path=ref.path)
        found, _ = offered(hint, models, known)
        if found is None:
            notes.append(f"{ref.name} is not offered here: choose the model of the role {role}.")
            continue
        if ref.sha256:
            digests[found.path] = ref.sha256
        if role in method.roles or role == BASE:
            values[f"lab_{role}"] = found.title
        else:
            many.append(found.title)
    overrides: dict[str, dict[str, float]] = {}
    for parameter in method.parameters:
        if parameter.name in given:
            name = field_name(method.name, parameter.name)
            plain, own = _shown(parameter, given[parameter.name], architecture, roles, method)
            values[name] = plain
            if own:
                overrides[parameter.name] = own
    values |= {
        "lab_models": many,
        "lab_dtype": LAB_DTYPES.label(recipe.dtype),
        "lab_mismatch": MISMATCHES.label(recipe.on_mismatch),
        "lab_zero_bad": recipe.on_nan == "zero",
        "lab_values": values_text(overrides),
        "lab_digests": msgspec.json.encode(digests).decode(),
    }
    return Loaded(values, tuple(notes))


def _roles(recipe: Recipe, method: LabMethod) -> tuple[str, ...]:
    count = len([role for role in recipe.models if role != BASE])
    roles = roles_for(method, count)
    if set(roles) != set(recipe.models):
        raise ConfigError(
            f"{method.label} takes {method.takes}; the recipe has {sorted(recipe.models)}. Correct "
            "its models."
        )
    return roles


def _shown(
    parameter: Parameter,
    value: ParameterValue,
    architecture: Architecture,
    roles: Sequence[str],
    method: LabMethod,
) -> tuple[object, dict[str, float]]:
    """The value of a parameter's field, and its values by block."""
    if not isinstance(value, Mapping):
        return value, {}
    if LAB_BY_NAME[field_name(method.name, parameter.name)].kind is Kind.TEXT:
        shares = [value.get(role, parameter.default) for role in roles[method.based :]]
        return ", ".join(str(float(share)).removesuffix(".0") for share in shares), {}
    unnamed = parameter.unnamed if parameter.unnamed is not None else parameter.default
    every = {block: value.get(block, float(unnamed)) for block in architecture.blocks}
    plain = Counter(every.values()).most_common(1)[0][0]
    return plain, {block: one for block, one in every.items() if one != plain}


def values_text(values: ByBlock) -> str:
    """Values by block as they are kept."""
    kept = {name: own for name, own in values.items() if own}
    return msgspec.json.encode(kept).decode()
