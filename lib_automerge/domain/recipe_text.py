"""Recipes as other tools write them: whose format names its order is read without asking.

- A recipe file of AutoMBW: lines `modelA=...` and others, then 27 numbers in the order `recipe`.
- Presets of SuperMerger and its relatives: `NAME<TAB>26 numbers` or `NAME:25 numbers`, one a line.
- All that `domain.weights` reads: pairs, JSON (a recipe, `best.json`), a list in a named order. A
  list without an order is read if all orders that it can have give the same weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import ConfigError

AUTOMBW = "modelA="
"""How the recipe files of AutoMBW begin."""

AUTOMBW_ORDER = "recipe"

PRESET_ORDERS = (
    "supermerger",
    "supermerger-xl",
    "supermerger-xl-vae",
    "supermerger-xl-parts",
    "mbw",
)
"""The orders of preset files."""


class AmbiguousOrderError(ConfigError):
    """A list of weights that can be in several orders, with different meanings."""


_NUMBER = r"[-+.\de]+"
_PRESET = re.compile(
    rf"(?P<name>[^\t:,={{}}]+)[\t:]\s*(?P<numbers>{_NUMBER}(?:\s*,\s*{_NUMBER}){{10,}})"
)


def parse(
    text: str, architecture: Architecture, order: str | None = None
) -> tuple[dict[str, float], ...]:
    """Read the recipes of a text; more than one if it holds presets.

    Args:
        text: in any of the formats.
        architecture: what the recipes are for.
        order: of bare lists, a name of `weights.orders`; None takes it from the format.

    Returns:
        The weights of each recipe by block.

    Raises:
        AmbiguousOrderError: a list that can mean several things; names its possible orders.
        ConfigError: not readable, or of another architecture.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith(AUTOMBW) for line in lines):
        numbers = "\n".join(line for line in lines if "=" not in line)
        return (weights.parse(numbers, order or AUTOMBW_ORDER, architecture),)
    found = presets(text)
    if found:
        return tuple(_listed(listed, architecture, order, PRESET_ORDERS) for _, listed in found)
    _check_architecture(text, architecture)
    return (_listed(text, architecture, order, weights.fitting(architecture)),)


def presets(text: str) -> list[tuple[str, str]]:
    """The presets of a text, each with its name and its list; other lines are left out."""
    lines = (line.strip() for line in text.splitlines())
    matches = map(_PRESET.fullmatch, lines)
    return [(match["name"].strip(), match["numbers"]) for match in matches if match]


def _listed(
    text: str, architecture: Architecture, order: str | None, orders: Iterable[str]
) -> dict[str, float]:
    try:
        return weights.parse(text, order, architecture)
    except ConfigError as error:
        if order is not None:
            raise
        meanings: list[dict[str, float]] = []
        for name in orders:
            with suppress(ConfigError):
                meaning = weights.parse(text, name, architecture)
                if weights.effect(meaning) not in map(weights.effect, meanings):
                    meanings.append(meaning)
        if len(meanings) > 1:
            raise AmbiguousOrderError(str(error)) from error
        if not meanings:
            raise
        return meanings[0]


def _check_architecture(text: str, architecture: Architecture) -> None:
    """Raise ConfigError for a recipe that says that it is of another architecture."""
    try:
        content = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return
    told = content.get("architecture") if isinstance(content, dict) else None
    if told is not None and told != architecture.name:
        raise ConfigError(
            f"the recipe is for the architecture {told!r}, the models are {architecture.name!r}. "
            "Give a recipe for models of the same kind."
        )
