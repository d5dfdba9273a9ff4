"""scripts/automerge.py as a WebUI runs it, in the fake WebUI: what it registers, how it fails."""

from __future__ import annotations

import base64
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib_automerge import reward
from lib_automerge.host import detect, requirements
from lib_automerge.reward import plugins
from tests.host_fake.install import FakeHost, fake_webui

SCRIPT = Path(__file__).parents[2] / "scripts" / "automerge.py"


@pytest.fixture
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    flags = getattr(request, "param", {})
    detect.webui_desk.cache_clear()
    with fake_webui(tmp_path / "webui", **flags) as found:
        paste: Any = ModuleType("modules.infotext_utils")
        paste.bound = []
        paste.ParamBinding = SimpleNamespace
        paste.register_paste_params_button = paste.bound.append
        sys.modules[paste.__name__] = paste
        sys.modules["modules"].infotext_utils = paste  # type: ignore[attr-defined]
        yield found
    detect.webui_desk.cache_clear()


def start(host: FakeHost) -> tuple[Any, FastAPI]:
    """What the WebUI does with a script at its start and at "Reload UI": the tab, and the app."""
    host.script_callbacks.clear_callbacks()
    runpy.run_path(str(SCRIPT))
    host.script_callbacks.ui_settings_callback()
    (tab,) = host.script_callbacks.ui_tabs_callback()
    app = FastAPI()
    host.script_callbacks.app_started_callback(None, app)
    return tab, app


def ids(blocks: Any) -> set[str]:
    return {getattr(block, "elem_id", None) for block in blocks.blocks.values()}


def test_the_tab_and_the_routes_are_there_and_survive_a_reload(host: FakeHost) -> None:
    (blocks, title, name), app = start(host)
    assert (title, name) == ("Automerge", "automerge")
    assert {"automerge_root", "automerge_generate", "automerge_send_txt2img"} <= ids(blocks)
    assert TestClient(app).get("/automerge/v1/status").json()["phase"] == "idle"
    desk = detect.webui_desk()
    (blocks, _, _), app = start(host)
    assert "automerge_root" in ids(blocks)
    binding = host.infotext_utils.bound[-1]
    assert binding.tabname == "txt2img"
    assert binding.paste_button.elem_id == "automerge_send_txt2img"
    assert binding.source_text_component.elem_id == "automerge_infotext"
    assert TestClient(app).get("/automerge/v1/status").status_code == 200
    assert detect.webui_desk() is desk


def test_nothing_of_ours_gets_into_ui_config(host: FakeHost) -> None:
    (blocks, _, _), _ = start(host)
    assert "automerge_root" in ids(blocks)
    # what the WebUI's ui_loadsave writes: these types, unless they say no
    saved = {"Slider", "Radio", "Checkbox", "Textbox", "Number", "Dropdown", "Tabs", "Button"}
    kept = [
        getattr(block, "elem_id", block)
        for block in blocks.blocks.values()
        if type(block).__name__ in saved and not getattr(block, "do_not_save_to_config", False)
    ]
    assert kept == []


def test_settings_hold_no_secret_and_decide_what_they_say(host: FakeHost, tmp_path: Path) -> None:
    start(host)
    options = {
        key: info
        for key, info in host.shared.opts.data_labels.items()
        if info.section[0] == "automerge"
    }
    assert set(options) == {
        "automerge_data",
        "automerge_share",
        "automerge_awake",
        "automerge_poll",
        "automerge_plugins",
    }
    from lib_automerge.host import a1111_settings

    assert a1111_settings.data_folder() == Path(host.shared.data_path).absolute() / "automerge"
    host.shared.opts.data["automerge_data"] = str(tmp_path / "elsewhere")
    assert a1111_settings.data_folder() == tmp_path / "elsewhere"
    assert options["automerge_data"].restrict_api
    assert options["automerge_plugins"].restrict_api
    assert a1111_settings.keep_awake()
    host.shared.opts.data["automerge_awake"] = False
    assert not a1111_settings.keep_awake()


@pytest.mark.parametrize("allowed", [False, True])
def test_the_users_own_rewards_are_loaded_if_they_are_allowed(
    host: FakeHost, tmp_path: Path, allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "elsewhere" / "rewards" / "plugins"
    folder.mkdir(parents=True)
    (folder / "redness.py").write_text("def score(image, prompt):\n    return 1.0\n")
    host.shared.opts.data["automerge_data"] = str(tmp_path / "elsewhere")
    host.shared.opts.data["automerge_plugins"] = allowed
    try:
        start(host)
        assert ("redness" in reward.names()) == allowed
        assert ("1 were not loaded" in caplog.text) != allowed
    finally:
        plugins.load(tmp_path / "none", allowed=False)


def test_runs_go_where_the_settings_say(host: FakeHost, tmp_path: Path) -> None:
    host.shared.opts.data["automerge_data"] = str(tmp_path / "elsewhere")
    start(host)
    assert detect.webui_desk().library.root == tmp_path / "elsewhere" / "runs"


@pytest.mark.parametrize(
    "host",
    [{"api_auth": "bob:a:b,eve:x"}, {"gradio_auth": "bob:a:b"}],
    indirect=True,
    ids=["api", "gradio"],
)
def test_credentials_guard_every_route(host: FakeHost) -> None:
    _, app = start(host)
    client = TestClient(app)
    for path in ("status", "models", "runs", "views/live", "runs/abc/recipe", "nothing"):
        assert client.get(f"/automerge/v1/{path}").status_code == 401, path
    assert client.post("/automerge/v1/runs", json={}).status_code == 401
    code = base64.b64encode(b"bob:a:b").decode()
    admitted = client.get("/automerge/v1/status", headers={"Authorization": f"Basic {code}"})
    assert admitted.status_code == 200


def test_a_missing_package_is_a_sentence_in_the_tab(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("msgspec>=0.18,<1\nno-such-package-at-all>=1,<2\n")
    monkeypatch.setattr(requirements, "LIST", wanted)
    problem = tmp_path / "install-problem.txt"
    problem.write_text("A sentence.\n\nERROR: <b>pip</b> said no\n")
    monkeypatch.setattr(requirements, "PROBLEM", problem)
    (blocks, title, _), app = start(host)
    assert title == "Automerge"
    (page,) = [block.value for block in blocks.blocks.values() if hasattr(block, "value")]
    assert "no-such-package-at-all" in page
    assert "msgspec" not in page
    assert "&lt;b&gt;pip&lt;/b&gt; said no" in page
    assert TestClient(app).get("/automerge/v1/status").status_code == 404


def test_a_webui_that_is_too_different_is_a_sentence_too(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(host.initialize_util, "get_gradio_auth_creds")
    monkeypatch.delattr(host.shared, "OptionInfo")
    monkeypatch.delattr(host.sd_models, "checkpoints_list")
    (blocks, _, _), _ = start(host)
    text = " ".join(str(getattr(block, "value", "")) for block in blocks.blocks.values())
    assert "could not build its tab" in text
    assert "<details>" in text


def test_the_script_stays_small() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60
