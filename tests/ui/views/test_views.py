"""The views as HTML: complete at every state of a run, well-formed, and safe."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.desk import Opened
from lib_automerge.app.lab import LabPhase, LabSnapshot
from lib_automerge.app.lab_orders import Kept
from lib_automerge.app.standing import run_standing, standing
from lib_automerge.app.worker import Phase, Snapshot
from lib_automerge.domain.events import Calibrated, Paused, Scored, Stage
from lib_automerge.domain.run import Activity
from lib_automerge.merge.lab.job import Progress
from lib_automerge.study.block_chart import Bar
from lib_automerge.study.findings import Findings, summarize
from lib_automerge.study.library import Library
from lib_automerge.ui.views.bars import weight_bars
from lib_automerge.ui.views.learned import learned
from lib_automerge.ui.views.live import live, nothing_yet
from lib_automerge.ui.views.machine import Usage, log_tail, process_memory, resources
from lib_automerge.ui.views.parts import address
from lib_automerge.ui.views.progress import progress
from lib_automerge.ui.views.results import no_results, results
from lib_automerge.ui.views.runs import Row, runs
from lib_automerge.ui.views.strip import announcement, strip
from tests.run_folders import FAILED, STOPPED, Plan, Until, build

VOID = {"img", "br", "input", "meta"}
NOW = 1_770_100_000.0


class Checker(HTMLParser):
    """Collects ids and whether all elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        if found.get("aria-labelledby"):
            self.labels += found["aria-labelledby"].split()
        assert not [name for name in found if name.startswith("on")], "inline script"
        assert not (found.get("href") or "").startswith("javascript")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(fragment: str) -> Checker:
    checker = Checker()
    checker.feed(fragment)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "an id occurs twice"
    assert set(checker.labels) <= set(checker.ids)
    return checker


def entry_of(folder: Path, plan: Plan):
    build(folder / "runs" / "20260101-abcd", plan)
    (entry,) = Library(folder / "runs").entries()
    return entry


def opened_of(entry, *, in_hand: bool = False) -> tuple[Opened, Findings]:
    opened = Opened(
        id=entry.id,
        name=entry.name,
        path=entry.folder.path,
        manifest=entry.manifest,
        state=entry.state,
        live=in_hand,
    )
    return opened, summarize(entry.folder.path, entry.manifest, entry.state)


def snapshot(phase: Phase, entry=None, activity: Activity | None = None, failure: str = ""):
    return Snapshot(
        sequence=1,
        phase=phase,
        folder=entry.folder.path if entry is not None else Path("/runs/20260101-abcd"),
        state=entry.state if entry is not None else None,
        activity=activity,
        failure=failure,
    )


ENDS = {
    "started": Plan(evaluations=9, size=0, until=Until.STARTED),
    "baselines": Plan(evaluations=9, size=0, until=Until.BASELINES),
    "search": Plan(evaluations=9, size=0, until=Until.SEARCH, rejected=(5,), warnings=("slow",)),
    "finalists": Plan(evaluations=9, size=0, until=Until.FINALISTS),
    "finished": Plan(evaluations=9, size=0, saved=True),
    "no gain": Plan(evaluations=9, size=0, gain=0.0),
    "nothing usable": Plan(evaluations=6, size=0, rejected=(4, 5, 6)),
    "failed": Plan(evaluations=9, size=0, until=Until.SEARCH, end=FAILED),
    "stopped": Plan(evaluations=9, size=0, until=Until.SEARCH, end=STOPPED),
    "paused": Plan(evaluations=9, size=0, until=Until.SEARCH, end=Paused(reason="Disk low.")),
    "led by a model": Plan(
        evaluations=9,
        size=0,
        until=Until.SEARCH,
        given_up=(6,),
        leader=5,
        calibration="Chance moves the score by ±0.03; 6 prompts are enough.",
    ),
    "led by a parent": Plan(evaluations=9, size=0, until=Until.SEARCH, leader=1),
    "ended with an outlook": Plan(evaluations=9, size=0, leader=7, outlook="Little was left."),
    "sdxl": Plan(evaluations=9, size=0, architecture="sdxl"),
    "wide range, below zero": Plan(evaluations=9, size=0, low=-1.0, high=2.0, level=-5.0),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("in_hand", [True, False])
def test_every_view_at_every_state(tmp_path: Path, name: str, in_hand: bool) -> None:
    entry = entry_of(tmp_path, ENDS[name])
    opened, found = opened_of(entry, in_hand=in_hand)
    phase = Phase.RUNNING if in_hand else Phase.IDLE
    now = standing(snapshot(phase, entry if in_hand else None), [entry], NOW)
    usage = Usage(memory=3_000_000_000, device=(4, 8), disk_free=5)
    row = Row(id=entry.id, name=entry.name, state=now.run.state, found=found, size=123)
    page = "".join(
        [
            strip(now, NOW),
            progress(now, NOW),
            live(opened, found),
            resources(found, usage),
            runs([row]),
        ]
    )
    check(page)
    check(results(opened, found))
    # both views are in one page: their charts must not share ids
    check(live(opened, found) + results(opened, found))
    assert announcement(now)


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.IDLE])
def test_the_strip_of_a_run_in_hand(tmp_path: Path, phase: Phase) -> None:
    entry = entry_of(tmp_path, ENDS["search"])
    now = standing(snapshot(phase, entry, Activity.MERGING), [entry], NOW)
    text = strip(now, NOW)
    checker = check(text)
    # the host's shortcuts look for these in every state
    assert {"automerge_interrupt", "automerge_skip"} <= set(checker.ids)
    pausable = phase in (Phase.STARTING, Phase.RUNNING, Phase.FINISHING)
    assert ('style="display: block"' in text) == pausable
    assert ('data-action="finish"' in text) == (phase is Phase.RUNNING)
    assert ('data-action="stop"' in text) == (phase is not Phase.STOPPING)
    assert text.count("data-confirm") == (phase is not Phase.STOPPING)
    assert 'data-run="20260101-abcd"' in text


