"""Blind choices over the routes: answered by side, and nothing tells whose the pictures are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from lib_automerge.app.desk import Desk
from lib_automerge.domain.blind import Trial
from lib_automerge.domain.config import OutputConfig, RewardConfig, VerdictConfig
from lib_automerge.domain.events import Stage
from lib_automerge.study.store import RunFolder
from tests.api.bench import ROOT, make_client, make_desk
from tests.api.test_status import wait_until
from tests.fake_host import tiny_config


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(tmp_path)
    yield made
    if made.worker.busy_with() is not None:
        made.worker.stop()
    assert made.worker.wait(30)


def begin(desk: Desk, client: TestClient) -> str:
    """Start a run and rate its candidates; returns when the first blind choice is asked."""
    models = {role: m.path for role, m in zip("ab", desk.catalogue.models(), strict=True)}
    config = msgspec.structs.replace(
        tiny_config(models, evaluations=5),
        reward=RewardConfig(name="human_rate"),
        verdict=VerdictConfig(finalists=1, finalist_seeds=1, seeds=8),
        output=OutputConfig(),
    )
    run = desk.start(config)
    for number in range(1, 6):

        def there(status: dict[str, Any], number: int = number) -> bool:
            question = status.get("question")
            return question is not None and question.get("evaluation") == number

        key = wait_until(client, there)["question"]["key"]
        body = {"question": key, "value": number / 10}
        assert client.post(f"{ROOT}/runs/{run}/judge", json=body).status_code == 200
    return run


def pair(client: TestClient, made: int) -> dict[str, Any]:
    """Wait until so many choices are made, and another is asked."""

    def there(status: dict[str, Any]) -> bool:
        question = status.get("question")
        return question is not None and question.get("made") == made

    found: dict[str, Any] = wait_until(client, there)["question"]
    return found


def picture(client: TestClient, address: str) -> Any:
    return client.get(address.replace("./automerge/v1", ROOT))


def test_what_the_browser_gets_does_not_tell_whose_pictures_they_are(desk: Desk) -> None:
    client = make_client(desk)
    run = begin(desk, client)
    question = pair(client, 0)
    assert question["most"] == 24
    trial = desk.worker.questions.question
    assert isinstance(trial, Trial)
    assert set(question) == {"key", "made", "most", "left", "right"}
    shown = client.get(f"{ROOT}/runs/{run}/views/judge").text
    assert "blind choices of the verdict" in shown
    assert "at most 24 left" in shown
    assert "held-out prompts and seeds that the search never saw" in shown
    assert "Take back" not in shown
    sources = re.findall(r'(?:src|href)="([^"]+)"', shown)
    assert sorted(set(sources)) == sorted([question["left"], question["right"]])
    told = shown.replace(run, "")
    for word in ("verdict/", "e0004", "e0005", "images/", "thumbs/", "50:50", "odel A", "odel B"):
        assert word not in told
    assert "evaluation" not in told.lower()

    answers = [picture(client, question[side]) for side in ("left", "right")]
    assert [a.status_code for a in answers] == [200, 200]
    names = [{k.lower() for k in a.headers} for a in answers]
    assert names[0] == names[1]
    assert not names[0] & {"last-modified", "etag", "content-disposition"}
    for side, answer in zip(("left", "right"), answers, strict=True):
        path = desk.image(run, trial.shown(side), Stage.VERDICT, trial.job)
        assert answer.content == path.read_bytes()
    assert answers[0].content != answers[1].content

    base = f"{ROOT}/runs/{run}/pairs"
    for wrong in (f"{base}/{question['key']}/middle", f"{base}/pair-999/left"):
        assert client.get(wrong).status_code == 404
    assert client.get(f"{ROOT}/runs/20260101-none/pairs/{question['key']}/left").status_code == 404
    desk.image(run, trial.shown("left"), Stage.VERDICT, trial.job).unlink()
    gone = picture(client, question["left"])
    assert gone.status_code == 404
    assert gone.json()["error"] == "the file of this picture is gone."


def test_choices_are_answered_taken_back_and_ended(desk: Desk) -> None:
    client = make_client(desk)
    run = begin(desk, client)
    path = f"{ROOT}/runs/{run}/judge"
    first = pair(client, 0)
    for body, sentence in (
        ({"value": 0.7}, "the choice is 0.7"),
        ({"value": None}, "nothing to take back"),
        ({"enough": "yes"}, "Send true or false"),
    ):
        answer = client.post(path, json={"question": first["key"], **body})
        assert answer.status_code == 400
        assert sentence in answer.json()["error"]
    trial = desk.worker.questions.question
    assert isinstance(trial, Trial)
    assert client.post(path, json={"question": first["key"], "value": 1}).status_code == 200
    second = pair(client, 1)
    assert second["most"] == 23
    # an older page cannot answer or see the choice before
    assert client.post(path, json={"question": first["key"], "value": 1}).status_code == 400
    assert picture(client, first["left"]).status_code == 404
    state = RunFolder(desk.library.find(run).folder.path).state()
    assert [said.value for said in state.preferred] == [float(trial.winner_left)]
    assert "Take back" in client.get(f"{ROOT}/runs/{run}/views/judge").text

    back = {"question": second["key"], "value": None}
    assert client.post(path, json=back).status_code == 200
    again = pair(client, 0)
    assert again["key"] != first["key"]
    assert client.post(path, json={"question": again["key"], "enough": True}).status_code == 200
    assert desk.worker.wait(30)
    answer = client.get(f"{ROOT}/runs/{run}").json()
    assert answer["verdict"] is None
    assert "You ended the verdict after 0 blind choices" in (
        client.get(f"{ROOT}/runs/{run}/views/results").text
    )


def test_all_views_of_a_proved_run_can_be_drawn(desk: Desk) -> None:
    client = make_client(desk)
    run = begin(desk, client)
    made = 0
    while desk.worker.busy_with() is not None:
        trial = desk.worker.questions.question
        if not isinstance(trial, Trial) or trial.made != made:
            continue
        if made == 0:
            # pictures with names would teach whose the others are
            live = client.get(f"{ROOT}/runs/{run}/views/live").text
            assert "automerge-pictures" not in live
            for shown in (live, client.get(f"{ROOT}/runs/{run}/views/results").text):
                assert "<img" not in shown
            assert "<img" not in client.get(f"{ROOT}/runs/{run}/report").text
            assert "Your blind choices" in client.get(f"{ROOT}/status").text
        body = {"question": trial.key, "value": float(trial.winner_left)}
        assert client.post(f"{ROOT}/runs/{run}/judge", json=body).status_code == 200
        made += 1
    assert made == 3 * 7
    for view in ("live", "judge", "results", "importance"):
        assert client.get(f"{ROOT}/runs/{run}/views/{view}").status_code == 200, view
    shown = client.get(f"{ROOT}/runs/{run}/views/results").text
    assert "You preferred evaluation" in shown
    assert "7 of 7 choices" in shown
    assert shown.count(f"runs/{run}/thumbs/5/verdict/") == 1
    assert shown.count("/verdict/") == 2 * 4
    assert "★ has the highest" not in shown
    assert "Score by prompt" not in shown
    report = client.get(f"{ROOT}/runs/{run}/report").text
    assert report.count("<img") == 4
    assert "marks its best score" not in report
    assert "Score by payload" not in report
    listed = client.get(f"{ROOT}/views/runs").text
    assert ">100 %</td>" in listed
    assert "1.000" not in listed
    for kind in ("report", "recipe", "csv", "journal", "weights"):
        assert client.get(f"{ROOT}/runs/{run}/{kind}").status_code == 200, kind
    verdict = client.get(f"{ROOT}/runs/{run}").json()["verdict"]
    assert verdict["gain"]
    assert verdict["comparisons"][0]["choices"] == {"winner": 7, "baseline": 0, "equal": 0}
