"""Where the models of a pool stand on a map, and how they branch, from their distances."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Places(msgspec.Struct, frozen=True):
    """Points in the plane whose distances are as near to the given ones as any plane allows.

    Attributes:
        points: one row of two coordinates per model, in units of the distances.
        kept: the share of the squared distances that the plane shows, 0 to 1.
    """

    points: Matrix
    kept: float


class Joint(msgspec.Struct, frozen=True):
    """Two branches of a tree that meet.

    Attributes:
        left: a leaf's number, or the number of leaves plus that of an earlier joint.
        right: likewise.
        height: the mean distance of the models on the left from those on the right.
    """

    left: int
    right: int
    height: float


class Tree(msgspec.Struct, frozen=True):
    """How models cluster: the leaves in an order without crossings, and joints from near to far."""

    leaves: tuple[int, ...]
    joints: tuple[Joint, ...]


def places(distances: Matrix) -> Places:
    """Return a map by classical multidimensional scaling (Torgerson, 1952).

    Args:
        distances: symmetric, at least 2 x 2, 0 on the diagonal.
    """
    count = len(distances)
    centring = np.eye(count) - 1.0 / count
    unit = float(distances.max()) or 1.0  # the squares of very large distances would overflow
    products = -0.5 * centring @ np.square(distances / unit) @ centring
    values, vectors = np.linalg.eigh((products + products.T) / 2.0)
    order = np.argsort(-values)[:2]
    lengths = np.maximum(values[order], 0.0)
    points = np.zeros((count, 2))
    points[:, : len(order)] = vectors[:, order] * np.sqrt(lengths)
    # The sign of an eigenvector is chance: the point that is farthest out stands on the right.
    signs = np.sign(points[np.argmax(np.abs(points), axis=0), [0, 1]])
    positive = values[values > 0.0].sum()
    points *= np.where(signs < 0, -unit, unit)
    return Places(points, float(lengths.sum() / (positive or 1.0)))


def tree(distances: Matrix) -> Tree:
    """Return the tree of average linkage (UPGMA), neighbours in the order that fits best.

    Args:
        distances: symmetric, at least 2 x 2, 0 on the diagonal.
    """
    from scipy.cluster import hierarchy  # takes a second, and only this needs it
    from scipy.spatial.distance import squareform

    flat = squareform(distances, checks=False)
    linked = hierarchy.linkage(flat, method="average", optimal_ordering=True)
    return Tree(
        leaves=tuple(int(leaf) for leaf in hierarchy.leaves_list(linked)),
        joints=tuple(Joint(int(a), int(b), float(height)) for a, b, height, _ in linked),
    )
