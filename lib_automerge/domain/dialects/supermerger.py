"""SuperMerger: its modes and lists, and the metadata of its checkpoints.

Where it puts what its lists do not name is told by the orders `supermerger*` of `domain.weights`.
For SDXL its lists end with a 21st number for the VAE, always 0, while its code has merged the VAE
by BASE: with another BASE than 0 the reader must be told which one it was.

    {"type": "sd-webui-supermerger", "weights_alpha": [25, 20, 60 or 109], "base_alpha": 0.5,
     "mbw": true, "mode": "Weight sum", "calcmode": "normal", "model_a": SHA-256, ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import supermerger_keys, tables
from lib_automerge.domain.dialects.sketch import (
    Everywhere,
    Hint,
    Listed,
    Sketch,
    Spread,
)
from lib_automerge.domain.dialects.supermerger_keys import Choice, PerKey, Rule
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

TYPE = "sd-webui-supermerger"

NORMAL, _TRAINED = "normal", "trainDifference"
_METHODS = {
    ("Weight sum", NORMAL): ("weighted_sum", "ab"),
    ("Add difference", NORMAL): ("add_difference", "abc"),
    ("Add difference", _TRAINED): ("train_difference", "abc"),
    ("Add", _TRAINED): ("train_difference", "abc"),  # what another mode is changed to
    ("Triple sum", NORMAL): ("triple_sum", "abc"),
    ("sum Twice", NORMAL): ("sum_twice", "abc"),
}
"""Its mode and calculation -> our method, and the models that take part."""

_SUMS_OF_THREE = {"triple_sum": 1 / 3, "sum_twice": 0.5}
"""The methods with a second list of weights, `beta` -> our default for it."""
_ORDERS = {
    26: "supermerger",
    20: "supermerger-xl",
    61: "supermerger-flux",
    110: supermerger_keys.PARTS,
}
"""Numbers, BASE included -> order."""
XL_ORDERS = ("supermerger-xl", "supermerger-xl-vae")
_XL_WITH_VAE = 21


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
    calculation = tables.text(recipe, "calcmode", NORMAL)
    method, roles = method_of(tables.text(recipe, "mode"), calculation)
    hints = {role: tables.model(tables.text(recipe, f"model_{role}"), models) for role in roles}
    alpha = _metadata_weights(recipe, "alpha", order)
    beta = _metadata_weights(recipe, "beta", order) if method in _SUMS_OF_THREE else None
    chosen = next((mode for mode in ("Include", "Exclude") if recipe.get(mode)), "")
    return sketch_of(
        "SuperMerger's metadata",
        method,
        hints,
        (alpha, beta),
        supermerger_keys.rules_of(recipe.get("elemental_merge"), calculation),
        supermerger_keys.choice_of(chosen, recipe.get(chosen)),
    )


def method_of(mode: str, calculation: str) -> tuple[str, str]:
    """Our method of a mode, which can have its formula behind it, and the roles of its models.

    Raises:
        ConfigError: no method of ours is that.
    """
    mode = mode.partition(":")[0].strip()
    if (mode, calculation) not in _METHODS:
        raise other(f"the mode {mode!r} with the calculation {calculation!r}")
    return _METHODS[mode, calculation]


def takes_beta(method: str) -> bool:
    """Whether a method has a second list of weights."""
    return method in _SUMS_OF_THREE


def sketch_of(
    dialect: str,
    method: str,
    models: Mapping[str, Hint],
    spreads: tuple[Spread, Spread | None],
    rules: tuple[Rule, ...] = (),
    choice: Choice | None = None,
) -> Sketch:
    """A sketch of what SuperMerger merged.

    Args:
        dialect: what was read, in words.
        method: ours.
        models: by role.
        spreads: alpha, and beta if the method takes it.
        rules: of an elemental merge, which change alpha.
        choice: what alone was merged, or was not.

    Raises:
        ConfigError: the lists are such as SuperMerger mixes up.
    """
    alpha, beta = spreads
    if beta is not None and supermerger_keys.PARTS in (_order_of(alpha), _order_of(beta)):
        raise ConfigError(
            "with lists of 110 numbers for three models, SuperMerger takes beta's weights for "
            "alpha's. Write the weights that were merged as a recipe of ours."
        )
    order = _order_of(alpha)
    return Sketch(
        dialect=dialect,
        method=method,
        models=models,
        spread=_changed(alpha, rules, choice),
        parameters={} if beta is None else {"beta": _changed(beta, (), choice)},
        architectures=() if order is None else weights.architectures_of(order),
    )


def write_metadata(recipe: Recipe, architecture: Architecture) -> dict[str, str]:
    """Write the two fields, as strings, that SuperMerger puts in a checkpoint's header.

    Raises:
        ConfigError: SuperMerger has no such method or list, or a model's SHA-256 is not known.
    """
    mode, calculation = mode_of(recipe)
    order = order_in(recipe, architecture)
    digests = tables.digests(recipe, "SuperMerger's metadata")
    lists = {"alpha": recipe.weights, "beta": beta(recipe, architecture)}
    content: dict[str, object] = {"type": TYPE}
    for which, given in lists.items():
        values = weights.to_list(given, order or "supermerger")
        numbers = values[1:] + ([0.0] if order and vae_of(order) else [])
        content[f"weights_{which}"] = (numbers if given else "") if order else None
        text = weights.format(given, order) if order and given else ""
        content[f"weights_{which}_orig"] = text if order else None
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
    if all(everywhere(given, architecture) is not None for given in lists):
        return None
    return order_for(architecture)


def everywhere(given: Mapping[str, float], architecture: Architecture) -> float | None:
    """The one weight of a merge without blocks, which for Flux.1 leaves the VAE as A's; or None."""
    merged = set(architecture.blocks) - _unmerged(architecture)
    values = {given.get(block, 0.0) for block in merged}
    kept = all(not given.get(block) for block in _unmerged(architecture))
    return values.pop() if len(values) == 1 and kept else None


