"""The editor for a method's parameters in the search form: what is fixed and what is searched."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_automerge.ui import parameter_rules
from lib_automerge.ui.components import BESIDE, button, control, edited, html
from lib_automerge.ui.fields import Field, Kind, Reader
from lib_automerge.ui.form_fields import BY_NAME
from lib_automerge.ui.wiring import Wiring

EDITOR: tuple[Field, ...] = (
    Field(
        name="parameter",
        kind=Kind.OFFERED,
        label="Parameter",
        default="",
        info="Of the merge method.",
    ),
    Field(
        name="parameter_action",
        kind=Kind.RADIO,
        label="What to do with it",
        default=parameter_rules.SEARCH,
        info="The search finds the best value, or it has yours.",
        choices=parameter_rules.ACTIONS,
    ),
    Field(
        name="parameter_low",
        kind=Kind.OPTIONAL,
        label="Low",
        default="",
        info="Empty: the least.",
    ),
    Field(
        name="parameter_high",
        kind=Kind.OPTIONAL,
        label="High",
        default="",
        info="Empty: the most.",
    ),
    Field(
        name="parameter_value",
        kind=Kind.TEXT,
        label="Value",
        default="",
        info="To fix; or 1, 2, 5 to try.",
    ),
)

READS = tuple(field.name for field in EDITOR)


class ParameterEditor:
    """Builds the components where it is called, and wires them later."""

    def __init__(self) -> None:
        self.controls: dict[str, Any] = {}

    def build(self) -> None:
        """The editor's components."""
        fields = {field.name: field for field in EDITOR}
        self.table = html("parameter_table")
        self.controls["parameter"] = control(fields["parameter"])
        self.controls["parameter_action"] = control(fields["parameter_action"])
        with gr.Row(elem_classes=[BESIDE]):
            for name in ("parameter_low", "parameter_high", "parameter_value"):
                self.controls[name] = control(fields[name], min_width=90)
            self.apply = button("parameter_apply", "Apply", size="sm", min_width=90)
        self.clear = button("parameter_clear", "All default", size="sm")
        self.message = html("parameter_message")
        with gr.Accordion("As text", open=False, elem_id="automerge_parameters_fold"):
            self.controls["parameters"] = control(BY_NAME["parameters"], lines=4)

    def wire(self, wiring: Wiring) -> None:
        """Connect the components."""

        def applied(values: dict[str, object]) -> dict[str, object]:
            form = Reader(EDITOR, values)
            text = parameter_rules.apply(
                str(values["parameters"] or ""),
                wiring.setup.method(values),
                form.text("parameter"),
                form.text("parameter_action"),
                low=form.number_or_none("parameter_low"),
                high=form.number_or_none("parameter_high"),
                values=form.text("parameter_value"),
            )
            return {"parameters": text}

        def cleared(_values: dict[str, object]) -> dict[str, object]:
            return {"parameters": "{}"}

        wiring.on([self.apply.click], applied, ("parameters",), reads=READS, message=self.message)
        wiring.on([self.clear.click], cleared, ("parameters",), message=self.message)
        wiring.on(edited(wiring.controls["parameters"]), latest=True)
