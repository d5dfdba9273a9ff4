"""Methods of three models: differences and sums of three."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from lib_automerge.merge.lab.methods import register
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch

ABC = ("a", "b", "c")

TRAINED = 1.8
"""SuperMerger's factor: with it, train difference changes about as much as add difference."""


def add_difference(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(-2, 4, "how much of B - C is added to A", each="block", unnamed=0.0)
    ] = 1.0,
) -> Pieces:
    """`A + w (B - C)`."""
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        b -= stack.value(2, start, stop, "c")
        b *= weight
        b += a
        yield start, b


def train_difference(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(-2, 4, "how much of B - C is added to A", each="block", unnamed=0.0)
    ] = 1.0,
) -> Pieces:
    """`A + 1.8 w (B - C) |B - A| / (|B - A| + |B - C|)`: less where A already is like B."""
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        learned = stack.value(2, start, stop, "c")
        np.subtract(b, learned, out=learned)
        far = b
        far -= a
        np.abs(far, out=far)
        sum_of_both = np.abs(learned, out=scratch("both", stop - start))
        sum_of_both += far
        # where B equals A and C nothing was learned
        np.divide(far, sum_of_both, out=far, where=sum_of_both > 0.0)
        learned *= far
        learned *= TRAINED * weight
        learned += a
        yield start, learned


def sum_twice(
    stack: Stack,
    *,
    alpha: Annotated[
        float, Within(-1, 2, "share of B in the first sum", each="block", unnamed=0.0)
    ] = 0.5,
    beta: Annotated[
        float, Within(-1, 2, "share of C in the result", each="block", unnamed=0.0)
    ] = 0.5,
) -> Pieces:
    """`(A (1 - alpha) + B alpha) (1 - beta) + C beta`."""
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        c = stack.value(2, start, stop, "c")
        b -= a
        b *= alpha
        b += a
        c -= b
        c *= beta
        c += b
        yield start, c


def triple_sum(
    stack: Stack,
    *,
    alpha: Annotated[float, Within(-1, 2, "share of B", each="block", unnamed=0.0)] = 1 / 3,
    beta: Annotated[float, Within(-1, 2, "share of C", each="block", unnamed=0.0)] = 1 / 3,
) -> Pieces:
    """`A (1 - alpha - beta) + B alpha + C beta`."""
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        b = stack.value(1, start, stop, "b")
        c = stack.value(2, start, stop, "c")
        b -= a
        b *= alpha
        c -= a
        c *= beta
        b += c
        b += a
        yield start, b


register(
    add_difference,
    label="Add difference",
    formula="A + w (B - C)",
    source="AUTOMATIC1111's checkpoint merger; task arithmetic, Ilharco et al. 2023 (2212.04089)",
    roles=ABC,
    identity=lambda values, _models: "a" if values["weight"] == 0.0 else None,
    weight="weight",
)
register(
    train_difference,
    label="Train difference",
    formula="A + 1.8 w (B - C) |B - A| / (|B - A| + |B - C|)",
    source="SuperMerger's trainDifference, from its behaviour",
    roles=ABC,
    identity=lambda values, _models: "a" if values["weight"] == 0.0 else None,
    weight="weight",
)
register(
    sum_twice,
    label="Sum twice",
    formula="(A (1 - alpha) + B alpha) (1 - beta) + C beta",
    source="SuperMerger",
    roles=ABC,
    identity=lambda values, _models: (
        "c"
        if values["beta"] == 1.0
        else {0.0: "a", 1.0: "b"}.get(values["alpha"])
        if values["beta"] == 0.0
        else None
    ),
    weight="alpha",
)
register(
    triple_sum,
    label="Triple sum",
    formula="A (1 - alpha - beta) + B alpha + C beta",
    source="SuperMerger",
    roles=ABC,
    identity=lambda values, _models: {(0.0, 0.0): "a", (1.0, 0.0): "b", (0.0, 1.0): "c"}.get(
        (values["alpha"], values["beta"])
    ),
    weight="alpha",
)
