"""Whether a search can do with fewer images: policies on the noisy networks.

An image's score is its payload's plus noise, such that the plain run, 12 payloads with two seeds
each, has the noise of the landscape. Every policy may make as many images as the plain run's 80
evaluations take; what counts is after how many its leader is as good as the plain run's in the end.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.search import landscapes, ours, records
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.search import rejection, statistics

Array = NDArray[np.float64]

PLAIN_EVALUATIONS, PLAIN_SEEDS, PAYLOADS = 80, 2, 12
BUDGET = PLAIN_EVALUATIONS * PLAIN_SEEDS * PAYLOADS


class Policy(msgspec.Struct, frozen=True):
    """How many images a candidate gets: seeds per payload, the first so many payloads, and whether
    it is given up once a paired test against the incumbent is clear.
    """

    seeds: int = PLAIN_SEEDS
    payloads: int = PAYLOADS
    early_reject: bool = False


POLICIES = {
    "plain": Policy(),
    "one seed": Policy(seeds=1),
    "half the payloads": Policy(payloads=PAYLOADS // 2),
    "early reject": Policy(early_reject=True),
    "one seed, early reject": Policy(seeds=1, early_reject=True),
}


class Spending(msgspec.Struct, frozen=True):
    """A run under a policy.

    Attributes:
        images: how many were made after every evaluation.
        steps: see `records.Row`.
    """

    policy: str
    landscape: str
    seed: int
    images: tuple[int, ...]
    steps: tuple[tuple[int, float], ...]


def spend(name: str, landscape: landscapes.Landscape, seed: int) -> Spending:
    """Run `bayes` under a policy until the images are used up."""
    policy = POLICIES[name]
    proposer = ours.proposer_of("bayes", landscape, seed)
    draw = landscapes.noise_source(landscape, seed)
    history: list[Evaluation] = []
    regrets: list[float] = []
    images: list[int] = []
    while sum(e.images for e in history) < BUDGET:
        proposed = ours.candidate(proposer, history, (), len(history) + 1)
        x = ours.SPACE.vector(proposed.weights)
        history.append(scored(proposed, policy, landscape, x, best(history), draw))
        regrets.append(landscape.regret(landscape.score(x)))
        images.append(sum(e.images for e in history))
    run = ours.Played(tuple(history), tuple(regrets), 0.0)
    steps = records.steps(ours.chosen(landscape, run, by_model=True))
    return Spending(name, landscape.name, seed, tuple(images), steps)


def scored(
    proposed: Evaluation,
    policy: Policy,
    landscape: landscapes.Landscape,
    x: Array,
    incumbent: Evaluation | None,
    draw: np.random.Generator,
) -> Evaluation:
    """Return the candidate, finished, with its images."""
    assert landscape.payloads is not None
    true = landscape.payloads(x)
    image_sd = landscape.noise_sd * np.sqrt(PAYLOADS * PLAIN_SEEDS)
    # drawn for all, used or not, so that the policies meet the same noise
    noise = image_sd * draw.normal(size=(PAYLOADS, PLAIN_SEEDS))
    parts: dict[str, float] = {}
    for payload in range(policy.payloads):
        parts[f"payload {payload}"] = float(true[payload] + noise[payload, : policy.seeds].mean())
        if policy.early_reject and incumbent is not None and len(parts) < policy.payloads:
            weights = dict.fromkeys(incumbent.per_payload, 1.0)
            found = rejection.chance(parts, incumbent.per_payload, weights)
            if found is not None and found.hopeless:
                return msgspec.structs.replace(
                    proposed,
                    rejected="worse",
                    images=len(parts) * policy.seeds,
                    per_payload=parts,
                )
    summary = statistics.summarize(
        {name: [score] for name, score in parts.items()}, dict.fromkeys(parts, 1.0)
    )
    return msgspec.structs.replace(
        proposed,
        score=summary.mean,
        standard_error=summary.standard_error,
        images=len(parts) * policy.seeds,
        per_payload=parts,
    )


def share_of_images(runs: list[Spending], policy: str) -> float:
    """Return after how many images a policy has the plain run's final mean regret, or less, for
    good, as a share of the plain run's; infinite if more than those.

    Args:
        runs: of one landscape, all seeds.
        policy: its name.
    """
    plain = [run.steps[-1][1] for run in runs if run.policy == "plain"]
    chosen = [run for run in runs if run.policy == policy]
    spent = np.arange(0, BUDGET + 1, PAYLOADS // 2)
    curve = np.mean([regret_at(run, spent) for run in chosen], axis=0)
    reached = records.for_good(curve, float(np.mean(plain)))
    return np.inf if reached is None else float(spent[reached] / BUDGET)


def regret_at(run: Spending, spent: Array) -> Array:
    """Return the regret after so many images; the worst before the first evaluation."""
    numbers, regrets = zip(*run.steps, strict=True)
    done = np.searchsorted(run.images, spent, side="right")
    step = np.searchsorted(numbers, done, side="right") - 1
    return np.where(step >= 0, np.array(regrets)[np.maximum(step, 0)], max(regrets))
