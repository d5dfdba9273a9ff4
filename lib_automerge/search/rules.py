"""What a configuration searches: rules for blocks become ranges, constants and ties.

A block has a range, a fixed weight or another block whose weight it takes. Whatever contradicts
itself, or leaves nothing to search, is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.errors import ConfigError, unknown_name

LOWEST, HIGHEST = -1.0, 2.0
"""The widest range that a merge weight can have."""

Bounds = dict[str, tuple[float, float]]


class BlockLayout(Protocol):
    """What the space must know of an architecture."""

    @property
    def name(self) -> str:
        """The architecture's name, for messages."""

    @property
    def blocks(self) -> Sequence[str]:
        """Every block, in canonical order."""

    @property
    def parameters(self) -> Sequence[str]:
        """The blocks that are searched unless told otherwise."""

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Blocks that belong together, in the order in which data flows through them."""


def resolved(
    search: SearchConfig,
    architecture: BlockLayout,
    distances: Mapping[str, float] | None = None,
) -> tuple[Bounds, dict[str, str | float]]:
    """Return the (low, high) of every free parameter, and every block's weight: the parameter that
    it takes, or a constant.

    The blocks in `architecture.parameters` are searched from `search.low` to `search.high`; rules
    in `search.blocks` change that block by block, and opt other blocks in. A range without width is
    a fixed weight. Blocks that are neither searched nor named keep the weight 0, which is model A;
    so do those in which the models do not differ, unless blocks that are tied to them need their
    value.

    Args:
        search: the configuration.
        architecture: whose blocks these are.
        distances: block -> how far the models are apart in it, 0 for equal ones; None while that is
            not known.

    Raises:
        ConfigError: an unknown block (with the nearest known one), a range that is reversed or
            leaves -1..2, a block with two rules at once, a tie that leads nowhere or in a circle,
            or nothing left to search.
    """
    rules = search.blocks
    for block, rule in rules.items():
        _check_rule(block, rule, architecture)
    _check_range("search", search.low, search.high)
    if search.low == search.high:
        raise ConfigError(
            f"the range of search is {search.low:g} to {search.high:g}: nothing is left to "
            "search. Low must be below high."
        )
    sources = {block: _source(block, rules, architecture, ()) for block in architecture.blocks}
    bounds = {
        block: _range(block, rules.get(block, BlockRule()), search)
        for block in architecture.blocks
        if _is_searched(block, rules, architecture)
    }
    if not bounds:
        raise ConfigError(
            f"nothing is left to search: {len(rules)} rules fix or tie every block of "
            f"{architecture.name}. Give at least one block a range."
        )
    constants = {block: low for block, (low, high) in bounds.items() if low == high}
    idle = {} if distances is None else dict.fromkeys(_idle(sources, bounds, distances), 0.0)
    constants |= {block: weight for block, weight in idle.items() if block not in constants}
    if len(constants) == len(bounds):
        raise ConfigError(
            f"nothing is left to search: {counted(idle, 'block')} of {architecture.name} "
            f"{'is' if len(idle) == 1 else 'are'} equal in the models, and all others have a "
            "fixed weight. Give a block in which the models differ a range."
        )
    bounds = {block: ends for block, ends in bounds.items() if block not in constants}
    blocks = {
        block: constants.get(source, source) if isinstance(source, str) else source
        for block, source in sources.items()
    }
    return bounds, blocks


def _check_rule(block: str, rule: BlockRule, architecture: BlockLayout) -> None:
    if block not in architecture.blocks:
        raise ConfigError(unknown_name(f"{architecture.name} block", block, architecture.blocks))
    has_range = rule.low is not None or rule.high is not None
    given = {
        "fixed": rule.fixed is not None,
        "tied_to": rule.tied_to is not None,
        "range": has_range,
    }
    both = [kind for kind, present in given.items() if present]
    if len(both) > 1:
        raise ConfigError(f"{block} has the rules {' and '.join(both)} at once. Keep one of them.")
    if rule.fixed is not None and not LOWEST <= rule.fixed <= HIGHEST:
        raise ConfigError(
            f"{block} is fixed at {rule.fixed:g}. It must be between {LOWEST:g} and {HIGHEST:g}."
        )


def check_order(name: str, low: float, high: float) -> None:
    """Refuse a range whose ends are not finite numbers, or the wrong way round.

    Raises:
        ConfigError: it is such a range.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"the range of {name} is {low} to {high}. Use finite numbers.")
    if low > high:
        raise ConfigError(
            f"the range of {name} is reversed: low is {low:g}, high is {high:g}. "
            "Low must not be above high."
        )


def _check_range(name: str, low: float, high: float) -> None:
    check_order(name, low, high)
    if low < LOWEST or high > HIGHEST:
        raise ConfigError(
            f"the range of {name} is {low:g} to {high:g}. "
            f"It must be within {LOWEST:g} to {HIGHEST:g}."
        )


def _idle(
    sources: Mapping[str, str | float],
    bounds: Mapping[str, tuple[float, float]],
    distances: Mapping[str, float],
) -> list[str]:
    """Return the free parameters whose value reaches only blocks in which the models are equal."""
    reaches: dict[str, float] = dict.fromkeys(bounds, 0.0)
    for block, source in sources.items():
        if isinstance(source, str):
            reaches[source] = max(reaches[source], distances.get(block, 0.0))
    return [name for name, distance in reaches.items() if distance == 0.0]


def counted(things: Collection[object], word: str) -> str:
    """Return how many there are, in words: "1 block", "2 blocks"."""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _range(block: str, rule: BlockRule, search: SearchConfig) -> tuple[float, float]:
    low = search.low if rule.low is None else rule.low
    high = search.high if rule.high is None else rule.high
    _check_range(block, low, high)
    return float(low), float(high)


def _is_searched(block: str, rules: Mapping[str, BlockRule], architecture: BlockLayout) -> bool:
    rule = rules.get(block)
    if rule is None:
        return block in architecture.parameters
    return rule.fixed is None and rule.tied_to is None


def _source(
    block: str,
    rules: Mapping[str, BlockRule],
    architecture: BlockLayout,
    path: tuple[str, ...],
) -> str | float:
    """Follow ties from `block` to the free parameter or the constant that decides its weight."""
    if block in path:
        circle = " -> ".join((*path, block))
        raise ConfigError(f"blocks are tied in a circle: {circle}. Give one of them a range.")
    if block not in architecture.blocks:
        raise ConfigError(
            f"{path[-1]} is tied to an "
            + unknown_name(f"{architecture.name} block", block, architecture.blocks)
        )
    if _is_searched(block, rules, architecture):
        return block
    rule = rules.get(block)
    if rule is None:
        if path:
            raise ConfigError(
                f"{path[-1]} is tied to {block}, which is neither searched nor fixed. "
                f"Give {block} a range or a fixed weight."
            )
        return 0.0
    if rule.tied_to is not None:
        return _source(rule.tied_to, rules, architecture, (*path, block))
    return float(rule.fixed or 0.0)
