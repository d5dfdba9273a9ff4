"""Parameters of a merge method in the search form: fixed, searched, or as they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lib_automerge.domain.config import ParameterRule
from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter, Settings
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui.texts import reason

SEARCH = "Search"
BY_BLOCK = "Search in each block"
FIX = "Fix"
RESET = "Back to default"
ACTIONS = (SEARCH, BY_BLOCK, FIX, RESET)


class _Rule(ParameterRule, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule of the configuration, or a fixed value.

    `start` is what a searched parameter is where the search does not name it: at the beginning, and
    in blocks that are not searched.
    """

    fixed: ParameterValue | None = None
    start: ParameterValue | None = None


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
        if rule.fixed is not None:
            if rule != _Rule(fixed=rule.fixed):
                raise ConfigError(
                    f"the parameters as text fix {name} and search it too. Keep one of them; "
                    '"start" is where its search begins.'
                )
            fixed[name] = rule.fixed
            continue
        if rule.start is not None:
            fixed[name] = rule.start
        searched[name] = ParameterRule(
            low=rule.low, high=rule.high, per_block=rule.per_block, values=rule.values
        )
    return fixed, searched


def text_of(fixed: Mapping[str, ParameterValue], searched: Mapping[str, ParameterRule]) -> str:
    """The text of parameters, one a line; `read` gives them again."""
    rules: Rules = {}
    for name in dict.fromkeys((*fixed, *searched)):
        rule = searched.get(name)
        if rule is None:
            rules[name] = _Rule(fixed=fixed[name])
        else:
            rules[name] = _Rule(
                low=rule.low,
                high=rule.high,
                per_block=rule.per_block,
                values=rule.values,
                start=fixed.get(name),
            )
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
        values: to fix it at; or the ones to try, between commas.

    Raises:
        ConfigError: there is no such parameter, or the action lacks something or does not allow it.
    """
    known = of_search(method)
    if not name:
        raise ConfigError('choose a parameter first, under "Parameter".')
    if name not in known:
        raise ConfigError(unknown_name(f"parameter of {method.label}", name, known))
    parameter = known[name]
    given = [_value(method, parameter, part) for part in _parts(values)]
    kept = {*known, method.weight} - {name}
    rules = {each: rule for each, rule in _rules(text).items() if each in kept}
    if action == FIX:
        if len(given) != 1:
            raise ConfigError(f'enter one value under "Value", to fix {name} at.')
        rules[name] = _Rule(fixed=given[0])
    elif action in (SEARCH, BY_BLOCK):
        rules[name] = _searched(parameter, action, low, high, given)
    elif action != RESET:
        raise ConfigError(unknown_name("action", action, ACTIONS))
    return _text(rules)


def table(method: LabMethod, text: str) -> Markup:
    """What is done with every parameter.

    Raises:
        ConfigError: see `read`.
    """
    fixed, searched = read(text)
    known = of_search(method)
    if method.weight in fixed:
        known = {each.name: each for each in method.parameters}
    stale = [name for name in dict.fromkeys((*fixed, *searched)) if name not in known]
    rows = [
        element(
            "tr",
            element("th", each.name, scope="row", title=each.help),
            element("td", *_done(each, fixed, searched)),
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
        element("table", element("tbody", *rows)) if rows else EMPTY,
        element("p", told, class_="automerge-error", role="alert") if told else EMPTY,
        class_="automerge-space automerge-parameters",
    )


def _done(
    parameter: Parameter,
    fixed: Mapping[str, ParameterValue],
    searched: Mapping[str, ParameterRule],
) -> tuple[Markup | str, ...]:
    """What is done with a parameter, and then what it does, for those who do not know it."""
    rule = searched.get(parameter.name)
    about = element("span", parameter.help, class_="automerge-help")
    if rule is None:
        given = fixed.get(parameter.name)
        if given is None:
            return f"{_told(parameter.default)}, the default", about
        return element("b", f"fixed {_at(given)}"), about
    start = fixed.get(parameter.name)
    begins = "" if start is None else f"; begins {_at(start)}"
    if rule.values:
        told = "one of " + ", ".join(map(_told, rule.values))
    else:
        low = parameter.low if rule.low is None else rule.low
        high = parameter.high if rule.high is None else rule.high
        told = "searched" if low is None or high is None else f"searched from {low:g} to {high:g}"
    each = ", in each block" if rule.per_block else ""
    each = ", for each model" if parameter.kind == "number per model" else each
    chip = element("span", told + each, class_="automerge-chip automerge-chip-free")
    return chip, begins.removeprefix("; "), about


def _at(value: ParameterValue) -> str:
    if isinstance(value, dict):
        return "by block or model"
    return f"at {_told(value)}"


def _told(value: str | bool | float) -> str:
    """A value as it is entered."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _searched(
    parameter: Parameter,
    action: str,
    low: float | None,
    high: float | None,
    tried: Sequence[str | bool | float],
) -> _Rule:
    name = parameter.name
    if action == BY_BLOCK and not parameter.per_block:
        raise ConfigError(
            f'the parameter {name} is one value for the whole merge. Choose "{SEARCH}".'
        )
    if parameter.kind == "true or false":
        tried = tried or (True, False)
    tried = tried or parameter.choices
    ranged = parameter.kind in ("number", "number per model")
    if ranged and not tried:
        assert parameter.low is not None
        assert parameter.high is not None
        least = parameter.low if low is None else low
        most = parameter.high if high is None else high
        if not parameter.low <= least < most <= parameter.high:
            raise ConfigError(
                f"the parameter {name} cannot be searched from {least:g} to {most:g}. It must be "
                f"within {parameter.low:g} to {parameter.high:g}, the lower number first."
            )
        return _Rule(low=low, high=high, per_block=action == BY_BLOCK)
    if low is not None or high is not None:
        raise ConfigError(f'the parameter {name} has values to try. Leave "Low" and "High" empty.')
    if parameter.kind == "number per model" or action == BY_BLOCK:
        raise ConfigError(f'the parameter {name} is searched in a range. Leave "Value" empty.')
    if len({*map(repr, tried)}) < max(2, len(tried)):
        raise ConfigError(
            f'enter two or more different values to try for {name} under "Value", like '
            f"{', '.join(parameter.choices[:2]) or '10, 20, 50'}."
        )
    return _Rule(values=tuple(tried))


def _parts(values: str) -> list[str]:
    return [part.strip() for part in values.split(",") if part.strip()]


def _value(method: LabMethod, parameter: Parameter, text: str) -> str | bool | float:
    """A value of a parameter from what was entered.

    Raises:
        ConfigError: it is none, or out of range.
    """
    value: str | bool | float = text
    if parameter.kind == "true or false":
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif parameter.kind != "choice":
        try:
            value = float(text)
        except ValueError as error:
            raise ConfigError(f"{parameter.name} is a number, not {text!r}.") from error
    if parameter.kind == "number per model":
        assert isinstance(value, float)
        Settings(method.label, [parameter], {parameter.name: {"m001": value}}, roles=["m001"])
        return value
    return Settings(method.label, [parameter], {parameter.name: value}).given[parameter.name]  # type: ignore[return-value]


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
            if value is not None and (value or field not in ("per_block", "values"))
        }
        lines.append(f"{msgspec.json.encode(name).decode()}: {msgspec.json.encode(told).decode()}")
    return "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
