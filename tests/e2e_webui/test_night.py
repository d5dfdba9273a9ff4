"""The extension in a real WebUI as its user meets it: the tab, a night, a crash, curiosity."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from tests.e2e_webui.conftest import HERE, RealWebUI, fill, running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "webui"
IDLE_S = 400.0
HARMLESS = "ERR_NAME_NOT_RESOLVED"  # the WebUI's gradio asks a CDN for a script
SETTINGS: dict[str, Any] = {
    "steps": 4,
    "sampler": "DDIM",
    "cfg_scale": 5.0,
    "width": 64,
    "height": 64,
    "batch_size": 2,
}
PROMPTS = ("a red heart at sunset", "a blue moon over the sea", "a yellow star on a meadow")
HELD_OUT = ("a green ball at night", "a white house over the sea")
PAYLOADS = [
    *({"prompt": prompt, "seeds": [1, 2], **SETTINGS} for prompt in PROMPTS),
    # one by one, as the user would make them again
    *({"prompt": prompt, "held_out": True, **SETTINGS, "batch_size": 1} for prompt in HELD_OUT),
]
MODELS = {"a": "automerge-demo-a.safetensors", "b": "automerge-demo-b.safetensors"}


class Night:
    """A WebUI with the extension, asked through the extension's own routes."""

    def __init__(self, webui: RealWebUI, folder: Path) -> None:
        self.webui = webui
        self.url = webui.url
        self.folder = folder

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/automerge/v1/{path}", timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.webui.post(f"/automerge/v1/{path}", body or {})

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("status"))
        return found

    def until(self, true: Callable[[dict[str, Any]], object], seconds: float = IDLE_S) -> Any:
        end = time.monotonic() + seconds
        while True:
            found = self.status()
            if true(found):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.02)

    def start(self, **search: Any) -> str:
        """Start a run over the routes; its id."""
        titles = json.loads(self.get("models"))["models"]
        models = {
            role: next(title for title in titles if title.startswith(name))
            for role, name in MODELS.items()
        }
        config = {
            "models": models,
            "payloads": PAYLOADS,
            "reward": {"name": "demo"},
            "search": {"evaluations": 8, "seed": 7, **search},
            "verdict": {"finalists": 2, "finalist_seeds": 1, "seeds": 4},
        }
        run: str = self.post("runs", config)["id"]
        return run

    def over(self) -> dict[str, Any]:
        """Wait until nothing runs; the status then."""
        found: dict[str, Any] = self.until(lambda status: not status["busy"])
        return found

    def events(self, run: str) -> list[dict[str, Any]]:
        path = self.folder / "automerge" / "runs" / run / "journal.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def kinds(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events(run) if event["event"] == kind]

    def picture(
        self, checkpoint: str | None = None, prompt: str = PROMPTS[0], seed: int = 5
    ) -> str:
        """The digest of an image that the user makes over the WebUI's API."""
        body: dict[str, Any] = {
            "prompt": prompt,
            "seed": seed,
            "steps": 4,
            "sampler_name": "DDIM",
            "cfg_scale": 5.0,
            "width": 64,
            "height": 64,
        }
        if checkpoint:
            body["override_settings"] = {"sd_model_checkpoint": checkpoint}
        return digest(self.webui.post("/sdapi/v1/txt2img", body)["images"][0])


