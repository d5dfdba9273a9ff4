"""The parts of the form that power users edit as text: payloads, rules and start points."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.config import BlockRule
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError

MODEL = re.compile("m[0-9]{3}", re.IGNORECASE)
"""The role of a model of a method of many, in any case."""


def payloads_of(text: str) -> tuple[Payload, ...]:
    """The payloads of a JSON text.

    Raises:
        ConfigError: it is not a list of payloads; the text names the place.
    """
    try:
        return msgspec.json.decode(text or "[]", type=tuple[Payload, ...])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the prompts as text cannot be read: {reason(error)}. Correct the text, or choose "
            "a set again."
        ) from error


def payloads_text(payloads: Sequence[Payload]) -> str:
    """Payloads as a JSON text, one after the other; fields at their defaults are left out."""
    lines = [msgspec.json.encode(_told(payload)).decode() for payload in payloads]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def rules_of(text: str) -> dict[str, BlockRule]:
    """The rules for blocks of a JSON text.

    Raises:
        ConfigError: it does not hold rules by block; the text names the place.
    """
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, BlockRule])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the rules as text cannot be read: {reason(error)}. Correct the text, or press "
            '"All free".'
        ) from error


def rules_text(rules: Mapping[str, BlockRule]) -> str:
    """Rules as a JSON text, a block a line."""
    lines = [
        f"{msgspec.json.encode(block).decode()}: {msgspec.json.encode(_told(rule)).decode()}"
        for block, rule in rules.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"


def start_points(
    text: str, order: str, architecture: str | None, parameters: Collection[str] = ()
) -> tuple[dict[str, float], ...]:
    """The start points of a text: one JSON value, or one list of weights a line.

    Args:
        text: as above.
        order: of lists of bare numbers.
        architecture: that of model A, None if unknown.
        parameters: of the method, which may stand among the weights: `k` or `k.IN00`.

    Raises:
        ConfigError: a list cannot be read, or does not say which order it has.
    """
    stripped = text.strip()
    if not stripped:
        return ()
    try:
        msgspec.json.decode(stripped)
        lists = [stripped]
    except msgspec.DecodeError:
        lists = [line for line in stripped.splitlines() if line.strip()]
    return tuple(_start_point(one, order, architecture, parameters) for one in lists)


def _start_point(
    text: str, order: str, architecture: str | None, parameters: Collection[str]
) -> dict[str, float]:
    content = weights.read(text)
    if isinstance(content, list):
        return weights.parse(text, order, architecture)
    own: dict[str, float] = {}
    of_blocks: dict[str, object] = {}
    for name, value in content.items():
        # block names are in capitals; parameters and models are not, in whatever way it is read
        parameter, dot, of = name.partition(".")
        if parameter.lower() in parameters:
            of = of.lower() if MODEL.fullmatch(of) else of.upper()
            (own[f"{parameter.lower()}{dot}{of}"],) = weights.numbers([value])
        else:
            of_blocks[name] = value
    named = msgspec.json.encode(of_blocks).decode()
    return weights.parse(named, order, architecture) | own


def paths_of(text: str) -> tuple[str, ...]:
    """The paths of a text, one a line; quotes around a path, as file managers copy it, are not
    part of it.
    """
    lines = (line.strip() for line in text.splitlines())
    return tuple(_unquoted(line) for line in lines if line)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text


def _told(value: msgspec.Struct) -> dict[str, object]:
    """The fields that differ from their defaults, nested ones too."""
    raw: dict[str, object] = {}
    for field in msgspec.structs.fields(value):
        held = getattr(value, field.name)
        if not field.required and held == field.default:
            continue
        if field.default_factory is not msgspec.NODEFAULT and held == field.default_factory():
            continue
        raw[field.name] = _told(held) if isinstance(held, msgspec.Struct) else held
    return raw


def reason(error: Exception) -> str:
    """An error's text as the middle of a sentence."""
    text = str(error)
    # "JSON is malformed" begins with a name
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
