from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from lib_automerge.domain.events import Stage
from tests.api.bench import ROOT, add_run, make_client, make_desk
from tests.run_folders import Plan, Until, payloads

RUN = "20260101-abcd"
BASE = f"{ROOT}/runs/{RUN}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    found = make_desk(tmp_path_factory.mktemp("desk") / "d")
    add_run(found, RUN, Plan(evaluations=8, size=300, payloads=payloads(2, 2)))
    return found


@pytest.fixture(scope="module")
def client(desk):
    return make_client(desk)


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_pictures_and_thumbnails(desk, client) -> None:
    full = client.get(f"{BASE}/images/2/search/1")
    assert full.headers["content-type"] == "image/png"
    assert picture(full.content).size == (300, 300)
    thumb = client.get(f"{BASE}/thumbs/2/search/1")
    assert thumb.headers["content-type"] == "image/webp"
    assert picture(thumb.content).size == (256, 256)
    assert len(thumb.content) < len(full.content)
    kept = desk.library.root / RUN / "thumbs" / "e0002-search-0001.webp"
    assert kept.read_bytes() == thumb.content
    stamp = kept.stat().st_mtime_ns
    client.get(f"{BASE}/thumbs/2/search/1")
    assert kept.stat().st_mtime_ns == stamp
    assert not list(kept.parent.glob("*.partial"))
    verdict = client.get(f"{BASE}/thumbs/1/verdict/0")
    assert picture(verdict.content).size == (256, 256)


def test_a_lost_picture_is_not_found(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=16))
    (desk.library.root / RUN / "images" / "e0001" / "search-0000.png").unlink()
    client = make_client(desk)
    for kind in ("images", "thumbs"):
        answer = client.get(f"{BASE}/{kind}/1/search/0")
        assert answer.status_code == 404
        assert "no image" in answer.json()["error"]


def test_a_damaged_picture_is_sent_as_it_is(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=16))
    (desk.library.root / RUN / "images" / "e0001" / "search-0000.png").write_bytes(b"no picture")
    answer = make_client(desk).get(f"{BASE}/thumbs/1/search/0")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("file", ["../../../secret.png", "/etc/hostname", "journal.jsonl"])
def test_a_journal_cannot_lead_out_of_its_folder(tmp_path: Path, monkeypatch, file) -> None:
    """A run may come from somebody else; what its journal names is not to be trusted."""
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=16))
    (tmp_path / "data" / "secret.png").write_bytes(b"secret")
    (tmp_path / "secret.png").write_bytes(b"secret")
    desk.library.entries()
    state = desk.library.find(RUN).state
    scored = state.scores[Stage.SEARCH, 1][0]
    state.scores[Stage.SEARCH, 1][0] = msgspec.structs.replace(scored, file=file)
    for kind in ("images", "thumbs"):
        answer = make_client(desk).get(f"{BASE}/{kind}/1/search/0")
        assert answer.status_code == 404
        assert "secret" not in answer.text


def test_symbolic_links_do_not_lead_out(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=16))
    (tmp_path / "secret.png").write_bytes(b"secret")
    target = desk.library.root / RUN / "images" / "e0001" / "search-0000.png"
    target.unlink()
    target.symlink_to(tmp_path / "secret.png")
    assert make_client(desk).get(f"{BASE}/images/1/search/0").status_code == 404


