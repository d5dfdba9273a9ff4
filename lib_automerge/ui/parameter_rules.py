"""Parameters of a merge method in the search form: fixed, searched, or as they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lib_automerge.domain.config import ParameterRule
from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter, Settings
from lib_automerge.study.markup import Markup, element
from lib_automerge.ui.texts import reason

SEARCH = "Search"
BY_BLOCK = "Search in each block"
FIX = "Fix"
RESET = "Back to default"
ACTIONS = (SEARCH, BY_BLOCK, FIX, RESET)


class _Rule(ParameterRule, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule of the configuration, or a fixed value."""

    fixed: ParameterValue | None = None


Rules = dict[str, _Rule]


def of_search(method: LabMethod) -> dict[str, Parameter]:
    """The parameters of a method that are not its weight, by name."""
    return {each.name: each for each in method.parameters if each.name != method.weight}


def read(text: str) -> tuple[dict[str, ParameterValue], dict[str, ParameterRule]]:
    """The fixed and the searched parameters of a text.

    Raises:
        ConfigError: it does not hold rules by parameter; the text names the place.
    """
    fixed: dict[str, ParameterValue] = {}
    searched: dict[str, ParameterRule] = {}
    for name, rule in _rules(text).items():
        plain = ParameterRule(
            low=rule.low, high=rule.high, per_block=rule.per_block, values=rule.values
        )
        if rule.fixed is not None:
            fixed[name] = rule.fixed
        if rule.fixed is None or plain != ParameterRule():
            searched[name] = plain
    return fixed, searched


def text_of(fixed: Mapping[str, ParameterValue], searched: Mapping[str, ParameterRule]) -> str:
    """The text of parameters, one a line; `read` gives them again."""
    rules: Rules = {}
    for name in dict.fromkeys((*fixed, *searched)):
        rule = searched.get(name, ParameterRule())
        both = msgspec.to_builtins(rule) | {"fixed": fixed.get(name)}
        rules[name] = msgspec.convert(both, _Rule)
    return _text(rules)


def apply(
    text: str,
    method: LabMethod,
    name: str,
    action: str,
    *,
    low: float | None = None,
    high: float | None = None,
    values: str = "",
) -> str:
    """The text after an action on one parameter.

    Args:
        text: before.
        method: whose parameter it is.
        name: of the parameter.
        action: one of `ACTIONS`.
        low: of the range to search; None is the method's.
        high: as `low`.
        values: to fix it at; or, of a choice or whole number, the ones to try, between commas.

    Raises:
        ConfigError: there is no such parameter, or the action lacks something.
    """
    known = of_search(method)
    if name not in known:
        raise ConfigError(unknown_name(f"parameter of {method.label}", name, known))
    parameter = known[name]
    rules = {each: rule for each, rule in _rules(text).items() if each in known and each != name}
    if action == FIX:
        given = [_value(parameter, part) for part in _parts(values)]
        if len(given) != 1:
            raise ConfigError(f'enter one value under "Value", to fix {name} at.')
        Settings(method.name, [parameter], {name: given[0]})
        rules[name] = _Rule(fixed=given[0])
    elif action in (SEARCH, BY_BLOCK):
        rules[name] = _searched(parameter, action, low, high, values)
    return _text(rules)


def table(method: LabMethod, text: str) -> Markup:
    """What is done with every parameter.

    Raises:
        ConfigError: see `read`.
    """
    fixed, searched = read(text)
    known = of_search(method)
    stale = [name for name in (*fixed, *searched) if name not in known]
    rows = [
        element(
            "tr",
            element("th", each.name, scope="row"),
            element("td", each.help),
            element("td", _done(each, fixed, searched)),
        )
        for each in known.values()
    ]
    if not rows and not stale:
        return element("p", f"{method.label} has no other parameters.", class_="automerge-quiet")
    told = ""
    if stale:
        told = f'{", ".join(stale)}: {method.label} has no such parameter. Press "All default".'
    return element(
        "div",
        element("table", element("tbody", *rows)),
        element("p", told, class_="automerge-error", role="alert") if told else "",
        class_="automerge-space",
    )


def _done(
    parameter: Parameter,
    fixed: Mapping[str, ParameterValue],
    searched: Mapping[str, ParameterRule],
) -> str:
    rule = searched.get(parameter.name)
    if rule is None:
        if parameter.name in fixed:
            value = fixed[parameter.name]
            return "fixed by block" if isinstance(value, dict) else f"fixed at {value}"
        return f"{parameter.default}, the default"
    if rule.values:
        return "one of " + ", ".join(map(str, rule.values))
    low = parameter.low if rule.low is None else rule.low
    high = parameter.high if rule.high is None else rule.high
    each = ", in each block" if rule.per_block else ""
    each = ", for each model" if parameter.kind == "number per model" else each
    return f"searched from {low:g} to {high:g}{each}"


def _searched(
    parameter: Parameter, action: str, low: float | None, high: float | None, values: str
) -> _Rule:
    name = parameter.name
    if action == BY_BLOCK and not parameter.per_block:
        raise ConfigError(f'{name} is one value for the whole merge. Choose "{SEARCH}".')
    if parameter.kind == "number" or parameter.kind == "number per model":
        return _Rule(low=low, high=high, per_block=action == BY_BLOCK)
    tried = [_value(parameter, part) for part in _parts(values)]
    if not tried and parameter.kind == "true or false":
        tried = [True, False]
    tried = tried or list(parameter.choices)
    if len(tried) < 2:
        raise ConfigError(f'enter the values to try for {name} under "Value", like 10, 20, 50.')
    return _Rule(values=tuple(tried))


def _parts(values: str) -> list[str]:
    return [part.strip() for part in values.split(",") if part.strip()]


def _value(parameter: Parameter, text: str) -> str | bool | int | float:
    if parameter.kind == "choice":
        return text
    if parameter.kind == "true or false":
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{parameter.name} is true or false, not {text!r}.")
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError as error:
        raise ConfigError(f"{parameter.name} is a number, not {text!r}.") from error
    return int(number) if parameter.kind == "whole number" and number == int(number) else number


def _rules(text: str) -> Rules:
    try:
        return msgspec.json.decode(text or "{}", type=Rules)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the parameters as text cannot be read: {reason(error)}. Correct the text, or press "
            '"All default".'
        ) from error


def _text(rules: Rules) -> str:
    lines = []
    for name, rule in rules.items():
        told = {
            field: value
            for field, value in msgspec.to_builtins(rule).items()
            if value not in (None, False, [], ())
        }
        if rule.fixed is not None:
            told["fixed"] = rule.fixed
        lines.append(f"{msgspec.json.encode(name).decode()}: {msgspec.json.encode(told).decode()}")
    return "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
