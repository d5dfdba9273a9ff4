"""How things stand: the run in hand or the last one, in the few values that every page shows."""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lib_automerge.app.estimate import (
    RECENT,
    Remaining,
    images_in_stage,
    planned_evaluations,
    planned_images,
    remaining,
)
from lib_automerge.app.worker import Phase, Snapshot
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BEFORE_PROOF, Origin, Stage
from lib_automerge.domain.run import Activity, RunState, Status
from lib_automerge.study.findings import Findings, summarize
from lib_automerge.study.headline import headline
from lib_automerge.study.library import Entry


class RunStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a few values; scores are None while they are unknown.

    `state` is a word of the vocabulary. `evaluation` is the one in progress or the last one of
    `planned`, `images` of `images_planned` are those of the evaluation in progress, `share` is how
    much of the whole run is done (0 to 1). `noise` is the learned standard deviation of a score and
    `bound` what is left to gain at most, in units of the score. `reason` says why the run is where
    it is, `outlook` what going on would probably gain. `kind` and `sentence` are the headline's.
    """

    id: str
    name: str
    state: str
    stage: Stage
    evaluation: int
    finished_evaluations: int
    planned: int
    images: int
    images_planned: int
    share: float
    best: float | None
    best_evaluation: int | None
    parent_a: float | None
    parent_b: float | None
    half: float | None
    difference: float | None
    decimals: int
    noise: float | None
    bound: float | None
    per_hour: float | None
    elapsed_s: float
    remaining: Remaining | None
    warnings: int
    reason: str
    outlook: str
    kind: str
    sentence: str
    version: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a page needs to know first.

    `run` is the run in hand or, when idle, the one that was worked on last; None if there is none
    or it has no files yet. `name` is the folder of the run in hand even then. `unfinished` are the
    ids of the runs, besides `run`, that can be resumed; `failure` says why the last run could not
    begin.
    """

    phase: Phase
    activity: str
    name: str
    run: RunStanding | None
    unfinished: tuple[str, ...]
    failure: str

    @property
    def busy(self) -> bool:
        """Whether a run is in hand."""
        return self.phase is not Phase.IDLE

    @property
    def waiting(self) -> bool:
        """Whether the run waits for the user's judgement, and nothing else was asked of it."""
        asked = self.activity == Activity.WAITING.value
        return asked and self.phase in (Phase.RUNNING, Phase.FINISHING)


def standing(snapshot: Snapshot, entries: Sequence[Entry], now: float) -> Standing:
    """How things stand.

    Args:
        snapshot: of the worker.
        entries: all runs, the newest first.
        now: seconds since the epoch.
    """
    busy = snapshot.phase is not Phase.IDLE
    sound = [e for e in entries if e.state is not None]
    shown = _shown(sound, snapshot)
    return Standing(
        phase=snapshot.phase,
        activity=snapshot.activity.value if snapshot.activity is not None else "",
        name=snapshot.folder.name if busy and snapshot.folder is not None else "",
        run=None if shown is None else run_standing(shown, snapshot, now),
        unfinished=tuple(
            e.id for e in sound if e is not shown and state_word(e, snapshot) in RESUMABLE
        ),
        failure=snapshot.failure,
    )


RESUMABLE = ("interrupted", "paused", "failed", "stopped")
"""States of runs that can be taken up again."""


def state_word(entry: Entry, snapshot: Snapshot) -> str:
    """The state of a run in the words of the vocabulary; "damaged" if its files are."""
    if entry.state is None:
        return "damaged"
    if snapshot.phase is not Phase.IDLE and snapshot.folder == entry.folder.path:
        return str(snapshot.phase.value)
    if entry.state.status in (Status.STARTING, Status.UNFINISHED):
        return "running elsewhere" if entry.folder.running() else "interrupted"
    return str(entry.state.status.value)


