"""Build the tab under whatever Gradio this Python has, and print what it is made of as JSON.

    python tests/ui/build_tab.py

Run by `test_gradio_versions.py` under every Gradio in use; needs no test framework.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from lib_automerge.domain.payload import Payload
from lib_automerge.ui.tab import build
from tests.ui.fake_desk import idle_desk


class FakeHostForm:
    """A txt2img form of two fields that belong to another page, as in the WebUI."""

    def __init__(self) -> None:
        with gr.Blocks() as self.page:
            self.components: Mapping[str, Any] = {
                "prompt": gr.Textbox(label="Prompt", elem_id="txt2img_prompt"),
                "steps": gr.Number(label="Steps", precision=0, value=20),
            }

    def payload(self, values: Mapping[str, object]) -> Payload:
        return Payload(prompt=str(values["prompt"]), steps=int(str(values["steps"])))


def main() -> None:
    """Print the Gradio version and, by element id, the class and texts of every component."""
    bound: list[tuple[Any, Any]] = []
    form = FakeHostForm()
    with tempfile.TemporaryDirectory() as folder:
        tab = build(
            idle_desk(Path(folder)),
            host_form=form,
            bind_paste=lambda button, text: bound.append((button, text)),
        )
        with gr.Blocks() as page:
            form.page.render()
            tab.render()
    components = [one for one in tab.blocks.values() if getattr(one, "elem_id", None)]
    listeners = page.fns.values() if hasattr(page, "fns") and isinstance(page.fns, dict) else None
    told = {
        "version": gr.__version__,
        "ids": sorted(one.elem_id for one in components),
        "kinds": {one.elem_id: type(one).__name__ for one in components},
        "values": {
            one.elem_id: getattr(one, "value", None)
            for one in components
            if type(one).__name__ in ("Textbox", "Number", "Checkbox", "Radio", "Dropdown")
        },
        "labels": {one.elem_id: getattr(one, "label", None) for one in components},
        "unnamed": [
            type(one).__name__
            for one in tab.blocks.values()
            if not getattr(one, "elem_id", None) and hasattr(one, "interactive")
        ],
        "kept": [
            one.elem_id or type(one).__name__
            for one in tab.blocks.values()
            if hasattr(one, "value") and not getattr(one, "do_not_save_to_config", False)
        ],
        "bound": [(button.elem_id, text.elem_id) for button, text in bound],
        "listeners": len(listeners) if listeners is not None else len(page.dependencies),
    }
    sys.stdout.write(json.dumps(told, default=str) + "\n")


if __name__ == "__main__":
    main()
