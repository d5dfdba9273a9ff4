"""The events of a run's journal: what happened, one fact a line.

The journal is the only truth of a run. The fields `time`, `seconds` and `memory_bytes` are the
only ones that may differ between two runs of one configuration, seed and device.
"""

from __future__ import annotations

import enum

import msgspec

from lib_automerge.domain.judging import Judgement
from lib_automerge.domain.preferences import Value
from lib_automerge.domain.scale import Scale

Timing = dict[str, float]
"""Seconds by phase."""


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

PARENTS = (Origin.MODEL_A, Origin.MODEL_B)
BASELINES = (*PARENTS, Origin.HALF)
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

    `raw` is what each reward gave, `looks` what the guards measured. An ensemble has no score for
    an image before both parents were measured; then it is journalled again, with its score.
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
    raw: dict[str, float] = {}
    looks: dict[str, float] = {}


class Scaled(Event, frozen=True, tag="scaled"):
    """The parents' images of the stage's payloads are measured: the units of an ensemble."""

    stage: Stage
    scale: Scale


class Evaluated(Event, frozen=True, tag="evaluated"):
    """All images of a candidate are scored: the payload-weighted mean and its standard error.

    A single image has no standard error: None. Of an ensemble, `mean` is the total of its
    `judgement`.
    """

    evaluation: int
    mean: float
    standard_error: float | None
    images: int
    per_payload: dict[str, float]
    seconds: Timing = {}
    memory_bytes: int = 0
    judgement: Judgement | None = None


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


class Judged(Event, frozen=True, tag="judged"):
    """The user said something about a candidate.

    Without `other`, `value` is their rating from 0 (worst) to 1 (best); with it, it is 1 if they
    prefer `evaluation` to `other`, 0 if it is the other way round, 0.5 if neither.
    """

    evaluation: int
    value: float
    other: int | None = None


class TakenBack(Event, frozen=True, tag="taken_back"):
    """The user took back what they said last."""


class Preferred(Event, frozen=True, tag="preferred"):
    """The user made a blind choice of the verdict: between a picture of `evaluation`, the merge to
    be proved, and one of the baseline `other`, of the same prompt and seed (number `job`).

    `value` is as in `Judged`.
    """

    evaluation: int
    other: int
    job: int
    value: float


class VerdictWaived(Event, frozen=True, tag="verdict_waived"):
    """The user ended the blind choices before they decided; there will be no verdict."""


class Revalued(Event, frozen=True, tag="revalued"):
    """All that the user said so far, as values of candidates (`domain.preferences`).

    A candidate's score is what learned rewards gave it, or 0, and `weight` times its value.
    """

    weight: float
    values: dict[int, Value]


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
    """A candidate's images of a stage other than the search are all scored."""

    evaluation: int
    stage: Stage
    mean: float
    standard_error: float | None
    images: int
    seconds: Timing = {}


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """How often a person preferred the winner, the baseline, or neither."""

    winner: int
    baseline: int
    equal: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The winner against one baseline, on the same payloads and seeds.

    `difference` is winner minus baseline, `standard_error` its error, `p_value` that of
    the one-sided test, `low` and `high` the 95 % interval.

    Where a person judged, `choices` are theirs, and a score is a share of those that preferred one
    of the two. The choices end when the outcome is certain, and `p_value` is the one that comes
    nearest to changing it, whatever the rest would have been: the highest possible where the
    baseline is beaten, the lowest where it is not.
    """

    baseline: Origin
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    pairs: int
    choices: Choices | None = None

    @property
    def significant(self) -> bool:
        """Whether the winner is better at the 5 % level."""
        return self.p_value < 0.05 and self.difference > 0


class Verdict(Event, frozen=True, tag="verdict"):
    """What the run found out, on images that the search never saw.

    `winner` is an evaluation number; `gain` is true when it is significantly better than both
    parents and the 50:50 merge; `held_out` tells whether unseen prompts were used, or only unseen
    seeds; `means` are mean scores by evaluation number.

    Where a person judged, `comparisons` ends with the first baseline that is not beaten, and
    `means` has the share of choices for each of these baselines, and of all choices for the winner.
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
    | Scaled
    | Evaluated
    | Rejected
    | Judged
    | TakenBack
    | Preferred
    | VerdictWaived
    | Revalued
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
