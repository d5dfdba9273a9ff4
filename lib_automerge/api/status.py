"""What the page asks every two seconds: small, quick, and nothing at all if nothing changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import lib_automerge
from lib_automerge.api.http import RUN_ID, Call
from lib_automerge.app.desk import Desk
from lib_automerge.app.lab import LabSnapshot
from lib_automerge.app.standing import RunStanding, Standing, standing, state_word, version_of
from lib_automerge.app.worker import Snapshot
from lib_automerge.domain.blind import SIDES, Asked, Trial
from lib_automerge.study.library import Entry
from lib_automerge.ui.views import judge, lab
from lib_automerge.ui.views.parts import address
from lib_automerge.ui.views.progress import progress
from lib_automerge.ui.views.rewards import LIST, TRY
from lib_automerge.ui.views.strip import announcement, strip


class StatusBoard:
    """Answers how things stand.

    Args:
        desk: whose runs.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # tokens of a process before this one must not look like ours
        self._mark = secrets.token_hex(3)

    def answer(self, call: Call) -> Mapping[str, object]:
        """The status, or that nothing changed since the token `since`.

        The query's `run` names the run that the page shows results of; the run in hand, or the
        last one, if it is left out or gone.
        """
        selected = call.query.get("run", "")
        if not RUN_ID.fullmatch(selected):
            selected = ""
        # taken first: what changes while the rest is collected makes the next answer a full one
        sequence = self._desk.worker.sequence()
        stamp = self._desk.library.stamp(but=self._desk.worker.busy_with())
        download = self._desk.downloads.snapshot()
        rewards = {LIST: download.version, TRY: self._desk.reward_try.snapshot().version}
        merge, reading = self._desk.lab.snapshot(), self._desk.digests.snapshot()
        others = {**rewards, lab.VIEW: f"{merge.version}-{reading.version}"}
        work = f"{self._desk.saver.sequence}.{'.'.join(others.values())}"
        token = f"{self._mark}.{sequence}.{stamp}.{work}.{selected}"
        if call.query.get("since") == token:
            return {"unchanged": True, "token": token}
        now = time.time()
        snapshot = self._desk.worker.snapshot()
        entries = self._desk.entries(snapshot)
        found = standing(snapshot, entries, now)
        shown = _selected(entries, selected, found.run)
        return {
            "token": token,
            "version": lib_automerge.__version__,
            "phase": found.phase.value,
            "busy": found.busy,
            "activity": found.activity,
            "in_hand": found.name,
            "run": found.run,
            "unfinished": found.unfinished[:50],
            "failure": found.failure,
            "question": _asked(snapshot.question, found.name),
            "announcement": announcement(found, merge),
            "selected": shown.id if shown is not None else "",
            "saving": self._desk.saver.status(),
            "downloading": download.running,
            "merging": merge.working or reading.running,
            "fragments": _fragments(found, merge, now),
            "views": _views(snapshot, entries, found, shown, stamp, now) | others,
        }


def _views(
    snapshot: Snapshot,
    entries: list[Entry],
    found: Standing,
    shown: Entry | None,
    stamp: str,
    now: float,
) -> dict[str, str]:
    """A version for each view of the page; the page asks for those whose version is new."""
    run = found.run
    live = run.version if run is not None else f"none-{found.phase.value}"
    log = next((e.folder.log for e in entries if run is not None and e.id == run.id), None)
    results = version_of(shown, state_word(shown, snapshot)) if shown else "none"
    return {
        "live": live,
        "results": results,
        "importance": results,
        "runs": f"{stamp}-{live}",
        judge.VIEW: judge.version(snapshot.question),
        "log": f"{live}-{_size(log)}",
        # memory changes all the time: often enough is every ten seconds
        "resources": f"{live}-{now // 10:.0f}",
    }


def _asked(question: Asked | None, run: str) -> dict[str, object] | None:
    if question is None:
        return None
    if isinstance(question, Trial):
        # whose pictures they are is for nobody to know
        return {
            "key": question.key,
            "made": question.made,
            "most": question.most,
            **{side: address("runs", run, "pairs", question.key, side) for side in SIDES},
        }
    return {"key": question.key, "evaluation": question.evaluation, "other": question.other}


def _size(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0


def _fragments(found: Standing, merge: LabSnapshot, now: float) -> dict[str, str]:
    return {"strip": str(strip(found, now, merge)), "progress": str(progress(found, now))}


def _selected(entries: list[Entry], selected: str, run: RunStanding | None) -> Entry | None:
    """The run to show results of."""
    sound = [e for e in entries if e.state is not None]
    chosen = next((e for e in sound if e.id == selected), None)
    if chosen is None and run is not None:
        chosen = next((e for e in sound if e.id == run.id), None)
    return chosen