def _unmerged(architecture: Architecture) -> set[str]:
    return {"VAE"} if architecture.name == "flux1" else set()


def beta(recipe: Recipe, architecture: Architecture) -> dict[str, float]:
    """The second list of weights; empty for methods with one.

    Raises:
        ConfigError: it is no number.
    """
    if recipe.method not in _SUMS_OF_THREE:
        return {}
    default = _SUMS_OF_THREE[recipe.method]
    return tables.by_block(recipe.parameters.get("beta", default), architecture, 0.0)


def mode_of(recipe: Recipe) -> tuple[str, str]:
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


def vae_of(order: str) -> str:
    """What SuperMerger writes behind SDXL's weights."""
    return ",0" if order in XL_ORDERS else ""


def _metadata_weights(recipe: Mapping[str, object], which: str, order: str | None) -> Spread:
    base = tables.number(recipe.get(f"base_{which}"))
    if not recipe.get("mbw"):
        return Everywhere(base)
    given = recipe.get(f"weights_{which}")
    if isinstance(given, str):  # its first versions wrote the text of the box, BASE included
        return listed(given, order)
    if not isinstance(given, Sequence):
        raise ConfigError(
            f"SuperMerger's metadata hold no list of weights: weights_{which} is {given!r}. The "
            "file is damaged; give the weights as text."
        )
    return list_of([base, *(tables.number(part) for part in given)], order)


def listed(text: str, told: str | None) -> Listed:
    """Weights of a list as text; see `_spread`.

    Raises:
        ConfigError: it is no list of SuperMerger's, or its order must be told.
    """
    return list_of([tables.number(part) for part in text.split(",")], told)


def list_of(values: Sequence[float], told: str | None) -> Listed:
    """Weights of a list that begins with BASE."""
    given = tuple(values[:-1] if len(values) == _XL_WITH_VAE else values)
    order = _ORDERS.get(len(given))
    if order is None:
        raise ConfigError(
            f"SuperMerger's lists have 26, 20, 61 or 110 weights, this one {len(values)}. Copy "
            "the whole list."
        )
    if order not in XL_ORDERS:
        return Listed(given, order)
    if told in XL_ORDERS:
        return Listed(given, told)
    if given[0]:
        raise weights.without_order(len(given))
    return Listed(given, order)


def _order_of(spread: Spread) -> str | None:
    return spread.order if isinstance(spread, Listed) else None


def _changed(spread: Spread, rules: tuple[Rule, ...], choice: Choice | None) -> Spread:
    """The weights as single keys have them, where they can be others than their block's."""
    if isinstance(spread, Everywhere) or rules or choice is not None:
        return PerKey(spread, rules, choice)
    return spread


def other(what: str) -> ConfigError:
    """The error for what no method of ours does."""
    return ConfigError(
        f"SuperMerger's text tells {what}, which no method here is. What can be read are "
        f"{', '.join(f'{mode} ({calculation})' for mode, calculation in _METHODS)}."
    )
