"""How much sooner several evaluators at work at once reach what one reaches: simulated time.

An evaluation takes a log-normal time with median 1 and sigma 0.25. As soon as one ends the next is
proposed, with what is known then and what is pending.
"""

from __future__ import annotations

import heapq

import msgspec
import numpy as np

from benchmarks.search import landscapes, ours, records
from lib_automerge.domain.run import Evaluation

EVALUATIONS = 120
LONGER = 160
"""Evaluations of several evaluators, who learn a little less from each."""

WORKERS = (1, 4, 8)
SIGMA = 0.25


class Race(msgspec.Struct, frozen=True):
    """A run of `bayes` with so many evaluators.

    Attributes:
        times: when the n-th evaluation ended.
        steps: see `records.Row`; evaluations in the order of their ends.
    """

    landscape: str
    seed: int
    workers: int
    times: tuple[float, ...]
    steps: tuple[tuple[int, float], ...]


def lengths(seed: int) -> list[float]:
    """Return how long each evaluation takes, whoever makes it."""
    return np.random.default_rng([seed, 25]).lognormal(0.0, SIGMA, LONGER).tolist()


def race(landscape: landscapes.Landscape, seed: int, workers: int) -> Race:
    """Run `bayes` with several evaluators."""
    if workers == 1:
        run = ours.played("bayes", landscape, seed, EVALUATIONS)
        run = ours.Played(run.history[:EVALUATIONS], run.regrets, run.seconds)
        times = np.cumsum(lengths(seed)[:EVALUATIONS]).tolist()
    else:
        run, times = simulate(landscape, seed, workers)
    # without noise the leader is the best observed, and the model need not be asked
    regrets = ours.chosen(landscape, run, by_model=landscape.noise_sd > 0.0)
    rounded = tuple(round(time, 3) for time in times)
    return Race(landscape.name, seed, workers, rounded, records.steps(regrets))


def simulate(
    landscape: landscapes.Landscape, seed: int, workers: int
) -> tuple[ours.Played, list[float]]:
    """Return the run and when its evaluations ended."""
    proposer = ours.proposer_of("bayes", landscape, seed)
    scorer, takes = ours.Scorer(landscape, seed), lengths(seed)
    history: list[Evaluation] = []
    pending: dict[int, Evaluation] = {}
    ends: list[tuple[float, int]] = []
    times: list[float] = []
    now, number = 0.0, 0
    while number < LONGER or pending:
        while number < LONGER and len(pending) < workers:
            number += 1
            known = sorted(history, key=lambda e: e.number)
            pending[number] = ours.candidate(proposer, known, tuple(pending.values()), number)
            heapq.heappush(ends, (now + takes[number - 1], number))
        now, ended = heapq.heappop(ends)
        history.append(scorer.finished(pending.pop(ended)))
        times.append(now)
    regrets = tuple(scorer.regrets[n] for n in range(1, LONGER + 1))
    return ours.Played(tuple(history), regrets, 0.0), times


def share_of_time(races: list[Race], workers: int) -> float:
    """Return when several evaluators have the mean regret that one has in the end, or less, for
    good, as a share of one's time; infinite if they do not, NaN without runs.

    Args:
        races: of one landscape, all seeds.
        workers: how many evaluators.
    """
    one = [r for r in races if r.workers == 1]
    many = [r for r in races if r.workers == workers]
    if not one or not many:
        return np.nan
    goal = np.mean([r.steps[-1][1] for r in one])
    needed = np.mean([r.times[-1] for r in one])
    moments = sorted({time for r in many for time in r.times})
    curves = np.mean([regret_at(r, moments) for r in many], axis=0)
    reached = records.for_good(curves, float(goal))
    return np.inf if reached is None else float(moments[reached] / needed)


def regret_at(run: Race, moments: list[float]) -> np.ndarray:
    """Return the regret of what would be handed over at these times; the worst before the first."""
    numbers, regrets = zip(*run.steps, strict=True)
    done = np.searchsorted(run.times, moments, side="right")
    step = np.searchsorted(numbers, done, side="right") - 1
    return np.where(step >= 0, np.array(regrets)[np.maximum(step, 0)], max(regrets))
