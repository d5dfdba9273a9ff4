"""Finds the best order of the channels of one symmetry, all other orders given.

The distance of A and pi(B) is smallest where the inner product of A and pi(B) is largest, and for
one symmetry that inner product is a sum over channels: of how much channel i of A and the channel
of B that comes there agree. This is a linear assignment problem (Ainsworth et al., "Git Re-Basin",
arXiv 2209.04836, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lib_automerge.errors import ModelError
from lib_automerge.merge.rebasin.orders import Order
from lib_automerge.merge.rebasin.symmetries import Symmetry, Touch
from lib_automerge.merge.rebasin.tensors import Tensors, whole

Costs: TypeAlias = NDArray[np.float64]
"""Square: minus the inner product of channel i of A (row) and channel j of B (column)."""

_Numbers: TypeAlias = NDArray[np.float32]

DEPTH = 2048
"""Numbers of each channel that are multiplied at once."""

TILE = 512
"""Channels of A in one product. Fixed, so that the sums do not depend on the number of threads."""


class Agreement(NamedTuple):
    """How the channels of two models agree.

    Attributes:
        costs: for each part of the symmetry.
        scale: an upper bound of what any order can be worth: the norms of A's tensors times those
            of B's, summed.
    """

    costs: tuple[Costs, ...]
    scale: float


def agreement(a: Tensors, b: Tensors, symmetry: Symmetry, pool: ThreadPoolExecutor) -> Agreement:
    """Return the costs of a symmetry, from all tensors that it touches.

    One tensor of each model is in memory at a time, widened in pieces. Products are made in float32
    of `DEPTH` numbers at most and summed in float64: the inputs are rarely more exact than that,
    an assignment needs the order of sums rather than their last bits, and float64 products would
    take twice the time. BLAS must run in one thread, so that equal calls give equal bits; `pool`
    spreads tiles.

    Args:
        a: model A.
        b: model B in the present order, but for this symmetry, whose channels lie as in its file.
        symmetry: what to order.
        pool: threads to use.

    Raises:
        ModelError: a tensor has NaN or infinite values; names it.
    """
    scale = 0.0
    costs = []
    for part in symmetry.parts:
        cost = np.zeros((symmetry.size, symmetry.size))
        for key in sorted({touch.key for touch in part}):
            tensor_a, tensor_b = whole(a, key), whole(b, key)
            sizes = np.zeros(2)
            for touch in (touch for touch in part if touch.key == key):
                sizes += _subtract_products(
                    cost,
                    _channels(tensor_a, touch, symmetry.size),
                    _channels(tensor_b, touch, symmetry.size),
                    pool,
                )
            for model, size in zip((a, b), sizes, strict=True):
                if not math.isfinite(size):
                    raise ModelError(
                        f"{model.name}: {key!r} holds NaN or infinite values. The model is broken; "
                        "download it again or choose another one."
                    )
            scale += math.sqrt(sizes[0] * sizes[1])
        costs.append(cost)
    return Agreement(tuple(costs), scale)


def _channels(tensor: Tensor, touch: Touch, size: int) -> Tensor:
    """The touched range with its channels in front: (size, n) or (size, n, height, width)."""
    moved = tensor.narrow(touch.axis, touch.start, size).movedim(touch.axis, 0)
    return moved.unsqueeze(1) if moved.dim() == 1 else moved


def _subtract_products(
    cost: Costs, a: Tensor, b: Tensor, pool: ThreadPoolExecutor
) -> NDArray[np.float64]:
    """Subtract all inner products of channels from `cost`; returns both squared norms."""
    size, count = a.shape[:2]
    step = max(1, DEPTH // math.prod(a.shape[2:]))
    norms = np.zeros(2)
    for start in range(0, count, step):
        wide_a, wide_b = (
            x[:, start : start + step].reshape(size, -1).float().numpy() for x in (a, b)
        )

        def tile(first: int, one: _Numbers = wide_a, two: _Numbers = wide_b) -> None:
            cost[first : first + TILE] -= one[first : first + TILE] @ two.T

        norms += [np.vdot(wide_a, wide_a), np.vdot(wide_b, wide_b)]
        if size <= TILE:  # a thread would cost more than the work
            tile(0)
        else:
            list(pool.map(tile, range(0, size, TILE)))
    return norms


def solve(symmetry: Symmetry, costs: Sequence[Costs]) -> tuple[Order, ...]:
    """Return the orders of least cost.

    With groups the problem has two levels, and is solved exactly: what two groups are worth to
    each other is the best order of the channels within, whatever the other groups do.
    """
    if symmetry.outer == 1:
        return tuple(linear_sum_assignment(cost)[1].astype(np.int32) for cost in costs)
    outer, inner = symmetry.outer, symmetry.inner
    within = np.empty((len(costs), outer, outer, inner), dtype=np.int32)
    between = np.zeros((outer, outer))
    for number, cost in enumerate(costs):
        blocks = cost.reshape(outer, inner, outer, inner)
        for one in range(outer):
            for two in range(outer):
                block = np.ascontiguousarray(blocks[one, :, two])
                places, channels = linear_sum_assignment(block)
                within[number, one, two] = channels
                between[one, two] += block[places, channels].sum()
    partners = linear_sum_assignment(between)[1]
    chosen = within[:, np.arange(outer), partners] + partners[:, None].astype(np.int32) * inner
    return tuple(order.reshape(-1) for order in chosen)


def worth(costs: Sequence[Costs], orders: Sequence[Order]) -> float:
    """Return the inner product of A and the tensors of B in these orders."""
    return -math.fsum(
        float(cost[np.arange(len(order)), order].sum())
        for cost, order in zip(costs, orders, strict=True)
    )