def test_the_report_is_drawn_from_the_journal(desk, client) -> None:
    planted = desk.library.root / RUN / "report.html"
    planted.write_text("<script>alert(1)</script>")
    page = client.get(f"{BASE}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "alert(1)" not in page.text
    assert "Automerge report" in page.text


def test_recipes(desk, client) -> None:
    winner = client.get(f"{BASE}/recipe")
    assert winner.headers["content-disposition"] == f'attachment; filename="{RUN}-recipe.json"'
    recipe = winner.json()
    assert recipe["kind"] == "automerge-recipe"
    assert recipe["provenance"]["evaluation"] == desk.open(RUN).state.verdict.winner
    assert client.get(f"{BASE}/recipe?evaluation=2").json()["weights"]["IN00"] == 1.0
    assert client.get(f"{BASE}/recipe?evaluation=99").status_code == 400
    assert client.get(f"{BASE}/recipe?evaluation=x").status_code == 400


def test_no_recipe_before_the_first_score(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(until=Until.STARTED, size=0))
    answer = make_client(desk).get(f"{BASE}/recipe")
    assert answer.status_code == 400
    assert "no finished evaluation" in answer.json()["error"]


def test_weights_in_every_order(client) -> None:
    found = client.get(f"{BASE}/weights?evaluation=5").json()
    by_name = {order["name"]: order for order in found["orders"]}
    assert {"named", "nat", "slider", "supermerger"} <= set(by_name)
    assert "supermerger-xl" not in by_name
    assert len(by_name["slider"]["text"].split(",")) == 27
    assert by_name["supermerger"]["lost"]
    assert by_name["slider"]["lost"] == []


def test_journal_and_log(desk, client) -> None:
    text = client.get(f"{BASE}/journal")
    folder = desk.library.root / RUN
    assert text.content == (folder / "journal.jsonl").read_bytes()
    assert client.get(f"{BASE}/log").status_code == 404
    (folder / "log.txt").write_text("one line\n")
    assert client.get(f"{BASE}/log").text == "one line\n"


def test_csv(client) -> None:
    answer = client.get(f"{BASE}/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["evaluation"] for row in rows] == [str(n) for n in range(1, 9)]
    assert rows[1]["weight IN00"] == "1.0"
    assert float(rows[3]["score"]) == pytest.approx(
        (float(rows[3]["score p01"]) + float(rows[3]["score p02"])) / 2
    )


def test_csv_holds_no_formulas(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    named = tuple(msgspec.structs.replace(p, name=f"=1+1 {p.name}") for p in payloads(2, 2))
    add_run(desk, RUN, Plan(evaluations=4, size=0, payloads=named, rejected=(4,)))
    text = make_client(desk).get(f"{BASE}/csv").text
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]
    assert any("=1+1" in cell for cell in cells)


def test_export_is_a_zip_without_checkpoints(tmp_path: Path, monkeypatch) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=16))
    (desk.library.root / RUN / "merge.safetensors").write_bytes(b"large")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    answer = make_client(desk).get(f"{BASE}/export")
    assert answer.headers["content-type"] == "application/zip"
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert f"{RUN}/journal.jsonl" in names
    assert not [name for name in names if name.endswith(".safetensors")]
    assert not list(scratch.iterdir()), "the temporary file stays behind"
    assert make_client(desk).get(f"{ROOT}/runs/20260101-none/export").status_code == 404
    assert not list(scratch.iterdir())


def test_a_damaged_run_can_still_be_exported(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=0))
    (desk.library.root / RUN / "run.json").write_text("{")
    client = make_client(desk)
    assert client.get(f"{BASE}/export").status_code == 200
    page = client.get(f"{ROOT}/views/runs").text
    assert "damaged" in page
    assert 'data-action="open"' not in page
    assert client.get(f"{BASE}/views/results").status_code == 404
    assert client.get(BASE).status_code == 404
    assert client.get(f"{ROOT}/runs").json()["runs"][0]["state"] == "damaged"


def test_infotext_route(desk, client) -> None:
    first = desk.open(RUN).manifest.config.payloads[0]
    text = client.get(f"{BASE}/infotext", params={"payload": first.name, "seed": "7"}).json()
    assert text["infotext"].startswith(first.prompt)
    assert "Seed: 7" in text["infotext"]
    assert client.get(f"{BASE}/infotext", params={"payload": "../x"}).status_code == 404


def test_the_size_of_a_run_is_counted_once(desk, client, monkeypatch) -> None:
    client.get(f"{ROOT}/views/runs")
    counted = []
    monkeypatch.setattr(desk.library, "size", counted.append)
    client.get(f"{ROOT}/views/runs")
    assert not counted


def test_runs_as_json(desk, client) -> None:
    (one,) = client.get(f"{ROOT}/runs").json()["runs"]
    assert one["id"] == RUN
    assert one["state"] == "finished"
    whole = client.get(BASE).json()
    assert len(whole["evaluations"]) == 8
    assert whole["verdict"]["winner"] == desk.open(RUN).state.verdict.winner
    assert json.dumps(whole)


def test_lists(client) -> None:
    assert client.get(f"{ROOT}/models").json()["models"] == ["a.safetensors", "b.safetensors"]
    names = [m["name"] for m in client.get(f"{ROOT}/methods").json()["methods"]]
    assert "weighted_sum" in names
    rewards = client.get(f"{ROOT}/rewards").json()["rewards"]
    assert "image_reward" in [reward["name"] for reward in rewards]
    sets = client.get(f"{ROOT}/payload-sets").json()["payload_sets"]
    assert sets
    assert all(one["payloads"] for one in sets)


def test_a_run_removed_behind_our_back(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN, Plan(evaluations=4, size=0))
    client = make_client(desk)
    token = client.get(f"{ROOT}/status").json()["token"]
    shutil.rmtree(desk.library.root / RUN)
    assert client.get(f"{ROOT}/status", params={"since": token}).json()["run"] is None
    assert client.get(f"{BASE}/views/live").status_code == 404
