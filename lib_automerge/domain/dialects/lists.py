"""Bare lists of weights and files of presets, as SuperMerger and its relatives exchange them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_automerge.domain import recipe_text, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects.sketch import Listed, Named, Sketch, Spread
from lib_automerge.errors import ConfigError

PRESET_ORDERS = {"sd1": "supermerger", "sd2": "supermerger", "sdxl": "supermerger-xl"}
"""Architecture -> the order in which SuperMerger's presets for it are."""


def read(text: str, order: str | None, architecture: Architecture | None) -> tuple[Sketch, ...]:
    """Read presets, a list or pairs; more than one sketch if there are several presets.

    Raises:
        ConfigError: not readable, or a list that can be in several orders; names them.
    """
    presets = recipe_text.presets(text)
    if presets:
        return tuple(
            _sketch(numbers, order, architecture, name, recipe_text.PRESET_ORDERS)
            for name, numbers in presets
        )
    return (_sketch(text, order, architecture, "", tuple(weights.orders())),)


def preset(name: str, given: Mapping[str, float], architecture: Architecture | None) -> str:
    """Write a preset of SuperMerger, `NAME<TAB>numbers`.

    Raises:
        ConfigError: there is no such list for the architecture, or the name would end the name.
    """
    if any(character in name for character in "\t:\n,") or not name:
        raise ConfigError(
            f"{name!r} cannot name a preset: SuperMerger needs a name without colon, comma, tab "
            "and line break. Give one with --name."
        )
    kind = "sd1" if architecture is None else architecture.name
    if kind not in PRESET_ORDERS:
        raise ConfigError(
            f"SuperMerger has no presets for {kind}. Use one of: {', '.join(PRESET_ORDERS)}."
        )
    return f"{name}\t{weights.format(given, PRESET_ORDERS[kind])}"


def _sketch(
    text: str,
    order: str | None,
    architecture: Architecture | None,
    name: str,
    orders: Sequence[str],
) -> Sketch:
    content = weights.read(text)
    if not isinstance(content, list):
        return Sketch(
            dialect="a list of weights named by their blocks", name=name, spread=Named(content)
        )
    numbers = weights.numbers(content)
    chosen = order if order is not None else _order(numbers, architecture, orders)
    spread: Spread = Listed(numbers, chosen)
    spread.by_block(architecture)
    return Sketch(
        dialect=f"{'a preset' if name else 'a list'} of {len(numbers)} weights in the order "
        f"{chosen!r} ({weights.orders()[chosen].partition(': ')[2]})",
        name=name,
        spread=spread,
        architectures=weights.architectures_of(chosen),
    )


def _order(
    values: tuple[float, ...], architecture: Architecture | None, orders: Sequence[str]
) -> str:
    """The order of a list that can mean only one thing."""
    meanings: dict[str, dict[str, float]] = {}
    for order in weights.of_length(len(values)):
        fits = architecture is None or architecture.name in weights.architectures_of(order)
        if order in orders and fits:
            meanings[order] = weights.from_list(values, order, architecture)
    effects = {tuple(sorted(weights.effect(m).items())) for m in meanings.values()}
    if len(effects) != 1:
        raise weights.without_order(len(values))
    return next(iter(meanings))
