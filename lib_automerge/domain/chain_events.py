"""The events of a chain's journal: what happened, one fact a line.

The journal is the only truth of a chain. `time` and `seconds` are the only fields that may differ
between two chains of one configuration, seed and device.
"""

from __future__ import annotations

import enum

import msgspec

from lib_automerge.domain.recipe import ModelRef


class Purpose(str, enum.Enum):
    """What an image of a chain is made for."""

    PREVIEW = "preview"
    RANK = "rank"
    FINAL = "final"


class ChainEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """A fact of a chain. `time` is seconds since the epoch, for display only."""

    time: float = 0.0


class ChainStarted(ChainEvent, frozen=True, tag="started"):
    """The chain began with this configuration (a digest of `chain.json`)."""

    config: str


class ChainResumed(ChainEvent, frozen=True, tag="resumed"):
    """A process took the chain up again."""


class ChainWarned(ChainEvent, frozen=True, tag="warned"):
    """Something that the user should know."""

    message: str


class StepBegan(ChainEvent, frozen=True, tag="step_began"):
    """A step began; there was room on the disk for `needed` bytes."""

    step: str
    needed: int


class Made(ChainEvent, frozen=True, tag="made"):
    """A checkpoint was written: `model` is its name, `recipe` the file of the recipe that it was
    made by; both paths, this and the model's, are relative to the chain's folder.
    """

    step: str
    model: str
    ref: ModelRef
    recipe: str
    seconds: float = 0.0


class Pictured(ChainEvent, frozen=True, tag="pictured"):
    """One image of a model, which `sha256` tells, was made.

    `job` is the job's number among those of the purpose, `digest` identifies the pixels, `file` is
    relative to the chain's folder. `raw` is what each reward gave, `looks` what guards measured;
    previews have neither. `broken` says why an image is no picture.
    """

    model: str
    sha256: str
    purpose: Purpose
    job: int
    payload: str
    seed: int
    digest: str
    file: str
    broken: str | None = None
    raw: dict[str, float] = {}
    looks: dict[str, float] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a ranking: its mean score and the standard error of that; None if it makes broken
    images, or the error cannot be told.

    `behind` is the paired difference of the first from it, 0 for the first; `behind_error` its
    standard error and `behind_p` the p-value of the one-sided test that it is behind.
    """

    model: str
    mean: float | None
    standard_error: float | None = None
    images: int = 0
    behind: float | None = None
    behind_error: float | None = None
    behind_p: float | None = None

    @property
    def clearly_worse(self) -> bool:
        """Whether it makes broken images, or is behind the first at the 5 % level."""
        return self.mean is None or (self.behind_p is not None and self.behind_p < 0.05)


class Ranked(ChainEvent, frozen=True, tag="ranked"):
    """Models of a step in the order of their scores, best first, and which of them stay.

    `level` is that of a tree: 0 is its pool, 1 are the winners of the first level; None else.
    """

    step: str
    standings: tuple[Standing, ...]
    kept: tuple[str, ...]
    level: int | None = None


class Paired(ChainEvent, frozen=True, tag="paired"):
    """Who meets whom at a level (from 1) of a tree; `bye` goes up without a search."""

    step: str
    level: int
    pairs: tuple[tuple[str, str], ...]
    bye: str | None = None


class Decided(ChainEvent, frozen=True, tag="decided"):
    """What a search hands on: `model`, which is `merge` if `gain`, else one of `a` and `b`.

    `run` is the run's folder, relative to the chain's (empty if there was nothing to search);
    `sentence` says why, `means` are the mean scores of the verdict by "a", "b", "half", "merge".
    """

    step: str
    run: str
    a: str
    b: str
    model: str
    gain: bool
    sentence: str
    means: dict[str, float] = {}
    level: int | None = None


class Compared(ChainEvent, frozen=True, tag="compared"):
    """The last winner of a tree against the best model of its pool, on unseen images.

    `difference` is winner minus best, `low` and `high` its 95 % interval, `p_value` that of the
    one-sided test. `held_out` tells whether no step saw these prompts.
    """

    step: str
    winner: str
    best: str
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    pairs: int
    held_out: bool
    gain: bool
    sentence: str
    means: dict[str, float]


class StepDone(ChainEvent, frozen=True, tag="step_done"):
    """A step is done: `models` is what it hands on, best first; `sentence` says what came out."""

    step: str
    models: tuple[str, ...]
    sentence: str


class Removed(ChainEvent, frozen=True, tag="removed"):
    """The file of a model that no later step needs was removed."""

    model: str


class ChainStopped(ChainEvent, frozen=True, tag="stopped"):
    """The user stopped the chain; it can be resumed."""


class ChainFailed(ChainEvent, frozen=True, tag="failed"):
    """The chain could not go on; it can be resumed when the cause is gone."""

    message: str


class ChainFinished(ChainEvent, frozen=True, tag="finished"):
    """All steps are done; `model` is the result."""

    model: str
    sentence: str


AnyChainEvent = (
    ChainStarted
    | ChainResumed
    | ChainWarned
    | StepBegan
    | Made
    | Pictured
    | Ranked
    | Paired
    | Decided
    | Compared
    | StepDone
    | Removed
    | ChainStopped
    | ChainFailed
    | ChainFinished
)
