"""The run asks its user, waits for what they say, and journals it."""

from __future__ import annotations

from lib_automerge.app import blind
from lib_automerge.app.evaluate import StopRequested
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.question import Answer, Over
from lib_automerge.app.record import Record
from lib_automerge.domain.blind import Asked, Trial
from lib_automerge.domain.events import (
    BASELINES,
    Judged,
    Preferred,
    TakenBack,
    VerdictWaived,
    Warned,
)
from lib_automerge.domain.human import question, revalued
from lib_automerge.domain.human_judge import HumanJudge
from lib_automerge.domain.run import Activity
from lib_automerge.generate.base import PauseRequested


class Consultation:
    """Asks the user of one run; both calls do nothing if there is nothing to ask.

    Args:
        plan: of the run.
        record: takes what they say.
        controls: through which they are asked.
    """

    def __init__(self, plan: Plan, record: Record, controls: Controls) -> None:
        self._plan = plan
        self._record = record
        self._controls = controls

    def had_enough(self) -> bool:
        """Whether the user ended the search, and there is a candidate to prove."""
        return self._controls.finish() and len(self._record.state.history) > len(BASELINES)

    def about_candidates(self, human: HumanJudge) -> None:
        """Have every candidate of the search judged, and value them all by what was said.

        Raises:
            StopRequested, PauseRequested: the user asked for that instead.
        """
        while not self.had_enough():
            asked = question(self._record.state, human)
            if asked is None:
                break
            answer = self._wait(asked, self.had_enough)
            if answer is not None:
                self._record.add(_as_event(asked.evaluation, asked.other, answer.value))
        changed = revalued(self._record.state, human)
        if changed is not None:
            self._record.add(changed)

    def about_the_winner(self) -> None:
        """Have the blind choices of the verdict made, and journal the verdict.

        Raises:
            StopRequested, PauseRequested: the user asked for that instead.
        """
        state = self._record.state
        while (trial := blind.next_trial(self._plan, state)) is not None:
            answer = self._wait(trial, lambda: False)
            if answer is not None:
                self._record.add(_as_choice(trial, answer))
        if state.verdict is not None:
            return
        found = blind.verdict(self._plan, state)
        said = blind.too_few(self._plan, state)
        if found is not None:
            self._record.add(found)
        elif said and said not in state.warnings:
            self._record.add(Warned(message=said))

    def _wait(self, asked: Asked, over: Over) -> Answer | None:
        """What the user says; None if it is over before they do."""
        controls = self._controls
        ask = controls.ask
        assert ask is not None  # a run that nobody can be asked in does not begin
        self._record.tell(Activity.WAITING)
        answer = ask(asked, lambda: controls.stop() or controls.pause() or over())
        if answer is None and controls.stop():
            raise StopRequested
        if answer is None and controls.pause():
            raise PauseRequested
        return answer


def _as_event(evaluation: int, other: int | None, value: float | None) -> Judged | TakenBack:
    if value is None:
        return TakenBack()
    return Judged(evaluation=evaluation, other=other, value=value)


def _as_choice(trial: Trial, answer: Answer) -> Preferred | TakenBack | VerdictWaived:
    """The answer speaks of sides, the journal of candidates."""
    if answer.enough:
        return VerdictWaived()
    if answer.value is None:
        return TakenBack()
    value = answer.value if trial.winner_left else 1.0 - answer.value
    return Preferred(evaluation=trial.evaluation, other=trial.other, job=trial.job, value=value)
