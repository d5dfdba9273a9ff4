"""Methods of two models: weighted sum, amplified difference, slerp, and the cosine modes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from lib_automerge.merge.lab.methods import register
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.stack import Pieces, Stack
from lib_automerge.merge.lab.sums import BLOCK, blocks

AB = ("a", "b")

_PARALLEL = 1e-12


def _ends(values: Mapping[str, Any], _models: int, name: str = "weight") -> str | None:
    return {0.0: "a", 1.0: "b"}.get(values[name])


def weighted_sum(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(-1, 2, "share of B: 0 is A, 1 is B", each="block", unnamed=0.0)
    ] = 0.5,
) -> Pieces:
    """`A (1 - w) + B w`, computed as `A + w (B - A)`, which keeps what is equal."""
    for start, stop in stack.chunks():
        yield start, _between(stack, start, stop, weight)


def amplified_difference(
    stack: Stack,
    *,
    amount: Annotated[
        float, Within(-10, 10, "how far to go from A through B", each="block", unnamed=0.0)
    ] = 2.0,
) -> Pieces:
    """`A + m (B - A)`: a weighted sum that goes beyond B."""
    for start, stop in stack.chunks():
        yield start, _between(stack, start, stop, amount)


def slerp(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(-1, 2, "share of B along the arc", each="block", unnamed=0.0)
    ] = 0.5,
) -> Pieces:
    """The direction goes along the arc from A to B, the norm along the line between theirs.

    Parallel and opposite tensors, and zero ones, have no arc: they are merged along the line.
    """
    aa, bb, ab = _products(stack)
    norms = math.sqrt(aa), math.sqrt(bb)
    cosine = ab / (norms[0] * norms[1]) if aa and bb else 1.0
    if 1.0 - abs(cosine) < _PARALLEL:
        yield from weighted_sum(stack, weight=weight)
        return
    angle = math.acos(cosine)
    norm = (1.0 - weight) * norms[0] + weight * norms[1]
    scale_a = norm * math.sin((1.0 - weight) * angle) / (math.sin(angle) * norms[0])
    scale_b = norm * math.sin(weight * angle) / (math.sin(angle) * norms[1])
    for start, stop in stack.chunks():
        merged = stack.value(0, start, stop, "a")
        other = stack.value(1, start, stop, "b")
        merged *= scale_a
        other *= scale_b
        merged += other
        yield start, merged


def cosine_a(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(0, 1, "taken off the likeness: 1 is B", each="block", unnamed=0.0)
    ] = 0.0,
) -> Pieces:
    """`k A + (1 - k) B` with k = the cosine of A's and B's column, less w, cut to 0..1.

    A column holds what one input feeds to all outputs: the elements along the first axis.
    """
    products = _column_products(stack)
    yield from _by_likeness(stack, _cosines(*products), weight)


def cosine_b(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(0, 1, "taken off the likeness: 1 is B", each="block", unnamed=0.0)
    ] = 0.0,
) -> Pieces:
    """As `cosine_a`, with the mean of the column's cosine and that of the whole tensors."""
    products = _column_products(stack)
    totals = [np.array([float(product.sum())]) for product in products]
    likeness = _cosines(*products)
    likeness += _cosines(*totals)
    likeness *= 0.5
    yield from _by_likeness(stack, likeness, weight)


def _between(stack: Stack, start: int, stop: int, weight: float) -> Floats:
    a = stack.value(0, start, stop, "a")
    b = stack.value(1, start, stop, "b")
    b -= a
    b *= weight
    b += a
    return b


def _products(stack: Stack) -> tuple[float, float, float]:
    """Return A.A, B.B and A.B over the whole tensor."""
    aa = bb = ab = 0.0
    for start, stop in blocks(stack.size):
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        aa += float(a @ a)
        bb += float(b @ b)
        ab += float(a @ b)
    return aa, bb, ab


def _columns(stack: Stack) -> int:
    """How many columns a tensor has: the elements of one index of the first axis."""
    return stack.size // stack.shape[0] if stack.shape and stack.size else 1


def _column_products(stack: Stack) -> tuple[Floats, Floats, Floats]:
    """Return A.A, B.B and A.B of every column, summed over a fixed number of rows at a time."""
    width = _columns(stack)
    aa, bb, ab = np.zeros(width), np.zeros(width), np.zeros(width)
    # as many whole rows as fit into a block, or one row in parts
    at_once = min(BLOCK, width)
    for row in range(0, stack.size, max(1, BLOCK // width) * width):
        rows = min(max(1, BLOCK // width), (stack.size - row) // width)
        for first in range(0, width, at_once):
            last = min(first + at_once, width)
            start, stop = row + first, row + (rows - 1) * width + last
            a = stack.value(0, start, stop, "a").reshape(rows, -1)
            b = stack.value(1, start, stop, "b").reshape(rows, -1)
            ab[first:last] += (a * b).sum(axis=0)
            aa[first:last] += np.square(a, out=a).sum(axis=0)
            bb[first:last] += np.square(b, out=b).sum(axis=0)
    return aa, bb, ab


def _column_needs(shape: tuple[int, ...], _models: int) -> int:
    """Bytes for three products and a mask of every column."""
    return 8 * 4 * (math.prod(shape[1:]) if shape else 1)


def _cosines(aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Return the cosines in the memory of the products, which are gone then."""
    norms = np.sqrt(aa, out=aa)
    norms *= np.sqrt(bb, out=bb)
    bb[:] = 0.0
    return np.divide(ab, norms, out=bb, where=norms > 0.0)


def _by_likeness(stack: Stack, likeness: Floats, weight: float) -> Pieces:
    likeness -= weight
    from_b = np.subtract(1.0, np.clip(likeness, 0.0, 1.0, out=likeness), out=likeness)
    width = len(from_b)
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        b -= a
        b *= from_b[np.arange(start, stop) % width]
        b += a
        yield start, b


register(
    weighted_sum,
    label="Weighted sum",
    formula="A (1 - w) + B w",
    source="AUTOMATIC1111's checkpoint merger; model soups, Wortsman et al. 2022 (2203.05482)",
    roles=AB,
    identity=_ends,
    weight="weight",
)
register(
    amplified_difference,
    label="Amplified difference",
    formula="A + m (B - A)",
    source="add difference with A for C and a multiplier above 1; task arithmetic (2212.04089)",
    roles=AB,
    identity=lambda values, models: _ends(values, models, "amount"),
    weight="amount",
)
register(
    slerp,
    label="Slerp",
    formula="lerp(|A|, |B|, w) (sin((1 - w) v) A/|A| + sin(w v) B/|B|) / sin v, v = angle(A, B)",
    source="Shoemake, Animating rotation with quaternion curves, 1985",
    roles=AB,
    identity=_ends,
    weight="weight",
    rereads=True,
)
for _function, _likeness in (
    (cosine_a, "cos(A, B) by column"),
    (cosine_b, "mean of cos(A, B) by column and over the tensor"),
):
    register(
        _function,
        label=f"Cosine {_function.__name__[-1].upper()}",
        formula=f"k A + (1 - k) B, k = clip({_likeness} - w, 0, 1)",
        source="SuperMerger's cosine modes, in the form of sd-mecha's add_cosine_a and _b: without "
        "SuperMerger's scaling by percentiles of all tensors",
        roles=AB,
        identity=lambda values, _models: "b" if values["weight"] == 1.0 else None,
        weight="weight",
        rereads=True,
        needs=_column_needs,
    )
