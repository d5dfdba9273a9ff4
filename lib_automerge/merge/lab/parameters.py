"""Parameters of merge methods: described once, in the signature of the method's function.

    def ties(stack: Stack, *, k: Annotated[float, Within(0, 1, "share that is kept")] = 0.2)

The annotation gives kind, range and help, the default is the default; `describe` reports them and
`Settings` checks values against them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.errors import ConfigError, unknown_name

Kind = Literal["number", "whole number", "true or false", "choice", "number per model"]
Given = float | int | str | bool | Mapping[str, float]
"""A parameter in a recipe: one value, or block -> number, or role -> number."""

_KINDS: Mapping[object, Kind] = {float: "number", int: "whole number", bool: "true or false"}


@dataclass(frozen=True)
class Within:
    """Range (both ends included) and help of a number; `each` tells what may differ by name.

    Attributes:
        unnamed: the value of blocks that a mapping does not name; None means the default.
    """

    low: float
    high: float
    help: str
    each: Literal["merge", "block", "model"] = "merge"
    unnamed: float | None = None


@dataclass(frozen=True)
class Help:
    """Help of a parameter without a range."""

    help: str


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a method.

    Attributes:
        name: as in recipes.
        kind: of its value.
        default: what it is if it is not given.
        low: smallest value of a number.
        high: largest value of a number.
        choices: of a choice.
        help: what it does.
        per_block: whether a mapping of blocks to numbers may be given.
        unnamed: the value of blocks that such a mapping does not name.
    """

    name: str
    kind: Kind
    default: float | str | bool
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    help: str
    per_block: bool
    unnamed: float | None


def describe(function: Callable[..., object]) -> tuple[Parameter, ...]:
    """Return the parameters in the signature of a method's function: its annotated keywords.

    Raises:
        TypeError: a keyword has no default, or an annotation that cannot be a parameter.
    """
    hints = get_type_hints(function, include_extras=True)
    return tuple(
        _described(parameter, hints[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
        if get_origin(hints.get(parameter.name)) is Annotated
    )


def _described(parameter: inspect.Parameter, hint: Any) -> Parameter:
    plain, note = get_args(hint)
    if parameter.default is inspect.Parameter.empty:
        raise TypeError(f"parameter {parameter.name} has no default")
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    ranged = isinstance(note, Within)
    kind = "choice" if choices else _KINDS.get(plain)
    if ranged and note.each == "model":
        kind = "number per model"
    if kind is None or ranged != (kind not in ("choice", "true or false")):
        raise TypeError(f"parameter {parameter.name} cannot be described: {hint}")
    per_block = ranged and note.each == "block"
    unnamed = parameter.default if ranged and note.unnamed is None else None
    return Parameter(
        name=parameter.name,
        kind=kind,
        default=1.0 if kind == "number per model" else parameter.default,
        low=note.low if ranged else None,
        high=note.high if ranged else None,
        choices=choices,
        help=note.help,
        per_block=per_block,
        unnamed=(note.unnamed if note.unnamed is not None else unnamed) if per_block else None,
    )


class Settings:
    """Checked values of a method's parameters.

    Args:
        method: how errors call it.
        known: its parameters.
        given: values by name; the others have their defaults.
        blocks: the names of blocks that mappings may use.
        roles: the roles of the models, without the base, in order.

    Attributes:
        given: what was given, each number of the kind that its parameter has.

    Raises:
        ConfigError: a name, a kind, a block or a value is wrong; says what is allowed.
    """

    def __init__(
        self,
        method: str,
        known: Sequence[Parameter],
        given: Mapping[str, Given],
        *,
        blocks: Sequence[str] = (),
        roles: Sequence[str] = (),
    ) -> None:
        self._method = method
        by_name = {parameter.name: parameter for parameter in known}
        for name in given:
            if name not in by_name:
                if not by_name:
                    raise ConfigError(f"the method {method} takes no parameters: {name!r}.")
                raise ConfigError(unknown_name(f"parameter of {method}", name, by_name))
        self._plain: dict[str, object] = {}
        self._by_block: dict[str, Mapping[str, float]] = {}
        self._unnamed: dict[str, float | None] = {}
        self.given: dict[str, ParameterValue] = {}
        for parameter in known:
            value = given.get(parameter.name, parameter.default)
            if parameter.kind == "number per model":
                self._plain[parameter.name] = self._per_model(parameter, value, roles)
            elif isinstance(value, Mapping):
                self._by_block[parameter.name] = self._per_block(parameter, value, blocks)
                self._unnamed[parameter.name] = parameter.unnamed
            else:
                self._plain[parameter.name] = self._checked(parameter, value)
            if parameter.name in given:
                self.given[parameter.name] = self._normal(parameter, value)

    def at(self, block: str | None) -> dict[str, Any]:
        """Return the values for one block as keywords of the method's function."""
        named = {
            name: values.get(block or "", self._unnamed[name])
            for name, values in self._by_block.items()
        }
        return {**self._plain, **named}

    def _per_block(
        self, parameter: Parameter, value: Mapping[str, float], blocks: Sequence[str]
    ) -> Mapping[str, float]:
        if not parameter.per_block:
            raise ConfigError(
                f"{parameter.name} of {self._method} is one {parameter.kind} for the whole merge: "
                f"{dict(value)}. Give one value."
            )
        for block in value:
            if block not in blocks:
                raise ConfigError(unknown_name("block", block, blocks))
        return {b: float(self._checked(parameter, number)) for b, number in value.items()}  # type: ignore[arg-type]

    def _per_model(
        self, parameter: Parameter, value: Given, roles: Sequence[str]
    ) -> tuple[float, ...]:
        named = value if isinstance(value, Mapping) else dict.fromkeys(roles, value)
        for role in named:
            if role not in roles:
                raise ConfigError(unknown_name(f"model in {parameter.name}", role, roles))
        numbers = [self._checked(parameter, named.get(role, parameter.default)) for role in roles]
        return tuple(float(number) for number in numbers)  # type: ignore[arg-type]

    def _normal(self, parameter: Parameter, value: Given) -> ParameterValue:
        if isinstance(value, Mapping):
            return {name: float(number) for name, number in value.items()}
        checked = self._checked(parameter, value)
        assert isinstance(checked, int | float | str | bool)
        return checked

    def _checked(self, parameter: Parameter, value: object) -> object:
        kind, name = parameter.kind, f"{parameter.name} of {self._method}"
        if kind == "choice":
            if value not in parameter.choices:
                raise ConfigError(unknown_name(name, str(value), parameter.choices))
            return value
        if kind == "true or false":
            if not isinstance(value, bool):
                raise ConfigError(f"{name} must be true or false: {value!r}.")
            return value
        whole = kind == "whole number"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or (whole and value != int(value)):  # type: ignore[arg-type, call-overload]
            raise ConfigError(f"{name} must be a {kind.removesuffix(' per model')}: {value!r}.")
        assert isinstance(value, int | float)
        assert parameter.low is not None
        assert parameter.high is not None
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(
                f"{name} is {value:g}. It must be from {parameter.low:g} to {parameter.high:g}."
            )
        return int(value) if whole else float(value)
