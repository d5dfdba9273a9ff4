"""How soon a score is known if the payloads that tell most come first.

On the recorded candidates of `bayes` on the noisy networks: what the first few payloads foretell of
a complete score (`lib_automerge.search.observations`), in the order in which they are given and in
that of `images.telling`, which is learned from the candidates before.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.search import images, landscapes, ours
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.observations import Payloads

COUNTS = (4, 6, 8)
"""After how many of the payloads; early reject begins at the first."""


class Foretold(msgspec.Struct, frozen=True):
    """How far off the score is that some payloads foretell.

    Attributes:
        landscape, seed: of the run.
        errors: order -> for each of `COUNTS`, the root of the mean squared error over the
            candidates from the 13th on, as a share of the standard deviation of their scores.
    """

    landscape: str
    seed: int
    errors: dict[str, tuple[float, ...]]


def foretold(landscape: landscapes.Landscape, seed: int) -> Foretold:
    """Look at what the payloads foretold in the recorded run of a seed."""
    history = ours.played("bayes", landscape, seed, images.PLAIN_EVALUATIONS).history
    return Foretold(landscape.name, seed, errors(history[: images.PLAIN_EVALUATIONS]))


def errors(history: Sequence[Evaluation]) -> dict[str, tuple[float, ...]]:
    """Return the `errors` of `Foretold` for candidates that are all complete."""
    missed: dict[str, list[list[float]]] = {"as given": [], "most telling first": []}
    scores = [candidate.score or 0.0 for candidate in history]
    for number in range(images.LOOK_FROM, len(history)):
        before, candidate = history[:number], history[number]
        payloads = Payloads.of(before)
        assert payloads is not None
        orders = (range(images.PAYLOADS), images.telling(before, images.PAYLOADS))
        for misses, order in zip(missed.values(), orders, strict=True):
            names = [f"payload {payload}" for payload in order]
            parts = [{n: candidate.per_payload[n] for n in names[:count]} for count in COUNTS]
            estimates = [payloads.estimate(part) for part in parts]
            misses.append([e[0] - scores[number] for e in estimates if e is not None])
    spread = np.std(scores[images.LOOK_FROM :])
    return {
        order: tuple(np.round(np.sqrt(np.mean(np.square(misses), axis=0)) / spread, 4).tolist())
        for order, misses in missed.items()
    }
