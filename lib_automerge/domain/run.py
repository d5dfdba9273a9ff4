"""The state of a run, folded from the events of its journal.

Nothing here reads a clock or a file; folding the same events gives the same state anywhere.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable

import msgspec

from lib_automerge.domain.events import (
    BASELINES,
    BEFORE_PROOF,
    FAILED,
    AnyEvent,
    Calibrated,
    Evaluated,
    Failed,
    Finished,
    Judged,
    Learned,
    Origin,
    Paused,
    Preferred,
    Proposed,
    Rejected,
    Resumed,
    Revalued,
    Saved,
    Scaled,
    Scored,
    SearchEnded,
    Stage,
    StageDone,
    Started,
    Stopped,
    TakenBack,
    Timing,
    Verdict,
    VerdictWaived,
    Warned,
)
from lib_automerge.domain.judging import Judgement
from lib_automerge.domain.preferences import Value
from lib_automerge.domain.scale import Scale


class Activity(str, enum.Enum):
    """What a run does at this moment; shown, never journalled."""

    LOADING = "loading"
    CHECKING = "checking"
    PROPOSING = "proposing"
    MERGING = "merging"
    GENERATING = "generating"
    SCORING = "scoring"
    WAITING = "waiting for your judgement"
    SAVING = "saving"


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with what is known of it.

    `score` is the mean over its images and None while it is unfinished or was rejected; a rejected
    one may have `images` and `per_payload` of the payloads that were scored. `number` counts the
    run's own from 1; observations of earlier runs have negative numbers. `judgement` says how an
    ensemble came to the score, `opinion` what the user thinks of it, if they are a judge; it is
    part of the score.
    """

    number: int
    origin: Origin
    weights: dict[str, float]
    score: float | None = None
    standard_error: float | None = None
    images: int = 0
    per_payload: dict[str, float] = {}
    seconds: Timing = {}
    rejected: str | None = None
    judgement: Judgement | None = None
    opinion: Value | None = None

    @property
    def unmade(self) -> bool:
        """Whether its images could not be made, which says nothing about the candidate."""
        return (self.rejected or "").startswith(FAILED)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be learned of it."""
        return self.score is not None or self.rejected is not None


class Status(str, enum.Enum):
    """The states of a run as its journal tells them; only a lock can tell running from
    interrupted.
    """

    STARTING = "starting"
    UNFINISHED = "unfinished"
    STOPPED = "stopped"
    PAUSED = "paused"
    FAILED = "failed"
    FINISHED = "finished"


class RunState:
    """The state of a run, folded from its events one by one.

    The only mutable object of the domain; its owner is whoever folds the journal.
    """

    def __init__(self, events: Iterable[AnyEvent] = ()) -> None:
        self.status = Status.STARTING
        self.evaluations: dict[int, Evaluation] = {}
        self.scores: dict[tuple[Stage, int], dict[int, Scored]] = {}
        self.stages: dict[tuple[Stage, int], StageDone] = {}
        self.warnings: list[str] = []
        self.started: Started | None = None
        self.search_ended: SearchEnded | None = None
        self.learned: Learned | None = None
        self.calibrated: Calibrated | None = None
        self.scale: Scale | None = None
        self.judged: list[Judged] = []
        self.preferred: list[Preferred] = []
        self.said = 0
        self.waived = False
        self.verdict: Verdict | None = None
        self.saved: Saved | None = None
        self.finished: Finished | None = None
        self.failure: str | None = None
        self.pause_reason = ""
        for event in events:
            self.add(event)

    def add(self, event: AnyEvent) -> None:
        """Fold one more event."""
        match event:
            case Started():
                self.started = event
                self.status = Status.UNFINISHED
            case Resumed():
                self.status = Status.UNFINISHED
                self.failure = None
            case Proposed():
                self.evaluations[event.evaluation] = Evaluation(
                    number=event.evaluation, origin=event.origin, weights=event.weights
                )
            case Scored():
                self.scores.setdefault((event.stage, event.evaluation), {})[event.job] = event
            case Evaluated():
                self._update(
                    event.evaluation,
                    score=event.mean,
                    standard_error=event.standard_error,
                    images=event.images,
                    per_payload=event.per_payload,
                    seconds=event.seconds,
                    judgement=event.judgement,
                )
            case Scaled():
                self.scale = event.scale
            case Judged():
                self.judged.append(event)
                self.said += 1
            case Preferred():
                self.preferred.append(event)
                self.said += 1
            case TakenBack():
                # the choices of the verdict come after all else that was judged
                del (self.preferred or self.judged)[-1:]
                self.said += 1
            case VerdictWaived():
                self.waived = True
            case Revalued():
                for number, value in event.values.items():
                    self._revalue(number, value, event.weight)
            case Rejected():
                self._update(
                    event.evaluation,
                    rejected=event.reason,
                    images=event.images,
                    per_payload=event.per_payload,
                    seconds=event.seconds,
                )
            case Learned():
                self.learned = event
            case Calibrated():
                self.calibrated = event
            case Warned():
                self.warnings.append(event.message)
            case SearchEnded():
                self.search_ended = event
            case StageDone():
                self.stages[event.stage, event.evaluation] = event
            case Verdict():
                self.verdict = event
            case Saved():
                self.saved = event
            case Stopped():
                self.status = Status.STOPPED
            case Paused():
                self.status = Status.PAUSED
                self.pause_reason = event.reason
            case Failed():
                self.status = Status.FAILED
                self.failure = event.message
            case Finished():
                self.finished = event
                self.status = Status.FINISHED

    def copy(self) -> RunState:
        """A state of its own, which further events of this one do not change."""
        twin = RunState()
        twin.__dict__.update(self.__dict__)
        twin.evaluations = dict(self.evaluations)
        twin.scores = {key: dict(images) for key, images in self.scores.items()}
        twin.stages = dict(self.stages)
        twin.warnings = list(self.warnings)
        twin.judged = list(self.judged)
        twin.preferred = list(self.preferred)
        return twin

    def _update(self, number: int, **changes: object) -> None:
        self.evaluations[number] = msgspec.structs.replace(self.evaluations[number], **changes)

    def _revalue(self, number: int, opinion: Value, weight: float) -> None:
        judgement = self.evaluations[number].judgement
        learned = 0.0 if judgement is None else judgement.total
        chance = 0.0 if judgement is None else judgement.standard_error or 0.0
        self._update(
            number,
            score=learned + weight * opinion.value,
            standard_error=math.hypot(chance, weight * opinion.standard_error),
            opinion=opinion,
        )

    @property
    def history(self) -> tuple[Evaluation, ...]:
        """The finished evaluations, in order of their numbers."""
        return tuple(e for _, e in sorted(self.evaluations.items()) if e.finished)

    @property
    def pending(self) -> tuple[Evaluation, ...]:
        """Evaluations that were proposed and are not finished."""
        return tuple(e for _, e in sorted(self.evaluations.items()) if not e.finished)

    @property
    def incumbent(self) -> Evaluation | None:
        """The best evaluation so far: by the model's belief once there is one, by score before.

        The highest of noisy scores is partly luck, so the model's leader may have a lower one.
        """
        if self.learned is not None:
            return self.evaluations[self.learned.leader]
        return best(self.history)

    @property
    def ranked(self) -> tuple[Evaluation, ...]:
        """The evaluations with a score, the best first: as the model ranks them, then by score.

        Without a model, or before it has said anything, by score alone.
        """
        leading = () if self.learned is None else (self.learned.leader, *self.learned.ranking)
        believed = list(dict.fromkeys(leading))
        rest = [e for e in self.history if e.score is not None and e.number not in believed]
        rest.sort(key=lambda e: (-(e.score or 0.0), e.number))
        return (*(self.evaluations[number] for number in believed), *rest)

    @property
    def seconds_before_proof(self) -> float:
        """What the search has taken so far, with what measured the noise and what failed."""
        parts = [e.seconds for e in self.history]
        parts += [done.seconds for (stage, _), done in self.stages.items() if stage in BEFORE_PROOF]
        return math.fsum(part.get("total", 0.0) for part in parts)

    @property
    def images_before_proof(self) -> int:
        """How many images the search has made, with those that measure the noise."""
        return sum(
            len(images) for (stage, _), images in self.scores.items() if stage in BEFORE_PROOF
        )

    @property
    def baselines(self) -> list[Evaluation]:
        """The baselines that have a score."""
        return [e for e in self.history if e.origin in BASELINES and e.score is not None]

    def baseline(self, origin: Origin) -> Evaluation | None:
        """The evaluation of a parent or of the 50:50 merge, if it is proposed yet."""
        return next((e for e in self.evaluations.values() if e.origin is origin), None)


def best(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation with the highest score; the earliest of equals; None without scores."""
    scored = [e for e in evaluations if e.score is not None]
    return max(scored, key=lambda e: (e.score or 0.0, -e.number)) if scored else None
