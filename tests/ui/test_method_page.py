"""Any merge method in the search form under every Gradio, in a real browser: from the method, or
the merge lab, to a finished run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import launched
from tests.ui.gradio_pages import INTERPRETERS, Site
from tests.ui.test_lab_page import LabPage
from tests.ui.test_lab_page import pytestmark as pytestmark

FEW = "Two prompts and one kept back"
"""As in `serve_tab`."""


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
def page(browser: Any, site: Site) -> Iterator[LabPage]:
    for name in ("draft.json", "lab.json"):
        (site.folder / "desk" / "data" / name).unlink(missing_ok=True)
    found = LabPage(browser, site)
    found.open()
    yield found
    found.close()


def press(page: LabPage, name: str) -> None:
    page.part(name).click()
    page.settle()


def do(page: LabPage, action: str) -> None:
    page.part("parameter_action").get_by_label(action, exact=True).check()


def test_the_parameters_of_a_method_are_searched_and_fixed(page: LabPage, site: Site) -> None:
    page.pick("model_b", "b.safetensors")
    page.pick("reward", "Demo")
    page.unfold("method_fold")
    assert not page.part("parameters_row").is_visible()
    page.pick("method", "DELLA")
    assert page.part("more_models").is_visible()
    assert not page.part("model_c").is_visible()
    assert not page.part("space_fold").is_visible()
    page.checks.get_by_text("nothing is left to search").wait_for()
    assert not page.part("generate").is_enabled()
    page.unfold("parameter_fold")
    table = page.part("parameter_table")
    press(page, "parameter_apply")
    table.get_by_text("searched from 0 to 1").wait_for()
    page.checks.get_by_text("values that do not go together").wait_for()
    page.enter("parameter_low", "0.1")
    page.enter("parameter_high", "0.9")
    press(page, "parameter_apply")
    table.get_by_text("searched from 0.1 to 0.9").wait_for()
    assert page.part("generate").is_enabled()
    page.pick("parameter", "favour")
    do(page, "Search in each block")
    press(page, "parameter_apply")
    page.part("parameter_message").get_by_text("one value for the whole merge").wait_for()
    do(page, "Fix")
    page.enter("parameter_value", "small")
    press(page, "parameter_apply")
    table.get_by_text("fixed at small").wait_for()
    assert json.loads(site.draft()["parameters"]) == {
        "p": {"low": 0.1, "high": 0.9},
        "favour": {"fixed": "small"},
    }
    page.unfold("parameters_fold")
    page.enter("parameters", '{"epsilon": {"low": 0.1, "high": 0.3, "per_block": true}}')
    table.get_by_text("searched from 0.1 to 0.3, in each block").wait_for()
    page.pick("method", "Sum twice")
    assert page.part("model_c").is_visible()
    assert not page.part("more_models").is_visible()
    assert page.part("space_fold").is_visible()
    assert page.value("parameter") == "beta"
    table.get_by_text("epsilon: Sum twice has no such parameter").wait_for()
    press(page, "parameter_clear")
    table.get_by_text("no such parameter").wait_for(state="hidden")
    table.get_by_text("0.5, the default").wait_for()
    page.pick("method", "Weighted sum")
    page.part("parameters_row").wait_for(state="hidden")


def test_the_labs_merge_is_optimised(page: LabPage, site: Site) -> None:
    page.pick("reward", "Demo")
    page.pick("payload_set", FEW)
    page.look()
    optimise = page.part("lab_optimise").get_by_text("Optimise these parameters")
    optimise.click()
    page.page.get_by_text("needs model A").last.wait_for()
    assert page.part("lab_method").is_visible()
    page.pick("lab_method", "Average (uniform soup)")
    page.pick_many("lab_models", "a.safetensors", "b.safetensors")
    page.enter("lab_average_shares", "1, 3")
    optimise.click()
    page.part("generate").wait_for()
    page.settle()
    page.unfold("method_fold")
    assert page.value("method") == "Average (uniform soup)"
    assert (page.value("model_a"), page.value("model_b")) == ("a.safetensors", "b.safetensors")
    assert json.loads(site.draft()["parameters"])["shares"] == {
        "low": 0.0,
        "high": 6.0,
        "start": {"m001": 1.0, "m002": 3.0},
    }
    press(page, "trial")
    run = page.get("runs")["runs"][0]["id"]
    deadline = 120
    while page.get(f"runs/{run}")["state"] not in ("finished", "failed") and deadline:
        page.page.wait_for_timeout(500)
        deadline -= 1
    found = page.get(f"runs/{run}")
    assert found["state"] == "finished"
    assert [*found["evaluations"][3]["weights"]] == ["shares.m001", "shares.m002"]
    tab = page.page.get_by_role("tab", name="Results")
    tab.or_(page.page.get_by_role("button", name="Results", exact=True)).first.click()
    page.part("results_view").get_by_text("Parameters of average").first.wait_for()
