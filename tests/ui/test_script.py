"""The page's script in a real browser, over real routes and a page that has only our shells."""

from __future__ import annotations

import shutil
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lib_automerge import api
from lib_automerge.app.question import Answer
from tests.api.bench import Gate, add_run, make_desk, running
from tests.api.test_judge import begin
from tests.api.test_status import start_tiny
from tests.browser import CHROMIUM, NO_BROWSER, launched
from tests.fake_host import FakeHost
from tests.run_folders import STOPPED, Plan, Until

ROOT = Path(__file__).parents[2]
MISSING = [name for name in ("uvicorn", "playwright") if find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER),
]

# the ids and shells of ui/tab.py, with tabs that are as simple as can be
PAGE = """<!doctype html><html lang="en"><head><title>page</title><link rel="icon" href="data:,">
<style>%s</style><script>
window.clicked = [];
function tab(name) {
  for (const panel of document.querySelectorAll("[data-panel]"))
    panel.hidden = panel.dataset.panel !== name;
}
</script></head><body>
<div id="audio_notification"><audio></audio></div>
<div id="automerge_root">
<div data-automerge="strip">Loading</div>
<div id="automerge_tabs">
<button role="tab" onclick="tab('Search')">Search</button>
<button role="tab" onclick="tab('Results')">Results</button>
<button role="tab" onclick="tab('Runs')">Runs</button>
<div data-panel="Search" id="automerge_search">
<div id="automerge_form"><div><input id="field"></div></div>
<div id="automerge_live_column">
<button id="automerge_generate" onclick="clicked.push('generate')">Start</button>
<div data-automerge="live">Loading</div></div></div>
<div data-panel="Results" hidden><div data-automerge="results">Loading</div></div>
<div data-panel="Runs" hidden><div data-automerge="runs">Loading</div></div>
</div>
<button id="automerge_load_draft" onclick="clicked.push('draft')">x</button>
<button id="automerge_look_again" onclick="clicked.push('look')">x</button>
<div id="automerge_infotext" class="automerge-hidden"><textarea></textarea></div>
<button id="automerge_send_txt2img" onclick="clicked.push('send')">x</button>
</div><script>%s</script></body></html>"""


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


