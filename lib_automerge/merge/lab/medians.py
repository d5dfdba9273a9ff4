"""Weights of models from their Gram matrix: the geometric median and Model Stock.

Both look at models through dot products only, so that N x N numbers stand for N models.
"""

from __future__ import annotations

import numpy as np

from lib_automerge.merge.lab.number_types import Floats

_LOST = 1e-8


def better_origin(gram: Floats) -> int:
    """Return the model from which distances are more exact than from model 0; 0 if none is.

    If some models are much closer to each other than to the origin, their distances are differences
    of large numbers. The model with the smallest sum of distances is in the midst of the others.
    """
    squares = squared_distances(gram)
    largest = gram.diagonal().max(initial=0.0)
    between = squares[~np.eye(len(gram), dtype=bool)]
    if not between.size or between.min() >= _LOST * largest:
        return 0
    return int(np.argmin(np.sqrt(squares).sum(axis=1)))


def squared_distances(gram: Floats) -> Floats:
    """Return the squared distances between all points of a Gram matrix."""
    norms = gram.diagonal()
    squares: Floats = np.maximum(norms[:, None] + norms[None, :] - 2.0 * gram, 0.0)
    np.fill_diagonal(squares, 0.0)
    return squares


def geometric_weights(
    gram: Floats, *, iterations: int, tolerance: float, floor: float
) -> tuple[float, ...]:
    """Return weights (of sum 1) with which the points add up to their geometric median.

    Weiszfeld's iteration from the mean (Tohoku Mathematical Journal 43, 1937), which cannot reach a
    median that is one of the points: that case is decided first, by the test of Vardi and Zhang
    ("The multivariate L1-median and associated data depth", 2000).

    Args:
        gram: dot products of the points, from any origin.
        iterations: at most this many.
        tolerance: stop when the sum of distances changes by at most this share of itself.
        floor: distances are taken as at least this.
    """
    count = len(gram)
    squares = squared_distances(gram)
    chosen = _median_point(squares)
    if chosen is not None:
        return tuple(float(model == chosen) for model in range(count))
    weights = np.full(count, 1.0 / count)
    before = np.inf
    for _ in range(iterations):
        # the distance from a weighted mean, by the distances between the points (Leibniz)
        towards = squares @ weights
        distances = np.sqrt(np.maximum(towards - 0.5 * (weights @ towards), 0.0))
        now = float(distances.sum())
        if abs(before - now) <= tolerance * now:
            break
        before = now
        inverse = 1.0 / np.maximum(distances, floor)
        weights = inverse / inverse.sum()
    return tuple(float(weight) for weight in weights)


def _median_point(squares: Floats) -> int | None:
    """Return the first point that is the geometric median itself, or None."""
    distances = np.sqrt(squares)
    for model in range(len(squares)):
        away = distances[model] > 0.0
        same = len(squares) - int(np.count_nonzero(away))
        inverse = np.divide(1.0, distances[model], out=np.zeros(len(squares)), where=away)
        # dot products of the unit vectors towards the others, by the law of cosines
        gaps = squares[model][:, None] + squares[model][None, :] - squares
        pull = 0.5 * inverse @ gaps @ inverse
        if pull < (same * (1.0 - 1e-9)) ** 2:
            return model
    return None


def stock_ratio(gram: Floats) -> float:
    """Return t of Model Stock: how far the result is from the base towards the mean of the models.

    t = N cos / (1 + (N - 1) cos), with the mean cosine of all pairs of changes (Jang et al., "Model
    Stock: All we need is just a few fine-tuned models", 2024). The paper expects cosines from 0 to
    1; outside, t is cut to [0, 1], and 0 where the denominator is not positive. A model that equals
    the base is at a right angle to all others. One model alone is the result.
    """
    count = len(gram)
    if count == 1:
        return 1.0
    norms = np.sqrt(np.maximum(gram.diagonal(), 0.0))
    inverse = np.divide(1.0, norms, out=np.zeros(count), where=norms > 0.0)
    cosines = gram * inverse[:, None] * inverse[None, :]
    mean = float(cosines[np.triu_indices(count, 1)].mean())
    denominator = 1.0 + (count - 1) * mean
    if denominator <= 0.0:
        return 0.0
    return min(max(count * mean / denominator, 0.0), 1.0)
