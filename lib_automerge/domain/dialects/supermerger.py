"""SuperMerger: the metadata of its checkpoints, and the model string of its infotexts.

Where it puts what its lists do not name is told by the orders `supermerger*` of `domain.weights`.
For SDXL its lists end with a 21st number for the VAE, always 0, while its code has merged the VAE
by BASE: with another BASE than 0 the reader must be told which one it was.

    {"type": "sd-webui-supermerger", "weights_alpha": [25, 20 or 60 numbers], "base_alpha": 0.5,
     "mbw": true, "mode": "Weight sum", "calcmode": "normal", "model_a": SHA-256, ...}
    A x (1-alpha) + B x alpha (BASE,IN00,...)       A x 0.7 + B x 0.3
    A + (B - C) x alpha (BASE,IN00,...)             A + (B -  C) x 0.5
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.sketch import (
    Everywhere,
    Listed,
    Sketch,
    Spread,
    hint,
)
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

TYPE = "sd-webui-supermerger"

_NORMAL, _TRAINED = "normal", "trainDifference"
_METHODS = {
    ("Weight sum", _NORMAL): ("weighted_sum", "ab"),
    ("Add difference", _NORMAL): ("add_difference", "abc"),
    ("Add difference", _TRAINED): ("train_difference", "abc"),
    ("Triple sum", _NORMAL): ("triple_sum", "abc"),
    ("sum Twice", _NORMAL): ("sum_twice", "abc"),
}
"""Its mode and calculation -> our method, and the models that take part."""

_SUMS_OF_THREE = {"triple_sum": 1 / 3, "sum_twice": 0.5}
"""The methods with a second list of weights, `beta` -> our default for it."""
_ORDERS = {26: "supermerger", 20: "supermerger-xl", 61: "supermerger-flux"}
"""Numbers, BASE included -> order."""
_XL_ORDERS = ("supermerger-xl", "supermerger-xl-vae")
_XL_WITH_VAE = 21

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_LIST = r"\((?P<weights>[-\d.e,\s]+)\)?"
_STRINGS = (
    ("weighted_sum", rf"(?P<a>.+?) x \(1-alpha\) \+ (?P<b>.+) x alpha {_LIST}"),
    ("add_difference", rf"(?P<a>.+?) \+ \((?P<b>.+?) -\s+(?P<c>.+)\) x alpha {_LIST}"),
    ("add_difference", rf"(?P<a>.+?) \+ \((?P<b>.+?) -\s+(?P<c>.+)\) x (?P<alpha>{_NUMBER})"),
    ("weighted_sum", rf"(?P<a>.+?) x (?P<rest>{_NUMBER}) \+ (?P<b>.+) x (?P<alpha>{_NUMBER})"),
)
_OTHER_MODES = re.compile(r"x \(1-alpha-beta\)|x ?\(1-beta\)|\) x -?[\d.]+ \+ .+ x |( x .+){3}")
_CALCULATION = re.compile(
    r"_(cosineA|cosineB|trainDifference|smoothAdd MT|smoothAdd|extract|tensor2?|self)"
    r"(_beta_[\d.]+)?"
)
_INFOTEXT = re.compile(r"(?:^|[,\n]\s*)Model: (?P<model>[^,\n]*)")


def is_string(text: str) -> bool:
    """Tell whether a text is, or an infotext holds, the name of a merge."""
    merged = _model_string(text)
    return any(re.fullmatch(pattern, merged) for _, pattern in _STRINGS) or bool(
        _OTHER_MODES.search(merged) or (_CALCULATION.search(merged) and " x " in merged)
    )


def read_string(text: str, order: str | None = None) -> Sketch:
    """Read the model string of an infotext, or a whole infotext with one.

    Args:
        text: the string or the infotext.
        order: of SDXL's list, where it must be told.

    Raises:
        ConfigError: another mode or calculation, a list of an unknown length, or the order of
            SDXL's list must be told.
    """
    merged = _model_string(text)
    calculation = re.search(_CALCULATION.pattern + r"$", merged)
    if calculation:
        raise _other(f"the calculation {calculation[1]}")
    for method, pattern in _STRINGS:
        found = re.fullmatch(pattern, merged)
        if found and not _OTHER_MODES.search(merged):
            return _string_sketch(method, found.groupdict(), order)
    raise _other(f"this kind of merge: {merged[:80]!r}")


def write_string(recipe: Recipe, architecture: Architecture) -> str:
    """Write the model string of a recipe, which names models without their content.

    Raises:
        ConfigError: SuperMerger has no such method or list.
    """
    if _mode(recipe)[1] != _NORMAL or recipe.method in _SUMS_OF_THREE:
        raise ConfigError(
            f"model strings are written for weighted_sum and add_difference, not for "
            f"{recipe.method}. Use supermerger-metadata."
        )
    names = {role: ref.name for role, ref in recipe.models.items()}
    order = order_in(recipe, architecture)
    add = recipe.method == "add_difference"
    if order is None:
        alpha = round(next(iter(recipe.weights.values()), 0.0), 3)
        if add:
            return f"{names['a']} + ({names['b']} -  {names['c']}) x {alpha}"
        return f"{names['a']} x {round(1 - alpha, 3)} + {names['b']} x {alpha}"
    numbers = weights.format(recipe.weights, order) + _vae(order)
    if add:
        return f"{names['a']} + ({names['b']} - {names['c']}) x alpha ({numbers})"
    return f"{names['a']} x (1-alpha) + {names['b']} x alpha ({numbers})"


def order_for(architecture: Architecture) -> str:
    """The order of SuperMerger's lists for an architecture.

    Raises:
        ConfigError: it has none.
    """
    for order in _ORDERS.values():
        if architecture.name in weights.architectures_of(order):
            return order
    raise ConfigError(
        f"SuperMerger has no weights of blocks for {architecture.label}. Use another format."
    )


def read_metadata(
    recipe: Mapping[str, object], models: Mapping[str, object], order: str | None = None
) -> Sketch:
    """Read `sd_merge_recipe` and `sd_merge_models` of a checkpoint that SuperMerger wrote.

    Args:
        recipe: the first field, decoded.
        models: the second one, decoded.
        order: of SDXL's list, where it must be told.

    Raises:
        ConfigError: a mode or calculation that no method of ours is, damaged fields, or the order
            of SDXL's list must be told.
    """
    # a mode can have its formula behind it
    mode = tables.text(recipe, "mode").partition(":")[0].strip()
    calculation = tables.text(recipe, "calcmode", _NORMAL)
    if (mode, calculation) not in _METHODS:
        raise _other(f"the mode {mode!r} with the calculation {calculation!r}")
    method, roles = _METHODS[mode, calculation]
    hints = {role: tables.model(tables.text(recipe, f"model_{role}"), models) for role in roles}
    spread = _metadata_weights(recipe, "alpha", order)
    second = {}
    if method in _SUMS_OF_THREE:
        second = {"beta": _metadata_weights(recipe, "beta", order)}
    unsaid = []
    elements = recipe.get("elemental_merge")
    if elements:
        unsaid.append(f"that single elements have weights of their own: {elements!r}")
    unsaid += [
        f"to {choice.lower()} only {recipe[choice]!r}"
        for choice in ("Include", "Exclude")
        if _chosen(recipe.get(choice))
    ]
    return Sketch(
        dialect="SuperMerger's metadata",
        method=method,
        models=hints,
        spread=spread,
        parameters=second,
        architectures=weights.architectures_of(spread.order) if isinstance(spread, Listed) else (),
        unsaid=tuple(unsaid),
    )


def write_metadata(recipe: Recipe, architecture: Architecture) -> dict[str, str]:
    """Write the two fields, as strings, that SuperMerger puts in a checkpoint's header.

    Raises:
        ConfigError: SuperMerger has no such method or list, or a model's SHA-256 is not known.
    """
    mode, calculation = _mode(recipe)
    order = order_in(recipe, architecture)
    digests = tables.digests(recipe, "SuperMerger's metadata")
    lists = {"alpha": recipe.weights, "beta": beta(recipe, architecture)}
    content: dict[str, object] = {"type": TYPE}
    for which, given in lists.items():
        values = weights.to_list(given, order or "supermerger")
        numbers = values[1:] + ([0.0] if order and _vae(order) else [])
        content[f"weights_{which}"] = (numbers if given else "") if order else None
        listed = weights.format(given, order) if order and given else ""
        content[f"weights_{which}_orig"] = listed if order else None
        content[f"base_{which}"] = values[0]
    content |= {
        "model_a": digests["a"],
        "model_b": digests["b"],
        "model_c": digests.get("c", digests["a"]),
        "mode": mode,
        "mbw": order is not None,
        "elemental_merge": "",
        "calcmode": calculation,
        "Off": [""],
    }
    known = {ref.sha256: {"name": ref.name, "legacy_hash": None} for ref in recipe.models.values()}
    return {"sd_merge_recipe": json.dumps(content), "sd_merge_models": json.dumps(known)}


def order_in(recipe: Recipe, architecture: Architecture) -> str | None:
    """The order of the lists in which a recipe is written; None if it needs none.

    Raises:
        ConfigError: it needs lists, and SuperMerger has none for the architecture.
    """
    lists = [recipe.weights, beta(recipe, architecture)]
    if all(tables.everywhere(given, architecture) is not None for given in lists):
        return None
    return order_for(architecture)


def beta(recipe: Recipe, architecture: Architecture) -> dict[str, float]:
    """The second list of weights; empty for methods with one.

    Raises:
        ConfigError: it is no number.
    """
    if recipe.method not in _SUMS_OF_THREE:
        return {}
    default = _SUMS_OF_THREE[recipe.method]
    return tables.by_block(recipe.parameters.get("beta", default), architecture, 0.0)


def _mode(recipe: Recipe) -> tuple[str, str]:
    """The mode and the calculation that are a recipe's method."""
    known = {"beta"} if recipe.method in _SUMS_OF_THREE else set()
    for (mode, calculation), (method, roles) in _METHODS.items():
        same = method == recipe.method and set(roles) == set(recipe.models)
        if same and set(recipe.parameters) <= known:
            return mode, calculation
    raise ConfigError(
        f"SuperMerger's files cannot say the method {recipe.method} with the models "
        f"{sorted(recipe.models)} and the parameters {sorted(recipe.parameters)}. Use json, yaml "
        "or sd-mecha."
    )


