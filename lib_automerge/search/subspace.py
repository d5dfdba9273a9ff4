"""A part of the search space: groups of blocks that move together, or some blocks with the others
held still.

Groups are pieces of the architecture's own groups, of neighbouring blocks, and nine at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.search.space import Space

Array = NDArray[np.float64]
Groups = tuple[tuple[int, ...], ...]
"""Positions of free parameters that belong together; every parameter is in one group."""

_MOST_GROUPS = 9


class Subspace(msgspec.Struct, frozen=True, eq=False):
    """The points `base + directions @ z` of the unit cube, for z in a unit cube of m dimensions.

    Attributes:
        base: (d,), 0 where a direction reaches.
        directions: (d, m) of zeros and ones, at most a single one in a row.
    """

    base: Array
    directions: Array

    @classmethod
    def whole(cls, dimension: int) -> Subspace:
        """Return the whole unit cube."""
        return cls(np.zeros(dimension), np.eye(dimension))

    @classmethod
    def grouped(cls, groups: Groups) -> Subspace:
        """Return the points in which the members of each group are equal."""
        members = np.zeros((sum(map(len, groups)), len(groups)))
        for column, group in enumerate(groups):
            members[list(group), column] = 1.0
        return cls(np.zeros(len(members)), members)

    @classmethod
    def around(cls, point: Array, free: Sequence[int]) -> Subspace:
        """Return the points that differ from `point`, (d,), in the parameters `free` only."""
        positions = sorted(free)
        base = point.copy()
        base[positions] = 0.0
        return cls(base, np.eye(len(point))[:, positions])

    @property
    def dimension(self) -> int:
        """How many numbers are free."""
        return int(self.directions.shape[1])

    def points(self, inner: Array) -> Array:
        """Return the points of the cube, (n, d), for points z, (n, m)."""
        return np.asarray(self.base + inner @ self.directions.T)

    def inner(self, points: Array) -> Array:
        """Return the z, (n, m), whose points are nearest to these of the cube, (n, d)."""
        return np.asarray(points @ self.directions / self.directions.sum(axis=0))


def groups_of(space: Space) -> Groups:
    """Return the groups that a coarse search moves: at most nine, unless the space has more groups
    of its own.
    """
    named = [
        [space.names.index(name) for name in members]
        for members in space.groups.values()
        if members
    ]
    listed = {position for group in named for position in group}
    rest = [position for position in range(space.dimension) if position not in listed]
    named += [rest] if rest else []
    # the smallest pieces that are few enough
    size = next(
        size
        for size in range(1, space.dimension + 1)
        if sum(math.ceil(len(group) / size) for group in named) <= max(_MOST_GROUPS, len(named))
    )
    return tuple(
        tuple(int(position) for position in piece)
        for group in named
        for piece in np.array_split(group, math.ceil(len(group) / size))
    )
