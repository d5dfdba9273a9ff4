"""The stand-alone page in a real browser: a whole small run of the demo, from Start to the verdict.

Screenshots are kept in `test-artifacts/page/` for people to look at.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_automerge.study.payload_sets import PayloadSet, PayloadSets
from tests.browser import CHROMIUM, NO_BROWSER, SIZES, Window, launched
from tests.reward.hub_server import Hub, serving

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "page"
MISSING = [name for name in ("gradio", "playwright", "diffusers") if find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER),
]


class Server:
    """`python -m lib_automerge ui` with its own data folder."""

    def __init__(self, data: Path, **environment: str) -> None:
        command = [sys.executable, "-m", "lib_automerge", "ui", "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(
            [*command, "--data", str(data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", first)
        assert found, first + self.process.stdout.read()
        self.url = found.group()
        assert str(data) in self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        """Press Ctrl+C; the exit code and what was printed."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out


SMALL = "A few of the demo's prompts"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    from lib_automerge import demo

    payloads = demo.load_payloads()
    searched = [payload for payload in payloads if not payload.held_out][:4]
    held_out = [payload for payload in payloads if payload.held_out][:3]
    few = PayloadSet(name=SMALL, payloads=(*searched, *held_out))
    PayloadSets(tmp_path / "data" / "payloads").save(few)
    found = Server(tmp_path / "data")
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


