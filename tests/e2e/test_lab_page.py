"""The merge lab on the stand-alone page: the demo pair merged, drawn, and gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lib_automerge import demo
from tests.browser import CHROMIUM, NO_BROWSER, launched
from tests.e2e.test_page import Page, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="not installed: gradio"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="not installed: playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER),
]

LONG_MS = 240_000

DIES = """
import os, sys
from pathlib import Path
from lib_automerge import demo
from lib_automerge.host.detect import standalone_desk
from lib_automerge.host.standalone import StandaloneCatalogue
from lib_automerge.merge.lab import output
from tests.lab_desk import soup

output.SYNCED = 1  # as if the tensors were large
real = output.Output.finish
def finish(self, key):
    real(self, key)
    if len(self.finished) > 60:
        os._exit(9)
output.Output.finish = finish
data = Path(sys.argv[1])
desk = standalone_desk(StandaloneCatalogue(data))
models = {"a": str(demo.MODEL_A), "b": str(demo.MODEL_B)}
path = desk.catalogue.checkpoint_folder(demo.MODEL_A) / "half way.safetensors"
desk.merge(soup(models, path))
desk.lab.wait()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


@pytest.fixture
def page(tmp_path: Path, browser: Any) -> Iterator[Page]:
    ended = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path / "data")],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 9
    server = Server(tmp_path / "data")
    found = Page(browser, server.url)
    found.page.set_default_timeout(LONG_MS)
    found.show("Merge lab")
    yield found
    found.close()
    server.process.kill()
    out, _ = server.process.communicate()
    assert "Traceback" not in out


def test_a_merge_of_a_program_that_died_is_gone_on_with_and_a_preview_is_drawn(
    page: Page, tmp_path: Path
) -> None:
    merges = tmp_path / "data" / "checkpoints"
    view = page.page.locator("#automerge_lab_view")
    page.strip.get_by_text("half way.safetensors is not finished").wait_for()
    view.get_by_role("button", name="Go on").click()
    view.get_by_text("Saved as half way.safetensors").wait_for()
    assert [path.name for path in merges.iterdir()] == ["half way.safetensors"]
    # what was just saved can be chosen, and its content is not known yet
    page.choose("lab_a", "half way.safetensors")
    page.choose("lab_b", "Demo B")
    page.unfold("Prompt of the preview")
    page.choose("lab_set", "Demo (64)")
    page.page.locator("#automerge_lab_preview").first.click()
    page.strip.get_by_text("Preview of Weighted sum").wait_for()
    picture = view.locator("img").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert picture.get_attribute("alt") == f"Preview: {demo.load_payloads()[0].prompt}"
    assert not page.strip.get_by_text("Preview of").is_visible()
    page.unfold("Recipe as text")
    read = page.page.locator("#automerge_lab_contents").first
    read.click()
    view.get_by_text("is known").or_(view.get_by_text("are known")).first.wait_for()
    read.wait_for(state="hidden")
