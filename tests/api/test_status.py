from __future__ import annotations

import time
from pathlib import Path

import pytest

from lib_automerge.app.desk import Desk
from lib_automerge.domain.events import Paused
from tests.api.bench import NASTY, ROOT, Gate, add_run, make_client, make_desk, running
from tests.fake_host import FakeHost, tiny_config
from tests.run_folders import FAILED, STOPPED, Plan, Until, payloads

PAUSED = Paused()


def wait_until(client, condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = client.get(f"{ROOT}/status").json()
        if condition(status):
            return status
        time.sleep(0.02)
    raise AssertionError(f"this state did not come: {status}")


def start_tiny(desk: Desk) -> str:
    models = {role: m.path for role, m in zip("ab", desk.catalogue.models(), strict=True)}
    return desk.start(tiny_config(models))


def test_empty_desk(tmp_path: Path) -> None:
    status = make_client(make_desk(tmp_path)).get(f"{ROOT}/status").json()
    assert status["phase"] == "idle"
    assert not status["busy"]
    assert status["run"] is None
    assert status["selected"] == ""
    assert "Choose model B and press Start" in status["fragments"]["strip"]
    assert status["fragments"]["progress"] == ""


def test_unchanged_until_something_changes(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    run = add_run(desk, "20260101-abcd")
    client = make_client(desk)
    token = client.get(f"{ROOT}/status").json()["token"]
    assert client.get(f"{ROOT}/status", params={"since": token}).json() == {
        "unchanged": True,
        "token": token,
    }
    desk.library.rename(run, "another name")
    changed = client.get(f"{ROOT}/status", params={"since": token}).json()
    assert changed["run"]["name"] == "another name"
    # a token of another process means nothing here, though its counters may be equal
    other = make_client(desk).get(f"{ROOT}/status", params={"since": changed["token"]}).json()
    assert "unchanged" not in other


def test_another_selected_run_is_news(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    first, second = add_run(desk, "20260101-aaaa"), add_run(desk, "20260102-bbbb")
    client = make_client(desk)
    token = client.get(f"{ROOT}/status", params={"run": first}).json()["token"]
    answer = client.get(f"{ROOT}/status", params={"run": second, "since": token}).json()
    assert answer["selected"] == second
    gone = client.get(f"{ROOT}/status", params={"run": "20250101-gone"}).json()
    assert gone["selected"] in (first, second)
    assert client.get(f"{ROOT}/status", params={"run": "../.."}).status_code == 200


@pytest.mark.parametrize(
    ("plan", "state", "words"),
    [
        (Plan(evaluations=12, size=0), "finished", "beats the better parent"),
        (Plan(evaluations=6, size=0, until=Until.SEARCH, end=STOPPED), "stopped", "6 evaluations"),
        (Plan(evaluations=6, size=0, until=Until.SEARCH, end=FAILED), "failed", "out of memory"),
        (Plan(evaluations=6, size=0, until=Until.SEARCH), "interrupted", "nothing that was scored"),
    ],
)
def test_what_was_done_last(tmp_path: Path, plan: Plan, state: str, words: str) -> None:
    desk = make_desk(tmp_path)
    run = add_run(desk, "20260101-abcd", plan)
    status = make_client(desk).get(f"{ROOT}/status").json()
    assert status["run"]["state"] == state
    assert words in status["fragments"]["strip"]
    assert ('data-action="resume"' in status["fragments"]["strip"]) == (state != "finished")
    assert status["announcement"].lower().startswith(state)
    assert status["run"]["id"] == run


def test_older_unfinished_runs_are_counted(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    cut = Plan(evaluations=4, size=0, until=Until.SEARCH)
    ids = {add_run(desk, f"2026010{day}-abcd", cut) for day in (1, 2, 3)}
    status = make_client(desk).get(f"{ROOT}/status").json()
    assert {*status["unfinished"], status["run"]["id"]} == ids
    assert "2 other runs can be resumed" in status["fragments"]["strip"]


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    host = FakeHost()
    gate = Gate(host, 30)
    desk = make_desk(tmp_path, host)
    client = make_client(desk)
    with running(desk, gate, lambda: start_tiny(desk)) as run:
        status = wait_until(client, lambda s: s["run"] and s["run"]["finished_evaluations"] >= 4)
        assert status["busy"]
        assert status["in_hand"] == run == status["run"]["id"]
        assert status["run"]["state"] == "running"
        assert status["run"]["planned"] == 7
        assert status["run"]["images_planned"] == 6
        assert status["run"]["remaining"]["seconds"] > 0
        assert status["run"]["difference"] is not None
        assert 0 < status["run"]["share"] < 1
        assert status["activity"] in ("generating", "merging", "scoring", "proposing")
        strip = status["fragments"]["strip"]
        assert 'id="automerge_interrupt"' in strip
        assert "display: block" in strip
        assert 'role="progressbar"' in status["fragments"]["progress"]
        assert client.post(f"{ROOT}/runs/{run}/pause", json={}).status_code == 200
        assert client.get(f"{ROOT}/status").json()["phase"] == "pausing"
        gate.open()
        paused = wait_until(client, lambda s: not s["busy"])
        assert paused["run"]["state"] == "paused"
        assert "display: none" in paused["fragments"]["strip"]
        assert client.post(f"{ROOT}/runs/{run}/resume", json={}).status_code == 200
        ended = wait_until(client, lambda s: not s["busy"] and s["run"]["state"] == "finished")
        assert ended["run"]["share"] == 1.0
        assert ended["run"]["sentence"]


def test_paused_by_the_user_is_no_trouble(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, "20260101-abcd", Plan(evaluations=5, size=0, until=Until.SEARCH, end=PAUSED))
    strip = make_client(desk).get(f"{ROOT}/status").json()["fragments"]["strip"]
    assert "Paused" in strip
    assert 'data-action="resume"' in strip


def test_views_change_with_evaluations_not_with_images(tmp_path: Path) -> None:
    host = FakeHost()
    gate = Gate(host, 16)
    desk = make_desk(tmp_path, host)
    client = make_client(desk)
    with running(desk, gate, lambda: start_tiny(desk)):
        # at the gate, not on the way there
        before = wait_until(
            client,
            lambda s: s["run"] and (s["run"]["finished_evaluations"], s["run"]["images"]) == (2, 2),
        )
        for _ in range(2):
            gate._permits.release()
        after = wait_until(client, lambda s: s["run"]["images"] == 4)
        assert before["views"]["live"] == after["views"]["live"]
        assert before["token"] != after["token"]
        assert before["fragments"]["progress"] != after["fragments"]["progress"]
        for _ in range(6):
            gate._permits.release()
        later = wait_until(client, lambda s: s["run"]["finished_evaluations"] == 3)
        assert later["views"]["live"] != after["views"]["live"]


def test_a_run_that_could_not_start_says_why(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    models = {role: m.path for role, m in zip("ab", desk.catalogue.models(), strict=True)}
    Path(models["b"]).write_bytes(Path(models["a"]).read_bytes())
    desk.worker.start(tiny_config(models), desk.library.new_folder())
    assert desk.worker.wait(30)
    status = make_client(desk).get(f"{ROOT}/status").json()
    assert status["failure"]
    assert "could not be carried out" in status["fragments"]["strip"]


def test_names_are_escaped(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, "20260101-abcd", Plan(evaluations=5, size=0, name=NASTY))
    fragments = make_client(desk).get(f"{ROOT}/status").json()["fragments"]
    assert "<img" not in fragments["strip"]
    assert "&lt;img" in fragments["strip"]


def test_small_and_quick_with_500_evaluations_of_16_images(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    plan = Plan(evaluations=500, payloads=payloads(8, 4), size=0, until=Until.SEARCH)
    add_run(desk, "20260101-abcd", plan)
    client = make_client(desk)
    client.get(f"{ROOT}/status")
    times = []  # of work, not of waiting: the machine may be busy
    for _ in range(9):
        start = time.process_time()
        answer = client.get(f"{ROOT}/status")
        times.append(time.process_time() - start)
    assert len(answer.content) < 20_000
    assert sorted(times)[4] < 0.05
