"""The `ui` command without a browser; tests/e2e/test_page.py has one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lib_automerge import cli


def page():
    return pytest.importorskip("lib_automerge.page")


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["ui", "--no-browser", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert "\n" not in said
    return said


def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page(), "NEEDED", ())
    monkeypatch.chdir(tmp_path)
    assert "nowhere" in sentence(capsys, "--models", "nowhere")
    (tmp_path / "file").write_text("")
    assert "the data folder is a file: file" in sentence(capsys, "--data", "file")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be used" in sentence(capsys, "--port", port)
    assert "--port" in sentence(capsys, "--port", "70000")
    assert not (tmp_path / "automerge-data").exists()


def test_missing_packages_are_named_with_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page(), "NEEDED", ("json", "no_such_package"))
    said = sentence(capsys)
    assert "not installed: no_such_package" in said
    assert "pip install" in said


def test_the_page_has_tab_routes_script_and_style(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from lib_automerge.host.detect import standalone_desk
    from lib_automerge.host.standalone import StandaloneCatalogue

    app = page().build(standalone_desk(StandaloneCatalogue(tmp_path)))
    client = TestClient(app, base_url="http://127.0.0.1:7865")
    first = client.get("/")
    assert first.status_code == 200
    assert "automerge/page/automerge.js" in first.text
    assert "automerge_generate" in first.text
    assert client.get("/automerge/v1/status").json()["phase"] == "idle"
    assert "automerge" in client.get("/automerge/page/automerge.js").text
    assert client.get("/automerge/page/style.css").headers["content-type"].startswith("text/css")


def test_other_host_names_do_not_reach_the_page(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from lib_automerge.host.detect import standalone_desk
    from lib_automerge.host.standalone import StandaloneCatalogue

    app = page().build(standalone_desk(StandaloneCatalogue(tmp_path)))
    client = TestClient(app, base_url="http://rebound.example")
    for path in ("/", "/automerge/v1/status", "/automerge/page/style.css"):
        assert client.get(path).status_code == 400, path
