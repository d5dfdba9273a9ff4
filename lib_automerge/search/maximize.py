"""The search as a function: maximize anything that maps named numbers to a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import msgspec

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.errors import ConfigError, SearchError
from lib_automerge.search.model import Model
from lib_automerge.search.proposers import create
from lib_automerge.search.space import Space

Score = float | tuple[float, float] | None
"""A score, a score with its standard error, or a failure."""

Objective = Callable[[dict[str, float]], Score]


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found.

    Attributes:
        best_x: the values with the highest expected score: what the model believes of every
            evaluation counts, because the highest of noisy scores is partly luck. Where scores are
            exact but so rugged that the model takes some of it for noise, the highest of `history`
            may be another.
        best_y: the score that they had.
        history: every evaluation in order of its number; the values are its `weights`.
    """

    best_x: dict[str, float]
    best_y: float
    history: tuple[Evaluation, ...]


def maximize(
    objective: Objective,
    space: Mapping[str, tuple[float, float]],
    *,
    optimizer: str = "bayes",
    evaluations: int = 120,
    seed: int = 0,
    parallel: int = 1,
    initial: Iterable[Mapping[str, float]] = (),
) -> SearchResult:
    """Find the values with the highest score.

    With `parallel` = 1 the result depends on the arguments alone. Otherwise up to `parallel`
    evaluations run at once in threads; a new one starts as soon as one ends, with what is known
    then.

    Args:
        objective: maps name -> value to a score, higher is better, or to a score and its standard
            error. None or NaN (or an infinite score) is a failed evaluation: the search moves away
            from it. An exception ends the search.
        space: name -> (low, high), inclusive.
        optimizer: a name out of `proposers.names()`.
        evaluations: how many evaluations to make, the initial ones among them.
        seed: of all random choices, 0 or more.
        parallel: how many evaluations may run at once.
        initial: values to evaluate first, as they are.

    Raises:
        ConfigError: an argument is wrong.
        SearchError: no evaluation gave a score, or the space has fewer points than `evaluations`.
    """
    if evaluations < 1 or parallel < 1:
        raise ConfigError(
            f"evaluations is {evaluations} and parallel is {parallel}. Both must be 1 or more."
        )
    box = Space.box(space)
    proposer = create(optimizer, box, seed=seed)
    given = [_checked(box, values) for values in initial][:evaluations]
    history: list[Evaluation] = []
    pending: dict[int, Evaluation] = {}

    def begin(number: int) -> Evaluation:
        if number <= len(given):
            candidate = Evaluation(number=number, origin=Origin.DESIGN, weights=given[number - 1])
        else:
            known = sorted(history, key=lambda e: e.number)
            proposal = proposer.propose(known, tuple(pending.values()), number)
            candidate = Evaluation(number=number, origin=proposal.origin, weights=proposal.weights)
        pending[number] = candidate
        return candidate

    def end(candidate: Evaluation, score: Score) -> None:
        del pending[candidate.number]
        history.append(_finished(candidate, score))

    if parallel == 1:
        for number in range(1, evaluations + 1):
            candidate = begin(number)
            end(candidate, objective(dict(candidate.weights)))
    else:
        _in_threads(objective, begin, end, evaluations, parallel)
    return _result(box, history)


def _in_threads(
    objective: Objective,
    begin: Callable[[int], Evaluation],
    end: Callable[[Evaluation, Score], None],
    evaluations: int,
    parallel: int,
) -> None:
    running: dict[Future[Score], Evaluation] = {}
    number = 0
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        while number < evaluations or running:
            while number < evaluations and len(running) < parallel:
                number += 1
                candidate = begin(number)
                running[pool.submit(objective, dict(candidate.weights))] = candidate
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                end(running.pop(future), future.result())


def _checked(box: Space, values: Mapping[str, float]) -> dict[str, float]:
    if not box.contains(values):
        raise ConfigError(
            f"the initial values {dict(values)} are not in the space. "
            "Give every parameter a value within its range, and nothing else."
        )
    return {name: float(values[name]) for name in box.names}


def _finished(candidate: Evaluation, returned: Score) -> Evaluation:
    score, error = returned if isinstance(returned, tuple) else (returned, None)
    if score is None or not math.isfinite(score):
        return msgspec.structs.replace(candidate, rejected=f"the objective returned {score}")
    known = error is not None and math.isfinite(error) and error > 0
    return msgspec.structs.replace(
        candidate, score=float(score), standard_error=float(error) if known and error else None
    )


def _result(box: Space, history: list[Evaluation]) -> SearchResult:
    ordered = tuple(sorted(history, key=lambda e: e.number))
    found = best(ordered)
    if found is None or found.score is None:
        raise SearchError(
            f"no evaluation gave a score: all {len(ordered)} failed. Check the objective."
        )
    knowledge = Model(box).learn(ordered)
    if knowledge is not None:
        found = ordered[knowledge.leader.number - 1]
    assert found.score is not None
    return SearchResult(found.weights, found.score, ordered)
