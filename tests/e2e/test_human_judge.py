"""A person judges a run of the demo in a real browser: with buttons, keys and a slider.

Screenshots are kept in `test-artifacts/page/` for people to look at.
"""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.test_page import (  # noqa: F401 - fixtures
    SIZES,
    SMALL,
    Page,
    Server,
    _demo_models,
    browser,
    pytestmark,
    server,
)

LONG_MS = 240_000


def panel(page: Page) -> Any:
    return page.page.locator("#automerge_live .automerge-judge:not([inert])")


def asked(page: Page, said: int) -> Any:
    """Wait until the panel asks for the judgement after so many; returns the question."""
    panel(page).get_by_text(f"{said} judgement{'' if said == 1 else 's'} so far").wait_for(
        timeout=LONG_MS
    )
    return page.get("status")["question"]


def start(page: Page, reward: dict[str, Any], evaluations: int) -> str:
    """Begin a run of the demo over the routes."""
    prompts = ("a red heart at sunset", "a blue star at night")
    config = {
        "models": _demo_models(),
        "payloads": [
            {"prompt": p, "seeds": [1, 2], "width": 64, "height": 64, "steps": 6, "sampler": "DDIM"}
            for p in prompts
        ],
        "reward": reward,
        "search": {"evaluations": evaluations, "optimizer": "sobol"},
        "verdict": {"finalists": 1, "finalist_seeds": 1, "seeds": 2},
    }
    return page.start_run(config)


def test_a_person_chooses_from_start_to_finish(server: Server, browser: Any) -> None:  # noqa: F811
    page = Page(browser, server.url)
    page.choose("model_a", "Demo A")
    page.choose("model_b", "Demo B")
    # the answer about the models brings a set that suits them
    page.page.wait_for_function(
        "document.querySelector('#automerge_payload_set input').value.startsWith('Starter')"
    )
    page.choose("payload_set", SMALL)
    page.choose("reward", "You choose")
    checks = page.page.locator("#automerge_checks").first
    checks.get_by_text("You judge: the run waits for you").wait_for(state="attached")
    page.page.locator("#automerge_budget").get_by_label("Custom").check()
    evaluations = page.page.locator("#automerge_evaluations input")
    evaluations.fill("5")
    evaluations.blur()
    checks.get_by_text("7 questions").wait_for(state="attached")
    page.unfold("When finished")
    seeds = page.page.locator("#automerge_verdict_seeds").locator("input, textarea")
    seeds.fill("2")
    seeds.blur()
    checks.get_by_text("18 blind choices at most").wait_for(state="attached")
    page.page.wait_for_function("!document.getElementById('automerge_generate').disabled")
    page.page.locator("#automerge_generate").click()

    first = asked(page, 0)
    assert (first["evaluation"], first["other"]) == (2, 1)
    page.strip.get_by_text("Waiting for your judgement").wait_for()
    page.page.wait_for_function(
        """() => [...document.querySelectorAll('.automerge-judge img')]
            .filter((image) => image.naturalWidth > 0).length >= 4"""
    )
    assert panel(page).get_by_role("button", name="Take back").count() == 0
    page.picture("judge-choose")

    # another browser, or the same one after a reload, shows the same question
    again = Page(browser, server.url, size="phone", scheme="dark")
    assert asked(again, 0) == first
    again.page.locator(".automerge-judge").screenshot(path="test-artifacts/page/judge-phone.png")
    wide = again.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= SIZES["phone"][0]
    again.close()

    panel(page).get_by_role("button", name="A, left").click()
    asked(page, 1)
    page.page.keyboard.press("ArrowRight")
    asked(page, 2)
    panel(page).get_by_role("button", name="Take back").click()
    back = asked(page, 1)
    assert back["evaluation"] == 3
    page.page.keyboard.press("a")
    asked(page, 2)
    page.page.keyboard.press("e")
    for said in (3, 4, 5):
        question = asked(page, said)
        assert question["evaluation"] == 4 + (said - 3) // 2
        panel(page).get_by_role("button", name="Equal").click()
    asked(page, 6)
    panel(page).get_by_role("button", name="B, right").click()
    panel(page).get_by_text("0 choices made, at most 18 left").wait_for(timeout=LONG_MS)
    page.page.once("dialog", lambda dialog: dialog.accept())
    panel(page).get_by_role("button", name="Finish without a verdict").click()
    page.strip.get_by_text("Finished").wait_for(timeout=LONG_MS)
    panel(page).wait_for(state="detached")
    run = page.get("status")["selected"]
    found = page.get(f"runs/{run}")
    assert found["verdict"] is None
    page.show("Results")
    results = page.page.locator("#automerge_results_view .automerge-results")
    results.locator("h2").first.wait_for()
    page.picture("judge-results")
    page.close()


def test_a_person_rates_beside_a_reward(server: Server, browser: Any) -> None:  # noqa: F811
    page = Page(browser, server.url)
    members = [{"name": "demo"}, {"name": "human_rate", "weight": 0.5}]
    run = start(page, {"name": "ensemble", "members": members}, 4)
    asked(page, 0)
    slider = panel(page).get_by_role("slider")
    assert slider.input_value() == "5"
    slider.focus()
    for _ in range(4):
        page.page.keyboard.press("ArrowRight")
    assert panel(page).locator("output").inner_text() == "7"
    page.picture("judge-rate")
    page.page.keyboard.press("Enter")
    asked(page, 1)
    # what was said of one candidate is not said of the next
    assert panel(page).get_by_role("slider").input_value() == "5"

    page.page.evaluate("document.getElementById('automerge_interrupt').click()")
    page.strip.get_by_role("button", name="Resume").wait_for(timeout=LONG_MS)
    panel(page).wait_for(state="detached", timeout=LONG_MS)
    page.strip.get_by_role("button", name="Resume").click()
    for said in (1, 2, 3):
        asked(page, said)
        panel(page).get_by_role("slider").fill(str(said))
        panel(page).get_by_role("button", name="Rate").click()
    page.strip.get_by_text("Finished").wait_for(timeout=LONG_MS)
    journal = page.page.evaluate(
        "run => fetch('./automerge/v1/runs/' + run + '/journal').then(r => r.text())", run
    )
    rated = re.findall(r'"event":"judged".*?"value":([0-9.]+)', journal)
    assert [float(value) for value in rated] == [0.7, 0.1, 0.2, 0.3]
    assert page.get(f"runs/{run}")["verdict"]["comparisons"]
    page.close()
