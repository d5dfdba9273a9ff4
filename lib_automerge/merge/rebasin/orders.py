"""Orders of channels: one choice out of a checkpoint's symmetries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_automerge.merge.rebasin.symmetries import Symmetry

Order: TypeAlias = NDArray[np.int32]
"""Place -> the channel that comes there: `permuted[i] = original[order[i]]`."""

Orders: TypeAlias = Mapping[str, tuple[Order, ...]]
"""Name of a symmetry -> the order of each of its parts. A symmetry without one is left as it is."""


def unchanged(symmetry: Symmetry) -> tuple[Order, ...]:
    """Return the orders that leave every channel in its place."""
    return tuple(np.arange(symmetry.size, dtype=np.int32) for _ in symmetry.parts)


def is_valid(symmetry: Symmetry, orders: Sequence[Order]) -> bool:
    """Return whether these orders only do what the symmetry allows.

    That is: every part is a permutation that maps groups onto groups, and all parts put the groups
    into the same places.
    """
    if len(orders) != len(symmetry.parts):
        return False
    everything = np.arange(symmetry.size)
    groups = []
    for order in orders:
        if order.shape != everything.shape or not np.array_equal(np.sort(order), everything):
            return False
        group = order.reshape(symmetry.outer, symmetry.inner) // symmetry.inner
        if (group != group[:, :1]).any():
            return False
        groups.append(group[:, 0])
    return all(np.array_equal(group, groups[0]) for group in groups)


def shuffled(symmetries: Iterable[Symmetry], seed: int) -> dict[str, tuple[Order, ...]]:
    """Return a random order for every symmetry: another file of the same network.

    The best test of a matching: it must find the way back.
    """
    rng = np.random.default_rng(seed)
    orders = {}
    for symmetry in symmetries:
        groups = rng.permutation(symmetry.outer)[:, None] * symmetry.inner
        orders[symmetry.name] = tuple(
            (groups + _shuffled_rows(rng, symmetry)).reshape(-1).astype(np.int32)
            for _ in symmetry.parts
        )
    return orders


def _shuffled_rows(rng: np.random.Generator, symmetry: Symmetry) -> NDArray[np.int64]:
    """An independent permutation of `inner` in each of the `outer` rows."""
    rows = np.tile(np.arange(symmetry.inner), (symmetry.outer, 1))
    return rng.permuted(rows, axis=1)


class Layout:
    """Where in a checkpoint's tensors each symmetry has its channels.

    Args:
        symmetries: of the checkpoint.
    """

    def __init__(self, symmetries: Iterable[Symmetry]) -> None:
        self._ranges: dict[tuple[str, int], list[tuple[str, int, int]]] = {}
        for symmetry in symmetries:
            for number, part in enumerate(symmetry.parts):
                for touch in part:
                    ranges = self._ranges.setdefault((touch.key, touch.axis), [])
                    ranges.append((symmetry.name, number, touch.start))

    def index(self, orders: Orders, key: str, axis: int, size: int) -> Tensor | None:
        """Return place -> original index along an axis of this size; None if nothing moves.

        Args:
            orders: valid for the symmetries.
            key: canonical name of a tensor.
            axis: 0 for its rows, 1 for its columns.
            size: of the tensor along the axis.
        """
        ranges = [found for found in self._ranges.get((key, axis), ()) if found[0] in orders]
        if not ranges:
            return None
        index = torch.arange(size)
        for name, part, start in ranges:
            order = orders[name][part]
            index[start : start + len(order)] = torch.from_numpy(order).long() + start
        return index
