"""Trains the pairs of `networks` and finds the best merge of each; needs torch."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.search import networks

Array = NDArray[np.float64]
Batch = Callable[[], tuple[Tensor, Tensor]]

BATCH = 64
ASCENTS = 10


class Course(msgspec.Struct, frozen=True):
    """How long the common start and then each specialist learns, and the specialists' rate."""

    start_steps: int
    special_steps: int
    rate: float


# Chosen so that, as with real checkpoints, the parents are below most merges, the best uniform
# merge is far below the best one, and many of the best weights lie at an end.
COURSES = {"classes": Course(200, 1000, 3e-3), "domains": Course(250, 300, 2e-3)}


def train(kind: str, seed: int) -> dict[str, Array]:
    """Return the parents `a` and `b`, flat, and `optimum_at` (27,)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        draw = np.random.default_rng([seed, 3])
        images, labels, *_ = networks.digits(seed)
        course = COURSES[kind]
        common = _common(kind, images, labels, draw)
        start = _learn(_initial(draw), _batches(*common, draw), course.start_steps, 2e-3)
        a, b = (
            _learn(start, _batches(*special, draw), course.special_steps, course.rate).numpy()
            for special in _specialties(kind, images, labels, draw)
        )
        return {"a": a, "b": b, "optimum_at": _best_merge(kind, seed, a, b, draw)}
    finally:
        torch.set_num_threads(threads)


def _initial(draw: np.random.Generator) -> Tensor:
    parts = []
    for name in networks.BLOCKS:
        for shape in networks.SHAPES[name]:
            spread = 0.0 if len(shape) == 1 else 0.5 / np.sqrt(shape[0])
            parts.append(spread * draw.normal(size=int(np.prod(shape))))
    return torch.tensor(np.concatenate(parts), dtype=torch.float32)


def _common(
    kind: str, images: Array, labels: Array, draw: np.random.Generator
) -> tuple[Array, Array]:
    if kind == "classes":
        return images, labels
    views = [images, networks.transposed(images), networks.inverted(images, draw)]
    return np.concatenate(views), np.tile(labels, len(views))


def _specialties(
    kind: str, images: Array, labels: Array, draw: np.random.Generator
) -> list[tuple[Array, Array]]:
    if kind == "classes":
        return [
            (images[labels < 5], labels[labels < 5]),
            (images[labels >= 5], labels[labels >= 5]),
        ]
    return [
        (networks.transposed(images), labels),
        (networks.inverted(images, draw), labels),
    ]


def _batches(images: Array, labels: Array, draw: np.random.Generator) -> Batch:
    x, y = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(draw.integers(0, len(y), BATCH))
        return x[rows], y[rows]

    return batch


def _learn(start: Tensor, batch: Batch, steps: int, rate: float) -> Tensor:
    flat = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([flat], lr=rate)
    for _ in range(steps):
        x, y = batch()
        loss = torch.nn.functional.cross_entropy(networks.forward(flat, x, torch.relu), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flat.detach()


def _best_merge(kind: str, seed: int, a: Array, b: Array, draw: np.random.Generator) -> Array:
    """Return the best of several gradient ascents on the score, (27,)."""
    images, labels = networks.scored(kind, seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    one, gap = torch.from_numpy(a), torch.from_numpy(b - a)
    owner = torch.from_numpy(networks.OWNER)

    def loss(vector: Array) -> tuple[float, Array]:
        weights = torch.tensor(vector, dtype=torch.float32, requires_grad=True)
        logits = networks.forward(one + weights[owner] * gap, x, torch.relu)
        value = -torch.softmax(logits, dim=1).gather(1, y[:, None]).mean()
        value.backward()
        assert weights.grad is not None
        return value.item(), weights.grad.numpy().astype(np.float64)

    dimension = len(networks.BLOCKS)
    middles = [np.full(dimension, level) for level in (0.3, 0.5, 0.7)]
    starts = [*middles, *draw.random((ASCENTS - len(middles), dimension))]
    box, options = [(0, 1)] * dimension, {"maxiter": 150}
    found = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=box, options=options)
        for start in starts
    ]
    return np.asarray(min(found, key=lambda result: result.fun).x)
