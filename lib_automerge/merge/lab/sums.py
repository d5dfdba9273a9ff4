"""Sums that decide bytes: over fixed blocks of elements, added in order.

Neither the number of threads nor the size of chunks changes them, so that thresholds, norms and
weights are the same bits however the work is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.stack import Stack, scratch

BLOCK = 1 << 13
"""Elements that are summed at once."""

Points = Callable[[int, int, Floats], None]
"""Fills an array (models x elements) with the points of a range of elements."""


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """Yield the fixed blocks of a tensor with `size` elements."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def gram(stack: Stack, points: Points) -> Floats:
    """Return the dot products of all points with each other, over the whole tensor.

    BLAS must be limited to one thread, which may otherwise add in another order.
    """
    total = np.zeros((stack.models, stack.models))
    for start, stop in blocks(stack.size):
        part = scratch("gram", stack.models * (stop - start)).reshape(stack.models, stop - start)
        points(start, stop, part)
        total += part @ part.T
    return total


def changes_gram(stack: Stack, _origin: int = 0) -> Floats:
    """Return the dot products of all models' changes against the base."""
    return gram(stack, lambda start, stop, out: _fill_changes(stack, start, stop, out))


def values_gram(stack: Stack, origin: int = 0) -> Floats:
    """Return the dot products of all models, seen from the model `origin`.

    Distances are lost in rounding if the origin is far away from models that are close to each
    other; see `medians.better_origin`.
    """

    def fill(start: int, stop: int, out: Floats) -> None:
        centre = stack.value(origin, start, stop, "origin")
        for model in range(stack.models):
            np.subtract(stack.value(model, start, stop), centre, out=out[model])

    return gram(stack, fill)


def _fill_changes(stack: Stack, start: int, stop: int, out: Floats) -> None:
    stack.changes(start, stop, out)
