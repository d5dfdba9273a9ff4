"""The page under every Gradio: quick choices over a slow line, and a person who judges a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lib_automerge.ui.search_fields import LIMITS
from tests.browser import CHROMIUM, NO_BROWSER, launched
from tests.ui.gradio_pages import FORM_REQUEST, INTERPRETERS, FormPage, Site

FEW = "Two prompts and one kept back"
ONE = "One prompt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INTERPRETERS, reason="no AUTOMERGE_GRADIO_ENVS: run the tests by python tasks.py test"
    ),
    pytest.mark.skipif(find_spec("playwright") is None, reason="not installed: playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


@pytest.fixture(scope="module", params=INTERPRETERS, ids=lambda path: Path(path).parents[1].name)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    found = Site(request.param, tmp_path_factory.mktemp("site"))
    yield found
    found.close()
    assert "Traceback" not in found.errors()


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[FormPage]:
    draft = site.folder / "desk" / "data" / "draft.json"
    draft.unlink(missing_ok=True)
    found = FormPage(browser, site).open()
    yield found
    found.close()


class Late:
    """Holds the next request of the form, or the answer to it, until it is let go."""

    def __init__(self, page: FormPage, *, answer: bool) -> None:
        self._answer = answer
        self._let_go: Callable[[], object] | None = None
        self._held = False
        page.page.route(FORM_REQUEST, self._hold)

    def _hold(self, route: Any) -> None:
        if self._held:
            route.continue_()
            return
        self._held = True
        if self._answer:
            answer = route.fetch()
            self._let_go = lambda: route.fulfill(response=answer)
        else:
            self._let_go = route.continue_

    def let_go(self) -> None:
        assert self._let_go is not None
        self._let_go()


@pytest.mark.parametrize("what", ["request", "answer"])
def test_a_late_one_about_older_values_does_not_have_the_last_word(
    page: FormPage, site: Site, what: str
) -> None:
    page.checks.get_by_text("model B is not chosen").wait_for()
    late = Late(page, answer=what == "answer")
    page.choose("stop", LIMITS)
    page.choose("model_b", "b.safetensors")
    page.choose("payload_set", FEW)
    # whoever overtakes has time for it
    page.page.wait_for_timeout(1500)
    late.let_go()
    page.settle()
    assert "model B is not chosen" not in page.checks.inner_text()
    assert "(2 prompts" in page.page.locator("#automerge_payload_count").first.inner_text()
    draft = site.draft()
    assert draft["model_b"] == "b.safetensors"
    assert draft["payload_set"] == FEW
    assert draft["payloads"].count('"prompt"') == 3


def slowly(page: FormPage, seconds: float = 0.5) -> None:
    """From now on every request of the form takes that much longer."""
    page.page.evaluate(
        """ms => {
            const send = window.fetch;
            window.fetch = async (...sent) => {
                if (/run/.test(sent[0].url || sent[0])) await new Promise((r) => setTimeout(r, ms));
                return send(...sent);
            };
        }""",
        seconds * 1000,
    )


def test_the_same_field_twice_while_the_first_choice_is_answered(
    page: FormPage, site: Site
) -> None:
    slowly(page)
    for name in (ONE, FEW, ONE, FEW):
        page.choose("payload_set", name)
        page.page.wait_for_timeout(150)
    page.choose("model_b", "b.safetensors")
    page.choose("reward", "Demo")
    page.settle()
    assert page.value("payload_set") == FEW
    draft = site.draft()
    assert draft["payload_set"] == FEW
    assert draft["payloads"].count('"prompt"') == 3
    assert page.page.locator("#automerge_generate").is_enabled()


def test_what_is_chosen_while_a_button_works_is_not_undone_by_it(
    page: FormPage, site: Site
) -> None:
    slowly(page)
    page.page.locator("#automerge_models_refresh").click()
    page.choose("model_b", "b.safetensors")
    page.settle()
    assert page.value("model_b") == "b.safetensors"
    assert site.draft()["model_b"] == "b.safetensors"


def test_two_windows_each_have_their_own_turns(browser: Any, page: FormPage, site: Site) -> None:
    other = FormPage(browser, site).open()
    late = Late(page, answer=True)
    page.choose("model_b", "b.safetensors")
    other.choose("model_b", "b.safetensors")
    other.settle()
    assert "model B is not chosen" not in other.checks.inner_text()
    other.close()
    late.let_go()
    page.settle()
    assert "model B is not chosen" not in page.checks.inner_text()


def test_without_our_script_the_form_works_all_the_same(browser: Any, site: Site) -> None:
    page = FormPage(browser, site)
    page.page.route("**/automerge.js", lambda route: route.abort())
    page.page.goto(site.url)
    page.drawn()
    page.settle()
    for name, option in {"model_b": "b.safetensors", "payload_set": FEW, "reward": "Demo"}.items():
        page.choose(name, option)
        page.settle()
    assert page.page.locator("#automerge_generate").is_enabled()
    assert site.draft()["payload_set"] == FEW
    page.close()


def test_the_last_change_of_a_field_that_is_being_drawn_counts(page: FormPage, site: Site) -> None:
    slowly(page, 0.4)
    fields = page.page.locator("#automerge_budget input[type=radio]")
    for position in (0, 2, 1, 0):
        fields.nth(position).check()
        page.page.wait_for_timeout(100)
    page.settle()
    assert site.draft()["budget"].startswith("Quick")


def start(page: FormPage, reward: dict[str, Any]) -> None:
    """Begin a run of two prompts over the routes."""
    folder = page.site.folder / "desk" / "models"
    prompts = ("a red heart", "a blue star")
    config = {
        "models": {role: str(folder / f"{role}.safetensors") for role in "ab"},
        "payloads": [{"prompt": prompt, "seeds": [1]} for prompt in prompts],
        "reward": reward,
        "search": {"evaluations": 4, "optimizer": "sobol"},
        "verdict": {"finalists": 1, "finalist_seeds": 1, "seeds": 2},
    }
    page.start_run(config)


def asked(page: FormPage, said: int) -> Any:
    """The panel that asks for the judgement after so many."""
    panel = page.page.locator("#automerge_live .automerge-judge:not([inert])")
    told = f"{said} judgement{'' if said == 1 else 's'} so far"
    panel.get_by_text(told).wait_for(timeout=60_000)
    return panel


def finished(page: FormPage) -> None:
    strip = page.page.locator("#automerge_strip .automerge-strip").first
    strip.get_by_text("Finished").wait_for(timeout=60_000)


def test_a_person_chooses(page: FormPage) -> None:
    start(page, {"name": "human_choose"})
    asked(page, 0).get_by_role("button", name="A, left").click()
    asked(page, 1)
    page.page.keyboard.press("ArrowRight")
    for said in (2, 3, 4):
        asked(page, said).get_by_role("button", name="Equal").click()
    finished(page)


def test_a_person_rates(page: FormPage) -> None:
    start(page, {"name": "human_rate"})
    for said in range(4):
        panel = asked(page, said)
        panel.get_by_role("slider").fill(str(said + 3))
        assert panel.locator("output").inner_text() == str(said + 3)
        panel.get_by_role("button", name="Rate").click()
    finished(page)
