"""The payload editor: the table of prompts, the fields of one of them, and ways to get more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gradio as gr

from lib_automerge.app.ports import Choices
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError
from lib_automerge.study.formats import plural
from lib_automerge.study.payload_sets import PayloadSet
from lib_automerge.ui import payload_list, payload_sources
from lib_automerge.ui.components import BESIDE, HIDDEN, button, control, edited, html, kept_out
from lib_automerge.ui.fields import Field, Kind
from lib_automerge.ui.form_fields import BY_NAME
from lib_automerge.ui.payload_fields import (
    HIRES,
    MORE,
    PAYLOAD_FIELDS,
    SAME,
    SETTINGS,
    payload_of,
    payload_values,
)
from lib_automerge.ui.texts import payloads_text
from lib_automerge.ui.wiring import MESSAGE, SELECTED, Offer, Wiring

EDITED = tuple(field.name for field in PAYLOAD_FIELDS)

PICKED = Field(name=SELECTED, kind=Kind.OFFERED, label="Prompt to edit", default="")
SET_NAME = Field(
    name="payload_set_name",
    kind=Kind.TEXT,
    label="Name of the set",
    default="",
    info="Saving under the name of one of your sets replaces it.",
)


class HostForm(Protocol):
    """The host's own txt2img form."""

    @property
    def components(self) -> Mapping[str, Any]:
        """Its components by the payload's field that they hold."""

    def payload(self, values: Mapping[str, object]) -> Payload:
        """The payload that values of these components describe.

        Raises:
            ConfigError: they describe none.
        """
        ...