def _model_string(text: str) -> str:
    """The model string of an infotext; in it, SuperMerger writes spaces for commas."""
    stripped = text.strip()
    if stripped.startswith("Model: ") or "Steps: " in stripped:
        found = _INFOTEXT.search(stripped)
        stripped = found["model"].strip() if found else stripped
    return re.sub(r"\s+ID \d+$", "", stripped)


def _string_sketch(method: str, found: Mapping[str, str | None], order: str | None) -> Sketch:
    models = {role: hint(found[role] or "") for role in "abc" if found.get(role)}
    listed = found.get("weights")
    if listed is None:
        alpha = float(found["alpha"] or 0.0)
        rest = found.get("rest")
        if rest is not None and abs(float(rest) - (1 - alpha)) > 0.0015:
            raise _other(f"shares that do not add up to 1: {rest} and {alpha:g}")
        spread: Spread = Everywhere(alpha)
    else:
        spread = _spread([tables.number(w) for w in re.split(r"[,\s]+", listed.strip(" ,"))], order)
    return Sketch(
        dialect="SuperMerger's model string",
        method=method,
        models=models,
        spread=spread,
        architectures=weights.architectures_of(spread.order) if isinstance(spread, Listed) else (),
        notes=("its first weight is rounded to three digits",),
    )


