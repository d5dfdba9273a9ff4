"""How far two checkpoints are apart, block by block, in one pass over their weights.

Each weight is read once, in pieces that stay in the CPU's cache, so the pass runs about as fast as
the memory delivers and needs a few MB whatever the size of the models. The same pass finds weights
that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import msgspec
import torch
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.errors import ModelError
from lib_automerge.merge.readers import Checkpoint, widened

CHUNK = 1 << 18
"""Elements that are widened to float32 at once."""


class KeyDistance(msgspec.Struct, frozen=True):
    """Squared norms of one weight in two models, over all its elements.

    Attributes:
        key: the canonical name.
        block: its block.
        size: the squared norm of A's weight; NaN or infinite if not all elements are finite.
        gap: the squared norm of the difference; likewise.
        identical: whether both models hold the same values.
    """

    key: str
    block: str
    size: float
    gap: float
    identical: bool


class _Scratch:
    """Two reused float32 buffers: fresh memory would cost more than the arithmetic."""

    def __init__(self) -> None:
        self._a = torch.empty(CHUNK)
        self._b = torch.empty(CHUNK)

    def norms(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        """Return the squared norms of `a` and of `a - b`, both of any shape and number type."""
        size = gap = 0.0
        for piece_a, piece_b in zip(_pieces(a), _pieces(b), strict=True):
            wide_a = self._a[: piece_a.numel()].copy_(piece_a)
            wide_b = self._b[: piece_b.numel()].copy_(piece_b)
            size += torch.dot(wide_a, wide_a).item()
            wide_b.sub_(wide_a)
            gap += torch.dot(wide_b, wide_b).item()
        return size, gap


def key_distances(
    a: Checkpoint, b: Checkpoint, blocks: Collection[str] | None = None
) -> Iterator[KeyDistance]:
    """Yield the distance of every weight that both models hold in the same shape.

    Args:
        a: model A.
        b: the model to compare with, of the same architecture.
        blocks: only the weights of these blocks; None means all.
    """
    architecture = architectures.get(a.detection.architecture)
    held, shared = a.keys(), set(b.keys())
    scratch = _Scratch()
    for key in held:
        block = architecture.block_of(key)
        if block is None or key not in shared or (blocks is not None and block not in blocks):
            continue
        one, two = a.tensor(key), b.tensor(key)
        if one.shape == two.shape:
            size, gap = scratch.norms(one, two)
            # The square of a tiny difference can vanish; number types convert exactly.
            identical = gap == 0.0 and (
                one.dtype != two.dtype or torch.equal(widened(one), widened(two))
            )
            yield KeyDistance(key, block, size, gap, identical)


def scan(a: Checkpoint, b: Checkpoint, blocks: Collection[str]) -> dict[str, float]:
    """Return how far B is from A in each block, and make sure that both can be merged.

    Args:
        a: model A.
        b: model B, of the same architecture and shapes.
        blocks: the blocks to read, with the weights that only A has.

    Returns:
        Block -> relative distance, see `relative`; without blocks that one of the models lacks.

    Raises:
        ModelError: a weight in these blocks is NaN or infinite; names the model and the first one.
    """
    sums: dict[str, tuple[float, float]] = {}
    for found in key_distances(a, b, blocks):
        if not math.isfinite(found.gap) or not math.isfinite(found.size):
            for model in (a, b):
                _refuse_not_finite(model, found.key)
        size, gap = sums.get(found.block, (0.0, 0.0))
        sums[found.block] = (size + found.size, gap + found.gap)
    architecture = architectures.get(a.detection.architecture)
    for key in sorted(set(a.keys()) - set(b.keys())):
        if architecture.block_of(key) in blocks:
            _refuse_not_finite(a, key)
    return {block: relative(*sums[block]) for block in blocks if block in sums}


def relative(size: float, gap: float) -> float:
    """Return the norm of A - B over the norm of A; 1 if A is zero and B is not.

    Args:
        size: the squared norm of A.
        gap: the squared norm of A - B.
    """
    if size == 0.0:
        return float(gap > 0.0)
    return math.sqrt(gap / size)


def not_finite(tensor: Tensor) -> int:
    """Return how many elements are NaN or infinite."""
    return sum(piece.numel() - int(widened(piece).isfinite().sum()) for piece in _pieces(tensor))


def _refuse_not_finite(model: Checkpoint, key: str) -> None:
    bad = not_finite(model.tensor(key))
    if bad:
        raise ModelError(
            f"{model.path.name}: {bad} of the {model.tensor(key).numel()} numbers in {key!r} are "
            "NaN or infinite. The model is broken; download it again or choose another one."
        )


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    flat = tensor.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        yield flat[start : start + CHUNK]