def test_before_a_run_has_files() -> None:
    now = standing(snapshot(Phase.STARTING), [], NOW)
    assert now.run is None
    assert "Starting" in check_text(strip(now, NOW))
    assert "Checking models" in strip(now, NOW)
    assert "aria-valuenow" not in progress(now, NOW)


def check_text(fragment: str) -> str:
    check(fragment)
    return re.sub(r"<[^>]+>", "", fragment).replace("\N{NO-BREAK SPACE}", " ")


def test_idle_says_what_to_do() -> None:
    now = standing(snapshot(Phase.IDLE), [], NOW)
    text = strip(now, NOW)
    assert {"automerge_interrupt", "automerge_skip"} <= set(check(text).ids)
    assert 'style="display: none"' in text
    for empty in (nothing_yet(), no_results(), runs([])):
        assert check_text(empty)


def merging(phase: LabPhase, **changes: object) -> LabSnapshot:
    made = LabSnapshot(
        number=1,
        phase=phase,
        name="soup.safetensors",
        progress=Progress(done=600_000_000, total=1_200_000_000, seconds=6.0),
    )
    return msgspec.structs.replace(made, **changes)


def test_the_strip_tells_of_a_merge_in_progress(tmp_path: Path) -> None:
    now = standing(snapshot(Phase.IDLE), [entry_of(tmp_path, ENDS["finished"])], NOW)
    drawn = strip(now, NOW, merging(LabPhase.MERGING))
    assert {"automerge_interrupt", "automerge_skip"} <= set(check(drawn).ids)
    text = check_text(drawn)
    for part in ("Merging", "soup.safetensors", "50 % done", "100 MB/s", "done about"):
        assert part in text
    assert "A run can start when the merge lab is done" in text
    assert 'data-action="lab-cancel"' in drawn
    assert announcement(now, merging(LabPhase.MERGING)) == "Merging: soup.safetensors."
    # a run could not be resumed now
    assert 'data-action="resume"' not in drawn


def test_the_strip_tells_of_a_preview_and_of_cancelling() -> None:
    now = standing(snapshot(Phase.IDLE), [], NOW)
    preview = merging(LabPhase.GENERATING, name="ties", preview=True)
    text = check_text(strip(now, NOW, preview))
    assert "Making the image" in text
    assert "Preview of TIES" in text
    assert "% done" not in text
    drawn = strip(now, NOW, merging(LabPhase.CANCELLING))
    assert "Cancelling" in drawn
    assert "lab-cancel" not in drawn


def test_an_idle_strip_tells_what_the_lab_can_go_on_with(tmp_path: Path) -> None:
    one = (Kept(1, "soup.safetensors", "/m", 5),)
    two = (*one, Kept(2, "x.safetensors", "/m", 5))
    for entries in ([], [entry_of(tmp_path, ENDS["finished"])]):
        now = standing(snapshot(Phase.IDLE), entries, NOW)
        text = check_text(strip(now, NOW, LabSnapshot(kept=one)))
        assert "The merge soup.safetensors is not finished: see Merge lab." in text
        assert "2 merges are not finished" in strip(now, NOW, LabSnapshot(kept=two))
        assert "not finished" not in strip(now, NOW)


def test_a_run_in_hand_is_told_before_a_merge_that_is_left(tmp_path: Path) -> None:
    now = standing(snapshot(Phase.RUNNING, entry_of(tmp_path, ENDS["search"])), [], NOW)
    drawn = strip(now, NOW, LabSnapshot(kept=(Kept(1, "soup.safetensors", "/m", 5),)))
    assert "Running" in drawn
    assert "soup" not in drawn


