from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from lib_automerge.merge.readers import open_checkpoint
from tests.api.bench import NASTY, ROOT, Gate, add_run, make_client, make_desk, running
from tests.api.test_status import start_tiny, wait_until
from tests.fake_host import FakeHost, tiny_config
from tests.run_folders import STOPPED, Plan, Until

RUN = "20260101-abcd"
BASE = f"{ROOT}/runs/{RUN}"


@pytest.fixture
def desk(tmp_path: Path):
    found = make_desk(tmp_path)
    add_run(found, RUN, Plan(evaluations=6, size=0))
    return found


@pytest.fixture
def client(desk):
    return make_client(desk)


def test_rename(desk, client) -> None:
    assert client.post(f"{BASE}/rename", json={"name": f"  {NASTY}\n "}).status_code == 200
    assert desk.library.find(RUN).name == NASTY
    page = client.get(f"{ROOT}/views/runs").text
    assert NASTY not in page
    assert "&lt;img" in page


def test_delete_moves_to_the_trash(desk, client) -> None:
    assert client.post(f"{BASE}/delete", json={}).status_code == 200
    assert (desk.library.root / "trash" / RUN / "journal.jsonl").is_file()
    assert client.post(f"{BASE}/delete", json={}).status_code == 404
    assert client.get(f"{ROOT}/status").json()["run"] is None


def test_the_run_in_hand_is_not_deleted(tmp_path: Path) -> None:
    host = FakeHost()
    gate = Gate(host, 5)
    desk = make_desk(tmp_path, host)
    client = make_client(desk)
    with running(desk, gate, lambda: start_tiny(desk)) as run:
        wait_until(client, lambda s: s["run"])
        answer = client.post(f"{ROOT}/runs/{run}/delete", json={})
        assert answer.status_code == 400
        assert "in progress" in answer.json()["error"]
        assert desk.library.find(run)
        busy = client.post(f"{ROOT}/runs", json=msgspec.to_builtins(tiny_config(models_of(desk))))
        assert busy.status_code == 409
        assert "in progress" in busy.json()["error"]
        other = add_run(desk, "20260101-othr", Plan(evaluations=4, size=0, end=STOPPED))
        assert client.post(f"{ROOT}/runs/{other}/resume", json={}).status_code == 409
        wrong = client.post(f"{ROOT}/runs/{other}/pause", json={})
        assert wrong.status_code == 409
        assert desk.worker.snapshot().phase.value == "running"
        assert client.post(f"{ROOT}/runs/{run}/stop", json={}).status_code == 200
        gate.open()
        ended = wait_until(client, lambda s: not s["busy"])
        assert ended["run"]["state"] in ("stopped", "finished")


def models_of(desk) -> dict[str, str]:
    return {role: m.path for role, m in zip("ab", desk.catalogue.models(), strict=True)}


@pytest.mark.parametrize("action", ["pause", "stop", "finish"])
def test_there_is_nothing_to_end(client, action: str) -> None:
    answer = client.post(f"{BASE}/{action}", json={})
    assert answer.status_code == 409
    assert "not in progress" in answer.json()["error"]


def test_finish_goes_on_to_the_proof(tmp_path: Path) -> None:
    host = FakeHost()
    gate = Gate(host, 30)
    desk = make_desk(tmp_path, host)
    client = make_client(desk)
    with running(desk, gate, lambda: start_tiny(desk)) as run:
        wait_until(client, lambda s: s["run"] and s["run"]["finished_evaluations"] >= 4)
        assert client.post(f"{ROOT}/runs/{run}/finish", json={}).status_code == 200
        assert client.get(f"{ROOT}/status").json()["phase"] == "finishing"
        gate.open()
        ended = wait_until(client, lambda s: not s["busy"])
        assert ended["run"]["state"] == "finished"
        assert ended["run"]["finished_evaluations"] < 7


def test_start_by_titles(desk, client) -> None:
    body = msgspec.to_builtins(tiny_config(models_of(desk)))
    body["models"] = {"a": "a.safetensors", "b": "b.safetensors"}
    ready = client.post(f"{ROOT}/preflight", json=body).json()
    assert {check["level"] for check in ready["checks"]} <= {"ok", "warning", "error"}
    assert ready["architecture"] == "sd1"
    run = client.post(f"{ROOT}/runs", json=body).json()["id"]
    assert desk.worker.wait(60)
    assert desk.open(run).status == "finished"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../models/a.safetensors", "a.safetensors/../b.safetensors", NASTY, ""]
)
def test_only_models_that_are_offered(desk, client, path: str) -> None:
    body = msgspec.to_builtins(tiny_config(models_of(desk)))
    body["models"]["b"] = path
    for route in ("/runs", "/preflight"):
        answer = client.post(ROOT + route, json=body)
        assert answer.status_code == 400
        assert "no model" in answer.json()["error"]
    assert desk.worker.busy_with() is None


def test_a_wrong_configuration_names_the_field(client) -> None:
    answer = client.post(f"{ROOT}/runs", json={"models": {"a": "x"}, "paylods": []})
    assert answer.status_code == 400
    assert "paylods" in answer.json()["error"]


