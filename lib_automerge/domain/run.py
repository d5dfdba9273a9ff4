"""A run as facts: the events of its journal, and the state that is folded from them.

The journal is the only truth of a run. Nothing here reads a clock or a file; folding the same
events gives the same state anywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

Timing = dict[str, float]
"""Seconds by phase. The fields `time`, `seconds` and `memory_bytes` of events are the only ones
that may differ between two runs of one configuration, seed and device."""


class Origin(str, enum.Enum):
    """Where a candidate comes from."""

    MODEL_A = "A"
    MODEL_B = "B"
    HALF = "50:50"
    EARLIER = "earlier run"
    START = "start point"
    DESIGN = "start design"
    SEARCH = "search"


FAILED = "failed twice"
"""How the reason of a rejection begins that says nothing about the candidate."""

BASELINES = (Origin.MODEL_A, Origin.MODEL_B, Origin.HALF)
"""The first three evaluations of every run, in this order."""


class Stage(str, enum.Enum):
    """What an image is scored for."""

    SEARCH = "search"
    CALIBRATION = "calibration"
    FINALISTS = "finalists"
    VERDICT = "verdict"


BEFORE_PROOF = (Stage.SEARCH, Stage.CALIBRATION)
"""The stages whose images are made before the search ends."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """A fact of a run. `time` is seconds since the epoch, for display only."""

    time: float = 0.0


class Started(Event, frozen=True, tag="started"):
    """The run began with this configuration (a digest of `run.json`)."""

    config: str


class Resumed(Event, frozen=True, tag="resumed"):
    """A process took the run up again."""


class Proposed(Event, frozen=True, tag="proposed"):
    """Evaluation number `evaluation` (from 1) will score these weights."""

    evaluation: int
    origin: Origin
    weights: dict[str, float]


class Scored(Event, frozen=True, tag="scored"):
    """One image of a candidate was scored.

    `job` is the job's number within the stage, `digest` identifies the image's pixels, `file` is
    relative to the run folder. A broken image has no score and says why in `broken`.
    """

    evaluation: int
    stage: Stage
    job: int
    payload: str
    seed: int
    digest: str
    file: str
    score: float | None = None
    broken: str | None = None


class Evaluated(Event, frozen=True, tag="evaluated"):
    """All images of a candidate are scored: the payload-weighted mean and its standard error.

    A single image has no standard error: None.
    """

    evaluation: int
    mean: float
    standard_error: float | None
    images: int
    per_payload: dict[str, float]
    seconds: Timing = {}
    memory_bytes: int = 0


class Rejected(Event, frozen=True, tag="rejected"):
    """A candidate was given up; it has no score.

    One that is merely worse than the incumbent has the means of the payloads that were scored, of
    so many images; a broken one (black or NaN images) has none.
    """

    evaluation: int
    reason: str
    images: int = 0
    per_payload: dict[str, float] = {}
    seconds: Timing = {}


class Learned(Event, frozen=True, tag="learned"):
    """What the model makes of the scores of evaluations 1 to `evaluation`.

    `leader` is the evaluation with the highest expected score, `mean` and `sd` what the model
    believes of it; `noise` is the learned standard deviation of a complete score; `gain` is what
    the best unknown candidate is expected to be better by, `bound` what it is better by at most
    (both in units of the score, 0 or more; None while the model cannot tell). `ranking` are the
    evaluations that are expected to score highest, the leader first.
    """

    evaluation: int
    leader: int
    mean: float
    sd: float
    noise: float
    gain: float | None = None
    bound: float | None = None
    ranking: tuple[int, ...] = ()


class Calibrated(Event, frozen=True, tag="calibrated"):
    """The measured noise, and what it says about the number of images.

    `seed_sd` is the standard deviation of a candidate's score over sets of fresh seeds, `noise`
    that of the chance which is left where candidates share prompts and seeds, `prompt_sd` the part
    of it that only more prompts lessen. `spread` is the difference between the best and the worst
    baseline. `advice` is a word for the number of images; `prompts` and `seeds` are how many
    prompts, or seeds per prompt, make chance small enough (None: no number does). `sentence` says
    all that.
    """

    evaluation: int
    seed_sd: float
    sentence: str
    noise: float = 0.0
    prompt_sd: float = 0.0
    spread: float = 0.0
    advice: str = ""
    prompts: int | None = None
    seeds: int | None = None


class Warned(Event, frozen=True, tag="warned"):
    """Something that the user should know."""

    message: str


class SearchEnded(Event, frozen=True, tag="search_ended"):
    """The search is over; `reason` says why in words, `outlook` what going on would probably have
    gained (empty if the model cannot tell).
    """

    reason: str
    outlook: str = ""


class StageDone(Event, frozen=True, tag="stage_done"):
    """A candidate's images of the finalists' or the verdict's stage are all scored."""

    evaluation: int
    stage: Stage
    mean: float
    standard_error: float | None
    images: int
    seconds: Timing = {}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The winner against one baseline, on the same payloads and seeds.

    `difference` is winner minus baseline, `standard_error` its error, `p_value` one-sided and
    corrected for the number of comparisons (Holm 1979), `low` and `high` the 95 % interval.
    """

    baseline: Origin
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    pairs: int

    @property
    def significant(self) -> bool:
        """Whether the winner is better at the 5 % level."""
        return self.p_value < 0.05 and self.difference > 0


class Verdict(Event, frozen=True, tag="verdict"):
    """What the run found out, on images that the search never saw.

    `winner` is an evaluation number; `gain` is true when it is significantly better than both
    parents and the 50:50 merge; `held_out` tells whether unseen prompts were used, or only unseen
    seeds; `means` are mean scores by evaluation number.
    """

    winner: int
    better_parent: Origin
    gain: bool
    held_out: bool
    sentence: str
    comparisons: tuple[Comparison, ...]
    means: dict[int, float]
    images: int


class Saved(Event, frozen=True, tag="saved"):
    """The merged checkpoint was written to `file`, relative to the run folder. Loaded afresh, it
    gave `reproduced` of the first `checked` images of the verdict again, bit for bit.
    """

    file: str
    sha256: str
    checked: int
    reproduced: int


class Stopped(Event, frozen=True, tag="stopped"):
    """The user stopped the run; it can be resumed."""


class Paused(Event, frozen=True, tag="paused"):
    """The run gave the device back between two evaluations; it can be resumed."""

    reason: str = ""


class Failed(Event, frozen=True, tag="failed"):
    """The run ended with an error; it can be resumed once the cause is gone."""

    message: str


class Finished(Event, frozen=True, tag="finished"):
    """The run is complete."""

    reason: str
    seconds: Timing = {}


AnyEvent = (
    Started
    | Resumed
    | Proposed
    | Scored
    | Evaluated
    | Rejected
    | Learned
    | Calibrated
    | Warned
    | SearchEnded
    | StageDone
    | Verdict
    | Saved
    | Stopped
    | Paused
    | Failed
    | Finished
)


class Activity(str, enum.Enum):
    """What a run does at this moment; shown, never journalled."""

    LOADING = "loading"
    CHECKING = "checking"
    PROPOSING = "proposing"
    MERGING = "merging"
    GENERATING = "generating"
    SCORING = "scoring"
    SAVING = "saving"


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with what is known of it.

    `score` is the mean over its images and None while it is unfinished or was rejected; a rejected
    one may have `images` and `per_payload` of the payloads that were scored. `number` counts the
    run's own from 1; observations of earlier runs have negative numbers.
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
                )
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
        return twin

    def _update(self, number: int, **changes: object) -> None:
        self.evaluations[number] = msgspec.structs.replace(self.evaluations[number], **changes)

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
    def images_before_proof(self) -> int:
        """How many images the search has made, with those that measure the noise."""
        return sum(
            len(images) for (stage, _), images in self.scores.items() if stage in BEFORE_PROOF
        )

    def baseline(self, origin: Origin) -> Evaluation | None:
        """The evaluation of a parent or of the 50:50 merge, if it is proposed yet."""
        return next((e for e in self.evaluations.values() if e.origin is origin), None)


def best(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation with the highest score; the earliest of equals; None without scores."""
    scored = [e for e in evaluations if e.score is not None]
    return max(scored, key=lambda e: (e.score or 0.0, -e.number)) if scored else None