def test_a_failed_start_is_told_before_the_last_run(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["finished"])
    now = standing(snapshot(Phase.IDLE, failure="A & B are one file."), [entry], NOW)
    text = check_text(strip(now, NOW))
    assert "could not be carried out" in text
    assert "A &amp; B are one file." in text
    assert "A & B" in announcement(now)


def test_a_resume_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["paused"])
    now = standing(snapshot(Phase.IDLE, failure="no such file: b."), [entry], NOW)
    text = strip(now, NOW)
    assert "No such file: b." in text
    assert "Last run" in text
    assert 'data-action="resume"' in text


def test_what_remains_is_told_with_a_range(tmp_path: Path) -> None:
    entry = entry_of(
        tmp_path, Plan(evaluations=40, size=0, until=Until.BASELINES, seconds_per_image=60)
    )
    now = standing(snapshot(Phase.RUNNING, entry), [entry], NOW)
    assert now.run.remaining is not None
    assert "done about" in check_text(progress(now, NOW))
    assert "3 of 40" in check_text(strip(now, NOW))


def test_the_numbers_of_a_finished_run(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["finished"])
    run = run_standing(entry, snapshot(Phase.IDLE), NOW)
    verdict = entry.state.verdict
    assert run.best == verdict.means[verdict.winner]
    assert run.share == 1.0
    assert run.remaining is None
    by_name = {c.baseline.value: c.difference for c in verdict.comparisons}
    assert run.difference == pytest.approx(by_name[verdict.better_parent.value])


def test_what_the_search_knows_is_told_in_words(tmp_path: Path) -> None:
    _, found = opened_of(entry_of(tmp_path, ENDS["led by a model"]))
    text = check_text(learned(found))
    assert "What the search knows so far" in text
    assert re.search(r"Evaluation 5, expected −?\d\.\d+ ± 0\.012", text)
    assert "± 0.030" in text
    assert "at most 0.052, about 0.0042 by the next candidate" in text
    assert "Chance moves the score by ±0.03; 6 prompts are enough." in text
    assert "Why it ended" not in text


def test_a_leader_with_a_lower_score_is_explained(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["led by a model"])
    _, found = opened_of(entry)
    top = max(entry.state.history, key=lambda e: -9 if e.score is None else e.score)
    assert top.number != 5
    text = check_text(learned(found))
    assert f"Evaluation {top.number} has the highest score" in text
    assert "more is expected of evaluation 5." in text
    same = Plan(evaluations=9, size=0, until=Until.SEARCH, leader=top.number, given_up=(6,))
    _, found = opened_of(entry_of(tmp_path / "same", same))
    assert "luck" not in check_text(learned(found))


def test_why_the_search_ended_is_told_with_the_outlook(tmp_path: Path) -> None:
    _, found = opened_of(entry_of(tmp_path, ENDS["ended with an outlook"]))
    text = check_text(learned(found))
    assert "What the search learned" in text
    assert "Why it ended: 9 evaluations are done. Little was left." in text
    _, found = opened_of(entry_of(tmp_path / "x", ENDS["baselines"]))
    assert learned(found) == ""


def test_the_strip_tells_what_is_left_to_gain(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["led by a model"])
    now = standing(snapshot(Phase.RUNNING, entry), [entry], NOW)
    assert "at most 0.052 left to gain" in check_text(strip(now, NOW))
    entry = entry_of(tmp_path / "x", ENDS["search"])
    now = standing(snapshot(Phase.RUNNING, entry), [entry], NOW)
    assert "left to gain" not in strip(now, NOW)


def test_what_was_given_up_is_told_apart_from_what_broke(tmp_path: Path) -> None:
    plan = Plan(evaluations=9, size=0, until=Until.SEARCH, given_up=(6, 7), rejected=(5,))
    opened, found = opened_of(entry_of(tmp_path, plan))
    page = live(opened, found)
    assert page.count("given up after 1 of 6 prompts</span>") == 2
    assert page.count(">rejected</span>") == 1
    text = check_text(page)
    assert "1 rejected" in text
    assert "2 given up" in text


