"""Our optimizers on the landscapes, through the loop and the model that a run uses.

A run begins with A, B and 50:50, as every run does. The recipe that it would hand over is the
leader of the model (`lib_automerge.search.model`), looked at every five evaluations; for optimizers
that are run without the model, the best observed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.search import landscapes, networks, records
from lib_automerge.domain import architectures
from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.search import statistics
from lib_automerge.search.model import Model
from lib_automerge.search.proposers import Proposal, Proposer, create
from lib_automerge.search.space import Space

Array = NDArray[np.float64]
SPACE = Space.of(SearchConfig(), architectures.get("sd1"))
BASELINES = ((Origin.MODEL_A, 0.0), (Origin.MODEL_B, 1.0), (Origin.HALF, 0.5))
LEADER_EVERY, LEADER_FROM = 5, 10
HISTORIES = networks.CACHE / "histories"


class Played(msgspec.Struct, frozen=True):
    """A run of an optimizer.

    Attributes:
        history: the evaluations as the optimizer saw them, in the order in which they finished.
        regrets: the true regret of each, by number from 1.
        seconds: CPU seconds per proposal.
    """

    history: tuple[Evaluation, ...]
    regrets: tuple[float, ...]
    seconds: float

    def regret_of(self, number: int) -> float:
        """The true regret of evaluation `number`."""
        return self.regrets[number - 1]


class Scorer:
    """Turns proposals into finished evaluations of a landscape; keeps their true regrets."""

    def __init__(self, landscape: landscapes.Landscape, seed: int) -> None:
        self._landscape = landscape
        self._draw = landscapes.noise_source(landscape, seed)
        self.regrets: dict[int, float] = {}

    def finished(self, candidate: Evaluation) -> Evaluation:
        """Return the candidate with its score, and per payload where the landscape has any."""
        x = SPACE.vector(candidate.weights)
        seen = self._landscape.observe(x, self._draw)
        self.regrets[candidate.number] = self._landscape.regret(self._landscape.score(x))
        if seen.payloads is None:
            return msgspec.structs.replace(candidate, score=seen.score, images=1)
        parts = {f"payload {i}": [value] for i, value in enumerate(seen.payloads.tolist())}
        summary = statistics.summarize(parts, dict.fromkeys(parts, 1.0))
        return msgspec.structs.replace(
            candidate,
            score=summary.mean,
            standard_error=summary.standard_error,
            images=summary.images,
            per_payload=summary.per_payload,
        )


def proposer_of(name: str, landscape: landscapes.Landscape, seed: int) -> Proposer:
    """Return the proposer, told how far the models are apart, as a run tells it."""
    return create(name, SPACE, seed=seed, model=Model(SPACE, landscape.distances))


def candidate(
    proposer: Proposer,
    history: Sequence[Evaluation],
    pending: Sequence[Evaluation],
    number: int,
) -> Evaluation:
    """Return evaluation `number`, to be scored: a baseline first, then what is proposed."""
    if number <= len(BASELINES):
        origin, weight = BASELINES[number - 1]
        proposal = Proposal(SPACE.weights(np.full(SPACE.dimension, weight)), origin)
    else:
        proposal = proposer.propose(history, pending, number)
    return Evaluation(number=number, origin=proposal.origin, weights=proposal.weights)


def play(name: str, landscape: landscapes.Landscape, seed: int, evaluations: int) -> Played:
    """Run an optimizer, one evaluation after the other."""
    proposer, scorer = proposer_of(name, landscape, seed), Scorer(landscape, seed)
    history: list[Evaluation] = []
    seconds = 0.0
    for number in range(1, evaluations + 1):
        began = time.process_time()
        proposed = candidate(proposer, history, (), number)
        seconds += time.process_time() - began
        history.append(scorer.finished(proposed))
    regrets = tuple(scorer.regrets[number] for number in range(1, evaluations + 1))
    return Played(tuple(history), regrets, seconds / (evaluations - len(BASELINES)))


def played(name: str, landscape: landscapes.Landscape, seed: int, evaluations: int) -> Played:
    """Return a run of at least this length, out of the cache if it is there."""
    file = HISTORIES / f"{name}-{landscape.name}-{seed}.json"
    if file.is_file():
        found = msgspec.json.decode(file.read_bytes(), type=Played)
        if len(found.history) >= evaluations:
            return found
    result = play(name, landscape, seed, evaluations)
    HISTORIES.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(result))
    return result


def forget(name: str) -> None:
    """Remove the runs of an optimizer from the cache."""
    for file in HISTORIES.glob(f"{name}-*.json"):
        file.unlink()


def chosen(landscape: landscapes.Landscape, run: Played, *, by_model: bool) -> list[float]:
    """Return the regret of the recipe that would be handed over after every evaluation."""
    model = Model(SPACE, landscape.distances)
    regrets = []
    number = 1
    for count in range(1, len(run.history) + 1):
        known = run.history[:count]
        asked = by_model and count >= LEADER_FROM
        if asked and count % LEADER_EVERY == 0:
            knowledge = model.learn(known)
            assert knowledge is not None
            number = knowledge.leader.number
        elif not asked:
            found = best(known)
            assert found is not None
            number = found.number
        regrets.append(run.regret_of(number))
    return regrets


def run(
    name: str, landscape: landscapes.Landscape, seed: int, evaluations: int, folder: Path
) -> records.Row:
    """Run an optimizer on an instance of a landscape and keep the row."""
    result = played(name, landscape, seed, evaluations)
    regrets = chosen(landscape, result, by_model=name == "bayes")
    row = records.Row(
        optimizer=name,
        landscape=landscape.name,
        seed=seed,
        evaluations=len(regrets),
        steps=records.steps(regrets),
        lowest=round(min(result.regrets), 5),
        seconds=round(result.seconds, 4),
    )
    records.append(row, folder)
    return row
