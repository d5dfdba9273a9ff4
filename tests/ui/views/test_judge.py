"""The judge's panel: what it shows, what its buttons say, and what it keeps to itself."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.desk import Opened
from lib_automerge.app.standing import standing
from lib_automerge.app.worker import Phase, Snapshot
from lib_automerge.domain.config import RewardConfig
from lib_automerge.domain.events import Judged
from lib_automerge.domain.human import Question
from lib_automerge.domain.run import Activity
from lib_automerge.study.findings import summarize
from lib_automerge.study.library import Library
from lib_automerge.ui.views.judge import judge, sides, version
from lib_automerge.ui.views.live import live
from lib_automerge.ui.views.strip import announcement, strip
from tests.run_folders import Plan, Until, build
from tests.ui.views.test_views import NOW, check

RUN = "20260101-abcd"


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    plan = Plan(evaluations=8, until=Until.SEARCH)
    build(tmp_path / "runs" / RUN, plan)
    (entry,) = Library(tmp_path / "runs").entries()
    assert entry.manifest is not None
    assert entry.state is not None
    config = msgspec.structs.replace(
        entry.manifest.config, reward=RewardConfig(name="human_choose")
    )
    return Opened(
        id=entry.id,
        name=entry.name,
        path=entry.folder.path,
        manifest=msgspec.structs.replace(entry.manifest, config=config),
        state=entry.state,
        live=True,
    )


def values(html: str) -> dict[str, str]:
    """What each button says, by its id."""
    found = {}
    for tag in re.findall(r"<button [^>]+>", html):
        named = re.search(r'id="automerge-judge-(\w+)"', tag)
        said = re.search(r'data-value="([^"]*)"', tag)
        if named:
            found[named.group(1)] = said.group(1) if said else None
    return found


def test_nothing_is_shown_while_nothing_is_asked(opened: Opened) -> None:
    question = Question(evaluation=4, number=3)
    assert judge(opened, None) == ""
    assert judge(msgspec.structs.replace(opened, live=False), question) == ""
    assert version(None) == "none"
    assert version(question) != version(msgspec.structs.replace(question, number=4))


def test_a_rating_shows_every_picture_of_the_candidate_and_a_slider(opened: Opened) -> None:
    question = Question(evaluation=4, number=0)
    html = judge(opened, question)
    check(html)
    pictures = re.findall(r"thumbs/(\d+)/search/(\d+)", html)
    assert pictures
    assert {number for number, _ in pictures} == {"4"}
    assert f'data-slider="automerge-rating-{question.key}"' in html
    assert f'id="automerge-rating-{question.key}"' in html
    assert set(values(html)) == {"rate"}


def test_the_left_button_prefers_what_is_on_the_left(opened: Opened) -> None:
    seen = set()
    for number in range(12):
        question = Question(evaluation=6, other=4, number=number)
        html = judge(opened, question)
        check(html)
        left, right = sides(question)
        assert {left, right} == {4, 6}
        pictures = [int(n) for n in re.findall(r"thumbs/(\d+)/search", html)]
        assert pictures[0::2] == [left] * (len(pictures) // 2)
        assert pictures[1::2] == [right] * (len(pictures) // 2)
        said = values(html)
        assert said["left"] == ("1" if left == 6 else "0")
        assert said["right"] == ("1" if right == 6 else "0")
        assert said["equal"] == "0.5"
        seen.add(left)
    assert seen == {4, 6}


def test_the_last_answer_can_be_taken_back_once_there_is_one(opened: Opened) -> None:
    question = Question(evaluation=6, other=4, number=1)
    assert "back" not in values(judge(opened, question))
    opened.state.add(Judged(evaluation=5, other=4, value=1.0))
    html = judge(opened, question)
    assert values(html)["back"] == ""
    assert "1 judgement so far" in html


def test_nothing_tells_what_the_candidates_are(opened: Opened) -> None:
    html = judge(opened, Question(evaluation=2, other=1, number=0))
    text = re.sub(r"<[^>]+>", " ", html)
    assert not re.search(r"[Ee]valuation|[Mm]odel|0\.\d", text)
    assert "evaluation" not in " ".join(re.findall(r'(?:alt|title|data-caption)="([^"]*)"', html))


def test_the_live_view_has_a_place_for_it_if_the_user_judges(opened: Opened) -> None:
    def drawn(one: Opened) -> str:
        return live(one, summarize(one.path, one.manifest, one.state))

    assert 'data-automerge-view="judge"' in drawn(opened)
    config = msgspec.structs.replace(opened.manifest.config, reward=RewardConfig())
    manifest = msgspec.structs.replace(opened.manifest, config=config)
    assert 'data-automerge-view="judge"' not in drawn(
        msgspec.structs.replace(opened, manifest=manifest)
    )


def test_the_strip_says_what_the_run_waits_for(tmp_path: Path) -> None:
    build(tmp_path / "runs" / RUN, Plan(evaluations=8, until=Until.SEARCH))
    (entry,) = Library(tmp_path / "runs").entries()
    for phase, waits in ((Phase.RUNNING, True), (Phase.PAUSING, False)):
        snapshot = Snapshot(
            sequence=1,
            phase=phase,
            folder=entry.folder.path,
            state=entry.state,
            activity=Activity.WAITING,
            failure="",
        )
        now = standing(snapshot, [entry], NOW)
        html = strip(now, NOW)
        check(html)
        assert ("Waiting for your judgement" in html) is waits
        assert announcement(now).startswith("Waiting for your judgement") is waits
