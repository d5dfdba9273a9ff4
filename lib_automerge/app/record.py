"""The record of a run while it runs: every event goes through here, in one order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lib_automerge.app.ports import Listener
from lib_automerge.domain.events import (
    AnyEvent,
    Calibrated,
    Evaluated,
    Failed,
    Finished,
    Judged,
    Learned,
    Paused,
    Preferred,
    Proposed,
    Rejected,
    Scored,
    SearchEnded,
    StageDone,
    Verdict,
    Warned,
)
from lib_automerge.domain.run import Activity, RunState
from lib_automerge.search.stopping import significant
from lib_automerge.study.store import OwnedRun

log = logging.getLogger(__name__)


class Record:
    """Journals events, folds them into `state`, logs them and tells the listener, in this order."""

    def __init__(self, run: OwnedRun, listener: Listener) -> None:
        self._journal = run.journal
        self._listener = listener
        self.state = RunState(run.journal.events)

    def add(self, event: AnyEvent) -> None:
        """Journal an event.

        Raises:
            StorageError: it could not be written; the state is as before.
        """
        derived = isinstance(event, Proposed | Evaluated | Learned | StageDone | Calibrated)
        (stamped,) = self._journal.append(event, durable=not derived)
        log.info("%s", _in_words(event))
        self._fold(stamped)

    def add_scores(self, events: Sequence[Scored]) -> None:
        """Journal the scores of a batch in one go; see `add`."""
        for event in self._journal.append(*events):
            self._fold(event)

    def tell(self, activity: Activity) -> None:
        """Let the listener know what happens now; nothing is journalled."""
        self._listener(activity, self.state)

    def _fold(self, event: AnyEvent) -> None:
        self.state.add(event)
        self._listener(event, self.state)


def _in_words(event: AnyEvent) -> str:
    match event:
        case Proposed():
            return f"evaluation {event.evaluation} proposed ({event.origin.value})"
        case Evaluated():
            return f"evaluation {event.evaluation} scored {event.mean:.4f}"
        case StageDone():
            return f"evaluation {event.evaluation}, {event.stage.value}: {event.mean:.4f}"
        case Rejected():
            return f"evaluation {event.evaluation} rejected: {event.reason}"
        case Judged() if event.other is None:
            return f"you rated evaluation {event.evaluation}: {10 * event.value:g} of 10"
        case Judged():
            return f"you compared evaluations {event.evaluation} and {event.other}: {event.value:g}"
        case Preferred():
            # who made the pictures is not told while others are to come
            return "you made a blind choice"
        case Learned():
            return _belief(event)
        case Calibrated():
            return event.sentence
        case SearchEnded():
            return f"SearchEnded: {event.reason}. {event.outlook}".rstrip()
        case Finished():
            return f"{type(event).__name__}: {event.reason}"
        case Paused():
            return f"Paused: {event.reason or 'as asked'}"
        case Verdict():
            return event.sentence
        case Warned() | Failed():
            return event.message
        case _:
            return type(event).__name__


def _belief(event: Learned) -> str:
    said = f"evaluation {event.leader} leads: {event.mean:.4f} ± {event.sd:.4f} expected"
    if event.gain is not None and event.bound is not None:
        said += f"; {significant(event.gain)} more of the next, {significant(event.bound)} at most"
    return f"{said}; a score is exact to about {significant(event.noise)}"