def digest(encoded: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    return hashlib.sha256(image.tobytes()).hexdigest()


def what_was_scored(night: Night, run: str) -> list[tuple[object, ...]]:
    return [
        (e["evaluation"], e["stage"], e["job"], e["digest"], e["score"])
        for e in night.kinds(run, "scored")
    ]


def with_extension(folder: Path) -> Path:
    fill(folder)
    (folder / "extensions" / "automerge").symlink_to(HERE.parents[1])
    sets = folder / "automerge" / "payloads"
    sets.mkdir(parents=True)
    (sets / "small.json").write_text(json.dumps({"name": "small", "payloads": PAYLOADS}))
    return folder


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = with_extension(tmp_path_factory.mktemp("night"))
    with running(folder, "--no-half") as webui:
        yield Night(webui, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or find_spec("playwright") is None:
        pytest.skip("no browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Tab:
    """A browser window on the Automerge tab."""

    def __init__(self, browser: Any, night: Night, size: tuple[int, int] = (1280, 900)) -> None:
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(night.url)
        button = self.page.locator("#tabs > .tab-nav button", has_text="Automerge")
        button.wait_for()
        began = time.monotonic()
        button.click()
        self.page.locator(".automerge-strip-body").first.wait_for()
        # the WebUI's own page, which comes first, takes its time while images are made
        self.opened_s = time.monotonic() - began

    def _console(self, message: Any) -> None:
        if message.type == "error" and HARMLESS not in message.text:
            self.complaints.append(message.text)

    def choose(self, name: str, text: str) -> None:
        self.page.locator(f"#automerge_{name} input").first.click()
        self.page.locator("ul.options li").filter(has_text=text).first.click()
        self.page.wait_for_timeout(300)

    def picture(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)

    def strip(self) -> str:
        text: str = self.page.locator(".automerge-strip-body").first.inner_text()
        return text

    def close(self) -> None:
        assert self.complaints == []
        self.page.close()


def test_choose_b_press_start_and_come_back_in_the_morning(
    browser: Any, night: Night, record_property: Callable[[str, object], None]
) -> None:
    before = night.picture()
    tab = Tab(browser, night)
    tab.choose("model_b", "automerge-demo-b")
    tab.choose("payload_set", "small")
    tab.choose("reward", "Demo")
    tab.page.locator("#automerge_budget label", has_text="Custom").click()
    evaluations = tab.page.locator("#automerge_evaluations input").first
    evaluations.wait_for()
    evaluations.fill("20")
    evaluations.press("Tab")
    start = tab.page.locator("#automerge_generate")
    tab.page.wait_for_function("!document.querySelector('#automerge_generate').disabled")
    tab.picture("ready")
    start.click()
    night.until(lambda status: status["run"] and status["run"]["finished_evaluations"] >= 3)
    tab.page.wait_for_timeout(2500)
    tab.picture("running")
    tab.close()

    again = Tab(browser, night)
    assert "Running" in again.strip()
    run = night.status()["in_hand"]
    assert run in again.strip()
    record_property("seconds from opening the tab to the state", again.opened_s)

    status = night.over()
    assert status["run"]["state"] == "finished"
    assert status["run"]["finished_evaluations"] == 20
    again.page.locator("#automerge_tabs button", has_text="Results").click()
    again.page.locator("#automerge_results_view img").first.wait_for()
    again.page.wait_for_timeout(2500)
    assert "Finished" in again.strip()
    again.picture("results")
    again.close()

    images = {e["evaluation"]: e["digest"] for e in night.kinds(run, "scored") if e["job"] == 0}
    assert len(set(images.values())) == len(images)  # the images follow the weights
    assert night.picture() == before
    settings = json.loads((night.folder / "ui-config.json").read_text())
    assert not [key for key in settings if "automerge" in key.lower()]

    saved = night.post(f"runs/{run}/save", {"name": "the night's best"})
    assert saved["id"] == run
    done = night.until(lambda status: status["saving"]["state"] not in ("idle", "saving"))
    assert done["saving"]["state"] == "saved", done["saving"]
    path = night.folder / "models" / "Stable-diffusion" / "the night's best.safetensors"
    assert path.is_file()
    assert path.with_suffix(".yaml").is_file()
    night.webui.post("/sdapi/v1/refresh-checkpoints", {})
    winner = night.kinds(run, "verdict")[0]["winner"]
    scored = next(
        e
        for e in night.kinds(run, "scored")
        if e["evaluation"] == winner and e["stage"] == "verdict" and e["job"] == 0
    )
    assert scored["payload"] == f"p{len(PROMPTS) + 1:02d}"
    made = night.picture(path.name, HELD_OUT[0], scored["seed"])
    kept = Image.open(night.folder / "automerge" / "runs" / run / scored["file"]).convert("RGB")
    assert made == hashlib.sha256(kept.tobytes()).hexdigest()
    assert night.picture() == before


def test_two_who_press_start_at_once_make_one_run(night: Night) -> None:
    run = night.start(evaluations=5)
    with pytest.raises(urllib.error.HTTPError) as refused:
        night.start(evaluations=5)
    assert refused.value.code == 409
    assert run in json.load(refused.value)["error"]
    night.over()


def test_reload_ui_does_not_disturb_a_run(browser: Any, night: Night) -> None:
    quiet = night.start()
    night.over()
    run = night.start()
    night.until(lambda status: status["run"] and status["run"]["finished_evaluations"] >= 2)
    page = browser.new_page()
    page.goto(night.url)
    page.locator("#tabs > .tab-nav button", has_text="Settings").click()
    page.locator("#settings_restart_gradio").click()
    page.wait_for_timeout(8000)
    page.close()
    tab = Tab(browser, night)
    tab.picture("after-reload")
    tab.close()
    assert night.over()["run"]["state"] == "finished"
    assert night.status()["selected"] == run
    assert what_was_scored(night, run) == what_was_scored(night, quiet)


def test_others_wait_for_a_run_and_get_in_when_it_pauses(night: Night) -> None:
    before = night.picture()
    run = night.start(evaluations=12)
    night.until(lambda status: status["run"] and status["run"]["finished_evaluations"] >= 2)
    got: list[str] = []
    other = Thread(target=lambda: got.append(night.picture()))
    other.start()
    time.sleep(1.5)
    assert got == []
    night.post(f"runs/{run}/pause")
    status = night.over()
    assert status["run"]["state"] == "paused"
    other.join(30)
    assert got == [before]
    night.post(f"runs/{run}/resume")
    assert night.over()["run"]["state"] == "finished"
    assert night.picture() == before


def test_interrupt_pauses_and_skip_repeats(night: Night) -> None:
    before = night.picture()
    quiet = night.start(evaluations=6)
    night.over()
    run = night.start(evaluations=6)
    night.until(lambda status: status["run"] and status["run"]["finished_evaluations"] >= 1)
    night.webui.post("/sdapi/v1/skip", {})
    night.until(lambda status: status["run"]["finished_evaluations"] >= 2)
    night.webui.post("/sdapi/v1/interrupt", {})
    status = night.over()
    assert status["run"]["state"] == "paused"
    assert "nterrupt" in status["run"]["reason"]
    night.post(f"runs/{run}/resume")
    night.over()
    assert sorted(what_was_scored(night, run), key=str) == sorted(
        what_was_scored(night, quiet), key=str
    )
    assert night.picture() == before


def test_a_checkpoint_chosen_during_a_run_waits_for_its_end(night: Night) -> None:
    before = night.picture()
    quiet = night.start(evaluations=6)
    night.over()
    run = night.start(evaluations=6)
    night.until(lambda status: status["run"] and status["run"]["finished_evaluations"] >= 2)
    change = Thread(
        target=lambda: night.webui.post("/sdapi/v1/options", {"sd_model_checkpoint": MODELS["b"]})
    )
    change.start()
    assert night.over()["run"]["state"] == "finished"
    change.join(60)
    assert what_was_scored(night, run) == what_was_scored(night, quiet)
    assert any("takes effect" in e["message"] for e in night.kinds(run, "warned"))
    b = night.picture()
    assert b == night.picture(MODELS["b"])
    assert b != before
    night.webui.post("/sdapi/v1/options", {"sd_model_checkpoint": MODELS["a"]})
    assert night.picture() == before


MOMENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "loading": lambda s: s["activity"] == "loading",
    "a baseline": lambda s: s["run"] and s["run"]["finished_evaluations"] == 1,
    "a candidate": lambda s: s["run"] and s["run"]["finished_evaluations"] == 5,
    "the finalists": lambda s: s["run"] and s["run"]["stage"] == "finalists",
    "the verdict": lambda s: s["run"] and s["run"]["stage"] == "verdict",
}


def test_killed_in_every_phase_it_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    folder = with_extension(tmp_path / "webui")
    run = ""
    for moment in MOMENTS.values():
        with running(folder, "--no-half") as webui:
            night = Night(webui, folder)
            if run:
                assert run in {night.status()["selected"], *night.status()["unfinished"]}
                night.post(f"runs/{run}/resume")
            else:
                run = night.start()
            night.until(moment)
            kept = len(night.kinds(run, "scored")) if (night.folder / "automerge").exists() else 0
            os.killpg(webui.process.pid, signal.SIGKILL)
            assert len(night.kinds(run, "scored")) >= kept
    with running(folder, "--no-half") as webui:
        night = Night(webui, folder)
        shown = json.loads(night.get(f"runs/{run}"))
        assert shown["state"] == "interrupted"
        night.post(f"runs/{run}/resume")
        assert night.over()["run"]["state"] == "finished"
        quiet = night.start()
        night.over()
        proposals = [
            [(e["evaluation"], e["weights"]) for e in night.kinds(which, "proposed")]
            for which in (run, quiet)
        ]
        assert proposals[0] == proposals[1]
        assert what_was_scored(night, run) == what_was_scored(night, quiet)
        sentences = [night.kinds(which, "verdict")[0]["sentence"] for which in (run, quiet)]
        assert sentences[0] == sentences[1]
