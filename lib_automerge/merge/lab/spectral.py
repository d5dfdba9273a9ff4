"""Iso-C: makes the singular values of a merged change alike."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from lib_automerge.errors import ModelError
from lib_automerge.merge.lab.methods import BASE, register
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.stack import Pieces, Stack
from lib_automerge.merge.lab.votes import on_base

_ZERO = 1e-7
"""Singular values below this share of the largest are 0: their directions mean nothing."""


def iso(
    stack: Stack,
    *,
    z: Annotated[
        float, Within(0, 4, "1 leaves the singular values, 0 makes all equal", each="block")
    ] = 0.8,
    scale: Annotated[
        float, Within(-2, 4, "how much of the merged change is added", each="block")
    ] = 1.0,
) -> Pieces:
    """The mean change D = U s V' of all models with s replaced by z (s - mean s) + mean s.

    Tensors are taken as matrices of the first axis by all others; those with one axis, or with one
    row or column, have one singular value, which is its own mean. D' = z D + (1 - z) mean(s) U V',
    and U V' = (D D')^-1/2 D, so that no singular vectors of the long side are needed.
    """
    rows = stack.shape[0] if len(stack.shape) > 1 else 1
    change = _mean_change(stack)
    if z != 1.0 and stack.size and rows > 1 and stack.size > rows:
        _flatten(change.reshape(rows, -1), z)
    for start, stop in stack.chunks():
        yield start, on_base(stack.base(start, stop), change[start:stop], scale)


def _mean_change(stack: Stack) -> Floats:
    needed = 8 * stack.size
    if needed > stack.memory:
        raise ModelError(
            f"iso needs {needed / 1e6:.0f} MB for the matrix {stack.key!r}, and "
            f"{stack.memory / 1e6:.0f} MB are left. Raise --memory."
        )
    change = np.empty(stack.size)
    for start, stop in stack.chunks():
        base = stack.base(start, stop)
        part = change[start:stop]
        part[:] = 0.0
        for model in range(stack.models):
            part += stack.change(model, base, start, stop)
        part /= stack.models
    return change


def _flatten(matrix: Floats, z: float) -> None:
    """Pull the singular values of a matrix (rows x columns) towards their mean, in place."""
    wide = matrix.shape[0] <= matrix.shape[1]
    side = matrix if wide else matrix.T
    squares, vectors = np.linalg.eigh(side @ side.T)
    values = np.sqrt(np.maximum(squares, 0.0))
    real = values > _ZERO * values[-1]
    if not real.any():
        return
    inverse = np.divide(1.0, values, out=np.zeros(len(values)), where=real)
    pull = (1.0 - z) * values.mean()
    factor = z * np.eye(len(values)) + pull * (vectors * inverse) @ vectors.T
    step = max(1, math.ceil((1 << 22) / len(values)))
    for start in range(0, side.shape[1], step):
        columns = side[:, start : start + step]
        columns[:] = factor @ columns


register(
    iso,
    label="Iso (isotropic change)",
    formula="base + s U (z (S - mean S) + mean S) V', with U S V' = mean change",
    source="No Task Left Behind, Marczak et al. 2025 (2502.04959): z = 0 is Iso-C; Iso-Z is "
    "6DammK9's",
    based=True,
    identity=lambda values, _models: BASE if values["scale"] == 0.0 else None,
    rereads=True,
    appetite=16,
)
