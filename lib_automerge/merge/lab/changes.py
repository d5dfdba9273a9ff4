"""Changes of models against their base, in float32 where that loses nothing.

Numbers of float16 and of 8 bits are whole multiples of 2^-24, and float32 holds every such multiple
below 1. Differences of such numbers, and sums of those, are therefore exact in float32 as long as
they stay below 1. They take half the time of float64, and the bits of the result are the same.
"""

from __future__ import annotations

import torch

from lib_automerge.merge.lab.number_types import Floats, Singles
from lib_automerge.merge.lab.stack import Stack

GRID = 2.0**-24
"""What all numbers of `ON_GRID` are multiples of."""

ON_GRID = frozenset({"F16", "F8_E4M3", "F8_E5M2"})
"""Number types whose smallest step is `GRID` or more."""

EXACT = 1.0
"""Multiples of `GRID` are exact in float32 below this."""


class Changes:
    """Exact changes of a tensor, for one range after the other."""

    def __init__(self, stack: Stack) -> None:
        self.on_grid = set(stack.number_types) <= ON_GRID
        self._stack = stack
        self._range = (-1, -1)
        self._base: Singles | None = None

    def __call__(self, model: int, start: int, stop: int) -> Floats | Singles:
        """Return elements of a model minus the base; scratch memory.

        See `Stack.value` for the arguments and errors.
        """
        if self.on_grid:
            if self._base is None or self._range != (start, stop):
                self._base = self._stack.single(0, start, stop, "single").copy()
                self._range = (start, stop)
            changes = self._stack.single(1 + model, start, stop, "single")
            changes -= self._base
            if reach(changes) < EXACT:
                return changes
        return self._stack.change(model, self._stack.base(start, stop), start, stop)


def reach(values: Floats | Singles) -> float:
    """Return the largest magnitude of some numbers."""
    low, high = torch.aminmax(torch.from_numpy(values))
    return max(-float(low), float(high))
