"""A person proves a merge in a real browser: blind choices between images of the demo.

Screenshots are kept in `test-artifacts/page/` for people to look at.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.test_human_judge import LONG_MS, panel
from tests.e2e.test_page import (  # noqa: F401 - fixtures
    SIZES,
    Page,
    Server,
    _demo_models,
    browser,
    pytestmark,
    server,
)

SEEDS = 12
EVALUATIONS = 4


def start(page: Page) -> str:
    """Begin a run of the demo over the routes, with one held-out prompt."""
    image = {"width": 64, "height": 64, "steps": 6, "sampler": "DDIM"}
    config = {
        "models": _demo_models(),
        "payloads": [
            {"prompt": "a red heart at sunset", "seeds": [1, 2], **image},
            {"prompt": "a blue star at night", "held_out": True, **image},
        ],
        "reward": {"name": "human_rate"},
        "search": {"evaluations": EVALUATIONS, "optimizer": "sobol"},
        "verdict": {"finalists": 1, "finalist_seeds": 1, "seeds": SEEDS},
    }
    answer = post(page, "runs", config)
    assert "id" in answer, answer
    return str(answer["id"])


def post(page: Page, path: str, body: dict[str, Any]) -> Any:
    return page.page.evaluate(
        """([path, body]) => fetch('./automerge/v1/' + path, {
            method: 'POST',
            headers: {'Content-Type': 'application/json'},
            body: JSON.stringify(body),
        }).then(r => r.json())""",
        [path, body],
    )


def rate_all(page: Page, run: str) -> None:
    for number in range(1, EVALUATIONS + 1):
        question = next_status(page, "evaluation", number)["question"]
        body = {"question": question["key"], "value": number / 10}
        post(page, f"runs/{run}/judge", body)


def next_status(page: Page, field: str, value: int) -> Any:
    """Wait until the question has this value, or until there is no run any more."""
    deadline = time.monotonic() + LONG_MS / 1000
    while time.monotonic() < deadline:
        status = page.get("status")
        asked = status["question"] or {}
        if asked.get(field) == value or not status["busy"]:
            return status
        page.page.wait_for_timeout(100)
    raise AssertionError(f"the question about {field} {value} did not come")


def count(page: Page, made: int) -> None:
    words = f"{made} choice{'' if made == 1 else 's'} made"
    panel(page).get_by_text(words).wait_for(timeout=LONG_MS)


def journal(page: Page, run: str) -> list[dict[str, Any]]:
    text = page.page.evaluate(
        "run => fetch('./automerge/v1/runs/' + run + '/journal').then(r => r.text())", run
    )
    return [json.loads(line) for line in text.splitlines()]


def test_a_person_proves_a_merge_by_blind_choices(server: Server, browser: Any) -> None:  # noqa: F811
    page = Page(browser, server.url)
    run = start(page)
    rate_all(page, run)
    count(page, 0)
    panel(page).get_by_text(f"at most {3 * SEEDS} left").wait_for()
    page.page.wait_for_function(
        """() => [...document.querySelectorAll('.automerge-judge img')]
            .filter((image) => image.naturalWidth > 0).length === 2"""
    )
    shown = panel(page).inner_html()
    assert "/images/" not in shown
    assert "/thumbs/" not in shown
    assert panel(page).get_by_role("button", name="Take back").count() == 0
    assert page.page.locator("#automerge_live .automerge-pictures").count() == 0
    page.picture("verdict-wide-light")
    for size, scheme in (("phone", "light"), ("phone", "dark"), ("wide", "dark")):
        other = Page(browser, server.url, size=size, scheme=scheme)
        count(other, 0)
        wide = other.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= SIZES[size][0]
        panel(other).screenshot(path=f"test-artifacts/page/verdict-{size}-{scheme}.png")
        other.close()

    # a picture in full size, and back
    panel(page).locator("a").first.click()
    page.page.locator(".automerge-lightbox[open] img").wait_for()
    page.page.keyboard.press("Escape")

    panel(page).get_by_role("button", name="A, left").click()
    count(page, 1)
    # the second of two clicks comes when the next pair is there already
    panel(page).get_by_role("button", name="A, left").hover()
    page.page.mouse.down(click_count=2)
    page.page.mouse.up(click_count=2)
    page.page.wait_for_timeout(1000)
    count(page, 1)
    assert page.get("status")["question"]["made"] == 1
    page.page.keyboard.press("ArrowRight")
    count(page, 2)
    panel(page).get_by_role("button", name="Take back").click()
    count(page, 1)
    page.page.keyboard.press("e")
    count(page, 2)
    made = 2
    while next_status(page, "made", made)["busy"]:
        count(page, made)
        panel(page).get_by_role("button", name="No difference").click()
        made += 1
    page.strip.get_by_text("Finished").wait_for(timeout=LONG_MS)
    # what was taken back is in the journal all the same
    said = [one["value"] for one in journal(page, run) if one["event"] == "preferred"]
    assert len(said) == made + 1
    assert set(said[2:]) == {0.5}
    verdict = page.get(f"runs/{run}")["verdict"]
    assert not verdict["gain"]
    # the few that were left could not have proved it
    assert made < SEEDS
    assert verdict["comparisons"][0]["choices"]["equal"] == made - 1
    page.show("Results")
    results = page.page.locator("#automerge_results_view .automerge-results")
    results.get_by_text("No significant gain: you preferred evaluation").first.wait_for()
    page.picture("verdict-results")
    page.close()


def test_a_person_ends_the_choices_without_a_verdict(server: Server, browser: Any) -> None:  # noqa: F811
    page = Page(browser, server.url)
    run = start(page)
    rate_all(page, run)
    count(page, 0)
    page.page.once("dialog", lambda dialog: dialog.dismiss())
    panel(page).get_by_role("button", name="Finish without a verdict").click()
    page.page.wait_for_timeout(500)
    count(page, 0)
    page.page.once("dialog", lambda dialog: dialog.accept())
    panel(page).get_by_role("button", name="Finish without a verdict").click()
    page.strip.get_by_text("Finished").wait_for(timeout=LONG_MS)
    assert page.get(f"runs/{run}")["verdict"] is None
    page.close()