class PayloadEditor:
    """Builds the components where it is called, and wires them later.

    Args:
        choices: names that the host knows.
        host_form: its txt2img form; None if it has none.
    """

    def __init__(self, choices: Choices, host_form: HostForm | None) -> None:
        self._choices = choices
        self._host_form = host_form
        self.controls: dict[str, Any] = {}

    def build_source(self, sets: Sequence[str]) -> None:
        """The set picker and what stands beside it."""
        self.controls["payload_set"] = control(BY_NAME["payload_set"], sets)
        with gr.Row(elem_classes=[BESIDE]):
            self.count = html("payload_count")
            self.refresh = button(
                "payload_refresh", "Refresh the list", size="sm", scale=0, min_width=110
            )
        if self._host_form is not None:
            self.from_host = button("payload_from_txt2img", "Add prompt from txt2img", size="sm")

    def build_editor(self) -> None:
        """The table and everything that changes it."""
        self.table = html("payload_table")
        self.controls["payload_pick"] = kept_out(
            gr.Textbox(
                label="Row that was clicked",
                value="",
                elem_id="automerge_payload_pick",
                elem_classes=[HIDDEN],
            )
        )
        self.controls[SELECTED] = control(PICKED)
        self._build_fields(SETTINGS)
        with gr.Accordion("Hires. fix", open=False, elem_id="automerge_payload_hires_fold"):
            self._build_fields(HIRES)
        with gr.Accordion("More settings", open=False, elem_id="automerge_payload_more_fold"):
            self._build_fields(MORE)
        with gr.Row():
            self.update = button(
                "payload_update", "Update", variant="primary", size="sm", min_width=60
            )
            self.add = button("payload_add", "Add as new", size="sm", min_width=60)
            self.duplicate = button("payload_duplicate", "Duplicate", size="sm", min_width=60)
            self.remove = button("payload_remove", "Remove", size="sm", min_width=60)
            self.clear = button("payload_clear", "Remove all", size="sm", min_width=60)
        self.message = html("payload_message")
        self.file = kept_out(
            gr.File(
                label="Add from a file: an image with PNG info, or payloads in JSON",
                elem_id="automerge_payload_file",
                file_types=[".png", ".jpg", ".jpeg", ".webp", ".json"],
                height=110,
            )
        )
        with gr.Row(elem_classes=[BESIDE]):
            self.controls["payload_set_name"] = control(SET_NAME, scale=3)
            self.save = button("payload_set_save", "Save as set", size="sm", scale=0, min_width=110)
            self.delete = button(
                "payload_set_delete", "Delete set", size="sm", scale=0, min_width=110
            )
        with gr.Accordion("As text", open=False, elem_id="automerge_payload_text_fold"):
            self.controls["payloads"] = control(BY_NAME["payloads"], lines=6)

    def _build_fields(self, fields: Sequence[Field]) -> None:
        offered = {
            "payload_sampler": self._choices.samplers,
            "payload_scheduler": self._choices.schedulers,
            "payload_styles": self._choices.styles,
            "payload_hires_upscaler": self._choices.upscalers,
            "payload_hires_sampler": (SAME, *self._choices.samplers),
            "payload_hires_scheduler": (SAME, *self._choices.schedulers),
        }
        for row in _rows(fields):
            with gr.Row():
                for field in row:
                    self.controls[field.name] = control(
                        field, offered.get(field.name, ()), min_width=100
                    )

    def wire(self, wiring: Wiring) -> None:
        """Connect the components."""
        setup = wiring.setup
        listed = ("payloads", SELECTED)

        def after(payloads: tuple[Payload, ...], name: str) -> dict[str, object]:
            names = [payload.name for payload in payloads]
            shown = payload_list.find(payloads, name)
            fields = payload_values(shown) if shown else {}
            return {
                "payloads": payloads_text(payloads),
                SELECTED: Offer(names, name),
                **fields,
            }

        def select(values: dict[str, object], name: str) -> dict[str, object]:
            found = payload_list.find(setup.payloads(values), name)
            return {SELECTED: name, **payload_values(found)} if found else {}

        def selected(values: dict[str, object]) -> dict[str, object]:
            return select(values, str(values[SELECTED] or ""))

        def clicked(values: dict[str, object]) -> dict[str, object]:
            return {**select(values, str(values["payload_pick"] or "")), "payload_pick": ""}

        def chosen_set(values: dict[str, object]) -> dict[str, object]:
            changed = setup.choose_set(values)
            payloads = setup.payloads({**values, **changed})
            return {**changed, **after(payloads, payloads[0].name if payloads else "")}

        def refreshed(values: dict[str, object]) -> dict[str, object]:
            return {"payload_set": Offer(setup.desk.sets.names(), values["payload_set"])}

        def updated(values: dict[str, object]) -> dict[str, object]:
            name = str(values[SELECTED] or "")
            return after(*payload_list.replace(setup.payloads(values), name, payload_of(values)))

        def added(values: dict[str, object]) -> dict[str, object]:
            new = payload_of(values)
            return after(*payload_list.add(setup.payloads(values), new))

        def duplicated(values: dict[str, object]) -> dict[str, object]:
            name = str(values[SELECTED] or "")
            return after(*payload_list.duplicate(setup.payloads(values), name))

        def removed(values: dict[str, object]) -> dict[str, object]:
            name = str(values[SELECTED] or "")
            return after(*payload_list.remove(setup.payloads(values), name))

        def cleared(_values: dict[str, object]) -> dict[str, object]:
            return {**after((), ""), "payload_set": ""}

        def loaded(values: dict[str, object]) -> dict[str, object]:
            path = payload_sources.path_of(values["payload_file"])
            if path is None:
                return {}
            payloads, name = setup.payloads(values), ""
            found = payload_sources.read(path)
            for new in found:
                payloads, name = payload_list.add(payloads, new)
            told = f"Added {plural(len(found), 'prompt')} from {path.name}."
            return {**after(payloads, name), "payload_file": None, MESSAGE: told}

        def saved(values: dict[str, object]) -> dict[str, object]:
            name = " ".join(str(values["payload_set_name"] or "").split())
            payloads = setup.payloads(values)
            if not payloads:
                raise ConfigError("there are no prompts to save. Add one first.")
            setup.desk.sets.save(PayloadSet(name=name, payloads=payloads))
            return {
                "payload_set": Offer(setup.desk.sets.names(), name),
                MESSAGE: f"Saved {plural(len(payloads), 'prompt')} as {name!r}.",
            }

        def deleted(values: dict[str, object]) -> dict[str, object]:
            name = str(values["payload_set"] or "")
            setup.desk.sets.delete(name)
            return {
                "payload_set": Offer(setup.desk.sets.names(), ""),
                MESSAGE: f"Deleted the set {name!r}. Its prompts are still in the form.",
            }

        def from_host(values: dict[str, object]) -> dict[str, object]:
            assert self._host_form is not None
            fields = {name: values[f"host:{name}"] for name in self._host_form.components}
            new = self._host_form.payload(fields)
            payloads, name = payload_list.add(setup.payloads(values), new)
            return {**after(payloads, name), MESSAGE: f"Added the prompt of txt2img as {name}."}

        def on(events: Sequence[Any], *arguments: Any, **options: Any) -> None:
            wiring.on(events, *arguments, message=self.message, **options)

        everything = (*listed, *EDITED)
        wiring.on(
            edited(wiring.controls["payload_set"]),
            chosen_set,
            ("payload_set", *everything),
            latest=True,
        )
        wiring.on([self.refresh.click], refreshed, ("payload_set",))
        on(
            [wiring.controls["payload_pick"].change],
            clicked,
            (SELECTED, "payload_pick", *EDITED),
            reads=("payload_pick",),
            keep=False,
            latest=True,
        )
        on(edited(wiring.controls[SELECTED]), selected, EDITED, latest=True)
        on(edited(wiring.controls["payloads"]), latest=True)
        on([self.update.click], updated, everything, reads=EDITED)
        on([self.add.click], added, everything, reads=EDITED)
        on([self.duplicate.click], duplicated, everything)
        on([self.remove.click], removed, everything)
        on([self.clear.click], cleared, (*everything, "payload_set"))
        on(
            [self.file.upload],
            loaded,
            (*everything, "payload_file"),
            reads=("payload_file",),
        )
        on([self.save.click], saved, ("payload_set",), reads=("payload_set_name",))
        on([self.delete.click], deleted, ("payload_set",))
        if self._host_form is not None:
            extra = {f"host:{name}": one for name, one in self._host_form.components.items()}
            wiring.on([self.from_host.click], from_host, everything, extra=extra)


def _rows(fields: Sequence[Field]) -> list[list[Field]]:
    """Fields in rows: long texts alone, the others four by four."""
    rows: list[list[Field]] = []
    for field in fields:
        alone = field.kind in (Kind.LINES, Kind.NAMES)
        open_row = rows and rows[-1][0].kind not in (Kind.LINES, Kind.NAMES)
        if alone or not open_row or len(rows[-1]) >= 4:
            rows.append([field])
        else:
            rows[-1].append(field)
    return rows