class Page(Window):
    """One browser window on the page, and everything that its console complained about."""

    def __init__(
        self, browser: Any, url: str, *, size: str = "wide", scheme: str = "light"
    ) -> None:
        super().__init__(browser, size=size, scheme=scheme)
        self.page.on("console", self._console)
        self.page.goto(url)
        self.strip.filter(has_not_text="Loading").wait_for()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location}")

    def show(self, tab: str) -> None:
        self.page.locator("#automerge_tabs").get_by_role("tab", name=tab, exact=True).click()

    def unfold(self, summary: str) -> None:
        self.page.get_by_role("button", name=summary).first.click()

    def picture(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.evaluate("scrollTo(0, 0)")
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


def test_a_run_from_start_to_verdict_in_two_browsers(server: Server, browser: Any) -> None:
    first = Page(browser, server.url)
    start = first.page.locator("#automerge_generate")
    assert start.is_disabled()
    first.picture("idle")

    first.choose("model_a", "Demo A")
    first.choose("model_b", "Demo B")
    first.choose("payload_set", SMALL)
    first.unfold("Weights and device")
    first.choose("reward", "Demo")
    first.page.locator("#automerge_budget").get_by_label("Custom").check()
    evaluations = first.page.locator("#automerge_evaluations input")
    evaluations.fill("6")
    evaluations.blur()
    patience = first.page.locator("#automerge_patience").locator("input, textarea")
    assert not patience.is_visible()
    first.choose("stop", "After N evaluations without a better one")
    patience.fill("5")
    patience.blur()
    first.unfold("When finished")
    for name in ("finalists", "finalist_seeds"):
        first.page.locator(f"#automerge_{name} input").fill("1")
    seeds = first.page.locator("#automerge_verdict_seeds").locator("input, textarea")
    seeds.fill("2")
    seeds.blur()
    checks = first.page.locator("#automerge_checks").first
    checks.get_by_text("27 blocks can be searched").wait_for(state="attached")
    checks.get_by_text("ends earlier when 5 candidates in a row brought no better one").wait_for()
    first.page.wait_for_function("!document.getElementById('automerge_generate').disabled")
    first.picture("ready")

    start.click()
    first.strip.get_by_text("Running").wait_for(timeout=60_000)
    seen = set()
    deadline = time.monotonic() + 120
    while len(seen) < 3 and time.monotonic() < deadline:
        seen |= set(re.findall(r"evaluation (\d+) of 6", first.strip.inner_text()))
        first.page.wait_for_timeout(200)
    assert len(seen) >= 3, "the strip does not follow the run"
    first.page.locator("#automerge_live svg").first.wait_for()
    first.picture("running")
    before = first.get("status")
    assert before["busy"]
    first.close()

    second = Page(browser, server.url)
    second.strip.get_by_text(before["run"]["name"]).wait_for(timeout=3000)
    second.strip.get_by_text("Finished").wait_for(timeout=300_000)
    run = second.get("status")["selected"]
    assert run == before["run"]["id"]

    second.show("Results")
    results = second.page.locator("#automerge_results_view .automerge-results")
    results.locator("h2").first.wait_for()
    sentence = results.locator("h2").first.inner_text()
    assert sentence == second.get("runs")["runs"][0]["sentence"]
    assert second.get(f"runs/{run}")["verdict"]["winner"]
    second.page.wait_for_function(
        """() => {
            const images = [...document.querySelectorAll("#automerge_results_view img")];
            const shown = images.filter((image) => image.checkVisibility());
            return shown.length >= 4 && shown.every((image) => image.naturalWidth > 0);
        }"""
    )
    second.picture("results")

    with second.page.expect_download() as download:
        results.get_by_role("link", name="Download recipe").click()
    recipe = json.loads(Path(download.value.path()).read_text())
    assert recipe["kind"] == "automerge-recipe"
    assert len(recipe["weights"]) >= 27
    for kind in ("report", "journal", "csv", "log"):
        status = second.page.evaluate(
            "path => fetch('./automerge/v1/' + path).then(r => r.status)", f"runs/{run}/{kind}"
        )
        assert status == 200, kind

    second.show("Runs")
    row = second.page.locator("#automerge_runs_view").get_by_text(run).first
    row.wait_for()
    second.picture("runs")
    second.close()

    for size in SIZES:
        for scheme in ("light", "dark"):
            look = Page(browser, server.url, size=size, scheme=scheme)
            # the form is as it was left, in every browser
            look.page.wait_for_function(
                "document.querySelector('#automerge_model_b input').value === 'Demo B'"
            )
            look.picture(f"search-{size}-{scheme}")
            look.show("Results")
            look.page.locator("#automerge_results_view img").first.wait_for()
            look.page.wait_for_timeout(500)
            look.picture(f"results-{size}-{scheme}")
            overflow = look.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert overflow <= 0, f"the page is {overflow} px too wide at {size}"
            look.close()

    code, printed = server.end()
    assert code in (0, 130), printed
    assert "Traceback" not in printed


def test_ctrl_c_stops_a_run_and_it_can_be_resumed(
    server: Server, browser: Any, tmp_path: Path
) -> None:
    config = {
        "models": _demo_models(),
        "payloads": [
            {
                "prompt": "a red heart at sunset",
                "seeds": [1, 2],
                "width": 64,
                "height": 64,
                "steps": 8,
                "sampler": "DDIM",
            }
        ],
        "reward": {"name": "demo"},
        "search": {"evaluations": 100},
    }
    page = Page(browser, server.url)
    run = page.start_run(config)
    # evaluations may be quicker than the page asks
    page.strip.get_by_text(re.compile(r"evaluation \d+ of 100")).wait_for(timeout=60_000)
    page.close()
    code, printed = server.end()
    assert code in (0, 130), printed
    assert "Traceback" not in printed

    again = Server(tmp_path / "data")
    try:
        page = Page(browser, again.url)
        found = page.get("status")
        assert not found["busy"]
        assert found["run"]["id"] == run
        page.strip.get_by_role("button", name="Resume").click()
        page.strip.get_by_text("Running").wait_for(timeout=60_000)
        page.close()
    finally:
        again.process.kill()
        again.process.wait()


def test_rewards_are_combined_downloaded_and_tried_on_an_image(
    browser: Any, tmp_path: Path
) -> None:
    picture = tmp_path / "heart.png"
    Image.new("RGB", (64, 64), (200, 20, 20)).save(picture)
    with serving(Hub(b"not the weights" * 1000)) as hub:
        places = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub")}
        server = Server(tmp_path / "data", HOME=str(tmp_path), **places)
        try:
            page = Page(browser, server.url)
            judges = page.page.locator("#automerge_reward_list .automerge-reward-items > li")
            judges.get_by_text("File missing").wait_for()

            # one image, judged by the reward that needs no download
            page.choose("reward", "Demo")
            judges.get_by_text("Ready").wait_for()
            page.unfold("Test on an image")
            page.page.locator("#automerge_reward_try_image input[type=file]").set_input_files(
                picture
            )
            page.page.locator("#automerge_reward_try_image").get_by_text("heart").wait_for()
            prompt = page.page.locator("#automerge_reward_try_prompt textarea")
            prompt.fill("(a red heart:1.3) at sunset")
            page.page.locator("#automerge_reward_try").click()
            said = page.page.locator("#automerge_reward_said")
            said.get_by_text("Compare images, not rewards").wait_for(timeout=60_000)
            assert re.search(r"Demo\s+[\N{MINUS SIGN}\d]+\.\d{4}", said.inner_text())
            assert "Prompt as it was read: a red heart at sunset" in said.inner_text()
            assert said.locator("img").evaluate("image => image.naturalWidth") == 64
            page.picture("reward-try")

            # a preset fills the rows, and an edit makes it one's own
            page.choose("reward", "Photo (5 rewards)")
            judges.nth(4).wait_for()
            assert "not below the parents, weight 0.5" in judges.nth(3).inner_text()
            page.unfold("Several rewards and guards")
            role = page.page.locator("#automerge_role_clip_score input").first
            assert role.input_value() == "Only reported"
            page.choose("role_clip_score", "Not used")
            picker = page.page.locator("#automerge_reward input").first
            page.page.wait_for_function(
                "document.querySelector('#automerge_reward input').value.startsWith('Several')"
            )
            assert picker.input_value() == "Several of your choice"
            judges.nth(4).wait_for(state="detached")
            page.page.locator("#automerge_reward_try").click()
            told = page.page.locator("#automerge_reward_message")
            told.get_by_text("PickScore needs the file").wait_for()
            for size in SIZES:
                for scheme in ("light", "dark"):
                    look = Page(browser, server.url, size=size, scheme=scheme)
                    look.page.locator(".automerge-reward-items").wait_for()
                    look.unfold("Several rewards and guards")
                    section = look.page.locator("#automerge_reward_section")
                    look.page.wait_for_timeout(400)
                    section.screenshot(path=ARTIFACTS / f"rewards-{size}-{scheme}.png")
                    overflow = look.page.evaluate(
                        "document.documentElement.scrollWidth"
                        " - document.documentElement.clientWidth"
                    )
                    assert overflow <= 0, f"the page is {overflow} px too wide at {size}"
                    look.close()

            # a download that fails says why, in its place
            judges.first.get_by_role("button", name="Download").click()
            judges.first.get_by_role("alert").wait_for(timeout=60_000)
            assert "ImageReward.pt" in judges.first.get_by_role("alert").inner_text()
            judges.first.get_by_role("button", name="Go on: 1.8 GB").wait_for()
            page.close()
        finally:
            server.process.kill()
            server.process.wait()


def _demo_models() -> dict[str, str]:
    from lib_automerge import demo

    return {"a": str(demo.MODEL_A), "b": str(demo.MODEL_B)}