def test_the_noise_is_measured_between_two_evaluations(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["baselines"])
    for job in range(5):
        entry.state.add(
            Scored(
                evaluation=3,
                stage=Stage.CALIBRATION,
                job=job,
                payload="p01",
                seed=job,
                digest="",
                file="",
                score=0.1,
            )
        )
    now = standing(snapshot(Phase.RUNNING, entry, Activity.GENERATING), [entry], NOW)
    assert (now.run.stage, now.run.evaluation, now.run.images) == (Stage.CALIBRATION, 3, 5)
    assert "measuring the noise" in check_text(strip(now, NOW))
    assert "50:50 merge again" in check_text(progress(now, NOW))
    assert "Finalists" in progress(now, NOW)
    alone = msgspec.structs.replace(now, run=msgspec.structs.replace(now.run, planned=3))
    assert "Finalists" not in check_text(progress(alone, NOW))
    before = now.run.version
    entry.state.add(Calibrated(evaluation=3, seed_sd=0.1, sentence="Enough."))
    now = standing(snapshot(Phase.RUNNING, entry), [entry], NOW)
    assert now.run.stage is Stage.SEARCH
    assert now.run.version != before


def test_finalists_that_come_round_again(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["finalists"])
    first = next(n for stage, n in entry.state.scores if stage is Stage.FINALISTS)
    made = dict(entry.state.scores[Stage.FINALISTS, first])
    again = msgspec.structs.replace(made[0], job=len(made), time=NOW)
    entry.state.add(again)
    now = standing(snapshot(Phase.RUNNING, entry), [entry], NOW)
    assert now.run.evaluation == first
    assert now.run.images == len(made) + 1
    assert now.run.images_planned == 2 * len(made)


def test_results_offer_what_is_there(tmp_path: Path) -> None:
    opened, found = opened_of(entry_of(tmp_path, ENDS["finished"]))
    page = results(opened, found)
    for action in ("save", "duplicate", "copy", "zoom", "send", "choose"):
        assert f'data-action="{action}"' in page, action
    assert "resume" not in page
    assert page.count("<option") > 4
    columns = re.findall(r"<b>([^<]+)</b><small>", page)
    better = found.contest.better_parent
    assert columns[:2] == ["Best merge", "50:50"]
    assert columns[2].endswith("better parent")
    assert better.origin.value in columns[2]
    empty, nothing = opened_of(entry_of(tmp_path / "x", ENDS["baselines"]))
    early = results(empty, nothing)
    assert 'data-action="save"' not in early
    assert 'data-action="resume"' in early


def test_weights_in_every_order_say_what_is_lost(tmp_path: Path) -> None:
    opened, found = opened_of(entry_of(tmp_path, ENDS["finished"]))
    page = results(opened, found)
    assert page.count('data-action="copy"') >= 8
    assert "It has no place for" in page
    winner = found.contest.merge
    assert ",".join(f"{b}:{w!r}" for b, w in winner.weights.items()).split(",")[0] in page


def test_runs_can_be_filtered_by_their_words(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, ENDS["finished"])
    _, found = opened_of(entry)
    row = Row(id=entry.id, name="My Night", state="finished", found=found, size=10)
    page = runs([row])
    words = re.search(r'data-search="([^"]+)"', page)[1]
    assert words == words.casefold()
    assert {"my", "night", "finished", "daylight", "midnight"} <= set(words.split())
    in_hand = runs([Row(id=entry.id, name="x", state="running", found=found, size=None)])
    assert 'data-action="delete"' not in in_hand
    assert 'data-action="delete"' in page


def test_bars_say_their_numbers_without_colour() -> None:
    bars = [Bar("IN00", 0.25, 0.1), Bar("IN01", -0.5, 0.0), Bar("M00", 1.5, None)]
    chart = weight_bars("x", bars, {0.0: "A", 1.0: "B"}, 300.0)
    check(chart)
    assert "IN00 0.25" in chart
    assert "IN01: −0.500, without effect" in chart
    numbers = [float(v) for v in re.findall(r'(?:x|y|x1|x2|y1|y2)="([-\d.]+)"', chart)]
    assert all(-1 <= v <= 301 for v in numbers)
    check(weight_bars("y", [Bar("IN00", 0.0, 0.1)], {0.0: "A"}, 300.0))


def test_the_tail_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert "no log" in log_tail(path, "x")
    lines = [f"2026-01-01 00:00:00,000 INFO line {n}" for n in range(2000)]
    lines.append("2026-01-01 00:00:00,000 ERROR <b>it broke</b>")
    path.write_text("\n".join(lines))
    tail = log_tail(path, "x")
    check(tail)
    assert "line 1999" in tail
    assert "line 10\n" not in tail
    assert "<mark>" in tail
    assert "<b>it" not in tail
    assert len(tail) < 25_000


def test_memory_of_this_process() -> None:
    found = process_memory()
    assert found is None or 10_000_000 < found < 1 << 40


def test_addresses_are_relative_and_quoted() -> None:
    assert address("runs", "a/../b", "csv") == "./automerge/v1/runs/a%2F..%2Fb/csv"
    assert address("runs", "x", "recipe", evaluation=7) == (
        "./automerge/v1/runs/x/recipe?evaluation=7"
    )
    assert address("status", since=None) == "./automerge/v1/status"
