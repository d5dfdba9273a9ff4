"""From the merge lab to the search: the lab's form as the space of a run. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.config import BlockRule, ParameterRule
from lib_automerge.domain.recipe import BASE, ParameterValue, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter
from lib_automerge.search.rules import HIGHEST, LOWEST
from lib_automerge.ui import parameter_rules
from lib_automerge.ui.form_fields import METHODS
from lib_automerge.ui.texts import rules_text

MOST = 2.0
"""A number is searched up to so many times what it is."""

NARROWER, STEPS = 0.75, 12
"""An end of a range that its method refuses comes so much nearer to the value, so often at most."""

TINY = 1e-3
"""A number that is smaller by default is a tolerance: no search of its range comes near to it."""


def search_values(recipe: Recipe, titles: Mapping[str, str]) -> dict[str, object]:
    """The fields of the search form that make the parameters of a merge what is searched.

    Numbers are searched, by block where they differ by block; tolerances, whole numbers and choices
    stay as they are, but choices are searched where there is nothing else. The merge itself is the
    start point; weights of blocks that are not searched are fixed.

    Args:
        recipe: what the lab would merge.
        titles: of its models, by role.
    """
    method = catalogue.get(recipe.method)
    values: dict[str, object] = {
        "method": METHODS.label(method.name),
        "parameters": _parameters(recipe, method),
        "start_order": weights.NAMED,
        "text_encoder": False,
        "vae": False,
        **_models(method, {role: titles[role] for role in recipe.models}),
    }
    if method.weight is None:
        return values | {"rules": "{}", "start": "{}"}
    return values | _weights(recipe, method.weight)


def _parameters(recipe: Recipe, method: LabMethod) -> str:
    fixed: dict[str, ParameterValue] = {}
    searched: dict[str, ParameterRule] = {}
    for parameter in parameter_rules.of_search(method).values():
        value = recipe.parameters.get(parameter.name, parameter.default)
        fixed[parameter.name] = value
        if parameter.kind == "number per model" or (
            parameter.kind == "number" and float(parameter.default) >= TINY
        ):
            searched[parameter.name] = _range(parameter, value)
    if not any(parameter.kind == "number per model" for parameter in method.parameters):
        # shares of models always go together
        searched = _that_go_together(method, recipe, searched)
    if not searched and method.weight is None:
        for parameter in parameter_rules.of_search(method).values():
            if parameter.kind == "choice":
                own = fixed.pop(parameter.name)
                others = (choice for choice in parameter.choices if choice != own)
                # the search begins with the first
                searched[parameter.name] = ParameterRule(values=(str(own), *others))
    return parameter_rules.text_of(fixed, searched)


def _that_go_together(
    method: LabMethod, recipe: Recipe, ranges: Mapping[str, ParameterRule]
) -> dict[str, ParameterRule]:
    """The ranges, narrowed around the merge's own values where the method refuses their ends."""
    own: dict[str, object] = {}
    for parameter in method.parameters:
        value = recipe.parameters.get(parameter.name, parameter.default)
        own[parameter.name] = next(iter(value.values()), 0.0) if isinstance(value, dict) else value
    found: dict[str, ParameterRule] = {}
    for name, rule in ranges.items():
        mine = own[name]
        assert isinstance(mine, int | float)
        ends = []
        for end in (rule.low, rule.high):
            assert end is not None
            for _ in range(STEPS):
                if _taken(method, own, found, {name: end}):
                    break
                end = round(mine + (end - mine) * NARROWER, 3)
            else:
                end = float(mine)
            ends.append(end)
        if ends[0] < ends[1]:
            found[name] = msgspec.structs.replace(rule, low=ends[0], high=ends[1])
    return found


def _taken(
    method: LabMethod,
    own: Mapping[str, object],
    ranges: Mapping[str, ParameterRule],
    value: Mapping[str, float],
) -> bool:
    """Whether the method takes a value with all ends of other ranges."""
    for corner in itertools.product(*((rule.low, rule.high) for rule in ranges.values())):
        try:
            method.check({**own, **dict(zip(ranges, corner, strict=True)), **value})
        except ConfigError:
            return False
    return True


def _weights(recipe: Recipe, weight: str) -> dict[str, object]:
    """The fields that weights of blocks are in."""
    architecture = architectures.get(recipe.architecture)
    given = recipe.parameters.get(weight, 0.0)
    there: dict[str, float] = dict(recipe.weights)
    if not there and isinstance(given, int | float):
        there = dict.fromkeys(architecture.blocks, float(given))
    there = {block: min(max(one, LOWEST), HIGHEST) for block, one in there.items()}
    start = {block: one for block, one in there.items() if block in architecture.parameters}
    rules = {block: BlockRule(fixed=one) for block, one in there.items() if block not in start}
    return {
        "low": min((0.0, *start.values())),
        "high": max((1.0, *start.values())),
        "start": weights.format(start) or "{}",
        "rules": rules_text({block: rule for block, rule in rules.items() if rule.fixed}),
    }


def _models(method: LabMethod, named: Mapping[str, str]) -> dict[str, object]:
    """The fields of the models, with their titles."""
    if method.roles:
        titles = {f"model_{role}": named.get(role, "") for role in "abc"}
        return {**titles, "more_models": []}
    many = [title for role, title in sorted(named.items()) if role != BASE]
    first, second, *more = ([named[BASE]] if method.based else []) + [*many, "", ""]
    return {
        "model_a": first,
        "model_b": second,
        "model_c": "",
        "more_models": [title for title in more if title],
    }


def _range(parameter: Parameter, value: ParameterValue) -> ParameterRule:
    assert parameter.low is not None
    assert parameter.high is not None
    given = [*value.values()] if isinstance(value, dict) else [value]
    numbers = [float(one) for one in given if isinstance(one, int | float)]
    return ParameterRule(
        low=max(parameter.low, min((0.0, *(MOST * one for one in numbers)))),
        high=min(parameter.high, max((1.0, *(MOST * one for one in numbers)))),
        per_block=isinstance(value, dict) and parameter.per_block,
    )
