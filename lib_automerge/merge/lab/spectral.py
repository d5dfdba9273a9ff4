"""Iso-C: makes the singular values of a merged change alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from lib_automerge.merge.lab.methods import BASE, register, role_of
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.stack import Pieces, Stack
from lib_automerge.merge.lab.votes import on_base

_AT_ONCE = 1 << 18
"""Elements that are decomposed or multiplied at once."""

_SQUARES = 12
"""Float64 numbers that LAPACK and we hold for each element of a square of the short side."""


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
    and U V' = (D D')^-1/2 D, so that no singular vectors of the long side are needed. Values below
    the rounding error of the largest are 0: their directions mean nothing.
    """
    rows = stack.shape[0] if len(stack.shape) > 1 else 1
    change = _mean_change(stack)
    if z != 1.0 and stack.size and rows > 1 and stack.size > rows:
        _flatten(change.reshape(rows, -1), z)
    for start, stop in stack.chunks():
        yield start, on_base(stack.base(start, stop), change[start:stop], scale)


def _mean_change(stack: Stack) -> Floats:
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
    """Pull the singular values of a matrix (rows x columns) towards their mean, in place.

    Singular values and vectors of the short side are those of R in D' = Q R, which keeps all
    digits; the eigenvectors of D D' would lose half of them.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    side = matrix if wide else matrix.T
    _, values, vectors = np.linalg.svd(_triangle(side))
    real = values > max(side.shape) * np.finfo(np.float64).eps * values[0]
    if not real.any():
        return
    inverse = np.divide(1.0, values, out=np.zeros(len(values)), where=real)
    factor = (vectors.T * (inverse * ((1.0 - z) * values.mean()))) @ vectors
    factor[np.diag_indices_from(factor)] += z
    step = max(1, math.ceil(_AT_ONCE / len(values)))
    for start in range(0, side.shape[1], step):
        columns = side[:, start : start + step]
        columns[:] = factor @ columns


def _triangle(side: Floats) -> Floats:
    """Return R of the transpose of a wide matrix, a fixed number of columns after the other."""
    rows = len(side)
    step = max(rows, _AT_ONCE // rows)
    found: Floats = np.empty((0, rows))
    for start in range(0, side.shape[1], step):
        part = np.concatenate([found, side[:, start : start + step].T])
        found = np.asarray(np.linalg.qr(part, mode="r"))
    return found


def _needs(shape: tuple[int, ...], _models: int) -> int:
    """Bytes for the mean change, and for the decomposition of its short side."""
    size = math.prod(shape)
    if len(shape) < 2 or not size:
        return 8 * size
    short = min(shape[0], size // shape[0])
    return 8 * (size + _SQUARES * short * short + 4 * min(size, _AT_ONCE))


def _identity(values: Mapping[str, Any], models: int) -> str | None:
    if values["scale"] == 0.0:
        return BASE
    alone = models == 1 and values["z"] == 1.0 and values["scale"] == 1.0
    return role_of(0) if alone else None


register(
    iso,
    label="Iso (isotropic change)",
    formula="base + s U (z (S - mean S) + mean S) V', with U S V' = mean change",
    source="No Task Left Behind, Marczak et al. 2025 (2502.04959): z = 0 is Iso-C; Iso-Z is "
    "6DammK9's",
    based=True,
    identity=_identity,
    needs=_needs,
)
