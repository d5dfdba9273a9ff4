"""Landscapes: scores of the 27 merge weights of SD1 whose optimum is known.

`create(name, seed)` is the way in. A seed is an instance of its own; the results are of seeds 0 to
9, so tune on others (100 and up).

- smooth: concave; 7 blocks decide, their importance spread over 1.3 decades, 20 hardly matter.
- additive: every block has its own best weight, which changes along the network; neighbours and
  the two ends of a skip connection interact.
- levy, ackley: mildly and strongly multi-modal.
- classes, domains: two small networks of one origin, merged block by block; see `networks`.
- NAME-noisy: the same with fresh Gaussian noise in every observation.

The optima are off-centre and differ from block to block, so that methods that begin in the middle
are not flattered.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain import architectures

Array = NDArray[np.float64]
Function = Callable[[Array], float]

BLOCKS = architectures.get("sd1").parameters
DIMENSION = len(BLOCKS)
NOISE = {"smooth": 0.10, "additive": 0.07, "classes": 0.05, "domains": 0.05}
"""Landscape -> standard deviation of the noise of a score, as a share of the distance from the
better parent to the optimum."""

_SKIPS = [(i, 24 - i) for i in range(12)]
_NEIGHBOURS = [(i, i + 1) for i in range(24)]


class Observation(msgspec.Struct, frozen=True):
    """What one evaluation shows: the score, and its parts per payload, (p,), if there are any."""

    score: float
    payloads: Array | None = None


class Landscape(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a landscape.

    Attributes:
        name, seed: what it was created from.
        score: the true score of 27 weights (27,) in 0..1, higher is better.
        payloads: the true score of every payload, (p,), whose mean is `score`; None if it has none.
        noise_sd: the standard deviation of the noise of an observed score.
        optimum: the highest score.
        optimum_at: where it is, (27,).
        better_parent: the score of the better of all zeros and all ones.
        random_mean: the mean score of uniformly random recipes.
        distances: block -> relative distance of the two models, as a run knows it in advance.
    """

    name: str
    seed: int
    score: Function
    payloads: Callable[[Array], Array] | None = None
    noise_sd: float = 0.0
    optimum: float
    optimum_at: Array
    better_parent: float
    random_mean: float
    distances: dict[str, float]

    def regret(self, score: float) -> float:
        """The distance of a true score from the optimum; 1 is the better parent's."""
        return (self.optimum - score) / (self.optimum - self.better_parent)

    def observe(self, x: Array, draw: np.random.Generator) -> Observation:
        """Score `x` as a run would: with noise, and per payload where there are payloads."""
        if self.payloads is None:
            return Observation(self.score(x) + self.noise_sd * draw.normal())
        parts = self.payloads(x)
        parts = parts + self.noise_sd * np.sqrt(len(parts)) * draw.normal(size=len(parts))
        return Observation(float(parts.mean()), parts)


def create(name: str, seed: int) -> Landscape:
    """Return the instance `seed` of a landscape; the same every time.

    Raises:
        KeyError: there is no landscape of this name.
    """
    base, _, noisy = name.partition("-")
    made = _synthetic(base, seed) if base in _SYNTHETIC else _networks(base, seed)
    if not noisy:
        return made
    noise = NOISE[base] * (made.optimum - made.better_parent)
    return msgspec.structs.replace(made, name=name, noise_sd=noise)


def names() -> tuple[str, ...]:
    """All landscapes."""
    return (*_SYNTHETIC, "classes", "domains", *(f"{base}-noisy" for base in NOISE))


def noise_source(landscape: Landscape, seed: int) -> np.random.Generator:
    """The noise that every optimizer meets in the run `seed`."""
    return np.random.default_rng([seed, *landscape.name.encode()])


def surroundings(score: Function, seed: int) -> tuple[float, float]:
    """Return the scores of the better parent and of the average random recipe."""
    points = np.random.default_rng(seed).random((200, DIMENSION))
    parents = max(score(np.zeros(DIMENSION)), score(np.ones(DIMENSION)))
    return parents, float(np.mean([score(x) for x in points]))


