"""HTML and SVG as values: every string is text and gets escaped unless it is `Markup`.

Hides escaping, so that a prompt, a file name or an error message can never become code in a page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "img", "input", "meta"})


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


EMPTY = Markup()


def join(parts: Iterable[str], separator: Markup = EMPTY) -> Markup:
    """The parts in a row; those that are plain text are escaped."""
    return Markup(separator.join(_escaped(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element with its children in order; plain strings among them are escaped.

    Attribute names lose a trailing underscore (`class_`) and get hyphens for the others
    (`aria_label`). True stands for an attribute without a value; None and False leave it out;
    numbers are written with at most two decimals.
    """
    opening = name + "".join(
        _attribute(key, value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def _attribute(key: str, value: str | float | bool) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = html.escape(value) if isinstance(value, str) else compact(value)
    return f' {name}="{text}"'


def compact(value: float) -> str:
    """A number with at most two decimals and no trailing zeros: 3, 0.25, -1.5."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _escaped(part: str) -> str:
    return part if isinstance(part, Markup) else html.escape(part)
