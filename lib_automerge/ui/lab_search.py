"""From the merge lab to the search: the lab's form as the space of a run. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.config import ParameterRule
from lib_automerge.domain.recipe import BASE, ParameterValue, Recipe
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.parameters import Parameter
from lib_automerge.ui import parameter_rules
from lib_automerge.ui.form_fields import METHODS

MOST = 2.0
"""A number is searched up to so many times what it is."""


def search_values(recipe: Recipe, titles: Mapping[str, str]) -> dict[str, object]:
    """The fields of the search form that make the parameters of a merge what is searched.

    Numbers are searched, by block where they differ by block; choices, whole numbers and seeds stay
    as they are. Weights become the start point.

    Args:
        recipe: what the lab would merge.
        titles: of its models, by role.
    """
    method = catalogue.get(recipe.method)
    fixed: dict[str, ParameterValue] = {}
    searched: dict[str, ParameterRule] = {}
    blocks = architectures.get(recipe.architecture).parameters
    start = {block: weight for block, weight in recipe.weights.items() if block in blocks}
    for parameter in method.parameters:
        value = recipe.parameters.get(parameter.name, parameter.default)
        if parameter.name == method.weight:
            if isinstance(value, int | float) and not start:
                start = dict.fromkeys(blocks, float(value))
        elif parameter.kind in ("number", "number per model"):
            searched[parameter.name] = _range(parameter, value)
            fixed[parameter.name] = value
        else:
            fixed[parameter.name] = value
    named = {role: titles[role] for role in recipe.models}
    values: dict[str, object] = {
        "method": METHODS.label(method.name),
        "parameters": parameter_rules.text_of(fixed, searched),
        "model_c": "",
        "more_models": [],
        "start": weights.format(start),
        "start_order": weights.NAMED,
        "rules": "{}",
    }
    if method.roles:
        return values | {f"model_{role}": title for role, title in named.items()}
    many = [title for role, title in sorted(named.items()) if role != BASE]
    first, second, *more = ([named[BASE]] if method.based else []) + [*many, "", ""]
    return values | {
        "model_a": first,
        "model_b": second,
        "more_models": [title for title in more if title],
    }


def _range(parameter: Parameter, value: ParameterValue) -> ParameterRule:
    assert parameter.low is not None
    assert parameter.high is not None
    numbers = [*value.values()] if isinstance(value, dict) else [value]
    largest = max((float(n) for n in numbers if isinstance(n, int | float)), default=1.0)
    return ParameterRule(
        low=max(parameter.low, 0.0),
        high=min(parameter.high, max(1.0, MOST * largest)),
        per_block=isinstance(value, dict) and parameter.per_block,
    )