def _networks(base: str, seed: int) -> Landscape:
    from benchmarks.search import networks  # it may have to train them

    pair = networks.load(base, seed)
    better, random_mean = surroundings(pair.score, seed)
    return Landscape(
        name=base,
        seed=seed,
        score=pair.score,
        payloads=pair.payloads,
        optimum=pair.score(pair.optimum_at),
        optimum_at=pair.optimum_at,
        better_parent=better,
        random_mean=random_mean,
        distances=pair.distances,
    )


def _synthetic(base: str, seed: int) -> Landscape:
    draw = np.random.default_rng([seed, *base.encode()])
    score, best, importance = _SYNTHETIC[base](draw)
    better, random_mean = surroundings(score, seed)
    # Blocks that differ more tend to matter more, but not reliably so.
    distances = 0.1 * np.sqrt(importance / importance.max()) * draw.lognormal(0.0, 0.5, DIMENSION)
    return Landscape(
        name=base,
        seed=seed,
        score=score,
        optimum=score(best),
        optimum_at=best,
        better_parent=better,
        random_mean=random_mean,
        distances=dict(zip(BLOCKS, distances.tolist(), strict=True)),
    )


def _profile(draw: np.random.Generator) -> Array:
    """Best weights that change smoothly along the network around an off-centre mean, (27,)."""
    centre = 0.5 + draw.choice([-1.0, 1.0]) * draw.uniform(0.1, 0.2)
    wave = draw.uniform(0.2, 0.35) * np.sin(np.linspace(0, 4.0, DIMENSION) + draw.uniform(0, 6.28))
    return np.clip(centre + wave + draw.normal(0, 0.12, DIMENSION), 0.0, 1.0)


def _smooth(draw: np.random.Generator) -> tuple[Function, Array, Array]:
    importance = np.full(DIMENSION, 0.01)
    importance[draw.choice(DIMENSION, 7, replace=False)] = 10.0 ** np.linspace(-1.3, 0.0, 7)
    side = draw.choice([-1.0, 1.0], DIMENSION)
    best = np.clip(0.5 + side * draw.uniform(0.15, 0.6, DIMENSION), 0.0, 1.0)

    # A rounded cone: concave, but no quadratic, which some methods would solve exactly.
    def score(x: Array) -> float:
        return -float(np.sqrt(0.02 + importance @ (x - best) ** 2))

    return score, best, importance


def _additive(draw: np.random.Generator) -> tuple[Function, Array, Array]:
    best = _profile(draw)
    importance = draw.lognormal(0.0, 0.7, DIMENSION)
    power = draw.uniform(1.4, 2.6, DIMENSION)
    left, right = np.array([*_SKIPS, *_NEIGHBOURS]).T
    coupling = draw.uniform(0.0, 0.6, len(left)) * draw.choice([-1.0, 1.0], len(left))
    sign = np.sign(coupling)

    def score(x: Array) -> float:
        away = x - best
        together = (away[left] + sign * away[right]) ** 2
        return -float(importance @ np.abs(away) ** power + np.abs(coupling) @ together)

    return score, best, importance


def _levy(draw: np.random.Generator) -> tuple[Function, Array, Array]:
    """Levy's function (Laguna and Marti, 2005) with a weight per block."""
    best = _profile(draw)
    importance = draw.lognormal(0.0, 0.7, DIMENSION)

    def score(x: Array) -> float:
        away = 2.0 * (x - best)
        ripple = 1.0 + 10.0 * np.sin(np.pi * (1.0 + away) + 1.0) ** 2
        first = np.sin(np.pi * (1.0 + away[0])) ** 2
        return -float(first + importance @ (away**2 * ripple))

    return score, best, importance


def _ackley(draw: np.random.Generator) -> tuple[Function, Array, Array]:
    """Ackley's function (1987) with its centre at the best weights."""
    best = _profile(draw)

    def score(x: Array) -> float:
        away = 6.0 * (x - best)
        bowl = 20.0 * np.exp(-0.2 * np.sqrt(np.mean(away**2)))
        return float(bowl + np.exp(np.mean(np.cos(2.0 * np.pi * away))) - 20.0 - np.e)

    return score, best, np.ones(DIMENSION)


_SYNTHETIC: dict[str, Callable[[np.random.Generator], tuple[Function, Array, Array]]] = {
    "smooth": _smooth,
    "additive": _additive,
    "levy": _levy,
    "ackley": _ackley,
}
