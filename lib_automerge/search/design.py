"""Points that need no model: the start design and the Sobol sequence behind it.

The start design is recipes that are uniform over all blocks, then scrambled Sobol points: uniform
merges tell early whether a plain blend helps, the Sobol points tell blocks apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Key, Space
from lib_automerge.search.subspace import Subspace

Array = NDArray[np.float64]

UNIFORM = (0.3, 0.7, 0.5)
"""The fractions of every range at which the design begins. The middle comes last: it is usually
known already, as the 50:50 merge."""

_MOST = 12


def design_size(dimension: int) -> int:
    """Return how many evaluations, the baselines among them, come before the model is asked."""
    return min(_MOST, 2 * dimension + 3)


class SobolSequence:
    """A scrambled Sobol sequence (Sobol' 1967; Owen 1998) in the unit cube of `dimension`.

    Points depend on seed, purpose and index alone; they are kept once computed.
    """

    def __init__(self, dimension: int, seed: int, purpose: str) -> None:
        rng = generator(seed, purpose)
        # `seed` is called `rng` from SciPy 1.15 on; the WebUIs ship 1.11.
        keyword = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"
        self._engine = qmc.Sobol(dimension, scramble=True, **{keyword: rng})
        self._points: list[Array] = []

    def point(self, index: int) -> Array:
        """Return the point of this index (from 0), (d,)."""
        while len(self._points) <= index:
            # One by one: SciPy warns when another number than a power of two is drawn at once.
            self._points.append(self._engine.random(1)[0])
        return self._points[index]

    def points(self, start: int = 0) -> Iterator[Array]:
        """Yield the points from index `start` on, without end."""
        while True:
            yield self.point(start)
            start += 1


def start_points(sequence: SobolSequence, dimension: int) -> Iterator[Array]:
    """Yield the points of the start design in order, (d,) fractions of the ranges, without end."""
    for fraction in UNIFORM:
        yield np.full(dimension, fraction)
    yield from sequence.points()


def first_unused(
    space: Space,
    sequence: SobolSequence,
    used: Collection[Key],
    rng: np.random.Generator,
    part: Subspace | None = None,
) -> Array:
    """Return the first point of the start design, (d,), that is not used yet.

    Args:
        space: what is searched.
        sequence: of as many dimensions as `part`.
        used: the points that are evaluated or about to be.
        rng: decides where a space is so full that no point of the design is left.
        part: of the unit cube, where the design is; None is all of it.

    Raises:
        SearchError: every point of the space is used.
    """
    part = part or Subspace.whole(space.dimension)
    points = start_points(sequence, part.dimension)
    # More tries than used points only fail in a space with few points.
    for point, _ in zip(points, range(len(used) + 1), strict=False):
        vector = space.scaled(part.points(point[None])[0])
        if space.key(vector) not in used:
            return vector
    return space.unused(vector, used, rng)