def run_standing(entry: Entry, snapshot: Snapshot, now: float) -> RunStanding:
    """One run in a few values; its files must not be damaged."""
    assert entry.manifest is not None
    assert entry.state is not None
    state, config = entry.state, entry.manifest.config
    found = summarize(entry.folder.path, entry.manifest, state)
    word = state_word(entry, snapshot)
    live = word in {phase.value for phase in Phase}
    stage, number, images = _in_progress(state)
    elapsed = found.seconds + (_since_first_image(state, stage, number, now) if live else 0.0)
    left = remaining(config, state)
    timed = [e.seconds["total"] for e in state.history if e.seconds.get("total") and e.images]
    said = headline(found)
    better = found.contest.better_parent
    merge = found.contest.merge
    return RunStanding(
        id=entry.id,
        name=entry.name,
        state=word,
        stage=stage,
        evaluation=number,
        finished_evaluations=len(state.history),
        planned=planned_evaluations(config, state),
        images=images,
        images_planned=_images_of(config, stage, images),
        share=_share(found, left, elapsed),
        best=found.contest.means[merge.number] if merge else None,
        best_evaluation=merge.number if merge else None,
        parent_a=_mean(found, Origin.MODEL_A),
        parent_b=_mean(found, Origin.MODEL_B),
        half=_mean(found, Origin.HALF),
        difference=found.contest.gain_over(better),
        decimals=found.decimals,
        noise=state.learned.noise if state.learned is not None else None,
        bound=state.learned.bound if state.learned is not None else None,
        per_hour=3600 / statistics.median(timed[-RECENT:]) if timed else None,
        elapsed_s=elapsed,
        remaining=left if live else None,
        warnings=len(set(state.warnings)),
        reason=_reason(state),
        outlook=state.search_ended.outlook if state.search_ended is not None else "",
        kind=said.kind,
        sentence=said.sentence,
        version=version_of(entry, word),
    )


def version_of(entry: Entry, word: str) -> str:
    """Changes whenever what is known of a run does, but for single images."""
    state = entry.state
    if state is None:
        return f"{entry.id}-damaged"
    parts = (
        len(state.history),
        len(state.stages),
        len(state.warnings),
        0 if state.learned is None else state.learned.evaluation,
        int(state.calibrated is not None),
        int(state.search_ended is not None),
        int(state.verdict is not None),
        int(state.saved is not None),
        state.said,
        int(state.waived),
    )
    name = zlib.crc32(entry.name.encode())
    return "-".join([entry.id, word.replace(" ", "-"), *map(str, parts), f"{name:x}"])


def _shown(entries: list[Entry], snapshot: Snapshot) -> Entry | None:
    path: Path | None = snapshot.folder
    worked = next((e for e in entries if e.folder.path == path), None)
    if worked is not None or snapshot.phase is not Phase.IDLE:
        return worked
    return entries[0] if entries else None


def _in_progress(state: RunState) -> tuple[Stage, int, int]:
    """Stage, evaluation and number of images of what is being scored, or was scored last."""
    if state.search_ended is None:
        pending = state.pending
        measured = [n for stage, n in state.scores if stage is Stage.CALIBRATION]
        if measured and state.calibrated is None and not pending:
            return Stage.CALIBRATION, measured[0], len(state.scores[Stage.CALIBRATION, measured[0]])
        number = pending[0].number if pending else len(state.history)
        return Stage.SEARCH, number, len(state.scores.get((Stage.SEARCH, number), {}))
    later = [key for key in state.scores if key[0] not in BEFORE_PROOF]
    if not later:
        return Stage.FINALISTS, len(state.history), 0
    # finalists that cannot be told apart come round again: the latest image tells whose turn it is
    latest = {key: max(scored.time for scored in state.scores[key].values()) for key in later}
    stage, number = max(reversed(later), key=lambda key: latest[key])
    return stage, number, len(state.scores[stage, number])


def _images_of(config: RunConfig, stage: Stage, images: int) -> int:
    """How many images the one in progress has, with as many rounds as have begun."""
    each = images_in_stage(config, stage)
    return each * max(1, math.ceil(images / each)) if stage is Stage.FINALISTS else each


def _since_first_image(state: RunState, stage: Stage, number: int, now: float) -> float:
    """Seconds that the evaluation in progress has taken, as far as its images tell."""
    done = state.evaluations[number].finished if number in state.evaluations else True
    if (done and stage is Stage.SEARCH) or (stage, number) in state.stages:
        return 0.0
    times = [scored.time for scored in state.scores.get((stage, number), {}).values()]
    return max(0.0, now - min(times)) if times else 0.0


def _share(found: Findings, left: Remaining | None, elapsed: float) -> float:
    if found.state.finished is not None:
        return 1.0
    if left is not None and elapsed > 0:
        return elapsed / (elapsed + left.seconds)
    planned = planned_images(found.manifest.config, found.state)
    done = sum(len(images) for images in found.state.scores.values())
    return min(1.0, done / planned) if planned else 0.0


def _mean(found: Findings, origin: Origin) -> float | None:
    evaluation = found.state.baseline(origin)
    return None if evaluation is None else found.contest.means.get(evaluation.number)


def _reason(state: RunState) -> str:
    """Why a run is where it is, in the journal's words; empty if there is nothing to tell."""
    if state.status is Status.FAILED:
        return state.failure or ""
    if state.status is Status.PAUSED:
        return state.pause_reason
    if state.search_ended is not None:
        return state.search_ended.reason
    return ""
