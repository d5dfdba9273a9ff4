"""Whether a search can do with fewer images: policies on the noisy networks.

An image's score is its payload's plus noise, such that the plain run, 12 payloads with two seeds
each, has the noise of the landscape. Every policy may make as many images as the plain run's 80
evaluations take; what counts is after how many its leader is as good as the plain run's in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.search import landscapes, ours, records
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.search import rejection, statistics
from lib_automerge.search.model import Model
from lib_automerge.search.proposers import create

Array = NDArray[np.float64]

PLAIN_EVALUATIONS, PLAIN_SEEDS, PAYLOADS = 80, 2, 12
BUDGET = PLAIN_EVALUATIONS * PLAIN_SEEDS * PAYLOADS
LOOK_FROM = 12
"""So many candidates are complete before the first that is only looked at."""


class Look(msgspec.Struct, frozen=True):
    """A first look at a candidate, from the 13th on.

    Attributes:
        payloads: how many are scored: those whose mean has followed that of all most closely.
        seeds: for each of them.
        chance: the rest is scored only if the model then gives the candidate at least this
            probability of being better than its leader.
    """

    payloads: int
    seeds: int
    chance: float


class Policy(msgspec.Struct, frozen=True):
    """How many images a candidate gets: seeds per payload, the first so many payloads, whether it
    is given up once a paired test against the incumbent is clear, whether it is looked at with
    fewer images first, and whether, from the 13th candidate on, payloads come in the order in which
    their mean follows that of all most closely.
    """

    seeds: int = PLAIN_SEEDS
    payloads: int = PAYLOADS
    early_reject: bool = False
    first_look: Look | None = None
    by_information: bool = False


POLICIES = {
    "plain": Policy(),
    "one seed": Policy(seeds=1),
    "half the payloads": Policy(payloads=PAYLOADS // 2),
    "early reject": Policy(early_reject=True),
    "early reject, telling payloads first": Policy(early_reject=True, by_information=True),
    "one seed, early reject": Policy(seeds=1, early_reject=True),
    "4 telling payloads first": Policy(first_look=Look(4, PLAIN_SEEDS, chance=0.3)),
    "one seed first": Policy(first_look=Look(PAYLOADS, 1, chance=0.5)),
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
    assert landscape.payloads is not None
    policy, model = POLICIES[name], Model(ours.SPACE, landscape.distances)
    proposer = create("bayes", ours.SPACE, seed=seed, model=model)
    draw = landscapes.noise_source(landscape, seed)
    image_sd = landscape.noise_sd * np.sqrt(PAYLOADS * PLAIN_SEEDS)
    history: list[Evaluation] = []
    regrets: list[float] = []
    images: list[int] = []
    while sum(e.images for e in history) < BUDGET:
        proposed = ours.candidate(proposer, history, (), len(history) + 1)
        x = ours.SPACE.vector(proposed.weights)
        # drawn for all, used or not, so that the policies meet the same noise
        noise = image_sd * draw.normal(size=(PAYLOADS, PLAIN_SEEDS))
        scores = landscape.payloads(x)[:, None] + noise
        history.append(judged(proposed, policy, scores, history, model))
        regrets.append(landscape.regret(landscape.score(x)))
        images.append(sum(e.images for e in history))
    run = ours.Played(tuple(history), tuple(regrets), 0.0)
    steps = records.steps(ours.chosen(landscape, run, by_model=True))
    return Spending(name, landscape.name, seed, tuple(images), steps)


def judged(
    proposed: Evaluation, policy: Policy, scores: Array, history: list[Evaluation], model: Model
) -> Evaluation:
    """Return the candidate, finished, with what the policy scores of its images, (payloads, seeds).

    What a first look leaves out is dealt with as in a run: fewer payloads are a partial score.
    """
    look = policy.first_look
    if look is not None and len(history) >= LOOK_FROM:
        seen = scored(proposed, scores[:, : look.seeds], telling(history, look.payloads))
        if chance(model, history, seen) < look.chance:
            return seen
    scores = scores[: policy.payloads, : policy.seeds]
    order = list(range(policy.payloads))
    if policy.by_information and len(history) >= LOOK_FROM:
        order = telling(history, policy.payloads)
    incumbent = best(history)
    if policy.early_reject and incumbent is not None:
        order = order[: until_hopeless(scores, order, incumbent)]
    return scored(proposed, scores, order, of=policy.payloads)


def scored(
    proposed: Evaluation, scores: Array, payloads: Iterable[int], *, of: int = PAYLOADS
) -> Evaluation:
    """Return the candidate with the scores of some payloads: rejected if these are not all."""
    parts = {f"payload {payload}": float(scores[payload].mean()) for payload in payloads}
    made = len(parts) * scores.shape[1]
    if len(parts) < of:
        return msgspec.structs.replace(proposed, rejected="worse", images=made, per_payload=parts)
    summary = statistics.summarize(
        {name: [score] for name, score in parts.items()}, dict.fromkeys(parts, 1.0)
    )
    return msgspec.structs.replace(
        proposed,
        score=summary.mean,
        standard_error=summary.standard_error,
        images=made,
        per_payload=parts,
    )


def until_hopeless(scores: Array, order: Sequence[int], incumbent: Evaluation) -> int:
    """Return after how many payloads, scored in this order, the paired test gives a candidate up;
    all if it does not.
    """
    weights = dict.fromkeys(incumbent.per_payload, 1.0)
    parts: dict[str, float] = {}
    for payload in order[:-1]:
        parts[f"payload {payload}"] = float(scores[payload].mean())
        found = rejection.chance(parts, incumbent.per_payload, weights)
        if found is not None and found.hopeless:
            return len(parts)
    return len(order)


def telling(history: Sequence[Evaluation], count: int) -> list[int]:
    """Return the payloads, chosen one by one, whose mean follows that of all most closely."""
    names = [f"payload {payload}" for payload in range(PAYLOADS)]
    scores = np.array([[e.per_payload[n] for n in names] for e in history if e.score is not None])
    goal = scores.mean(axis=1)
    chosen: list[int] = []
    while len(chosen) < count:
        rest = [payload for payload in range(PAYLOADS) if payload not in chosen]
        apart = [np.var(scores[:, [*chosen, payload]].mean(axis=1) - goal) for payload in rest]
        chosen.append(rest[int(np.argmin(apart))])
    return chosen


def chance(model: Model, history: Sequence[Evaluation], seen: Evaluation) -> float:
    """Return the probability that a candidate is better than the leader, if the model is right."""
    learned, fitted = model.learn(history), model.fitted([*history, seen])
    assert learned is not None
    assert fitted is not None
    at = {number: at for at, numbers in enumerate(fitted.numbers) for number in numbers}
    pair = [at[seen.number], at[learned.leader.number]]
    posterior = fitted.posterior
    basis = posterior.kernel.basis(posterior.points[pair])
    ahead, variance = posterior.sums(basis, np.array([[1.0, -1.0]]))
    return float(norm.cdf(ahead[0] / np.sqrt(max(float(variance[0]), 1e-12))))


def share_of_images(runs: list[Spending], policy: str) -> float:
    """Return after how many images a policy has the plain run's final mean regret, or less, for
    good, as a share of the plain run's; infinite if more than those, or if it was not run.

    Args:
        runs: of one landscape, all seeds.
        policy: its name.
    """
    plain = [run.steps[-1][1] for run in runs if run.policy == "plain"]
    chosen = [run for run in runs if run.policy == policy]
    if not plain or not chosen:
        return np.inf
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
