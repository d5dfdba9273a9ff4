"""What a log of another reward is worth to a search, and what to do with it.

    python -m benchmarks.search.warm_start [--landscapes N] [--evaluations N]

Two quadratic landscapes in 27 dimensions stand for two rewards; how far the second is mixed with an
unrelated one decides how alike they rank recipes. A log of 96 recipes is scored by the second,
tenths in 12 blocks as a search of AutoMBW leaves them. The search maximizes the first, with noise,
after the best few of the log; or with the rest of the log, too, as uncertain observations: an
affine map is fitted on the recipes that were scored by both.

The table has the mean regret (0 the optimum, 1 the better parent) after so many evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain import architectures
from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.events import BASELINES, Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search import proposers
from lib_automerge.search.space import Space

Array = NDArray[np.float64]
Score = Callable[[Array], Array]

ROWS, MOVING, NOISE = 96, 12, 0.03
MIXES = (0.15, 0.4, 0.8)
IMAGES, FOREIGN_IMAGES = 12, 2
"""A foreign row counts as a sixth of an evaluation."""

SPREAD = (20, 45, 70, 95)
"""Ranks of the log that are scored anew, besides the best, to fit the map."""


class Way(msgspec.Struct, frozen=True):
    """What is done with a log: how many of its best are scored, and whether the rest is mapped."""

    label: str
    best: int
    mapped: bool = False


WAYS = (
    Way("no warm start", 0),
    Way("the best", 1),
    Way("3 best", 3),
    Way("5 best", 5),
    Way("3 best, 4 others, the rest mapped", 3, mapped=True),
)
SPACE = Space.of(SearchConfig(), architectures.get("sd1"))


def quadratic(weights: Array, optimum: Array) -> Score:
    return lambda points: -((points - optimum) ** 2 @ weights)


def landscapes(mix: float, draw: np.random.Generator) -> tuple[Score, Score]:
    """The landscape to search, and that of the log: 0 the same, 1 unrelated."""
    dimension = SPACE.dimension
    weights = draw.dirichlet(np.full(dimension, 0.5), 2)
    optima = draw.uniform(0.1, 0.9, (2, dimension))
    share = np.array([1.0 - mix, mix])
    return quadratic(weights[0], optima[0]), quadratic(share @ weights, share @ optima)


def log_of(score: Score, draw: np.random.Generator) -> tuple[Array, Array]:
    """Recipes and scores of a log, the best first; half of it are moves from its best so far."""
    moving = draw.permutation(SPACE.dimension)[:MOVING]
    base = draw.integers(0, 11, SPACE.dimension) / 10
    points: list[Array] = []
    for row in range(ROWS):
        point, moved = base.copy(), moving
        if row > 20 and draw.random() < 0.5:
            point = points[int(np.argmax(score(np.array(points))))].copy()
            moved = draw.choice(moving, 3)
        point[moved] = draw.integers(0, 11, len(moved)) / 10
        points.append(point)
    clean = 3.0 * score(np.array(points)) + 0.5
    scores = clean + draw.normal(0.0, NOISE * clean.std(), ROWS)
    order = np.argsort(-scores)
    return np.array(points)[order], scores[order]


def evaluation(number: int, point: Array, score: float, origin: Origin) -> Evaluation:
    images = FOREIGN_IMAGES if origin is Origin.EARLIER else IMAGES
    weights = SPACE.weights(point)
    return Evaluation(number=number, origin=origin, weights=weights, score=score, images=images)


def mapped(
    points: Array, scores: Array, own: Sequence[float], ranks: list[int]
) -> list[Evaluation]:
    """The rows that were not scored anew, on the scale of those that were."""
    told = scores[ranks]
    slope = max(0.0, float(np.cov(told, own)[0, 1] / told.var(ddof=1)))
    values = np.mean(own) + slope * (scores - told.mean())
    return [
        evaluation(-row - 1, points[row], float(values[row]), Origin.EARLIER)
        for row in range(ROWS)
        if row not in ranks
    ]


def regrets(mix: float, way: Way, seed: int, evaluations: int) -> tuple[float, Array]:
    """The rank correlation of the two landscapes, and the regret after each evaluation."""
    draw = np.random.default_rng([seed, int(100 * mix)])
    score, foreign = landscapes(mix, np.random.default_rng(seed))
    probe = draw.random((400, SPACE.dimension))
    ranks = [values.argsort().argsort() for values in (score(probe), foreign(probe))]
    sigma = NOISE * float(np.ptp(score(probe)))
    points, scores = log_of(foreign, draw)
    chance = np.random.default_rng([seed, 1])
    history: list[Evaluation] = []
    true: list[float] = []

    def evaluate(point: Array, origin: Origin) -> None:
        true.append(float(score(point)))
        told = true[-1] + float(chance.normal(0.0, sigma))
        history.append(evaluation(len(history) + 1, point, told, origin))

    for share in (0.0, 1.0, 0.5):
        evaluate(np.full(SPACE.dimension, share), Origin.DESIGN)
    tried = [*range(way.best), *(SPREAD if way.mapped else ())]
    for rank in tried:
        evaluate(points[rank], Origin.START)
    proposer = proposers.create("bayes", SPACE, seed=seed)
    while len(history) < evaluations:
        own = [e.score or 0.0 for e in history[len(BASELINES) : len(BASELINES) + len(tried)]]
        rest = mapped(points, scores, own, tried) if way.mapped else []
        proposal = proposer.propose([*rest, *history], [], len(history) + 1)
        evaluate(SPACE.vector(proposal.weights), proposal.origin)
    parent = max(true[0], true[1])
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return correlation, np.maximum.accumulate(true) / parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--landscapes", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=40)
    options = parser.parse_args()
    after = [n for n in (8, 12, 20, 30, 40) if n <= options.evaluations]
    print("| rank correlation | what is done with the log |", " | ".join(map(str, after)), "|")
    print("|---|---|" + "---|" * len(after))
    for mix in MIXES:
        for way in WAYS:
            runs = [regrets(mix, way, s, options.evaluations) for s in range(options.landscapes)]
            correlation = np.mean([found for found, _ in runs])
            means = np.mean([regret for _, regret in runs], axis=0)
            cells = " | ".join(f"{means[n - 1]:.2f}" for n in after)
            print(f"| {correlation:.2f} | {way.label} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