def test_duplicate_fills_the_draft(desk, client) -> None:
    assert client.post(f"{BASE}/duplicate", json={"start": 5}).status_code == 200
    draft = desk.draft()
    assert draft
    weights = desk.open(RUN).state.evaluations[5].weights
    assert str(weights["IN00"]) in str(draft)
    assert client.post(f"{BASE}/duplicate", json={}).status_code == 200
    assert str(weights["IN00"]) not in str(desk.draft())
    assert client.post(f"{BASE}/duplicate", json={"start": 99}).status_code == 404
    assert client.post(f"{BASE}/duplicate", json={"start": "5"}).status_code == 400
    assert client.post(f"{BASE}/duplicate", json={"start": True}).status_code == 400


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A desk with a run of real, tiny models."""
    desk = make_desk(tmp_path_factory.mktemp("finished") / "d")
    run = start_tiny(desk)
    assert desk.worker.wait(60)
    return desk, run


def saved(client, run: str) -> dict[str, str]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        saving = client.get(f"{ROOT}/status").json()["saving"]
        if saving["state"] != "saving":
            return saving
        time.sleep(0.02)
    raise AssertionError("the checkpoint was not written in time")


def test_save_a_checkpoint(finished) -> None:
    desk, run = finished
    client = make_client(desk)
    token = client.get(f"{ROOT}/status").json()["token"]
    body = {"evaluation": 4, "name": "my merge", "dtype": "fp16"}
    assert client.post(f"{ROOT}/runs/{run}/save", json=body).status_code == 200
    told = saved(client, run)
    assert told["state"] == "saved", told
    assert told["run"] == run
    path = Path(models_of(desk)["a"]).with_name("my merge.safetensors")
    assert path.name in told["sentence"]
    with open_checkpoint(path) as checkpoint:
        assert "automerge_recipe" in checkpoint.header.metadata
    assert "unchanged" not in client.get(f"{ROOT}/status", params={"since": token}).json()
    again = client.post(f"{ROOT}/runs/{run}/save", json=body)
    assert again.status_code == 400
    assert "exists already" in again.json()["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"dtype": "fp8"}, 400),
        ({"dtype": 16}, 400),
        ({"evaluation": 99}, 400),
        ({"evaluation": "4"}, 400),
        ({"name": None}, 400),
    ],
)
def test_what_cannot_be_saved_is_said_at_once(client, body, status) -> None:
    answer = client.post(f"{BASE}/save", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "C:\\x", "x" * 200, "a\x00b"])
def test_a_name_cannot_leave_the_folder(finished, name: str) -> None:
    desk, run = finished
    client = make_client(desk)
    folder = Path(models_of(desk)["a"]).parent.parent
    before = set(folder.rglob("*.safetensors"))
    answer = client.post(f"{ROOT}/runs/{run}/save", json={"name": name})
    assert answer.status_code == 400
    assert "cannot be the name" in answer.json()["error"]
    assert set(folder.rglob("*.safetensors")) == before


def test_a_run_without_scores_has_nothing_to_save(desk, client) -> None:
    empty = add_run(desk, "20260101-empt", Plan(until=Until.STARTED, size=0))
    answer = client.post(f"{ROOT}/runs/{empty}/save", json={})
    assert answer.status_code == 400
    assert "no finished evaluation" in answer.json()["error"]


def test_an_earlier_run_is_named_by_its_id(desk, client) -> None:
    run = add_run(desk, "20260102-wxyz")
    body = {
        "models": {"a": "a.safetensors", "b": "b.safetensors"},
        "payloads": [{"prompt": "a cat"}],
        "reward": {"name": "demo"},
        "search": {"warm_start": [run]},
    }
    checks = client.post(f"{ROOT}/preflight", json=body).json()["checks"]
    assert "of the run meadow-1" in next(c["text"] for c in checks if c["subject"] == "Warm start")


def test_a_request_chooses_no_files(desk, client) -> None:
    """Neither where a checkpoint is written, nor what is opened as weights of a reward."""
    base = {
        "models": {"a": "a.safetensors", "b": "b.safetensors"},
        "payloads": [{"prompt": "a cat"}],
    }
    secret = desk.catalogue.data.parent / "secret.pt"
    secret.write_bytes(b"x")
    for extra, words in (
        ({"output": {"checkpoint": "always", "path": "/tmp/evil.safetensors"}}, "output.path"),
        ({"reward": {"name": "image_reward", "options": {"weights": str(secret)}}}, "weights"),
        ({"reward": {"name": "demo", "options": {"weights": "/etc/passwd"}}}, "weights"),
        ({"search": {"warm_start": [str(secret)]}}, "which is no run here"),
        ({"search": {"warm_start": ["../secret.pt"]}}, "which is no run here"),
    ):
        for path in ("runs", "preflight"):
            answer = client.post(f"{ROOT}/{path}", json=base | extra)
            assert answer.status_code == 400
            assert words in answer.json()["error"]
