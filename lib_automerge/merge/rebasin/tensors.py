"""Checkpoints as they are merged with pi(B): stored, permuted or computed, a few rows at a time.

`Tensors` is what the matching reads and what every merge method can read in place of a file. A
permuted checkpoint is never held: the rows that are asked for are gathered from the mapped file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.rebasin.orders import Layout, Orders
from lib_automerge.merge.rebasin.symmetries import Shapes, Symmetry, symmetries


class Tensors(Protocol):
    """The tensors of a model by canonical key.

    Attributes:
        name: what to call the model in errors.
    """

    name: str

    def keys(self) -> Sequence[str]:
        """Return every key, sorted."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor; `()` for a single number."""
        ...

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows of a tensor, in the order asked for, as fresh memory.

        Args:
            key: one of `keys`.
            rows: 1-D int64, indices along the first axis. A single number has one row.

        Returns:
            Shape `(len(rows), *shape(key)[1:])`, in the number type that the source has.
        """
        ...


class Stored:
    """The tensors of an open checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.name = checkpoint.name

    def keys(self) -> Sequence[str]:
        """Return every canonical key, sorted."""
        return self._checkpoint.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._checkpoint.tensor(key).shape)

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows of a tensor, copied from the file."""
        tensor = self._checkpoint.tensor(key)
        return (tensor if tensor.dim() else tensor.view(1)).index_select(0, rows)


class Permuted:
    """A model with its channels in another order, which computes what the model computes.

    Args:
        source: the model.
        layout: of its symmetries.
        orders: valid for these symmetries.
    """

    def __init__(self, source: Tensors, layout: Layout, orders: Orders) -> None:
        self._source = source
        self._layout = layout
        self._orders = orders
        self.name = source.name

    def keys(self) -> Sequence[str]:
        """Return the keys of the model."""
        return self._source.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which no order changes."""
        return self._source.shape(key)

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows of the permuted tensor."""
        shape = self.shape(key)
        order = self._layout.index(self._orders, key, 0, shape[0]) if shape else None
        taken = self._source.take(key, rows if order is None else order[rows])
        columns = self._layout.index(self._orders, key, 1, shape[1]) if len(shape) > 1 else None
        return taken if columns is None else taken.index_select(1, columns)


class Combined:
    """A weighted sum of models, computed in float64 where it is read.

    Terms of weight 0 are left out and weight 1 changes nothing, so that a sum of one model with
    weight 1 has its exact values. Tensors that hold no floating point numbers are the first
    term's. The keys are those that all models with a weight have.

    Args:
        name: what to call it in errors.
        terms: (weight, model); at least one weight is not 0.
    """

    def __init__(self, name: str, *terms: tuple[float, Tensors]) -> None:
        self.name = name
        self._terms = [(weight, model) for weight, model in terms if weight != 0.0]

    def keys(self) -> Sequence[str]:
        """Return the keys that all models have."""
        common = set.intersection(*(set(model.keys()) for _, model in self._terms))
        return tuple(sorted(common))

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which all models share."""
        return self._terms[0][1].shape(key)

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows of the sum: float64, or as stored where these are no such numbers."""
        (weight, first), *others = self._terms
        total = first.take(key, rows)
        if not total.is_floating_point():
            return total
        total = total.double() * weight
        for weight, model in others:
            total += model.take(key, rows).double() * weight
        return total


CHUNK = 1 << 20
"""Numbers that are read at once where a whole model is gone through."""


def row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the rows of a tensor of this shape as ranges of about `CHUNK` numbers."""
    count = shape[0] if shape else 1
    step = max(1, CHUNK // max(1, math.prod(shape[1:])))
    for start in range(0, count, step):
        yield start, min(start + step, count)


def rows(source: Tensors, key: str, start: int, stop: int) -> Tensor:
    """Return rows `start` to `stop` of a tensor."""
    return source.take(key, torch.arange(start, stop))


def whole(source: Tensors, key: str) -> Tensor:
    """Return a whole tensor."""
    shape = source.shape(key)
    return rows(source, key, 0, shape[0] if shape else 1).view(shape)


def elements(source: Tensors, key: str, start: int, stop: int) -> Tensor:
    """Return elements `start` to `stop` of the flattened tensor, reading only their rows."""
    row = max(1, math.prod(source.shape(key)[1:]))
    first = start // row
    taken = rows(source, key, first, max(first, -(-stop // row)))
    return taken.reshape(-1)[start - first * row : stop - first * row]


def shapes_of(source: Tensors) -> Shapes:
    """Return key -> shape of every tensor."""
    return {key: source.shape(key) for key in source.keys()}  # noqa: SIM118


def shared_symmetries(architecture: str, a: Tensors, b: Tensors) -> tuple[Symmetry, ...]:
    """Return the symmetries of B in layers that A has too, with the same shapes.

    Raises:
        ModelError: the symmetries of this architecture are not known.
    """
    shapes_a = shapes_of(a)
    return tuple(
        symmetry
        for symmetry in symmetries(architecture, shapes_of(b))
        if all(shapes_a.get(key) == b.shape(key) for key in symmetry.keys)
    )
