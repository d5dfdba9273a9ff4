"""The demo's diffusion pair as a landscape: real images of real merges, judged by its reward.

Eight prompts, one seed each, the same for every candidate, so scores have no noise; the optimum is
not known. What counts is the best score after so many evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks.search import ours, records
from lib_automerge import demo
from lib_automerge.domain.payload import Payload, batches_of, jobs_of
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.model import Model
from lib_automerge.search.proposers import create

# torch and diffusers are imported where images are made: the report needs neither
if TYPE_CHECKING:
    from lib_automerge.generate.diffusers_ import DiffusersSession
    from lib_automerge.reward.demo import DemoReward

OPTIMIZERS = ("bayes", "hill-climb", "random")
EVALUATIONS, PAYLOADS, SEEDS = 60, 8, (0, 1)
REPORTED = (3, 20, 40, 60)


class DemoRun(msgspec.Struct, frozen=True):
    """A run on the demo pair; `steps` are (evaluation, best score from there on)."""

    optimizer: str
    seed: int
    steps: tuple[tuple[int, float], ...]

    def best(self, evaluation: int) -> float:
        """The best score after `evaluation`; the third is the better of A, B and 50:50."""
        return next(score for n, score in reversed(self.steps) if n <= evaluation)


def payloads() -> list[Payload]:
    """The first search prompts of the demo, one seed each."""
    searched = [payload for payload in demo.load_payloads() if not payload.held_out]
    return [
        msgspec.structs.replace(payload, seeds=payload.seeds[:1]) for payload in searched[:PAYLOADS]
    ]


@contextmanager
def opened() -> Iterator[tuple[DiffusersSession, dict[str, float]]]:
    """Yield a session with both models, and how far apart they are per block."""
    import torch

    from lib_automerge.generate.diffusers_ import DiffusersGenerator
    from lib_automerge.merge.distances import scan
    from lib_automerge.merge.readers import open_checkpoint

    threads = torch.get_num_threads()
    generator = DiffusersGenerator(threads=1)
    try:
        with (
            open_checkpoint(demo.MODEL_A) as a,
            open_checkpoint(demo.MODEL_B) as b,
            generator.open({"a": a, "b": b}) as session,
        ):
            yield session, scan(a, b, ours.SPACE.names)
    finally:
        torch.set_num_threads(threads)


def run(optimizer: str, seed: int) -> DemoRun:
    """Search the demo pair."""
    from lib_automerge.reward.demo import DemoReward

    reward, chosen = DemoReward(), payloads()
    with opened() as (session, distances):
        proposer = create(optimizer, ours.SPACE, seed=seed, model=Model(ours.SPACE, distances))
        history: list[Evaluation] = []
        for number in range(1, EVALUATIONS + 1):
            proposed = ours.candidate(proposer, history, (), number)
            merge(session, proposed.weights)
            parts = scores(session, reward, chosen)
            history.append(
                msgspec.structs.replace(
                    proposed,
                    score=float(np.mean(parts)),
                    images=len(parts),
                    per_payload={p.name: part for p, part in zip(chosen, parts, strict=True)},
                )
            )
    best = np.maximum.accumulate([evaluation.score or 0.0 for evaluation in history])
    return DemoRun(optimizer, seed, records.steps(best))


def merge(session: DiffusersSession, weights: dict[str, float]) -> None:
    """Make the recipe with these weights of all blocks the live one."""
    models = {"a": ModelRef("a"), "b": ModelRef("b")}
    session.apply(Recipe(architecture="sd1", method="weighted_sum", models=models, weights=weights))


def scores(session: DiffusersSession, reward: DemoReward, chosen: Sequence[Payload]) -> list[float]:
    """Return the score of every image of the live recipe, payload by payload, seed by seed."""
    pairs = [
        pair
        for batch in batches_of(jobs_of(chosen))
        for pair in session.images(batch, lambda: False)
    ]
    prompts = [job.payload.prompt for job, _ in pairs]
    return reward.score([image for _, image in pairs], prompts)
