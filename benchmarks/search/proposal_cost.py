"""What a proposal of `bayes` costs, and what the model's belief after an evaluation: CPU seconds.

Run `python -m benchmarks.search.proposal_cost` in the repository; it prints a Markdown table. The
least of three measurements each, one thread; the belief uses the fit of the proposal, as in a run.
"""

from __future__ import annotations

import time

import numpy as np

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.bayes import BayesProposer
from lib_automerge.search.model import Model
from lib_automerge.search.space import Space

SIZES = ((19, 150), (27, 40), (27, 80), (27, 150), (27, 300), (27, 500), (110, 150))
REPEATS = 3
NOISE, HILLS = 0.02, 0.1
"""Without noise, the model looks for hills of single blocks, too; here it may find some."""


def history(space: Space, evaluations: int, noise: float, hills: float) -> list[Evaluation]:
    """Return scores of a bowl, half of them near its top, as a search leaves them; hills of single
    blocks are so high.
    """
    draw = np.random.default_rng(0)
    top, importance = draw.random(space.dimension), draw.lognormal(size=space.dimension)
    wide = draw.random((evaluations // 2, space.dimension))
    near = top + 0.1 * draw.normal(size=(evaluations - len(wide), space.dimension))
    points = space.scaled(np.clip(np.vstack([wide, near]), 0.0, 1.0))
    scores = -((points - top) ** 2) @ importance + noise * draw.normal(size=evaluations)
    scores = scores - hills * (1.0 - np.cos(6.0 * np.pi * (points - top))).sum(1)
    return [
        Evaluation(number=n, origin=Origin.SEARCH, weights=space.weights(x), score=float(score))
        for n, (x, score) in enumerate(zip(points, scores, strict=True), start=1)
    ]


def cost(
    parameters: int, evaluations: int, noise: float = 0.0, hills: float = 0.0
) -> tuple[float, float]:
    """Return the CPU seconds of a proposal and of the belief after it."""
    space = Space.box({f"x{i}": (0.0, 1.0) for i in range(parameters)})
    known = history(space, evaluations, noise, hills)
    times = []
    for repeat in range(REPEATS):
        model = Model(space)
        proposer = BayesProposer(space, seed=0, model=model)
        began = time.process_time()
        proposer.propose(known, (), evaluations + 1 + repeat)
        proposed = time.process_time()
        model.learn(known)
        times.append((proposed - began, time.process_time() - proposed))
    return min(a for a, _ in times), min(b for _, b in times)


def main() -> None:
    """Print the table."""
    cost(2, 8)  # imports
    print("| parameters | evaluations | proposal | belief | proposal, exact scores | with hills |")
    print("|---|---|---|---|---|---|")
    for parameters, evaluations in SIZES:
        proposal, belief = cost(parameters, evaluations, NOISE)
        exact, _ = cost(parameters, evaluations)
        hilly, _ = cost(parameters, evaluations, 0.0, HILLS)
        seconds = [f"{taken:.2f} s" for taken in (proposal, belief, exact, hilly)]
        print(f"| {' | '.join((str(parameters), str(evaluations), *seconds))} |", flush=True)


if __name__ == "__main__":
    main()
