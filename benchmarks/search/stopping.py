"""When the stopping rules end runs of 150 evaluations, and what that loses.

The rules are those of `lib_automerge.search.stopping`, asked after every evaluation. Lost is the
regret of the leader when the rule ends the run, minus that of the leader after 150 evaluations.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.search import landscapes, ours, records
from lib_automerge.search.model import Model
from lib_automerge.search.stopping import Patience, RegretBound, SmallImprovement, StoppingRule

EVALUATIONS = 150
PATIENCE = 25


class Stop(msgspec.Struct, frozen=True):
    """When one rule ended one run, after `evaluation`, and the regret lost by that."""

    landscape: str
    seed: int
    rule: str
    evaluation: int
    lost: float


def load(folder: Path) -> list[Stop]:
    """Return the stored stops; of a run that was looked at twice, the later."""
    stops = records.load("stopping", Stop, folder)
    return list({(stop.landscape, stop.seed, stop.rule): stop for stop in stops}.values())


def rules(model: Model) -> dict[str, StoppingRule]:
    """The rules to compare, the default first."""
    return {
        "regret bound": RegretBound(model),
        "improvement": SmallImprovement(model),
        f"patience {PATIENCE}": Patience(PATIENCE),
    }


def stops(landscape: landscapes.Landscape, seed: int) -> list[Stop]:
    """Return when each rule ends the run of `bayes` on a landscape."""
    run = ours.played("bayes", landscape, seed, EVALUATIONS)
    model = Model(ours.SPACE, landscape.distances)
    ended: dict[str, int] = {}
    left = rules(model)
    for count in range(1, EVALUATIONS):
        known = run.history[:count]
        ended |= {name: count for name, rule in left.items() if rule.reason(known, 0.0)}
        left = {name: rule for name, rule in left.items() if name not in ended}
        if not left:
            break

    def regret(count: int) -> float:
        knowledge = model.learn(run.history[:count])
        assert knowledge is not None
        return run.regret_of(knowledge.leader.number)

    final = regret(EVALUATIONS)
    return [
        Stop(landscape.name, seed, name, count, round(regret(count) - final, 5))
        for name in rules(model)
        for count in [ended.get(name, EVALUATIONS)]
    ]
