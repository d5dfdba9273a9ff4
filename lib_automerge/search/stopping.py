"""When to end the search. A rule is a value: it looks at the history and keeps no state.

The rules that ask the model end a search about as early with noise as without: they compare what
is left to gain with what can be told apart at all. Patience cannot, because progress comes in
jumps: a search that stands still may be about to gain (`benchmarks/search`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.search.model import Knowledge, Model

EARLIEST = 40
"""Evaluations before which no model ends a search."""

_IN_A_ROW = 3
_SECONDS_PER_HOUR = 3600.0


class StoppingRule(Protocol):
    """Decides whether the search is over."""

    def reason(self, history: Sequence[Evaluation], elapsed_s: float) -> str | None:
        """Return why the search is over, as a clause without a full stop, or None to go on.

        Args:
            history: the finished evaluations, in order of their numbers; observations of earlier
                runs, whose numbers are negative, used nothing of this run's budget.
            elapsed_s: seconds that the search has taken so far.
        """


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Ends the search at a number of evaluations (baselines and rejected ones included), after some
    hours, or when the best score reaches `target`; None is no limit.
    """

    evaluations: int | None = None
    hours: float | None = None
    target: float | None = None

    def reason(self, history: Sequence[Evaluation], elapsed_s: float) -> str | None:
        """Return which limit is reached; the target first, then evaluations, then hours."""
        own = [e for e in history if e.number > 0]
        incumbent = best(own)
        score = None if incumbent is None else incumbent.score
        if self.target is not None and score is not None and score >= self.target:
            return f"the best score, {score:.4f}, reached the target of {self.target:g}"
        if self.evaluations is not None and len(own) >= self.evaluations:
            return f"the budget of {self.evaluations} evaluations is used up"
        if self.hours is not None and elapsed_s >= self.hours * _SECONDS_PER_HOUR:
            return f"the budget of {self.hours:g} hours is used up"
        return None


class Patience(msgspec.Struct, frozen=True):
    """Ends the search when `evaluations` candidates of the optimizer in a row brought no better
    score.

    Baselines and the start design do not count: they explore and are not meant to improve.
    """

    evaluations: int

    def reason(
        self,
        history: Sequence[Evaluation],
        elapsed_s: float,  # noqa: ARG002 (patience counts evaluations only)
    ) -> str | None:
        """Return that patience has run out, or None."""
        incumbent = best(e for e in history if e.number > 0)
        since = 0 if incumbent is None else incumbent.number
        tries = sum(e.origin is Origin.SEARCH and e.number > since for e in history)
        if tries < self.evaluations:
            return None
        if incumbent is None:
            return f"none of the last {tries} evaluations gave a score"
        return f"{tries} evaluations brought no better score than evaluation {incumbent.number}"


class RegretBound(msgspec.Struct, frozen=True):
    """Ends the search when no recipe can be much better than the best one, as far as the model can
    tell: three times in a row the bound is below 5 % of the spread of the scores, or below twice
    the noise of a score.

    Like the criterion of Makarova et al., Automatic Termination for Hyperparameter Optimization,
    AutoML 2022, with limits that were measured on merges.
    """

    model: Model

    def reason(
        self,
        history: Sequence[Evaluation],
        elapsed_s: float,  # noqa: ARG002 (counts evaluations only)
    ) -> str | None:
        """Return that little is left to gain, or None."""
        known = _lately(self.model, history)
        if not known or any(k.bound > max(0.05 * k.spread, 2.0 * k.noise) for k in known):
            return None
        now = known[0]
        if now.bound == 0.0 and now.spread <= now.noise:
            return f"{_evaluations(history)} gave the same score: the weights change nothing"
        within = (
            f"{significant(now.bound)}, which is less than the noise of scores can tell apart"
            if now.bound > 0.05 * now.spread
            else significant(now.bound)
        )
        return f"no merge is likely to be better than the best by more than {within}"


class SmallImprovement(msgspec.Struct, frozen=True):
    """Ends the search when the next candidate is expected to gain next to nothing: three times in a
    row less than 0.3 % of the spread of the scores. With noise it may never.
    """

    model: Model

    def reason(
        self,
        history: Sequence[Evaluation],
        elapsed_s: float,  # noqa: ARG002 (counts evaluations only)
    ) -> str | None:
        """Return that the expected improvement is small, or None."""
        known = _lately(self.model, history)
        if not known or any(k.gain > 0.003 * k.spread for k in known):
            return None
        return f"the next candidate is expected to gain {significant(known[0].gain)} only"


def _lately(model: Model, history: Sequence[Evaluation]) -> list[Knowledge]:
    """Return what was known after each of the last three evaluations, the latest first; nothing
    before the fortieth, or while the model cannot tell.
    """
    finished = sorted(history, key=lambda e: e.number)
    if sum(e.number > 0 for e in finished) < EARLIEST:
        return []
    known = [model.learn(finished[: len(finished) - back]) for back in range(_IN_A_ROW)]
    return [k for k in known if k is not None] if None not in known else []


def _evaluations(history: Sequence[Evaluation]) -> str:
    return f"all {sum(e.score is not None for e in history)} evaluations"


def outlook(knowledge: Knowledge | None) -> str:
    """Return what going on would probably gain, as a sentence; empty if nothing is known."""
    if knowledge is None:
        return ""
    return (
        f"The next candidate would probably have gained about {significant(knowledge.gain)}, and "
        f"no merge is likely to be better than the best by more than "
        f"{significant(knowledge.bound)}; a score is exact to about "
        f"{significant(knowledge.noise)}."
    )


def significant(value: float) -> str:
    """Return a number of at least 0 with two significant digits."""
    if value == 0.0:
        return "0"
    if not 1e-4 <= value < 1e4:
        return f"{value:.1e}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


class AnyOf(msgspec.Struct, frozen=True):
    """Ends the search when the first of some rules does."""

    rules: tuple[StoppingRule, ...]

    def reason(self, history: Sequence[Evaluation], elapsed_s: float) -> str | None:
        """Return the reason of the first rule that has one."""
        reasons = (rule.reason(history, elapsed_s) for rule in self.rules)
        return next((reason for reason in reasons if reason is not None), None)


def from_config(search: SearchConfig, model: Model) -> StoppingRule:
    """Return the rule that a configuration describes, but for the limit on images: only a run knows
    how many it has made.

    Args:
        search: the configuration.
        model: of the space that is searched.
    """
    rules: list[StoppingRule] = [
        Budget(
            evaluations=search.evaluations,
            hours=search.hours,
            target=search.target,
        )
    ]
    if search.patience is not None:
        rules.append(Patience(search.patience))
    if search.stop in _BY_MODEL:
        rules.append(_BY_MODEL[search.stop](model))
    return AnyOf(tuple(rules))


_BY_MODEL: dict[str, Callable[[Model], StoppingRule]] = {
    "regret": RegretBound,
    "improvement": SmallImprovement,
}