class Site:
    """A server for a desk that can be taken away and put back."""

    def __init__(self, desk) -> None:
        import uvicorn

        async def page(request):
            style = (ROOT / "style.css").read_text()
            script = (ROOT / "javascript" / "automerge.js").read_text()
            return HTMLResponse(PAGE % (style, script))

        self.open = True
        app = Starlette(routes=[Route("/sub/", page)])
        inner = Starlette()
        api.register(inner, desk, lambda request: self.open)
        app.mount("/sub", inner)
        config = uvicorn.Config(app, port=0, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        # below a path of its own, as behind --subpath
        self.url = f"http://127.0.0.1:{port}/sub/"

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def visit(browser):
    """Opens a desk's page; fails if the browser's console told of an error."""
    sites, pages, errors = [], [], []

    def open_page(desk, **options):
        site = Site(desk)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda said: (
                errors.append(said.text)
                # the browser itself tells of answers that a test has asked for
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        sites.append(site)
        pages.append(page)
        page.goto(site.url)
        page.wait_for_selector(".automerge-strip-body")
        page.site = site
        return page

    yield open_page
    for page in pages:
        page.close()
    for site in sites:
        site.close()
    assert errors == []


@pytest.fixture
def desk(tmp_path: Path):
    found = make_desk(tmp_path)
    add_run(found, "20260101-abcd", Plan(evaluations=9, size=24, name="first <b>night</b>"))
    return found


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_views_come_when_they_are_seen(desk, visit) -> None:
    page = visit(desk)
    page.wait_for_selector("[data-automerge=live] .chart")
    assert page.locator("[data-automerge=results] h2").count() == 0
    tab(page, "Results")
    page.wait_for_selector("[data-automerge=results] h2")
    tab(page, "Runs")
    page.wait_for_selector(".automerge-runs-table")
    assert "first <b>night</b>" in page.locator(".automerge-runs-table").inner_text()


def test_folds_typing_and_focus_survive_news(desk, visit) -> None:
    page = visit(desk)
    tab(page, "Results")
    page.locator("summary", has_text="Copy weights").click()
    name = page.locator("[data-form=save] [name=name]")
    name.fill("my merge")
    page.locator("[data-form=save] [name=dtype]").select_option("bf16")
    name.focus()
    page.evaluate("document.querySelector('[name=name]').dataset.old = '1'")
    desk.library.rename("20260101-abcd", "another name")
    page.wait_for_selector("[data-automerge=results] b:text('another name')")
    assert page.locator("[data-old]").count() == 0, "the view was not drawn again"
    assert name.input_value() == "my merge"
    assert page.locator("[data-form=save] [name=dtype]").input_value() == "bf16"
    assert page.evaluate("document.activeElement.name") == "name"
    assert page.locator("details[data-key=weights]").get_attribute("open") is not None


def test_folded_views_come_when_they_are_opened(desk, visit) -> None:
    page = visit(desk)
    page.wait_for_selector("[data-automerge=live] .chart")
    assert page.locator("[data-automerge-view=resources] dl").count() == 0
    page.locator("summary", has_text="Resources").click()
    page.wait_for_selector("[data-automerge-view=resources] dl")


def test_pictures_in_full_size_by_keyboard(desk, visit) -> None:
    page = visit(desk)
    shot = page.locator(".automerge-shot").first
    shot.focus()
    page.keyboard.press("Enter")
    box = page.locator("dialog.automerge-lightbox")
    assert box.is_visible()
    first = box.locator("img").get_attribute("src")
    assert "/images/" in first
    page.keyboard.press("ArrowRight")
    assert box.locator("img").get_attribute("src") != first
    page.keyboard.press("ArrowLeft")
    assert box.locator("img").get_attribute("src") == first
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("document.activeElement.classList.contains('automerge-shot')")


def test_rename_and_delete(desk, visit) -> None:
    page = visit(desk)
    tab(page, "Runs")
    answers = ["second night", None, True]
    asked = []

    def answer(dialog):
        asked.append(dialog.type)
        given = answers.pop(0)
        if given is None:
            dialog.dismiss()
        else:
            dialog.accept("" if given is True else given)

    page.on("dialog", answer)
    page.get_by_role("button", name="Rename").click()
    page.wait_for_selector(".automerge-runs-table :text('second night')")
    page.get_by_role("button", name="Delete").click()
    assert desk.library.entries(), "deleted against the user's answer"
    page.get_by_role("button", name="Delete").click()
    page.wait_for_selector("text=No runs yet")
    assert asked == ["prompt", "confirm", "confirm"]
    assert (desk.library.root / "trash" / "20260101-abcd").is_dir()


def test_filter(desk, visit) -> None:
    add_run(desk, "20260102-efgh", Plan(evaluations=5, size=0, name="meadow"))
    page = visit(desk)
    tab(page, "Runs")
    rows = page.locator(".automerge-runs-table tbody tr:visible")
    page.wait_for_selector(".automerge-runs-table")
    assert rows.count() == 2
    page.locator("[data-filter]").fill("MEADOW finished")
    assert rows.count() == 1
    desk.library.rename("20260101-abcd", "other")
    page.wait_for_selector(".automerge-runs-table :text('other')", state="attached")
    assert rows.count() == 1


def test_a_chosen_run_stays_chosen(desk, visit) -> None:
    add_run(desk, "20260102-efgh", Plan(evaluations=5, size=0, name="meadow"))
    page = visit(desk)
    tab(page, "Runs")
    names = page.locator(".automerge-runs-table tbody tr")
    names.nth(1).get_by_role("button", name="Open").click()
    # the older one, whatever was shown a moment ago
    shown = page.locator(".automerge-results[data-shown='20260101-abcd']")
    shown.wait_for()
    page.reload()
    page.wait_for_selector(".automerge-strip-body")
    tab(page, "Results")
    shown.wait_for()


def test_use_and_send(desk, visit) -> None:
    page = visit(desk)
    tab(page, "Results")
    page.get_by_role("button", name="Use as start of a new run").click()
    page.wait_for_function("clicked.includes('draft')")
    assert desk.draft()
    assert page.locator("#automerge_search").is_visible()
    tab(page, "Results")
    page.locator("[data-action=send]").first.click()
    page.wait_for_function("clicked.includes('send')")
    assert "Steps: " in page.locator("#automerge_infotext textarea").input_value()


def test_save_says_how_it_went(tmp_path: Path, visit) -> None:
    desk = make_desk(tmp_path)
    start_tiny(desk)
    assert desk.worker.wait(60)
    page = visit(desk)
    tab(page, "Results")
    page.locator("[data-form=save] [name=name]").fill("kept")
    page.get_by_role("button", name="Save checkpoint").click()
    page.wait_for_selector(".automerge-saving.saved:has-text('kept.safetensors')")


def test_a_run_in_hand(tmp_path: Path, visit) -> None:
    host = FakeHost()
    gate = Gate(host, 30)
    desk = make_desk(tmp_path, host)
    page = visit(desk)
    ring = "() => { rung++; return Promise.resolve(); }"
    page.evaluate(f"() => {{ window.rung = 0; document.querySelector('audio').play = {ring}; }}")
    page.keyboard.press("Control+Enter")
    assert page.evaluate("clicked") == ["generate"]
    with running(desk, gate, lambda: start_tiny(desk)):
        page.wait_for_selector(".automerge-strip-body.is-running")
        page.wait_for_selector("[role=progressbar]")
        assert page.locator(".automerge-frozen").is_visible()
        assert page.evaluate("document.querySelector('#field').closest('[inert]') !== null")
        page.keyboard.press("Control+Enter")
        assert page.evaluate("clicked") == ["generate"], "Start was pressed during a run"
        assert desk.worker.snapshot().phase.value == "running"
        announced = page.locator(".automerge-announcement")
        assert announced.inner_text().startswith("Running")
        page.get_by_role("button", name="Pause").click()
        page.wait_for_selector(".automerge-strip-body.is-pausing")
        gate.open()
        page.wait_for_selector(".automerge-strip-body.is-paused")
        assert page.evaluate("document.querySelector('#field').closest('[inert]') === null")
        assert page.evaluate("rung") == 0, "a pause that was asked for is no news"
        page.get_by_role("button", name="Resume").click()
        page.wait_for_selector(".automerge-strip-body.is-finished")
        page.wait_for_function("rung === 1")
        assert announced.inner_text().startswith("Finished")
        page.wait_for_timeout(2500)
        assert page.evaluate("rung") == 1
        # paused and finished: each time the form's forecast knows more
        assert page.evaluate("clicked") == ["generate", "look", "look"]


def test_a_run_that_waits_calls_who_looks_elsewhere(tmp_path: Path, visit) -> None:
    desk = make_desk(tmp_path)
    page = visit(desk)
    ring = "() => { rung++; return Promise.resolve(); }"
    page.evaluate(f"() => {{ window.rung = 0; document.querySelector('audio').play = {ring}; }}")
    page.evaluate("document.hasFocus = () => false")
    begin(desk, "human_rate")
    page.wait_for_selector(".automerge-announcement:has-text('Waiting for your judgement')")
    page.wait_for_function("rung === 1")
    page.wait_for_timeout(1500)
    assert page.evaluate("rung") == 1, "once is enough"
    page.evaluate("document.hasFocus = () => true")
    first = desk.worker.snapshot().question
    assert first is not None
    desk.worker.questions.answer(first.key, Answer(0.5))
    until = time.monotonic() + 20
    while desk.worker.snapshot().question in (None, first) and time.monotonic() < until:
        time.sleep(0.05)
    page.wait_for_timeout(1500)
    assert page.evaluate("rung") == 1, "who looks at the page needs no sound"
    desk.worker.stop()
    assert desk.worker.wait(30)


def test_the_browser_asks_before_stop(tmp_path: Path, visit) -> None:
    host = FakeHost()
    gate = Gate(host, 6)
    desk = make_desk(tmp_path, host)
    page = visit(desk)
    with running(desk, gate, lambda: start_tiny(desk)):
        page.wait_for_selector(".automerge-strip-body.is-running")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Stop now").click()
        page.wait_for_timeout(200)
        assert desk.worker.snapshot().phase.value == "running"
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop now").click()
        page.wait_for_selector(".automerge-strip-body.is-stopping")
        gate.open()
        page.wait_for_selector(".automerge-strip-body.is-stopped")


def test_lost_contact_is_said_and_found_again(desk, visit) -> None:
    page = visit(desk)
    page.site.open = False
    page.wait_for_selector(".automerge-contact:has-text('not logged in')")
    link = page.locator(".automerge-contact a")
    assert link.get_attribute("href") == "./automerge/v1/login"
    page.site.open = True
    page.wait_for_selector(".automerge-contact", state="hidden", timeout=20_000)


def test_a_refused_action_is_said(tmp_path: Path, visit) -> None:
    desk = make_desk(tmp_path)
    cut = Plan(evaluations=5, size=0, until=Until.SEARCH, end=STOPPED)
    add_run(desk, "20260101-abcd", cut)
    page = visit(desk)
    # polls come one after another: when one has failed, none is under way that could still arrive
    with page.expect_event("requestfailed", timeout=60_000):
        page.route("**/status?*", lambda route: route.abort())
    shutil.rmtree(desk.library.root / "20260101-abcd")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".automerge-toast.bad:has-text('no run')")


def test_a_phone_needs_no_sideways_scrolling(desk, visit) -> None:
    page = visit(desk)
    page.set_viewport_size({"width": 400, "height": 800})
    for name in ("Search", "Results", "Runs"):
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
