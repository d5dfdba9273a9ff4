"""Earlier results to learn from: a picker of the user's own runs, and the list of paths."""

from __future__ import annotations

from typing import Any

from lib_automerge.ui.components import control, edited
from lib_automerge.ui.fields import Field, Kind
from lib_automerge.ui.form_fields import BY_NAME
from lib_automerge.ui.wiring import Offer, Wiring

PICKED = Field(
    name="earlier_run",
    kind=Kind.OFFERED,
    label="Add an earlier run",
    default="",
    info="Adds its folder to the list below.",
)


class EarlierRuns:
    """Builds the components where it is called, and wires them later."""

    def __init__(self) -> None:
        self.controls: dict[str, Any] = {}

    def build(self) -> None:
        """The picker and the list that it adds to."""
        self.controls[PICKED.name] = control(PICKED)
        self.controls["warm_start"] = control(BY_NAME["warm_start"])

    def wire(self, wiring: Wiring) -> None:
        """Connect the components."""
        setup = wiring.setup

        def picked(values: dict[str, object]) -> dict[str, object]:
            name = str(values[PICKED.name] or "")
            offered = [*setup.earlier_runs(values)]
            changed = setup.add_earlier_run(values, name) if name else {}
            return {**changed, PICKED.name: Offer(offered, None)}

        wiring.on(
            edited(self.controls[PICKED.name]),
            picked,
            ("warm_start", PICKED.name),
            reads=(PICKED.name,),
        )
