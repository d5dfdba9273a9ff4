"""The merge lab over the routes: progress that any page sees, cancel, go on, pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.domain.payload import Payload
from lib_automerge.ui.fields import defaults
from lib_automerge.ui.lab_form import LAB_READ
from lib_automerge.ui.lab_setup import LabSetup
from tests.api.bench import NASTY, ROOT, make_client, make_desk
from tests.lab_desk import LONG_S, HalfWay, soup


@pytest.fixture
def desk(tmp_path: Path):
    return make_desk(tmp_path)


@pytest.fixture
def client(desk):
    return make_client(desk)


@pytest.fixture
def half_way(monkeypatch: pytest.MonkeyPatch):
    found = HalfWay(monkeypatch)
    yield found
    found.open()


def order(desk, name: str = "out"):
    models = dict(zip("ab", (model.path for model in desk.catalogue.models()), strict=True))
    return soup(models, Path(models["a"]).parent / f"{name}.safetensors")


def test_every_page_sees_how_far_a_merge_is(desk, client, half_way) -> None:
    idle = client.get(f"{ROOT}/lab").json()
    assert (idle["phase"], idle["progress"], idle["picture"]) == ("none", None, None)
    before = client.get(f"{ROOT}/status").json()
    assert not before["merging"]
    desk.merge(order(desk))
    half_way.wait()
    now = client.get(f"{ROOT}/status?since={before['token']}").json()
    assert now["merging"]
    assert now["views"]["lab"] != before["views"]["lab"]
    assert now["views"]["live"] == before["views"]["live"]
    told = client.get(f"{ROOT}/lab").json()
    assert told["phase"] == "merging"
    assert 0 < told["progress"]["done"] < told["progress"]["total"]
    assert told["progress"]["bytes_per_second"] > 0
    assert told["progress"]["seconds_left"] > 0
    drawn = client.get(f"{ROOT}/views/lab").text
    assert drawn == client.get(f"{ROOT}/views/lab").text
    for part in ("out.safetensors", "read and written", "/s", "done about", "lab-cancel"):
        assert part in drawn
    half_way.open()
    desk.lab.wait(LONG_S)
    assert "Saved as out.safetensors" in client.get(f"{ROOT}/views/lab").text
    assert not client.get(f"{ROOT}/status").json()["merging"]


def test_cancel_go_on_and_throw_away(desk, client, half_way) -> None:
    for action in ("resume", "discard"):
        assert client.post(f"{ROOT}/lab/kept/1/{action}", json={}).status_code == 400
        assert client.post(f"{ROOT}/lab/kept/..%2f/{action}", json={}).status_code == 404
    # nothing to cancel is no error: the merge may just have ended
    assert client.post(f"{ROOT}/lab/cancel", json={}).json()["phase"] == "none"
    desk.merge(order(desk))
    half_way.wait()
    assert client.post(f"{ROOT}/lab/kept/1/discard", json={}).status_code == 409
    assert client.post(f"{ROOT}/lab/cancel", json={}).json()["phase"] == "cancelling"
    assert "Cancelling" in client.get(f"{ROOT}/views/lab").text
    half_way.open()
    desk.lab.wait(LONG_S)
    told = client.get(f"{ROOT}/lab").json()
    assert told["phase"] == "cancelled"
    (kept,) = told["kept"]
    assert kept["name"] == "out.safetensors"
    assert kept["size"] > 0
    drawn = client.get(f"{ROOT}/views/lab").text
    assert "lab-resume" in drawn
    assert "--resume" not in drawn
    client.post(f"{ROOT}/lab/kept/{kept['number']}/resume", json={})
    desk.lab.wait(LONG_S)
    assert client.get(f"{ROOT}/lab").json()["phase"] == "done"
    assert client.get(f"{ROOT}/lab/cancel").status_code == 405


def test_thrown_away_is_gone(desk, client, half_way) -> None:
    desk.merge(order(desk))
    half_way.wait()
    desk.lab.cancel()
    half_way.open()
    desk.lab.wait(LONG_S)
    assert client.post(f"{ROOT}/lab/kept/1/discard", json={}).json()["kept"] == []
    assert "lab-resume" not in client.get(f"{ROOT}/views/lab").text


def test_the_picture_of_a_preview_has_an_address_that_never_means_another(desk, client) -> None:
    desk.preview_merge(order(desk), Payload(prompt=NASTY))
    desk.lab.wait(LONG_S)
    drawn = client.get(f"{ROOT}/views/lab").text
    assert NASTY not in drawn
    assert "&lt;img src=x" in drawn
    number = client.get(f"{ROOT}/lab").json()["picture"]
    assert f"./automerge/v1/lab/pictures/{number}" in drawn
    answer = client.get(f"{ROOT}/lab/pictures/{number}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    for other in (number + 1, "x", "..%2f"):
        assert client.get(f"{ROOT}/lab/pictures/{other}").status_code == 404


def test_an_error_reads_in_the_words_of_the_form(desk, client, tmp_path: Path) -> None:
    from tests.checkpoints import write_tiny

    folder = Path(desk.catalogue.models()[0].path).parent
    write_tiny(folder / "b.safetensors", "sd1", seed=1, drop=["first_stage_model.*"])
    desk.merge(order(desk))
    desk.lab.wait(LONG_S)
    drawn = client.get(f"{ROOT}/views/lab").text
    assert "The models differ in" in drawn
    assert "--on-mismatch" not in drawn
    assert "Keep the first model&#x27;s tensors" in drawn


def test_a_run_in_progress_is_said_before_a_merge_can_start(desk) -> None:
    setup = LabSetup(desk)
    values = defaults(LAB_READ) | {"lab_a": "a.safetensors", "lab_b": "b.safetensors"}
    assert setup.view(values).ready
    desk.worker.busy_with = lambda: Path("20260101-abcd")
    view = setup.view(values)
    assert not view.ready
    assert not view.previewable
    assert "20260101-abcd is in progress" in view.checks
