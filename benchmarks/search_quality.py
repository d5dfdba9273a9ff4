"""How good the proposers are: normalized regret on synthetic landscapes of 27 merge weights.

Run `python benchmarks/search_quality.py [--seeds N] [--evaluations N ...]`; it prints a table.

Normalized regret is (optimum - true score of the best observed candidate) / (optimum - mean score
of random candidates): 0 is the optimum, 1 an average random recipe. CPU seconds are per proposal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lib_automerge.domain.architectures import get
from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.search.proposers import Proposer, create
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

Array = NDArray[np.float64]
NAMES = ("bayes", "sobol", "random")
_SKIPS = [(i, 24 - i) for i in range(12)]


class Landscape(msgspec.Struct, frozen=True):
    """A score of 27 weights, (27,), its noise relative to the spread of random scores, and its
    optimum.
    """

    score: Callable[[Array], float]
    noise: float
    best: float
    average: float


def smooth(rng: np.random.Generator) -> Callable[[Array], float]:
    """Every block has its own best weight, which changes smoothly through the network; neighbours
    and the two ends of a skip connection interact.
    """
    phase, amplitude = rng.uniform(0, 6.28, 2), rng.uniform(0.2, 0.4)
    position = np.linspace(0, 3.0, 27)
    optimum = np.clip(0.5 + amplitude * np.sin(position + phase[0]) + rng.normal(0, 0.1, 27), 0, 1)
    importance = rng.lognormal(0.0, 0.7, 27)
    left, right = np.array([*_SKIPS, *((i, i + 1) for i in range(24))]).T
    coupling = rng.uniform(0.0, 0.6, len(left))

    def score(x: Array) -> float:
        away = x - optimum
        together = (away[left] + away[right]) ** 2
        return -float(importance @ away**2 + coupling @ together)

    return score


def edges(rng: np.random.Generator) -> Callable[[Array], float]:
    """A few blocks matter much, and most of their best weights lie at or beyond an end."""
    optimum = rng.choice([-0.4, 0.15, 0.8, 1.4], 27)
    importance = 10.0 ** rng.uniform(-2.0, 0.3, 27)

    def score(x: Array) -> float:
        return float(np.exp(-np.sqrt(importance @ (x - optimum) ** 2)))

    return score


def rugged(rng: np.random.Generator) -> Callable[[Array], float]:
    """Smooth, with a ripple in every block that makes many local optima."""
    base = smooth(rng)
    phase, frequency = rng.uniform(0, 6.28, 27), rng.uniform(10, 16, 27)

    def score(x: Array) -> float:
        return base(x) + 0.05 * float(np.cos(frequency * x + phase).sum())

    return score


def network(rng: np.random.Generator) -> Callable[[Array], float]:
    """Two small residual networks, merged layer by layer: the score is how well the merge does
    what both were taught, each on its own inputs. Each learned more in some layers.
    """
    width, layers = 8, 27
    shared = rng.normal(0, 0.5 / np.sqrt(width), (layers, width, width))
    reach = 0.1 * rng.lognormal(0.0, 1.0, (2, layers, 1, 1))
    tasks = reach * rng.normal(0, 1.0 / np.sqrt(width), (2, layers, width, width))
    inputs = rng.normal(0, 1, (2, 24, width))

    def output(weights: Array, x: Array) -> Array:
        for layer in weights:
            x = x + np.tanh(x @ layer)
        return x

    wanted = [output(shared + task, x) for task, x in zip(tasks, inputs, strict=True)]

    def score(x: Array) -> float:
        blend = x[:, None, None]
        merged = shared + (1.0 - blend) * tasks[0] + blend * tasks[1]
        errors = [np.mean((output(merged, i) - w) ** 2) for i, w in zip(inputs, wanted)]
        return -float(np.sqrt(np.mean(errors)))

    return score


LANDSCAPES = {
    "smooth": (smooth, 0.0),
    "smooth, noisy": (smooth, 0.3),
    "edges": (edges, 0.0),
    "rugged": (rugged, 0.0),
    "network": (network, 0.0),
    "network, noisy": (network, 0.3),
}


def landscape(name: str, seed: int) -> Landscape:
    """Return an instance of a landscape with its optimum, found by gradient ascents from the best
    of many random points.
    """
    make, noise = LANDSCAPES[name]
    rng = generator(seed, f"landscape {make.__name__}")
    score = make(rng)
    points = rng.random((1000, 27))
    scores = np.array([score(x) for x in points])
    starts = points[np.argsort(-scores)[:2]]
    ascents = [
        minimize(lambda x: -score(x), start, method="L-BFGS-B", bounds=[(0, 1)] * 27)
        for start in starts
    ]
    best = max(-float(found.fun) for found in ascents)
    return Landscape(score, noise * float(scores.std()), best, float(scores.mean()))


def run(
    target: Landscape, proposer: Proposer, space: Space, seed: int, evaluations: list[int]
) -> tuple[list[float], float]:
    """Return the regret after each of `evaluations`, and CPU seconds per proposal."""
    rng = generator(seed, "noise")
    history: list[Evaluation] = []
    truth: list[float] = []
    seconds = 0.0
    baselines = zip((Origin.MODEL_A, Origin.MODEL_B, Origin.HALF), (0.0, 1.0, 0.5), strict=True)
    queue = [(origin, space.weights(np.full(27, value))) for origin, value in baselines]
    for number in range(1, max(evaluations) + 1):
        if queue:
            origin, weights = queue.pop(0)
        else:
            began = time.process_time()
            proposal = proposer.propose(history, (), number)
            seconds += time.process_time() - began
            origin, weights = proposal.origin, proposal.weights
        true = target.score(space.vector(weights))
        truth.append(true)
        seen = true + target.noise * rng.normal()
        history.append(Evaluation(number=number, origin=origin, weights=weights, score=seen))
    regrets = []
    for count in evaluations:
        chosen = int(np.argmax([e.score for e in history[:count]]))
        regrets.append((target.best - truth[chosen]) / (target.best - target.average))
    return regrets, seconds / (max(evaluations) - 3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[40, 80])
    parser.add_argument("--optimizers", nargs="+", default=list(NAMES))
    arguments = parser.parse_args()
    space = Space.of(SearchConfig(), get("sd1"))
    heads = [f"{name} @{n}" for name in arguments.optimizers for n in arguments.evaluations]
    print("| landscape | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    rows = []
    cost: dict[str, list[float]] = {name: [] for name in arguments.optimizers}
    for label in LANDSCAPES:
        row: list[float] = []
        for name in arguments.optimizers:
            regrets = []
            for seed in range(arguments.seeds):
                proposer = create(name, space, seed=seed)
                target = landscape(label, seed)
                regret, seconds = run(target, proposer, space, seed, arguments.evaluations)
                regrets.append(regret)
                cost[name].append(seconds)
            row += np.mean(regrets, axis=0).tolist()
        rows.append(row)
        print(f"| {label} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
    print("| **mean** | " + " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0)) + " |")
    print("\nCPU seconds per proposal, up to", max(arguments.evaluations), "evaluations:")
    for name, values in cost.items():
        print(f"- {name}: mean {np.mean(values):.4f}, worst run {max(values):.4f}")


if __name__ == "__main__":
    main()
