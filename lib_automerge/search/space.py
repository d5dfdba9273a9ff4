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

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.config import SearchConfig
from lib_automerge.errors import ConfigError, SearchError, unknown_name
from lib_automerge.search.rules import BlockLayout, Bounds, check_order, counted, resolved

Array = NDArray[np.float64]
Key = tuple[float, ...]

_DECIMALS = 4
_FINEST = 1e-10
_TOLERANCE = 1e-9


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A number besides the weights of blocks that is searched.

    Attributes:
        name: of the number.
        low: the least it can be.
        high: the most.
        default: what it is where nobody names it; kept within low and high.
        whole: only whole numbers.
        group: of settings that belong together, in order; "" for none.
    """

    name: str
    low: float
    high: float
    default: float
    whole: bool = False
    group: str = ""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """A box of free parameters, and every block as one of them or as a constant.

    Attributes:
        names: the free parameters; the order of every vector.
        bounds: their (low, high), inclusive.
        blocks: block, or setting, -> the free parameter whose value it takes, or its constant.
        groups: group -> free parameters that belong together, in order.
        decimals: to how many decimals values are rounded.
        whole: the free parameters that are whole numbers.
        defaults: what a free parameter is where a point does not name it; 0 if it is not here.
    """

    names: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    blocks: dict[str, str | float]
    groups: dict[str, tuple[str, ...]] = {}
    decimals: int = _DECIMALS
    whole: tuple[str, ...] = ()
    defaults: dict[str, float] = {}

    @classmethod
    def of(
        cls,
        search: SearchConfig,
        architecture: BlockLayout,
        distances: Mapping[str, float] | None = None,
        settings: Sequence[Setting] = (),
        *,
        weighted: bool = True,
    ) -> Space:
        """Return the space that a configuration describes.

        Args:
            search: the configuration.
            architecture: whose blocks these are.
            distances: see `rules.resolved`.
            settings: what is searched besides the weights of blocks.
            weighted: whether blocks have weights at all.

        Raises:
            ConfigError: see `rules.resolved`; or there is nothing to search.
        """
        bounds: Bounds = {}
        blocks: dict[str, str | float] = {}
        if weighted:
            bounds, blocks = resolved(search, architecture, distances, alone=not settings)
        free = {each.name: each for each in settings if each.low < each.high}
        if not bounds and not free:
            raise ConfigError(
                "nothing is left to search: the method has no weights by block, and no parameter "
                "has a range. Give one under search.parameters."
            )
        bounds |= {name: (each.low, each.high) for name, each in free.items()}
        constant = {each.name: each.low for each in settings if each.name not in free}
        groups = {
            group: tuple(block for block in members if block in bounds)
            for group, members in architecture.groups.items()
        }
        for each in free.values():
            if each.group:
                groups[each.group] = (*groups.get(each.group, ()), each.name)
        return cls(
            names=tuple(bounds),
            bounds=tuple(bounds.values()),
            blocks={**blocks, **constant, **{name: name for name in free}},
            groups=groups,
            whole=tuple(name for name, each in free.items() if each.whole),
            defaults={
                name: min(max(each.default, each.low), each.high) for name, each in free.items()
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
            check_order(name, low, high)
        free = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
        constants = {name: low for name, (low, high) in free.items() if low == high}
        free = {name: ends for name, ends in free.items() if name not in constants}
        if not free:
            raise ConfigError(
                f"nothing is left to search: {counted(constants, 'range')} without width. Give at "
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
        if self.whole:
            rounded = np.where(self._is_whole, np.round(rounded), rounded)
        return np.where(vector <= low, low, np.where(vector >= high, high, rounded))

    @property
    def _is_whole(self) -> NDArray[np.bool_]:
        return np.array([name in self.whole for name in self.names])

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

        A block that is not named counts as 0, which is model A; what else is not named has its
        default; constant and tied blocks follow the rules of the space.

        Raises:
            ConfigError: a block is unknown, or a weight outside its range.
        """
        for block in weights:
            if block not in self.blocks:
                raise ConfigError(unknown_name("block", block, self.blocks))
        vector = self.filled(weights)
        for name, value, (low, high) in zip(self.names, vector, self.bounds, strict=True):
            if not low <= value <= high:
                raise ConfigError(
                    f"a start point has {name} = {value:g}, outside its range {low:g} to {high:g}. "
                    "Change the point or widen the range."
                )
        return self.weights(vector)

    def filled(self, weights: Mapping[str, float]) -> Array:
        """Return the free parameters, (d,), of weights that need not name them, nor be in range.

        What is not named is what `point` says.
        """
        named = [weights.get(name, self.defaults.get(name, 0.0)) for name in self.names]
        return np.array(named, dtype=np.float64)

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
        fine = np.where(self._is_whole, 1.0, 10.0**self.decimals)
        points = math.prod((width * fine + 1).tolist())
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
        axes = []
        for name, (low, high) in zip(self.names, self.bounds, strict=True):
            step = 1.0 if name in self.whole else 10.0**-self.decimals
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