def _vae(order: str) -> str:
    """What SuperMerger writes behind SDXL's weights."""
    return ",0" if order in _XL_ORDERS else ""


def _metadata_weights(recipe: Mapping[str, object], which: str, order: str | None) -> Spread:
    base = tables.number(recipe.get(f"base_{which}"))
    if not recipe.get("mbw"):
        return Everywhere(base)
    given = recipe.get(f"weights_{which}")
    if isinstance(given, str):  # its first versions wrote the text of the box, BASE included
        return _spread([tables.number(part) for part in given.split(",")], order)
    if not isinstance(given, Sequence):
        raise ConfigError(
            f"SuperMerger's metadata hold no list of weights: weights_{which} is {given!r}. The "
            "file is damaged; give the weights as text."
        )
    return _spread([base, *(tables.number(part) for part in given)], order)


def _spread(values: Sequence[float], told: str | None) -> Listed:
    """Weights of a list that begins with BASE."""
    listed = tuple(values[:-1] if len(values) == _XL_WITH_VAE else values)
    order = _ORDERS.get(len(listed))
    if order is None:
        raise ConfigError(
            f"SuperMerger's lists have 26, 20 or 61 weights, this one {len(values)}. Copy the "
            "whole list."
        )
    if order not in _XL_ORDERS:
        return Listed(listed, order)
    if told in _XL_ORDERS:
        return Listed(listed, told)
    if listed[0]:
        raise weights.without_order(len(listed))
    return Listed(listed, order)


def _chosen(selected: object) -> bool:
    """Whether SuperMerger's choice of blocks and elements chooses anything."""
    return isinstance(selected, Sequence) and any(part for part in selected)


def _other(what: str) -> ConfigError:
    return ConfigError(
        f"SuperMerger's text tells {what}, which no method here is. What can be read are "
        f"{', '.join(f'{mode} ({calculation})' for mode, calculation in _METHODS)}."
    )
