"""What fields of the form are: their kinds, labels, defaults, and how their values are read.

A field's name is the key of its value in drafts and the end of its element id. Values are what
plain components hold: texts, numbers, truth values, labels and lists of names.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping

import msgspec

from lib_automerge.errors import ConfigError


class Kind(enum.Enum):
    """What a field holds, and so how it looks."""

    TEXT = "one line of text"
    LINES = "text of several lines"
    NUMBER = "a number, or None"
    WHOLE = "a whole number, or None"
    OPTIONAL = "a number as text, or an empty text"
    CHECK = "a truth value"
    RADIO = "one of few labels"
    CHOICE = "one of many labels"
    OFFERED = "one of the names that the host offers, or an empty text"
    NAMES = "a list of names that the host offers"
    TICKS = "a list of some of few labels"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field. `choices` are the labels of RADIO, CHOICE and TICKS."""

    name: str
    kind: Kind
    label: str
    default: str | float | bool | tuple[str, ...] | None
    info: str = ""
    choices: tuple[str, ...] = ()
    placeholder: str = ""

    @property
    def empty(self) -> object:
        """The default as a component takes it."""
        return list(self.default) if isinstance(self.default, tuple) else self.default


class Labels:
    """Names of the configuration and the labels that stand for them in the form, both ways."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._names = {label: name for name, label in labels.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in order."""
        return tuple(self._names)

    def label(self, name: str) -> str:
        """The label of a name; an unknown name stands for itself."""
        return self._labels.get(name, name)

    def name(self, label: str) -> str:
        """The name of a label; an unknown label stands for itself."""
        return self._names.get(label, label)


class Reader:
    """Values of a form, read as what they must be.

    Args:
        fields: the fields of the form.
        values: by field name; a missing one counts as empty.
    """

    def __init__(self, fields: Iterable[Field], values: Mapping[str, object]) -> None:
        self._fields = {field.name: field for field in fields}
        self._values = values

    def text(self, name: str) -> str:
        """The text without white space around it; empty if there is none."""
        value = self._values.get(name)
        return "" if value is None else str(value).strip()

    def names(self, name: str) -> tuple[str, ...]:
        """The list of names."""
        value = self._values.get(name)
        return tuple(str(one) for one in value) if isinstance(value, list | tuple) else ()

    def check(self, name: str) -> bool:
        """Whether the box is ticked."""
        return bool(self._values.get(name))

    def number_or_none(self, name: str) -> float | None:
        """The number; None if the field is empty.

        Raises:
            ConfigError: it is not a finite number.
        """
        value = self._values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise ConfigError(
                f'"{self._fields[name].label}" is not a number: {value!r}. Enter a number.'
            )
        return found

    def number(self, name: str) -> float:
        """The number.

        Raises:
            ConfigError: the field is empty, or it is not a finite number.
        """
        found = self.number_or_none(name)
        if found is None:
            field = self._fields[name]
            raise ConfigError(f'"{field.label}" is empty. Enter a number, like {field.default}.')
        return found

    def whole(self, name: str) -> int:
        """The whole number.

        Raises:
            ConfigError: the field is empty, or it is not a whole number.
        """
        return self._whole(name, self.number(name))

    def whole_or_none(self, name: str) -> int | None:
        """The whole number; None if the field is empty.

        Raises:
            ConfigError: it is not a whole number.
        """
        found = self.number_or_none(name)
        return None if found is None else self._whole(name, found)

    def _whole(self, name: str, found: float) -> int:
        if found != int(found):
            raise ConfigError(
                f'"{self._fields[name].label}" is {found:g}. Enter a whole number, like '
                f"{int(found)}."
            )
        return int(found)


def defaults(fields: Iterable[Field]) -> dict[str, object]:
    """The values of an untouched form."""
    return {field.name: field.empty for field in fields}


def clean(fields: Iterable[Field], raw: Mapping[str, object]) -> dict[str, object]:
    """The values of a draft that still mean something; defaults stand in for the others."""
    return {
        field.name: raw[field.name]
        if field.name in raw and _fits(field, raw[field.name])
        else field.empty
        for field in fields
    }


def _fits(field: Field, value: object) -> bool:
    if field.kind is Kind.CHECK:
        return isinstance(value, bool)
    if field.kind in (Kind.NUMBER, Kind.WHOLE):
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return value is None or (numeric and math.isfinite(float(value)))  # type: ignore[arg-type]
    if field.kind is Kind.TICKS:
        return isinstance(value, list) and all(one in field.choices for one in value)
    if field.kind is Kind.NAMES:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if field.choices:
        return value in field.choices
    return isinstance(value, str)
