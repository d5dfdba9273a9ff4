"""The merge lab in a real WebUI: what a preview shows is what is saved."""

from __future__ import annotations

from pathlib import Path

from .conftest import RealWebUI


def test_a_preview_is_the_image_of_the_saved_file(webui: RealWebUI, tmp_path: Path) -> None:
    seen = webui.check("lab", folder=str(tmp_path))
    assert seen["told"] == "The preview is made; nothing was saved."
    assert seen["shown"] == seen["saved"] != seen["before"]
    assert seen["after"] == seen["before"]
    assert seen["left"] == []
    assert seen["same lists"]
