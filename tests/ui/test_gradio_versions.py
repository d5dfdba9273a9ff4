"""The tab is the same under every Gradio in use: same elements, same kinds, same values.

The environments are made by `python tasks.py test`, which names their interpreters in
AUTOMERGE_GRADIO_ENVS; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lib_automerge.ui.form_fields import FIELDS
from lib_automerge.ui.lab_fields import BLOCK_FIELDS, LAB_FIELDS
from lib_automerge.ui.payload_fields import PAYLOAD_FIELDS

INTERPRETERS = [
    path for path in os.environ.get("AUTOMERGE_GRADIO_ENVS", "").split(os.pathsep) if path
]
SCRIPT = Path(__file__).with_name("build_tab.py")

pytestmark = pytest.mark.skipif(
    not INTERPRETERS, reason="no AUTOMERGE_GRADIO_ENVS: run the tests by python tasks.py test"
)


@pytest.fixture(scope="module")
def tabs() -> dict[str, dict[str, Any]]:
    """What the tab is made of, by Gradio version."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    running = [
        subprocess.Popen(
            [interpreter, str(SCRIPT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for interpreter in INTERPRETERS
    ]
    found = {}
    for process in running:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        told = json.loads(output.splitlines()[-1])
        found[told["version"]] = told
    return found


def test_each_environment_has_a_gradio_of_its_own(tabs):
    assert len(tabs) == len(INTERPRETERS)


def test_all_are_made_of_the_same(tabs):
    first, *others = tabs.values()
    for other in others:
        for part in ("ids", "kinds", "values", "labels", "listeners"):
            assert other[part] == first[part], f"{other['version']}: {part}"


def test_ids_are_unique_and_ours(tabs):
    for tab in tabs.values():
        assert [name for name, count in Counter(tab["ids"]).items() if count > 1] == []
        assert all(name.startswith("automerge_") for name in tab["ids"])


def test_every_field_is_there(tabs):
    for tab in tabs.values():
        every = (*FIELDS, *PAYLOAD_FIELDS, *LAB_FIELDS, *BLOCK_FIELDS)
        wanted = {f"automerge_{field.name}" for field in every}
        assert wanted <= set(tab["ids"])
        fields = [name for name, kind in tab["kinds"].items() if kind not in CONTAINERS]
        assert [name for name in fields if not tab["labels"][name]] == []


CONTAINERS = {"Column", "Row", "Tabs", "HTML", "Button"}


def test_the_hosts_and_our_script_find_what_they_look_for(tabs):
    for tab in tabs.values():
        assert {
            "automerge_root",
            "automerge_strip",
            "automerge_tabs",
            "automerge_tab_search",
            "automerge_tab_results",
            "automerge_tab_lab",
            "automerge_tab_runs",
            "automerge_search",
            "automerge_form",
            "automerge_live_column",
            "automerge_live",
            "automerge_results_view",
            "automerge_runs_view",
            "automerge_generate",
            "automerge_measure",
            "automerge_message",
            "automerge_checks",
            "automerge_lab_form",
            "automerge_lab_view",
            "automerge_lab_save",
            "automerge_lab_preview",
            "automerge_lab_recipe",
            "automerge_lab_load",
            "automerge_lab_look_again",
            "automerge_load_draft",
            "automerge_look_again",
            "automerge_infotext",
            "automerge_send_txt2img",
            "automerge_payload_pick",
        } <= set(tab["ids"])
        # the WebUI rings for new thumbnails in galleries
        assert "Gallery" not in tab["kinds"].values()
        assert tab["bound"] == [["automerge_send_txt2img", "automerge_infotext"]]


def test_nothing_is_kept_in_the_hosts_ui_config(tabs):
    for tab in tabs.values():
        assert tab["kept"] == []
