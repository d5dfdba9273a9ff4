"""The reward part of the form: the picker, what several rewards are for, guards, one image to test.

What moves there, downloads and scores, is drawn by the server and fetched by our script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from lib_automerge.ui import reward_form
from lib_automerge.ui.components import button, control, edited, html, kept_out
from lib_automerge.ui.fields import Field, Kind
from lib_automerge.ui.form_fields import BY_NAME
from lib_automerge.ui.payload_sources import path_of
from lib_automerge.ui.reward_fields import NAMES, REWARD_FIELDS, REWARD_LABELS, role_of, weight_of
from lib_automerge.ui.views.rewards import TRY, placed
from lib_automerge.ui.wiring import Wiring

TRY_PROMPT = Field(
    name="reward_try_prompt",
    kind=Kind.LINES,
    label="Its prompt",
    default="",
    info="As you would write it in the WebUI: rewards read it without weights and brackets.",
)

ALL = tuple(field.name for field in REWARD_FIELDS)
OWN = ("reward_place", "reward_weights", "reward_device", "reward_options")
"""What says nothing about which rewards there are."""


class RewardSection:
    """Builds the components where it is called, and wires them later."""

    def __init__(self) -> None:
        self.controls: dict[str, Any] = {}

    def build(self) -> None:
        """The section's components."""
        self._add("reward")
        self.list = html("reward_list")
        with gr.Accordion(
            "Several rewards and guards", open=False, elem_id="automerge_members_fold"
        ):
            self._build_members()
        with (
            gr.Column(elem_id="automerge_single_row") as self.only_single,
            gr.Accordion("Weights and device", open=False, elem_id="automerge_reward_fold"),
        ):
            for name in ("reward_weights", "reward_device", "reward_options"):
                self._add(name)
        with gr.Accordion("Test on an image", open=False, elem_id="automerge_try_fold"):
            self._build_try()

    def _build_members(self) -> None:
        with gr.Column(elem_id="automerge_members"):
            for name in NAMES:
                with gr.Row(elem_id=f"automerge_member_{name}"):
                    # one label for the pair: a row says which reward it is about
                    label = REWARD_LABELS.label(name)
                    self._add(role_of(name), label=label, info=None, scale=3, min_width=150)
                    self._add(weight_of(name), label="Weight", info=None, scale=1, min_width=80)
        self._add("guards")
        with gr.Row():
            self._add("guard_strength", min_width=140)
            self._add("diversity_strength", min_width=140)
        self._add("reward_place")
        self._add("member_options")

    def _build_try(self) -> None:
        self.image = kept_out(
            gr.File(
                label="An image",
                elem_id="automerge_reward_try_image",
                file_types=[".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"],
            )
        )
        self.prompt = control(TRY_PROMPT)
        self.test = button("reward_try", "Score the image", size="sm")
        self.message = html("reward_message")
        html("reward_said", placed(TRY, ""))

    def _add(self, name: str, **options: Any) -> None:
        self.controls[name] = control(BY_NAME[name], **options)

    def wire(self, wiring: Wiring) -> None:
        """Connect the components."""

        def picked(values: dict[str, object]) -> Mapping[str, object]:
            return reward_form.picked(values)

        def changed(values: dict[str, object]) -> Mapping[str, object]:
            return reward_form.edited(values)

        def tested(values: dict[str, object]) -> Mapping[str, object]:
            image, prompt = path_of(values["image"]), str(values["prompt"] or "")
            wiring.setup.try_rewards(values, image, prompt)
            return {}

        wiring.on(edited(self.controls["reward"]), picked, ALL, latest=True)
        own = {"reward", *OWN}
        events = [e for name in ALL if name not in own for e in edited(self.controls[name])]
        moved = ("reward", "reward_weights", "reward_device", "reward_options", "member_options")
        wiring.on(events, changed, moved, latest=True)
        for name in OWN:
            wiring.on(edited(self.controls[name]), latest=True)
        wiring.on(
            [self.test.click],
            tested,
            extra={"image": self.image, "prompt": self.prompt},
            message=self.message,
        )
