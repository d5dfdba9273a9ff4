"""The edited payloads: what the editor's buttons do to the list, and its table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.domain.payload import Payload, named
from lib_automerge.errors import ConfigError
from lib_automerge.study.formats import plural, shortened
from lib_automerge.study.markup import EMPTY, Markup, element, join

Payloads = tuple[Payload, ...]

PROMPT_LENGTH = 70
"""Characters of a prompt that the table shows; the rest is in the cell's title."""


def add(payloads: Payloads, new: Payload) -> tuple[Payloads, str]:
    """The list with one more at its end, under its own name or the next free one; and that name.

    Raises:
        ConfigError: a value of the new one is out of range.
    """
    name = free_name(new.name, payloads)
    return (*named([*payloads, msgspec.structs.replace(new, name=name)]),), name


def replace(payloads: Payloads, name: str, new: Payload) -> tuple[Payloads, str]:
    """The list with another payload in the place of one; and the name that it has now.

    Raises:
        ConfigError: there is none of this name, the new name is taken, or a value is out of range.
    """
    position = _position(payloads, name)
    new = msgspec.structs.replace(new, name=new.name or name)
    return named([*payloads[:position], new, *payloads[position + 1 :]]), new.name


def remove(payloads: Payloads, name: str) -> tuple[Payloads, str]:
    """The list without one of its payloads; and the name of its neighbour, empty if there is none.

    Raises:
        ConfigError: there is none of this name.
    """
    position = _position(payloads, name)
    rest = (*payloads[:position], *payloads[position + 1 :])
    return rest, rest[min(position, len(rest) - 1)].name if rest else ""


def duplicate(payloads: Payloads, name: str) -> tuple[Payloads, str]:
    """The list with a copy after one of its payloads; and the name of the copy.

    Raises:
        ConfigError: there is none of this name.
    """
    position = _position(payloads, name)
    copy = free_name(name, payloads)
    twin = msgspec.structs.replace(payloads[position], name=copy)
    return (*payloads[: position + 1], twin, *payloads[position + 1 :]), copy


def find(payloads: Sequence[Payload], name: str) -> Payload | None:
    """The payload of this name, if there is one."""
    return next((payload for payload in payloads if payload.name == name), None)


def free_name(wanted: str, payloads: Sequence[Payload]) -> str:
    """A name that no payload has: the wanted one, or that with a number, or the next `p01`."""
    taken = {payload.name for payload in payloads}
    number = len(payloads) + 1
    while f"p{number:02d}" in taken:
        number += 1
    name = wanted or f"p{number:02d}"
    suffix = 1
    while name in taken:
        suffix += 1
        name = f"{wanted} ({suffix})"
    return name


def count_sentence(payloads: Sequence[Payload], seeds_per_payload: int) -> str:
    """How many images a candidate is judged by, and how that comes about."""
    searched = [payload for payload in payloads if not payload.held_out]
    images = sum(len(payload.seeds) or seeds_per_payload for payload in searched)
    held_out = len(payloads) - len(searched)
    if any(payload.seeds for payload in searched):
        whose = "its own" if len(searched) == 1 else "their"
        how = f"{plural(len(searched), 'prompt')} with {whose} seeds"
    else:
        how = f"{plural(len(searched), 'prompt')} x {plural(seeds_per_payload, 'seed')}"
    return (
        f"Images per try: {images} ({how}). Held out for the verdict: {plural(held_out, 'prompt')}."
    )


def table(payloads: Sequence[Payload], selected: str) -> Markup:
    """The payloads as a table; the name of each is a button that selects it."""
    if not payloads:
        return element("p", "There are no prompts yet. Choose a set, or add one below.")
    columns = ("Name", "Prompt", "Negative", "Size", "Steps", "Sampler", "Seeds", "Weight")
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    return element(
        "div",
        element(
            "table",
            element("caption", "Choose a prompt to edit it below.", class_="automerge-quiet"),
            element("thead", head),
            element("tbody", join(_row(payload, selected) for payload in payloads)),
        ),
        class_="automerge-payloads",
    )


def _row(payload: Payload, selected: str) -> Markup:
    chosen = payload.name == selected
    button = element(
        "button",
        payload.name,
        type="button",
        class_="automerge-pick",
        data_payload=payload.name,
        aria_pressed="true" if chosen else "false",
    )
    sampler = payload.sampler
    if payload.scheduler != "Automatic":
        sampler = f"{sampler}, {payload.scheduler}"
    size = f"{payload.width}x{payload.height}"
    if payload.hires is not None:
        size += ", hires"
    cells = (
        element("td", shortened(payload.prompt, PROMPT_LENGTH), title=payload.prompt),
        element("td", shortened(payload.negative_prompt, 24), title=payload.negative_prompt),
        element("td", size),
        element("td", str(payload.steps)),
        element("td", sampler),
        element("td", str(len(payload.seeds)) if payload.seeds else "run's"),
        element("td", f"{payload.weight:g}"),
    )
    held_out = element("span", "held out", class_="tag") if payload.held_out else EMPTY
    return element(
        "tr",
        element("th", button, held_out, scope="row"),
        *cells,
        data_payload=payload.name,
        class_="automerge-chosen" if chosen else None,
    )


def _position(payloads: Sequence[Payload], name: str) -> int:
    for position, payload in enumerate(payloads):
        if payload.name == name:
            return position
    raise ConfigError(f"there is no prompt {name!r}. Choose one in the table.")
