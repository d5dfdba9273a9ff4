"""Block weights as text: named, or as the bare lists of numbers that other tools exchange.

Tools agree neither on the order of such a list nor on which blocks it holds, and a list does not
say which tool wrote it. So an order always has a name (`data/weight_orders.json`), and a list
without one is refused with the orders that it could have.

Weights are a mapping from block to number; 0 keeps model A, and so does a missing block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.keylists import DATA
from lib_automerge.errors import ConfigError, unknown_name

NAMED = "named"
"""The order that is none: every number with its block, `IN00:0.5,M00:1`."""

_LAST_OUT = "OUT{last}"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order of weights in circulation.

    Attributes:
        used_by: who writes lists in this order.
        architectures: what such a list can be for; the first is assumed unless told otherwise.
        blocks: the block of each position; `BASE` stands for all text encoders, and any other name
            that is no block for those that follow it. `IN04.1` is a part of IN04, whose parts
            must all have the same weight.
        follows: block without a position -> block whose weight the tool gives it; `OUT{last}` is
            the last numbered OUT block.
    """

    used_by: str
    architectures: tuple[str, ...]
    blocks: tuple[str, ...]
    follows: dict[str, str]


@cache
def _orders() -> dict[str, Order]:
    raw = (DATA / "weight_orders.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, Order])


def orders() -> dict[str, str]:
    """Return every order's name with its length and a phrase that says who uses it."""
    listed = {name: f"{len(o.blocks)} numbers: {o.used_by}" for name, o in _orders().items()}
    return {NAMED: "block:number pairs or a JSON object, in any order"} | listed


def fitting(architecture: Architecture | str) -> list[str]:
    """Return the orders that a list for this architecture can have, `named` first."""
    target = _architecture(architecture)
    return [NAMED, *(n for n, o in _orders().items() if target.name in o.architectures)]


def of_length(length: int) -> tuple[str, ...]:
    """Return the orders of lists with so many numbers."""
    return tuple(name for name, order in _orders().items() if len(order.blocks) == length)


def blocks_of(order: str) -> tuple[str, ...]:
    """Return the block of each position of an order.

    Raises:
        ConfigError: unknown order.
    """
    return _order(order).blocks


def architectures_of(order: str) -> tuple[str, ...]:
    """Return the architectures that a list in this order can be for.

    Raises:
        ConfigError: unknown order.
    """
    return _order(order).architectures


def without_order(length: int) -> ConfigError:
    """The error for a list that can be in several orders, or in none: it names those there are."""
    return ConfigError(
        f"a list of {length} numbers does not say which block each is for. {_candidates(length)}"
    )


def from_list(
    values: Sequence[float], order: str, architecture: Architecture | str | None = None
) -> dict[str, float]:
    """Return the weights that a list means.

    Positions of blocks that the architecture lacks are dropped, as those tools do: 25 numbers for
    SDXL keep IN00-IN08, M00 and OUT00-OUT08.

    Args:
        values: one number for each position of the order.
        order: a name of `orders`, but not `named`.
        architecture: what the weights are for; None takes the order's own.

    Returns:
        Weights in the canonical order of blocks, without those that the list says nothing about.

    Raises:
        ConfigError: unknown order, one that is not for this architecture, a wrong number of values,
            a value that is not a finite number, or parts of a block that differ.
    """
    known = _order(order)
    if len(values) != len(known.blocks):
        raise ConfigError(
            f"the order {order!r} has {len(known.blocks)} numbers, the list has {len(values)}. "
            + _candidates(len(values))
        )
    named = dict(zip(known.blocks, values, strict=True))
    for block, value in named.items():
        _check_number(block, value)
    if architecture is None and not known.architectures:
        return named
    target = _architecture(architecture or known.architectures[0])
    if target.name not in known.architectures:
        fitting = ", ".join(n for n, o in _orders().items() if target.name in o.architectures)
        raise ConfigError(f"the order {order!r} is not for {target.label}. Use one of: {fitting}.")
    for block in target.blocks:
        _check_parts(block, {part: named[part] for part in _parts(block, known)})
    sources = {block: _source(block, known, target.blocks) for block in target.blocks}
    return {block: float(named[source]) for block, source in sources.items() if source in named}


def to_list(weights: Mapping[str, float], order: str) -> list[float]:
    """Return the weights as a list in this order; blocks without a weight count as 0.

    A block that the order has no position for is left out; `lost` names those that matter.

    Raises:
        ConfigError: unknown order.
    """
    known = _order(order)
    encoders = [value for block, value in weights.items() if block.startswith("BASE_")]
    held = {"BASE": encoders[0]} if encoders else {}
    own = {block for name in known.architectures for block in architectures.get(name).blocks}
    for block, position in known.follows.items():
        # BASE is told by the text encoders above
        if position not in own and position != "BASE" and block in weights:
            held.setdefault(position, weights[block])
    held |= weights
    return [float(held.get(block.partition(".")[0], 0.0)) for block in known.blocks]


def lost(weights: Mapping[str, float], order: str) -> dict[str, float]:
    """Return those of the weights that a tool reading `to_list` would set to something else.

    Raises:
        ConfigError: unknown order.
    """
    known = _order(order)
    told = dict(zip(known.blocks, to_list(weights, order), strict=True))
    return {
        block: value
        for block, value in weights.items()
        if told.get(_source(block, known, weights), 0.0) != value
    }


def position(block: str, order: str, architecture: Architecture) -> str:
    """Return the position of an order, or the first of several, that a block's weight comes from.

    A block that the order says nothing about is returned as it is.

    Raises:
        ConfigError: unknown order.
    """
    return _source(block, _order(order), architecture.blocks)


def effect(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights that change anything: all but those that keep model A."""
    return {block: weight for block, weight in weights.items() if weight}


def parse(
    text: str, order: str | None = None, architecture: Architecture | str | None = None
) -> dict[str, float]:
    """Read weights from text: `IN00:0.5,M00=1`, a JSON object, or a list in a named order.

    A JSON object may also be a recipe, or anything else with a `weights` object in it.

    Args:
        text: separated by commas, semicolons or line breaks.
        order: a name of `orders`; needed for a bare list.
        architecture: checks the block names, and spreads `BASE` over its text encoders.

    Raises:
        ConfigError: not readable; a list without an order, with the orders of its length; an
            unknown order or block; a value that is not a finite number.
    """
    content = read(text)
    if isinstance(content, list):
        if order is None or order == NAMED:
            raise without_order(len(content))
        return from_list(content, order, architecture)
    for block, value in content.items():
        _check_number(block, value)
    named = {block.upper(): float(value) for block, value in content.items()}
    if architecture is None:
        return named
    target = _architecture(architecture)
    if "BASE" in named and "BASE" not in target.blocks:
        base = named.pop("BASE")
        named = dict.fromkeys(target.text_encoders, base) | named
    validate(named, target)
    return named


def read(text: str) -> dict[str, Any] | list[Any]:
    """Return what a text holds: values by block, or a bare list; neither is checked.

    Raises:
        ConfigError: it is neither, or is empty.
    """
    stripped = text.strip()
    if stripped.startswith(("{", "[")):
        return _read_json(stripped)
    parts = [part.strip() for part in re.split(r"[,;\n]", stripped) if part.strip()]
    if not parts:
        raise ConfigError("there are no weights: the text is empty. Give pairs like IN00:0.5.")
    pairs = [re.split(r"\s*[:=]\s*", part) for part in parts]
    if all(len(pair) == 1 for pair in pairs):
        return [_number(pair[0]) for pair in pairs]
    named: dict[str, Any] = {}
    for part, pair in zip(parts, pairs, strict=True):
        if len(pair) != 2:
            raise ConfigError(f"not a weight: {part!r}. Write pairs like IN00:0.5.")
        if pair[0].upper() in named:
            raise ConfigError(f"two weights for one block: {pair[0]!r}. Keep one of them.")
        named[pair[0].upper()] = _number(pair[1])
    return named


def numbers(values: object) -> tuple[float, ...]:
    """Return a list that `read` returned as finite numbers.

    Raises:
        ConfigError: it is no list, or a value is not a finite number.
    """
    if not isinstance(values, list):
        raise ConfigError("there is no list of weights. Give the numbers, separated by commas.")
    for position, value in enumerate(values):
        _check_number(f"position {position}", value)
    return tuple(float(value) for value in values)


def format(weights: Mapping[str, float], order: str = NAMED) -> str:
    """Return the weights as one line of text that `parse` reads back with the same order.

    Raises:
        ConfigError: unknown order.
    """
    if order == NAMED:
        return ",".join(f"{block}:{_short(value)}" for block, value in weights.items())
    return ",".join(_short(value) for value in to_list(weights, order))


def convert(
    text: str,
    from_order: str | None,
    to_order: str,
    architecture: Architecture | str | None = None,
) -> str:
    """Return weights in another order: `format(parse(text, from_order), to_order)`.

    Raises:
        ConfigError: see `parse`.
    """
    return format(parse(text, from_order, architecture), to_order)


def validate(weights: Mapping[str, float], architecture: Architecture | str) -> None:
    """Check that weights can be merged with.

    Raises:
        ConfigError: a block that the architecture has not, with the nearest name; or a weight that
            is not a finite number.
    """
    target = _architecture(architecture)
    for block, value in weights.items():
        if block not in target.blocks:
            raise ConfigError(unknown_name(f"block of {target.label}", block, target.blocks))
        _check_number(block, value)


def _order(name: str) -> Order:
    if name not in _orders():
        raise ConfigError(unknown_name("order of weights", name, _orders()))
    return _orders()[name]


def _architecture(architecture: Architecture | str) -> Architecture:
    if isinstance(architecture, Architecture):
        return architecture
    return architectures.get(architecture)


def _source(block: str, order: Order, blocks: Iterable[str]) -> str:
    """Return the name under which an order holds the weight of one of the blocks."""
    parts = _parts(block, order)
    if parts:
        return parts[0]
    if block.startswith("BASE") and block not in order.follows:
        return "BASE"
    last = max((name for name in blocks if _is_numbered_out(name)), default="")
    return order.follows.get(block, block).replace(_LAST_OUT, last)


def _parts(block: str, order: Order) -> list[str]:
    return [name for name in order.blocks if name.partition(".")[0] == block]


def _check_parts(block: str, parts: Mapping[str, float]) -> None:
    first = next(iter(parts), "")
    for part, value in parts.items():
        if value != parts[first]:
            raise ConfigError(
                f"the list gives parts of {block} different weights: {first} has "
                f"{parts[first]:g}, {part} {value:g}. A recipe here has one for each block: give "
                "all its parts the same."
            )


def _is_numbered_out(block: str) -> bool:
    return re.fullmatch(r"OUT\d+", block) is not None


def _candidates(length: int) -> str:
    fitting = [f"{n!r} ({o.used_by})" for n, o in _orders().items() if len(o.blocks) == length]
    if fitting:
        return f"Name its order: {'; '.join(fitting)}."
    lengths = ", ".join(f"{name} {len(order.blocks)}" for name, order in _orders().items())
    return f"No known order has {length} numbers; they have: {lengths}."


def _read_json(text: str) -> dict[str, Any] | list[Any]:
    try:
        content = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the weights are not valid JSON: {error}. Correct the text.") from error
    if isinstance(content, dict) and isinstance(content.get("weights"), dict):
        content = content["weights"]
    result: dict[str, Any] | list[Any] = content
    return result


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"not a number: {text[:40]!r}. Write pairs like IN00:0.5.") from None


def _check_number(block: str, value: object) -> None:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value):  # type: ignore[arg-type]
        raise ConfigError(f"the weight of {block} is {value!r}. It must be a finite number.")


def _short(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
