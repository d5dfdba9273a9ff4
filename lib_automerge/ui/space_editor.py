"""The space editor: few controls for all blocks, and a picture of what they make."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import ConfigError
from lib_automerge.ui import space_rules
from lib_automerge.ui.components import BESIDE, button, control, edited, html
from lib_automerge.ui.fields import Field, Kind, Reader
from lib_automerge.ui.form_fields import BY_NAME
from lib_automerge.ui.setup import Setup
from lib_automerge.ui.texts import rules_of, rules_text
from lib_automerge.ui.wiring import Wiring

EDITOR: tuple[Field, ...] = (
    Field(
        name="space_blocks",
        kind=Kind.NAMES,
        label="Blocks",
        default=(),
        info="Whole groups or single blocks of model A's family.",
    ),
    Field(
        name="space_action",
        kind=Kind.RADIO,
        label="Rule",
        default=space_rules.FREEZE,
        info="What to do with the chosen blocks.",
        choices=space_rules.ACTIONS,
    ),
    Field(
        name="space_low",
        kind=Kind.OPTIONAL,
        label="Low",
        default="",
        info="Of the search. Empty: the run's.",
    ),
    Field(
        name="space_high",
        kind=Kind.OPTIONAL,
        label="High",
        default="",
        info="Of the search. Empty: the run's.",
    ),
    Field(
        name="space_weight",
        kind=Kind.NUMBER,
        label="Weight",
        default=0,
        info="To freeze at: 0 is A, 1 is B.",
    ),
)

READS = tuple(field.name for field in EDITOR)


class SpaceEditor:
    """Builds the components where it is called, and wires them later."""

    def __init__(self) -> None:
        self.controls: dict[str, Any] = {}

    def build(self) -> None:
        """The editor's components."""
        fields = {field.name: field for field in EDITOR}
        with gr.Row():
            self.by_group = button("space_by_group", "One weight each for IN, MID, OUT", size="sm")
            self.all_free = button("space_all_free", "All free", size="sm")
        self.picture = html("space_picture")
        self.controls["space_blocks"] = control(fields["space_blocks"])
        self.controls["space_action"] = control(fields["space_action"])
        with gr.Row(elem_classes=[BESIDE]):
            for name in ("space_low", "space_high", "space_weight"):
                self.controls[name] = control(fields[name], min_width=90)
            self.apply = button("space_apply", "Apply rule", size="sm", min_width=90)
        self.message = html("space_message")
        with gr.Accordion("As text", open=False, elem_id="automerge_rules_fold"):
            self.controls["rules"] = control(BY_NAME["rules"], lines=4)

    def wire(self, wiring: Wiring) -> None:
        """Connect the components."""

        def applied(values: dict[str, object]) -> dict[str, object]:
            form = Reader(EDITOR, values)
            rules = space_rules.apply(
                rules_of(str(values["rules"] or "")),
                form.names("space_blocks"),
                form.text("space_action"),
                _architecture(wiring.setup, values),
                low=form.number_or_none("space_low"),
                high=form.number_or_none("space_high"),
                weight=form.number_or_none("space_weight"),
            )
            return {"rules": rules_text(rules)}

        def by_group(values: dict[str, object]) -> dict[str, object]:
            rules = space_rules.by_group(_architecture(wiring.setup, values))
            return {"rules": rules_text(rules)}

        def all_free(_values: dict[str, object]) -> dict[str, object]:
            return {"rules": "{}"}

        wiring.on([self.apply.click], applied, ("rules",), reads=READS, message=self.message)
        wiring.on([self.by_group.click], by_group, ("rules",), message=self.message)
        wiring.on([self.all_free.click], all_free, ("rules",), message=self.message)
        wiring.on(edited(wiring.controls["rules"]), latest=True)


def _architecture(setup: Setup, values: dict[str, object]) -> Architecture:
    found = setup.architecture(values)
    if found is None:
        raise ConfigError("the blocks are not known yet. Choose model A first.")
    return found
