"""What a proposer makes of history and pending: in its space, in order, with one score per point.

Rejected evaluations count as `observations` says, with payloads of equal shares: other shares would
make an estimate surer and leave it where it is on average, and no optimizer here asks how sure it
is. When nothing has a score, all points are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.observations import observed
from lib_automerge.search.space import Key, Space

Array = NDArray[np.float64]


def within(space: Space, evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Return the evaluations of points of the space, in order of their numbers."""
    inside = (e for e in evaluations if space.contains(e.weights))
    return tuple(sorted(inside, key=lambda e: e.number))


def key_of(space: Space, evaluation: Evaluation) -> Key:
    """Return the point of an evaluation within the space."""
    return space.key(space.vector(evaluation.weights))


def scores(space: Space, finished: Sequence[Evaluation]) -> dict[Key, float]:
    """Return the score of every evaluated point, by all that is known now."""
    if all(e.score is None for e in finished):
        return {key_of(space, e): 0.0 for e in finished}
    seen = observed(space, finished)
    return dict(zip(map(space.key, seen.vectors), seen.scores.tolist(), strict=True))


def scores_then(space: Space, finished: Sequence[Evaluation]) -> dict[Key, float]:
    """Return the score of every evaluated point as it looked when it was evaluated first.

    Unlike `scores` these do not change as the history grows: what a strategy did with them, it
    does again.

    Args:
        space: what is searched.
        finished: evaluations within it, in order of their numbers.
    """
    first = next((e.number for e in finished if e.score is not None), None)
    found: dict[Key, float] = {}
    for evaluation in finished:
        key = key_of(space, evaluation)
        if key in found:
            continue
        if evaluation.score is not None:
            found[key] = evaluation.score
        elif first is None:
            found[key] = 0.0
        else:
            then = max(first, evaluation.number)
            found[key] = scores(space, [e for e in finished if e.number <= then])[key]
    return found


def start_of(space: Space, finished: Sequence[Evaluation]) -> Array | None:
    """Return the best point that the optimizer did not propose itself, (d,) fractions of the
    ranges; None if none has a score.

    These come before its own proposals, so the answer stays the same through a search. A score of
    fewer images than others have counts only where there is no other.
    """
    given = [e for e in finished if e.origin is not Origin.SEARCH and e.score is not None]
    if not given:
        return None
    most = max(e.images for e in given)
    best = max((e for e in given if e.images == most), key=lambda e: (e.score, -e.number))
    return (space.vector(best.weights) - space.low) / (space.high - space.low)
