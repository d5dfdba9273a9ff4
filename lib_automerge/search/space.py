"""The space that is searched: which numbers are free, and how they become a candidate's weights.

Hides ranges, fixed and tied blocks, and rounding. An optimizer sees vectors of `d` free parameters;
everything else sees named weights of all blocks. The rounding to a fixed number of decimals happens
in `Space.snap` and nowhere else, so the journal, the recipe and the optimizer's model hold the same
numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.errors import ConfigError, SearchError, unknown_name

Array = NDArray[np.float64]
Key = tuple[float, ...]

LOWEST, HIGHEST = -1.0, 2.0
"""The widest range that a merge weight can have."""

_DECIMALS = 4
_FINEST = 1e-10
_TOLERANCE = 1e-9


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


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """A box of free parameters, and every block as one of them or as a constant.

    Attributes:
        names: the free parameters; the order of every vector.
        bounds: their (low, high), inclusive.
        blocks: block -> the free parameter whose value it takes, or its constant weight.
        groups: group -> free parameters that belong together, in order.
        decimals: to how many decimals values are rounded.
    """

    names: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    blocks: dict[str, str | float]
    groups: dict[str, tuple[str, ...]] = {}
    decimals: int = _DECIMALS

    @classmethod
    def of(
        cls,
        search: SearchConfig,
        architecture: BlockLayout,
        distances: Mapping[str, float] | None = None,
    ) -> Space:
        """Return the space that a configuration describes.

        The blocks in `architecture.parameters` are searched from `search.low` to `search.high`;
        rules in `search.blocks` change that block by block, and opt other blocks in. A range
        without width is a fixed weight. Blocks that are neither searched nor named keep the weight
        0, which is model A; so do those in which the models do not differ, unless blocks that are
        tied to them need their value.

        Args:
            search: the configuration.
            architecture: whose blocks these are.
            distances: block -> how far the models are apart in it, 0 for equal ones; None while
                that is not known.

        Raises:
            ConfigError: an unknown block (with the nearest known one), a range that is reversed or
                leaves -1..2, a block with two rules at once, a tie that leads nowhere or in a
                circle, or nothing left to search.
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
                f"nothing is left to search: {_count(idle, 'block')} of {architecture.name} "
                f"{'is' if len(idle) == 1 else 'are'} equal in the models, and all others have a "
                "fixed weight. Give a block in which the models differ a range."
            )
        bounds = {block: ends for block, ends in bounds.items() if block not in constants}
        return cls(
            names=tuple(bounds),
            bounds=tuple(bounds.values()),
            blocks={
                block: constants.get(source, source) if isinstance(source, str) else source
                for block, source in sources.items()
            },
            groups={
                group: tuple(block for block in members if block in bounds)
                for group, members in architecture.groups.items()
            },
        )

    @classmethod
    def box(cls, bounds: Mapping[str, tuple[float, float]]) -> Space:
        """Return a space of independent parameters with the given (low, high), of any scale.

        Values are rounded to at least four decimals, and to 1/10,000 of the narrowest range. A
        range without width is a constant.

        Raises:
            ConfigError: no parameter with a width, or a range that is reversed, not finite, or too
                fine or too wide for floating-point numbers.
        """
        if not bounds:
            raise ConfigError(
                "nothing is left to search: no parameter is given. Name at least one."
            )
        for name, (low, high) in bounds.items():
            _check_order(name, low, high)
        free = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
        constants = {name: low for name, (low, high) in free.items() if low == high}
        free = {name: ends for name, ends in free.items() if name not in constants}
        if not free:
            raise ConfigError(
                f"nothing is left to search: {_count(constants, 'range')} without width. Give at "
                "least one parameter a range."
            )
        for name, (low, high) in free.items():
            finest = _FINEST * max(abs(low), abs(high))
            if not finest < high - low < math.inf:
                raise ConfigError(
                    f"the range of {name} cannot be searched: {low!r} to {high!r}. Floating-point "
                    "numbers cannot tell enough values in it apart; search a multiple of it."
                )
        narrowest = min(high - low for low, high in free.values())
        return cls(
            names=tuple(free),
            bounds=tuple(free.values()),
            blocks={name: constants.get(name, name) for name in bounds},
            decimals=max(_DECIMALS, _DECIMALS - math.floor(math.log10(narrowest))),
        )

    @property
    def dimension(self) -> int:
        """How many parameters are free."""
        return len(self.names)

    @property
    def low(self) -> Array:
        """The lower ends of the ranges, (d,)."""
        return np.array([low for low, _ in self.bounds])

    @property
    def high(self) -> Array:
        """The upper ends of the ranges, (d,)."""
        return np.array([high for _, high in self.bounds])

    def snap(self, vector: Array) -> Array:
        """Return the vector, (d,) or (n, d), rounded and within the ranges.

        The ends of a range are kept as they are, with all their decimals.
        """
        low, high = self.low, self.high
        # Adding 0 turns -0.0 into 0.0.
        rounded = np.clip(np.round(vector, self.decimals) + 0.0, low, high)
        return np.where(vector <= low, low, np.where(vector >= high, high, rounded))

    def scaled(self, fractions: Array) -> Array:
        """Return the vector at these fractions (0..1) of the ranges, (d,) or (n, d), snapped."""
        return self.snap(self.low + fractions * (self.high - self.low))

    def key(self, vector: Array) -> Key:
        """Return the snapped vector as a hashable value."""
        return tuple(self.snap(vector).tolist())

    def weights(self, vector: Array) -> dict[str, float]:
        """Return the weights of all blocks for a vector of free parameters, (d,)."""
        free = dict(zip(self.names, self.key(vector), strict=True))
        return {
            block: free[source] if isinstance(source, str) else source
            for block, source in self.blocks.items()
        }

    def vector(self, weights: Mapping[str, float]) -> Array:
        """Return the free parameters, (d,), of weights that name them all.

        Raises:
            ConfigError: a free parameter is missing.
        """
        missing = [name for name in self.names if name not in weights]
        if missing:
            raise ConfigError(f"the weight of {missing[0]} is missing. Give all that are searched.")
        return np.array([weights[name] for name in self.names], dtype=np.float64)

    def point(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the candidate of this space that has these weights in its searched blocks.

        A block that is not named counts as 0, which is model A; constant and tied blocks follow the
        rules of the space.

        Raises:
            ConfigError: a block is unknown, or a weight outside its range.
        """
        for block in weights:
            if block not in self.blocks:
                raise ConfigError(unknown_name("block", block, self.blocks))
        for name, (low, high) in zip(self.names, self.bounds, strict=True):
            value = weights.get(name, 0.0)
            if not low <= value <= high:
                raise ConfigError(
                    f"a start point has {name} = {value:g}, outside its range {low:g} to {high:g}. "
                    "Change the point or widen the range."
                )
        return self.weights(np.array([weights.get(name, 0.0) for name in self.names]))

    def contains(self, weights: Mapping[str, float]) -> bool:
        """Tell whether a vector of this space gives exactly these weights.

        A constant block that is not named counts as 0, which is model A.
        """
        if not set(self.names) <= weights.keys() <= self.blocks.keys():
            return False
        vector = self.vector(weights)
        if not np.all((self.low <= vector) & (vector <= self.high)):
            return False
        return all(
            abs(weights.get(block, 0.0) - (weights[source] if isinstance(source, str) else source))
            <= _TOLERANCE
            for block, source in self.blocks.items()
        )

    def unused(self, vector: Array, taken: Collection[Key], rng: np.random.Generator) -> Array:
        """Return `vector` snapped, or a point near it if it is among `taken`.

        Raises:
            SearchError: every point of the space is taken.
        """
        if self.key(vector) not in taken:
            return self.snap(vector)
        width = self.high - self.low
        points = math.prod((width * 10.0**self.decimals + 1).tolist())
        if points <= 4 * len(taken) + 16:
            return self._nearest_unused(vector, taken)
        # Most points are free, so this ends after a few draws.
        for doubling in itertools.count():
            scale = min(1e-3 * 2.0**doubling, 1.0)
            moved = vector + scale * width * rng.uniform(-1.0, 1.0, self.dimension)
            if self.key(moved) not in taken:
                break
        return self.snap(moved)

    def _nearest_unused(self, vector: Array, taken: Collection[Key]) -> Array:
        step = 10.0**-self.decimals
        axes = []
        for low, high in self.bounds:
            steps = math.ceil((high - low) / step) + 1
            values = np.round(low + step * np.arange(steps), self.decimals)
            axes.append(np.unique(np.append(np.clip(values, low, high), (low, high))).tolist())
        free = [point for point in itertools.product(*axes) if point not in taken]
        if not free:
            raise SearchError(
                f"nothing is left to propose: all points of the space ({len(taken)}) were "
                "evaluated. Widen the ranges or stop here."
            )
        points = np.array(free)
        return np.asarray(points[np.argmin(np.abs(points - vector).max(axis=1))])


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


def _check_order(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"the range of {name} is {low} to {high}. Use finite numbers.")
    if low > high:
        raise ConfigError(
            f"the range of {name} is reversed: low is {low:g}, high is {high:g}. "
            "Low must not be above high."
        )


def _check_range(name: str, low: float, high: float) -> None:
    _check_order(name, low, high)
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


def _count(things: Collection[object], word: str) -> str:
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
