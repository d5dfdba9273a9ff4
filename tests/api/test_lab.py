"""The merge lab over the routes: progress that any page sees, cancel, go on, pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib_automerge.domain.payload import Payload
from lib_automerge.ui.fields import defaults
from lib_automerge.ui.lab_form import LAB_READ
from lib_automerge.ui.lab_setup import LabSetup
from lib_automerge.ui.setup import Setup
from tests.api.bench import NASTY, ROOT, make_client, make_desk
from tests.lab_desk import LONG_S, HalfWay, soup
from tests.merging_host import MergingHost


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


def test_the_labs_form_becomes_the_search_forms(desk, client) -> None:
    desk.save_draft({"name": "night", "method": "Sum twice", "model_c": "a.safetensors"})
    lab = {"lab_a": "a.safetensors", "lab_b": "b.safetensors", "lab_method": "Slerp"}
    LabSetup(desk).keep(defaults(LAB_READ) | lab | {"lab_slerp_weight": 0.25})
    assert client.post(f"{ROOT}/lab/optimise", json={}).status_code == 200
    draft = desk.draft()
    assert (draft["method"], draft["name"]) == ("Slerp", "night")
    assert (draft["model_a"], draft["model_b"]) == ("a.safetensors", "b.safetensors")
    assert (draft["model_c"], draft["more_models"]) == ("", [])
    assert "IN00:0.25" in str(draft["start"])
    setup = Setup(desk)
    assert setup.view(setup.fill() | {"reward": "Demo"}).ready


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lab_b": ""}, "needs model B"),
        ({"lab_method": "TIES"}, "needs a base model"),
        ({"lab_slerp_weight": None}, "is empty"),
        ({"lab_slerp_weight": 7}, "must be from -1 to 2"),
    ],
)
def test_an_incomplete_form_of_the_lab_leaves_the_search_as_it_was(
    desk, client, changes, told
) -> None:
    left = {"name": "night", "method": "Sum twice"}
    desk.save_draft(left)
    lab = {"lab_a": "a.safetensors", "lab_b": "b.safetensors", "lab_method": "Slerp"}
    LabSetup(desk).keep(defaults(LAB_READ) | lab | changes)
    answer = client.post(f"{ROOT}/lab/optimise", json={})
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert desk.draft() == left


def test_a_run_of_many_models_is_seen_and_taken_up_in_the_form(tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "desk", MergingHost(torch.ones(())))
    client = make_client(desk)
    setup = Setup(desk)
    searched = '{"k": {"start": 0.3, "per_block": true}, "scale": {"values": [0.5, 1]}}'
    values = {
        "model_b": "b.safetensors",
        "method": "TIES",
        "parameters": searched,
        "reward": "Demo",
        "payloads": '[{"prompt": "x"}, {"prompt": "h", "held_out": true}]',
        "low": 0.5,
    }
    setup.trial(setup.fill() | values)
    assert desk.worker.wait(60)
    run = desk.library.entries()[0].id
    for view in ("results", "live", "importance", "log"):
        drawn = client.get(f"{ROOT}/runs/{run}/views/{view}")
        assert drawn.status_code == 200, drawn.text
    results = client.get(f"{ROOT}/runs/{run}/views/results").text
    assert results.index("The merge that was found") < results.index("<summary>Charts")
    assert "k by block" in results
    evaluation = desk.open(run).state.evaluations[4]
    assert client.post(f"{ROOT}/runs/{run}/duplicate", json={"start": 4}).status_code == 200
    filled = setup.fill()
    config = setup.config(filled)
    assert config.search.start == (evaluation.weights,)
    assert config.search.parameters == desk.open(run).manifest.config.search.parameters
    assert config.parameters == {"k": 0.3}
    assert setup.view(filled).ready
    for start in (1, 2, 3, None):
        assert client.post(f"{ROOT}/runs/{run}/duplicate", json={"start": start}).is_success
        assert setup.view(setup.fill()).ready, start
    # what another method found is no help here, and no harm
    slerp = {"method": "Slerp", "parameters": "{}", "start": "", "warm_start": ""}
    other = setup.fill() | slerp
    (name,) = setup.earlier_runs(other)
    view = setup.view(other | setup.add_earlier_run(other, name))
    assert view.ready or "arm start" in view.checks, view.checks
