from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_automerge import cli
from lib_automerge.app.service import Service
from lib_automerge.host import detect
from lib_automerge.study.store import RunFolder
from tests.fake_host import FakeHost, tiny_models


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    host = FakeHost()
    monkeypatch.setattr(detect, "build_service", lambda: Service(host))
    raw = {
        "models": tiny_models(tmp_path),
        "payloads": [{"prompt": "a red ball", "seeds": [1, 2]}],
        "search": {"evaluations": 8, "optimizer": "random", "warm_start": ["beside.json"]},
    }
    (tmp_path / "beside.json").write_text('{"IN00": 0.25}')
    path = tmp_path / "night.json"
    path.write_text(json.dumps(raw))
    return path


def test_sources_of_the_command_line_join_those_of_the_configuration(
    config: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["run", str(config), "--out", str(first)]) == 0
    mine = tmp_path / "mine.txt"
    mine.write_text("IN00:0.75")
    arguments = ["run", str(config), "--out", str(second)]
    arguments += ["--warm-start", str(first), "--warm-start", str(mine)]
    assert cli.main(arguments) == 0
    manifest = RunFolder.open(second).manifest()
    assert len(manifest.observations) == 5
    # the recipe beside the configuration was scored by the first run
    assert [point["IN00"] for point in manifest.config.search.start] == [0.75]


def test_a_missing_source_is_one_sentence(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.csv"
    out = tmp_path / "out"
    assert cli.main(["run", str(config), "--out", str(out), "--warm-start", str(gone)]) == 2
    told = capsys.readouterr().err
    assert told == (
        f"Error: warm start from {gone}: there is no such file or folder. Check the path.\n"
    )
    assert not out.exists()
