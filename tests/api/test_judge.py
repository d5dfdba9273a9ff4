"""Answers of a person over the routes: taken once, refused when they are late or make no sense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from lib_automerge.app.desk import Desk
from lib_automerge.domain.config import OutputConfig, RewardConfig
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


def begin(desk: Desk, name: str) -> str:
    models = {role: m.path for role, m in zip("ab", desk.catalogue.models(), strict=True)}
    config = msgspec.structs.replace(
        tiny_config(models), reward=RewardConfig(name=name), output=OutputConfig()
    )
    return desk.start(config)


def asked(client: TestClient, evaluation: int) -> dict[str, Any]:
    def there(status: dict[str, Any]) -> bool:
        question = status.get("question")
        return question is not None and question["evaluation"] == evaluation

    found: dict[str, Any] = wait_until(client, there)["question"]
    return found


def test_a_run_asks_and_is_answered(desk: Desk) -> None:
    client = make_client(desk)
    run = begin(desk, "human_choose")
    question = asked(client, 2)
    assert question["other"] == 1
    status = client.get(f"{ROOT}/status").json()
    assert status["activity"] == "waiting for your judgement"
    assert "Waiting for your judgement" in status["fragments"]["strip"]
    shown = client.get(f"{ROOT}/runs/{run}/views/judge").text
    assert question["key"] in shown
    assert status["views"]["judge"] == question["key"]

    path = f"{ROOT}/runs/{run}/judge"
    right = {"question": question["key"], "value": 1}
    wrong: tuple[tuple[dict[str, object], str], ...] = (
        ({**right, "value": 0.7}, "the choice is 0.7"),
        ({**right, "value": "1"}, "Send a number or null"),
        ({**right, "value": True}, "Send a number or null"),
        ({"question": question["key"]}, "Send a number or null"),
        ({**right, "value": None}, "nothing to take back"),
        ({**right, "question": "9-9-9"}, "answered already"),
        ({"value": 1}, "question"),
    )
    for body, sentence in wrong:
        answer = client.post(path, json=body)
        assert answer.status_code == 400, body
        assert sentence in answer.json()["error"]
    assert client.post(f"{ROOT}/runs/20260101-none/judge", json=right).status_code == 409
    assert asked(client, 2) == question

    assert client.post(path, json=right).status_code == 200
    late = client.post(path, json=right)
    assert late.status_code == 400
    assert "answered already" in late.json()["error"]
    following = asked(client, 3)
    assert client.post(path, json={"question": following["key"], "value": None}).status_code == 200
    again = asked(client, 2)
    assert again["key"] != question["key"]
    state = RunFolder(desk.library.find(run).folder.path).state()
    assert state.judged == []
    assert state.said == 2


def test_all_views_of_a_run_that_a_person_alone_judged_can_be_drawn(desk: Desk) -> None:
    client = make_client(desk)
    run = begin(desk, "human_rate")
    for number in range(1, 8):
        question = asked(client, number)
        body = {"question": question["key"], "value": number / 10}
        assert client.post(f"{ROOT}/runs/{run}/judge", json=body).status_code == 200
        for view in ("live", "results"):
            assert client.get(f"{ROOT}/runs/{run}/views/{view}").status_code == 200
    assert desk.worker.wait(30)
    for view in ("live", "judge", "results", "importance"):
        answer = client.get(f"{ROOT}/runs/{run}/views/{view}")
        assert answer.status_code == 200, view
    shown = client.get(f"{ROOT}/runs/{run}/views/results").text
    assert "You like evaluation 7 best" in shown
    assert "nothing is proved" in shown
    assert client.get(f"{ROOT}/runs/{run}/views/judge").text == ""
    for kind in ("report", "recipe", "csv", "journal", "weights"):
        assert client.get(f"{ROOT}/runs/{run}/{kind}").status_code == 200, kind
    assert "You like evaluation 7 best" in client.get(f"{ROOT}/status").text
