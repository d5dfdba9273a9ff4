"""The merge lab's page under every Gradio, in a real browser: from a method to a saved file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lib_automerge.ui.lab_fields import FORMATS, ORDERS
from tests.browser import CHROMIUM, NO_BROWSER, launched
from tests.ui.gradio_pages import INTERPRETERS, FormPage, Site

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


class LabPage(FormPage):
    """A window on the merge lab."""

    def look(self) -> LabPage:
        self.open()
        tab = self.page.get_by_role("tab", name="Merge lab")
        tab.or_(self.page.get_by_role("button", name="Merge lab", exact=True)).first.click()
        self.part("lab_method").wait_for()
        self.settle()
        return self

    def part(self, name: str) -> Any:
        return self.page.locator(f"#automerge_{name}").first

    def pick(self, name: str, option: str) -> None:
        self.choose(name, option)
        self.settle()

    def pick_many(self, name: str, *options: str) -> None:
        for option in options:
            box = self.part(name).locator("input").first
            box.click()
            listed = f'[data-testid="dropdown-option"][aria-label="{option}"]'
            self.page.locator(listed).last.click()
            # a list that is left opens again
            box.blur()
            self.settle()

    def unfold(self, name: str) -> None:
        self.part(name).locator(".label-wrap").first.click()
        self.page.wait_for_timeout(300)

    def enter(self, name: str, text: str) -> None:
        box = self.part(name).locator("input, textarea").first
        box.fill(text)
        box.blur()
        self.settle()

    def told(self, words: str) -> None:
        self.part("lab_view").get_by_text(words).first.wait_for(timeout=30_000)

    def holds(self, name: str, value: str) -> None:
        """Wait until a field shows this; a busy machine answers late."""
        from playwright.sync_api import expect

        box = self.page.locator(f"#automerge_{name} input").first
        expect(box).to_have_value(value, timeout=30_000)

    def draft(self) -> dict[str, Any]:
        path = self.site.folder / "desk" / "data" / "lab.json"
        return dict(json.loads(path.read_text()))


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[LabPage]:
    (site.folder / "desk" / "data" / "lab.json").unlink(missing_ok=True)
    found = LabPage(browser, site).look()
    yield found
    found.close()


def test_a_merge_by_block_is_saved_and_a_second_page_sees_it(
    browser: Any, page: LabPage, site: Site
) -> None:
    page.part("lab_checks").get_by_text("Weighted sum needs model A").wait_for()
    assert not page.part("lab_save").is_enabled()
    page.pick("lab_a", "a.safetensors")
    page.pick("lab_b", "b.safetensors")
    page.enter("lab_weighted_sum_weight", "0.25")
    page.unfold("lab_blocks_fold")
    page.pick_many("lab_blocks", "M00")
    page.enter("lab_value", "1")
    page.part("lab_put").click()
    page.settle()
    row = page.part("lab_table").locator("tr", has_text="M00")
    row.locator("td", has_text=re.compile("^1$")).wait_for()
    page.enter("lab_name", f"by block {page.site.major}")
    page.part("lab_save").click()
    page.told("Saved as by block")
    page.settle()
    path = site.folder / "desk" / "models" / f"by block {page.site.major}.safetensors"
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["automerge_recipe"])
    assert recipe["weights"]["M00"] == 1
    assert recipe["weights"]["OUT11"] == 0.25
    # its name is taken now, and the page says so by itself
    page.part("lab_checks").get_by_text("exists already").wait_for()
    other = LabPage(browser, site).look()
    other.told("Saved as by block")
    assert other.value("lab_a") == "a.safetensors"
    assert other.value("lab_weighted_sum_weight") == "0.25"
    other.close()


def test_slots_and_parameters_follow_the_method(page: LabPage) -> None:
    assert page.part("lab_a").is_visible()
    assert not page.part("lab_c").is_visible()
    page.pick("lab_method", "Sum twice")
    page.part("lab_c").wait_for()
    page.part("lab_sum_twice_beta").wait_for()
    page.pick("lab_method", "TIES")
    page.part("lab_a").wait_for(state="hidden")
    assert page.part("lab_base").is_visible()
    assert page.part("lab_ties_k").is_visible()
    assert not page.part("lab_sum_twice_beta").is_visible()
    page.pick_many("lab_models", "a.safetensors", "b.safetensors")
    checks = page.part("lab_checks")
    checks.get_by_text("TIES needs a base model: choose it as Base.").wait_for()
    assert not page.part("lab_preview").is_enabled()
    page.pick("lab_base", "a.safetensors")
    assert page.part("lab_save").is_enabled()
    assert page.draft()["lab_models"] == ["a.safetensors", "b.safetensors"]
    page.enter("lab_ties_k", "7")
    checks.get_by_text("k of TIES is 7").wait_for()
    assert not page.part("lab_save").is_enabled()
    page.enter("lab_ties_k", "0.3")
    assert page.part("lab_save").is_enabled()


def test_a_preview_shows_one_image(page: LabPage) -> None:
    page.pick("lab_a", "a.safetensors")
    page.pick("lab_b", "b.safetensors")
    page.part("lab_preview").click()
    page.told("nothing was saved")
    picture = page.part("lab_view").locator("img").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    picture.click()
    page.page.locator("dialog.automerge-lightbox[open]").wait_for()
    page.page.keyboard.press("Escape")


def test_a_recipe_is_pasted_and_a_checkpoint_is_dropped(page: LabPage, site: Site) -> None:
    page.pick("lab_a", "a.safetensors")
    page.pick("lab_b", "b.safetensors")
    page.pick("lab_method", "Slerp")
    page.enter("lab_slerp_weight", "0.125")
    page.unfold("lab_recipe_fold")
    text = page.part("lab_recipe_out").locator("pre").inner_text()
    assert json.loads(text)["parameters"] == {"weight": 0.125}
    name = f"dropped{page.site.major}"
    page.enter("lab_name", name)
    page.part("lab_save").click()
    page.told(f"Saved as {name}")
    page.settle()
    page.pick("lab_method", "TIES")
    page.enter("lab_recipe", text.replace("0.125", "0.375"))
    page.part("lab_load").click()
    page.settle()
    page.holds("lab_method", "Slerp")
    page.holds("lab_slerp_weight", "0.375")
    page.pick("lab_method", "TIES")
    header = (site.folder / "desk" / "models" / f"{name}.safetensors").read_bytes()[:200_000]
    drop = """([bytes, name]) => {
        const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(bytes)], name));
        document.querySelector("#automerge_lab_recipe textarea").dispatchEvent(
            new DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true}));
    }"""
    page.page.evaluate(drop, [list(header), f"{name}.safetensors"])
    message = page.part("lab_recipe_message")
    message.get_by_text(re.compile("form holds the recipe")).wait_for()
    page.settle()
    page.holds("lab_method", "Slerp")
    page.holds("lab_slerp_weight", "0.125")
    # of a picture it is the infotext
    infotext = b"parameters\0a cat\nSteps: 2, Model: a x 0.75 + b x 0.25"
    chunk = len(infotext).to_bytes(4, "big") + b"tEXt" + infotext + bytes(4)
    page.page.evaluate(drop, [list(bytes(8) + chunk), "cat.png"])
    message.get_by_text("Read: SuperMerger's model string").wait_for()
    page.settle()
    page.holds("lab_method", "Weighted sum")
    page.holds("lab_weighted_sum_weight", "0.25")
    page.page.evaluate(drop, [list(b"no header"), "x.safetensors"])
    page.page.get_by_text("x.safetensors holds no recipe").wait_for()


def test_what_a_text_leaves_open_is_asked_and_only_then(page: LabPage) -> None:
    page.pick("lab_a", "a.safetensors")
    page.pick("lab_b", "b.safetensors")
    page.unfold("lab_recipe_fold")
    order = page.part("lab_order")
    assert not order.is_visible()
    page.enter("lab_recipe", ",".join(f"{number / 100}" for number in range(27)))
    page.part("lab_load").click()
    page.settle()
    order.wait_for()
    assert not page.part("lab_family").is_visible()
    page.pick("lab_order", ORDERS.label("nat"))
    page.part("lab_load").click()
    page.settle()
    page.part("lab_recipe_message").get_by_text("form holds the recipe").wait_for()
    order.wait_for(state="hidden")
    text = page.part("lab_recipe_out").locator("pre").inner_text()
    assert json.loads(text)["weights"]["IN01"] == 0.01
    # another text is asked about again
    page.enter("lab_recipe", ",".join(f"{number / 50}" for number in range(27)))
    page.part("lab_load").click()
    page.settle()
    order.wait_for()
    page.holds("lab_order", "")


def test_the_recipe_is_shown_in_other_formats_and_with_its_contents(page: LabPage) -> None:
    page.pick("lab_a", "a.safetensors")
    page.pick("lab_b", "b.safetensors")
    page.unfold("lab_recipe_fold")
    out = page.part("lab_recipe_out")
    give_up = page.part("lab_give_up")
    assert not give_up.is_visible()
    page.pick("lab_format", FORMATS.label("nat"))
    out.get_by_text("no place of its own for BASE").wait_for()
    give_up.locator("input").check()
    page.settle()
    assert out.locator("pre").inner_text().startswith("0.5,0.5")
    page.pick("lab_format", FORMATS.label("supermerger-metadata"))
    button = page.part("lab_contents")
    if button.is_visible():  # another test may have merged these models
        out.get_by_text("Read their contents").wait_for()
        button.click()
        page.told("are known")
        page.settle()
        button.wait_for(state="hidden")
    recipe = json.loads(json.loads(out.locator("pre").inner_text())["sd_merge_recipe"])
    folder = page.site.folder / "desk" / "models"
    digest = hashlib.sha256((folder / "a.safetensors").read_bytes()).hexdigest()
    assert recipe["model_a"] == digest
