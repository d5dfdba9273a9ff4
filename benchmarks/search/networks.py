"""Real merges: two small networks fine-tuned from one start, and the score of their block merges.

The network is a residual U of 27 blocks, named like SD1's: embedding (TIME_EMBED), 12 IN blocks
whose outputs the 12 OUT blocks take back as skips, a middle (M00) and a head (OUT). It reads
scikit-learn's 8x8 digits. The score of a merge is the mean, over 12 payloads, of the probability of
the right class on that payload's held-out images.

- classes: one specialist learned the digits 0-4, the other 5-9.
- domains: one learned transposed images, the other inverted and noisy ones; the payloads are of
  both and of plain images.

Training needs torch and takes seconds; the weights are kept in `.cache/benchmarks`. Scoring needs
only NumPy, about a millisecond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from lib_automerge.domain import architectures

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Score = Callable[[Array], float]

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "benchmarks"
BLOCKS = architectures.get("sd1").parameters
PAYLOADS, IMAGES = 12, 12
WIDTH, HIDDEN, CLASSES, PIXELS = 24, 24, 10, 64
DEPTH = 12
_VERSION = 1


def shapes() -> dict[str, list[tuple[int, ...]]]:
    """Block -> the shapes of its weights; matrices are (in, out)."""
    residual: list[tuple[int, ...]] = [(WIDTH, HIDDEN), (HIDDEN,), (HIDDEN, WIDTH)]
    blocks: dict[str, list[tuple[int, ...]]] = {name: list(residual) for name in BLOCKS}
    for number in range(DEPTH):
        blocks[f"OUT{number:02d}"].append((WIDTH, HIDDEN))
    blocks["TIME_EMBED"] = [(PIXELS, WIDTH), (WIDTH,)]
    blocks["OUT"] = [(WIDTH, CLASSES), (CLASSES,)]
    return blocks


SHAPES = shapes()
SIZES = np.array([sum(int(np.prod(shape)) for shape in SHAPES[name]) for name in BLOCKS])
OWNER = np.repeat(np.arange(len(BLOCKS)), SIZES)
"""The block, by position, of every weight of a network, (n,)."""


class Pair(msgspec.Struct, frozen=True):
    """Two trained networks as flat weights (n,), and the payloads that score their merges.

    Attributes:
        a, b: the parents.
        images: what is scored, (payloads * images, 64).
        labels: the right classes, (payloads * images,).
        optimum_at: the best weights found by gradient ascents, (27,).
    """

    a: Single
    b: Single
    images: Single
    labels: NDArray[np.int64]
    optimum_at: Array

    def payloads(self, x: Array) -> Array:
        """Return the score of every payload, (12,), for 27 block weights (27,)."""
        merged = self.a + x.astype(np.float32)[OWNER] * (self.b - self.a)
        logits = _forward(merged, self.images)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        right = odds[np.arange(len(odds)), self.labels] / odds.sum(axis=1)
        return np.asarray(right.reshape(PAYLOADS, IMAGES).mean(axis=1), dtype=np.float64)

    def score(self, x: Array) -> float:
        """Return the score of 27 block weights, (27,)."""
        return float(self.payloads(x).mean())

    @property
    def distances(self) -> dict[str, float]:
        """Block -> the norm of A - B over the norm of A, as `lib_automerge.merge.distances`."""
        gap = np.bincount(OWNER, (self.a - self.b) ** 2)
        return dict(zip(BLOCKS, np.sqrt(gap / np.bincount(OWNER, self.a**2)).tolist(), strict=True))


def load(kind: str, seed: int) -> Pair:
    """Return the pair of a kind (classes, domains), trained now if it is not in the cache."""
    file = CACHE / f"{kind}-{seed}-v{_VERSION}.npz"
    if not file.is_file():
        from benchmarks.search import training  # needs torch

        CACHE.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, **training.train(kind, seed))
        part.replace(file)
    with np.load(file) as held:
        a, b, best = held["a"], held["b"], held["optimum_at"]
    images, labels = scored(kind, seed)
    return Pair(a, b, images, labels, best.astype(np.float64))


def unpack(flat: Single) -> Iterator[Single]:
    """Yield the weights of every block, in order, in their shapes (of an array or a tensor)."""
    start = 0
    for name in BLOCKS:
        for shape in SHAPES[name]:
            size = int(np.prod(shape))
            yield flat[start : start + size].reshape(shape)
            start += size


def forward(flat: Single, x: Single, relu: Callable[[Single], Single]) -> Single:
    """Return the logits (n, 10) of images (n, 64); arrays and tensors alike."""
    weights = unpack(flat)
    parts = {name: [next(weights) for _ in SHAPES[name]] for name in BLOCKS}
    embed, head = parts["TIME_EMBED"], parts["OUT"]
    x = x @ embed[0] + embed[1]
    skips = []
    for number in range(DEPTH):
        enter, bias, leave = parts[f"IN{number:02d}"]
        x = x + relu(x @ enter + bias) @ leave
        skips.append(x)
    enter, bias, leave = parts["M00"]
    x = x + relu(x @ enter + bias) @ leave
    for number in range(DEPTH):
        enter, bias, leave, skip = parts[f"OUT{number:02d}"]
        x = x + relu(x @ enter + skips.pop() @ skip + bias) @ leave
    return x @ head[0] + head[1]


def _forward(flat: Single, x: Single) -> Single:
    return forward(flat, x, lambda value: np.maximum(value, 0.0))


def digits(seed: int) -> tuple[Single, NDArray[np.int64], Single, NDArray[np.int64]]:
    """Return images and labels for training (two thirds), then for scoring; split by the seed."""
    data = load_digits()
    order = np.random.default_rng([seed, 1]).permutation(len(data.target))
    images = (data.data[order] / 8.0 - 1.0).astype(np.float32)
    labels = data.target[order].astype(np.int64)
    cut = 2 * len(labels) // 3
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def transposed(images: Single) -> Single:
    """Images mirrored at their diagonal."""
    return images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, PIXELS)


def inverted(images: Single, draw: np.random.Generator) -> Single:
    """Negatives with noise."""
    return (-images + draw.normal(0, 0.4, images.shape)).astype(np.float32)


def scored(kind: str, seed: int) -> tuple[Single, NDArray[np.int64]]:
    """Return the images and labels of the payloads, in order, all from the scoring part.

    Payloads differ as prompts do: each shows two or three classes, or one domain.
    """
    *_, images, labels = digits(seed)
    draw = np.random.default_rng([seed, 2])
    chosen = []
    for payload in range(PAYLOADS):
        if kind == "classes":
            themes = [payload % 10, (payload + 5) % 10, (3 * payload) % 10]
            fitting = np.flatnonzero(np.isin(labels, themes))
        else:
            fitting = np.arange(len(labels))
        chosen.append(draw.choice(fitting, IMAGES, replace=False))
    rows = np.concatenate(chosen)
    shown = images[rows]
    if kind == "domains":
        third = PAYLOADS // 3 * IMAGES
        shown[:third] = transposed(shown[:third])
        shown[third : 2 * third] = inverted(shown[third : 2 * third], draw)
    return shown, labels[rows]
