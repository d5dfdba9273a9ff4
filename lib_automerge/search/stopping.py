"""When to end the search. A rule is a value: it looks at the history and keeps no state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.run import Evaluation, Origin, best

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
        incumbent = best(history)
        score = None if incumbent is None else incumbent.score
        if self.target is not None and score is not None and score >= self.target:
            return f"the best score, {score:.4f}, reached the target of {self.target:g}"
        done = sum(e.number > 0 for e in history)
        if self.evaluations is not None and done >= self.evaluations:
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
        incumbent = best(history)
        since = 0 if incumbent is None else incumbent.number
        tries = sum(e.origin is Origin.SEARCH and e.number > since for e in history)
        if tries < self.evaluations:
            return None
        if incumbent is None:
            return f"none of the last {tries} evaluations gave a score"
        return f"{tries} evaluations brought no better score than evaluation {incumbent.number}"


class AnyOf(msgspec.Struct, frozen=True):
    """Ends the search when the first of some rules does."""

    rules: tuple[StoppingRule, ...]

    def reason(self, history: Sequence[Evaluation], elapsed_s: float) -> str | None:
        """Return the reason of the first rule that has one."""
        reasons = (rule.reason(history, elapsed_s) for rule in self.rules)
        return next((reason for reason in reasons if reason is not None), None)


def from_config(search: SearchConfig) -> StoppingRule:
    """Return the rule that a configuration describes."""
    budget = Budget(evaluations=search.evaluations, hours=search.hours, target=search.target)
    if search.patience is None:
        return budget
    return AnyOf((budget, Patience(search.patience)))
