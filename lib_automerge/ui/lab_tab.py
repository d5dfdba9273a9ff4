"""The merge lab's part of the page: its components, built where it is told to, and wired later."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_automerge.app.desk import Desk
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import BASE, LabMethod
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui import lab_blocks, lab_words, messages
from lib_automerge.ui.components import BESIDE, HIDDEN, button, control, edited, html, kept_out
from lib_automerge.ui.fields import Kind, Reader, defaults
from lib_automerge.ui.lab_fields import (
    ASKED,
    BLOCK_FIELDS,
    FIXED,
    LAB_BY_NAME,
    LAB_FIELDS,
    MATCHING,
    RECIPE_TEXT,
    field_name,
    label_of,
)
from lib_automerge.ui.lab_form import by_block, method_of, values_text, with_matching
from lib_automerge.ui.lab_recipes import QuestionError, answers_to, asked, question_of
from lib_automerge.ui.lab_setup import LabSetup, LabView
from lib_automerge.ui.wiring import MESSAGE, FormWiring, Offer

PREFIX = "lab_"
ALL = tuple(field.name for field in LAB_FIELDS)
SLOTS = (*FIXED, "lab_base", "lab_models")
OFFERED = frozenset(
    field.name for field in (*LAB_FIELDS, *BLOCK_FIELDS, *ASKED) if field.kind is Kind.OFFERED
)
PICKED = tuple(field.name for field in BLOCK_FIELDS)
BY_BLOCK = {field.name: field for field in BLOCK_FIELDS}
WIDE = (Kind.RADIO, Kind.TEXT)


class LabTab:
    """Builds and connects the merge lab.

    Args:
        desk: what it works on.
    """

    def __init__(self, desk: Desk) -> None:
        self._setup = LabSetup(desk)
        self._controls: dict[str, Any] = {}
        self._slots: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._questions: dict[str, Any] = {}

    def build(self, view: Markup) -> None:
        """Make the form, what starts a merge, and the place where it is shown.

        Args:
            view: the shell that the script fills.
        """
        with gr.Row(elem_id="automerge_lab"):
            with gr.Column(elem_id="automerge_lab_form", scale=1, min_width=320):
                self._build_method()
                self._build_models()
                self._build_parameters()
                self._build_file()
                self._build_recipe()
            with gr.Column(elem_id="automerge_lab_live_column", scale=1, min_width=320):
                self._build_start()
                html("lab_view", view)

    def _add(self, name: str, **options: Any) -> None:
        self._controls[name] = control(LAB_BY_NAME[name], **options)

    def _build_method(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_lab_method_section"):
            _heading("1. Method")
            self._add("lab_method")
            self._about = html("lab_about")

    def _build_models(self) -> None:
        titles = self._setup.titles()
        with gr.Column(variant="panel", elem_id="automerge_lab_models_section"):
            _heading("2. Models")
            for name in SLOTS:
                with gr.Column(
                    visible=name in FIXED[:2], elem_id=f"automerge_{name}_row"
                ) as self._slots[name]:
                    self._add(name, choices=titles)
                    if name == "lab_models":
                        with gr.Row(elem_classes=[BESIDE]):
                            self._controls[MATCHING.name] = control(MATCHING, min_width=160)
                            self._match = button("lab_match", "Add all that match", size="sm")
            with gr.Row(elem_classes=[BESIDE]):
                html("lab_models_note")
                self._refresh = button(
                    "lab_refresh", "Refresh the list", size="sm", scale=0, min_width=110
                )
        with gr.Column(elem_id="automerge_lab_hidden", elem_classes=[HIDDEN]):
            for name in ("lab_values", "lab_digests", "lab_asked"):
                self._add(name)

    def _build_parameters(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_lab_parameters_section"):
            _heading("3. Parameters")
            first = LAB_BY_NAME["lab_method"].default
            for method in catalogue.METHODS.values():
                with gr.Column(
                    visible=method.label == first, elem_id=f"automerge_lab_{method.name}_row"
                ) as self._groups[method.name]:
                    self._build_group(method)
            with gr.Accordion("Values by block", open=False, elem_id="automerge_lab_blocks_fold"):
                with gr.Column(elem_id="automerge_lab_blocks_row") as self._block_wise:
                    self._controls["lab_parameter"] = control(BY_BLOCK["lab_parameter"])
                    self._controls["lab_blocks"] = control(BY_BLOCK["lab_blocks"])
                    with gr.Row(elem_classes=[BESIDE]):
                        self._controls["lab_value"] = control(BY_BLOCK["lab_value"], min_width=90)
                        self._put = button("lab_put", "Set", size="sm", min_width=60)
                        self._take = button("lab_take", "Clear", size="sm", min_width=60)
                        self._clear = button("lab_clear", "Clear all", size="sm", min_width=80)
                    self._block_message = html("lab_block_message")
                self._table = html("lab_table")

    def _build_group(self, method: LabMethod) -> None:
        """The parameters of a method: numbers side by side, all else alone."""
        names = [field_name(method.name, one.name) for one in method.parameters]
        small = [name for name in names if LAB_BY_NAME[name].kind not in WIDE]
        for pair in (small[start : start + 2] for start in range(0, len(small), 2)):
            with gr.Row():
                for name in pair:
                    self._add(name, min_width=140)
        for name in names:
            if name not in small:
                self._add(name)

    def _build_file(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_lab_file_section"):
            _heading("4. File")
            self._add("lab_name")
            with gr.Row():
                self._add("lab_dtype", min_width=200)
                self._add("lab_memory", min_width=200)
            with gr.Accordion(lab_words.BAD_TENSORS, open=False, elem_id="automerge_lab_bad_fold"):
                self._add("lab_mismatch")
                self._add("lab_zero_bad")

    def _build_recipe(self) -> None:
        with gr.Accordion("Recipe as text", open=False, elem_id="automerge_lab_recipe_fold"):
            self._add("lab_format")
            with gr.Column(visible=False, elem_id="automerge_lab_give_up_row") as self._give_up:
                self._add("lab_give_up")
            self._recipe = html("lab_recipe_out")
            self._contents = button("lab_contents", lab_words.CONTENTS, size="sm", visible=False)
            self._contents_message = html("lab_contents_message")
            self._controls[RECIPE_TEXT.name] = control(RECIPE_TEXT, lines=4)
            for field in ASKED:
                with gr.Column(
                    visible=False, elem_id=f"automerge_{field.name}_row"
                ) as self._questions[field.name]:
                    self._controls[field.name] = control(field)
            self._load = button("lab_load", "Load the recipe", size="sm")
            self._recipe_message = html("lab_recipe_message")

    def _build_start(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_lab_start_section"):
            self._checks = html("lab_checks")
            self._message = html("lab_message")
            self._save = button(
                "lab_save", "Save merged checkpoint", variant="primary", interactive=False
            )
            self._preview = button("lab_preview", "Preview one image", interactive=False)
            html(
                "lab_optimise",
                element(
                    "button",
                    "Optimise these parameters",
                    type="button",
                    class_="automerge-button",
                    data_action="optimise",
                    title="Search for the best values of them, starting from these.",
                ),
            )
            with gr.Accordion(
                "Prompt of the preview", open=False, elem_id="automerge_lab_preview_fold"
            ):
                self._add("lab_set", choices=self._setup.desk.sets.names())
                self._add("lab_payload")

    # --- connecting -----------------------------------------------------------------------------

    def _shown(self) -> list[Any]:
        return [
            self._checks,
            self._save,
            self._preview,
            self._about,
            *self._slots.values(),
            *self._groups.values(),
            *self._questions.values(),
            self._block_wise,
            self._controls["lab_parameter"],
            self._table,
            self._recipe,
            self._give_up,
            self._contents,
            self._controls["lab_payload"],
        ]

    def _draw(self, values: dict[str, object]) -> list[Any]:
        view = self._setup.view(values)
        return [
            view.checks,
            gr.update(interactive=view.ready),
            gr.update(interactive=view.previewable),
            view.about,
            *(gr.update(visible=_wanted(view, name)) for name in self._slots),
            *(gr.update(visible=name == view.method.name) for name in self._groups),
            *(gr.update(visible=name == question_of(values)) for name in self._questions),
            gr.update(visible=bool(view.parameters)),
            gr.update(visible=len(view.parameters) > 1, choices=list(view.parameters)),
            view.table,
            view.text.shown,
            gr.update(visible=view.text.lossy),
            gr.update(visible=view.text.unread),
            gr.update(choices=list(view.payloads)),
        ]

    def wire(self, blocks: Any) -> None:
        """Connect everything; called outside of all tabs, when all components exist."""
        setup = self._setup
        wiring = FormWiring(
            self._controls,
            ALL,
            keep=setup.keep,
            draw=self._draw,
            shown=self._shown(),
            message=self._message,
            offered=OFFERED,
            prefix=PREFIX,
        )
        look_again = button("lab_look_again", "Look again", elem_classes=[HIDDEN])
        own = {*SLOTS, "lab_method", "lab_set"}
        for field in LAB_FIELDS:
            if field.name not in own:
                wiring.on(edited(self._controls[field.name]), latest=True)

        def filled(_values: dict[str, object]) -> dict[str, object]:
            new = setup.fill()
            titles = setup.titles()
            offered = {name: Offer(titles, new[name]) for name in SLOTS}
            sets = Offer(setup.desk.sets.names(), new["lab_set"])
            return {**new, **offered, "lab_set": sets, **picked(new)}

        def picked(values: dict[str, object]) -> dict[str, object]:
            labels = [label_of(one.name) for one in lab_blocks.block_wise(method_of(values))]
            return {
                "lab_blocks": Offer(setup.block_choices(values), []),
                "lab_parameter": Offer(labels, labels[0] if labels else ""),
            }

        def other_models(values: dict[str, object]) -> dict[str, object]:
            # what a recipe knew of the models' contents is about other files
            return {"lab_digests": "{}", "lab_blocks": picked(values)["lab_blocks"]}

        def refreshed(values: dict[str, object]) -> dict[str, object]:
            titles = setup.refresh()
            return {name: Offer(titles, values[name]) for name in SLOTS}

        def looked(values: dict[str, object]) -> dict[str, object]:
            # a merge that was just saved can be merged on
            return {**refreshed(values), MESSAGE: EMPTY}

        def matched(values: dict[str, object]) -> dict[str, object]:
            text = str(values[MATCHING.name] or "")
            models, count = with_matching(text, setup.refresh(), values)
            told = f"Added {count}: {len(models)} models are chosen."
            new = {**values, "lab_models": models}
            return {"lab_models": models, **other_models(new), MESSAGE: told}

        def loaded(values: dict[str, object]) -> dict[str, object]:
            text = str(values[RECIPE_TEXT.name] or "")
            try:
                found = setup.load(text, values)
            except QuestionError as error:
                offer = {error.field: Offer(error.choices, "")} if error.choices else {}
                open_one = {"lab_asked": asked(error.field, text), MESSAGE: messages.trouble(error)}
                return answers_to(text, values) | offer | open_one
            new = {**values, **found.values}
            told = " ".join(["The form holds the recipe.", *found.notes])
            answered = {"lab_asked": "", **defaults(ASKED), RECIPE_TEXT.name: ""}
            return {**found.values, **picked(new), **answered, MESSAGE: told}

        def contents(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.read_contents(values)}

        def saved(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.save(values)}

        def previewed(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.preview(values)}

        answers = tuple(field.name for field in ASKED)
        everything = (*ALL, "lab_blocks", "lab_parameter")
        wiring.on([blocks.load], filled, everything, keep=False)
        wiring.on([look_again.click], looked, SLOTS, keep=False)
        wiring.on([self._refresh.click], refreshed, SLOTS)
        wiring.on(
            edited(self._controls["lab_method"]),
            picked,
            ("lab_blocks", "lab_parameter"),
            latest=True,
        )
        for name in SLOTS:
            wiring.on(
                edited(self._controls[name]),
                other_models,
                ("lab_digests", "lab_blocks"),
                latest=True,
            )
        wiring.on(
            edited(self._controls["lab_set"]),
            lambda _values: {"lab_payload": ""},
            ("lab_payload",),
            latest=True,
        )
        wiring.on(
            [self._match.click],
            matched,
            ("lab_models", "lab_digests", "lab_blocks"),
            reads=(MATCHING.name,),
        )
        wiring.on(
            [self._load.click],
            loaded,
            (*everything, *answers, RECIPE_TEXT.name),
            reads=(*answers, RECIPE_TEXT.name),
            message=self._recipe_message,
        )
        wiring.on([self._contents.click], contents, message=self._contents_message)
        self._wire_blocks(wiring)
        wiring.on([self._save.click], saved)
        wiring.on([self._preview.click], previewed)

    def _wire_blocks(self, wiring: FormWiring) -> None:
        setup = self._setup

        def changed(values: dict[str, object], value: float | None) -> dict[str, object]:
            form = Reader(BLOCK_FIELDS, values)
            architecture = setup.known_architecture(values)
            parameter = lab_blocks.named_parameter(method_of(values), form.text("lab_parameter"))
            picked = form.names("lab_blocks")
            new = lab_blocks.put(by_block(values), parameter, picked, value, architecture)
            return {"lab_values": values_text(new)}

        def put(values: dict[str, object]) -> dict[str, object]:
            return changed(values, Reader(BLOCK_FIELDS, values).number("lab_value"))

        def taken(values: dict[str, object]) -> dict[str, object]:
            return changed(values, None)

        def cleared(_values: dict[str, object]) -> dict[str, object]:
            return {"lab_values": "{}"}

        for press, work in ((self._put, put), (self._take, taken), (self._clear, cleared)):
            wiring.on(
                [press.click], work, ("lab_values",), reads=PICKED, message=self._block_message
            )


def _wanted(view: LabView, slot: str) -> bool:
    """Whether the method takes a model in this slot."""
    method = view.method
    if slot == "lab_models":
        return not method.roles
    role = slot.removeprefix(PREFIX)
    return method.based if role == BASE else role in method.roles


def _heading(text: str) -> None:
    kept_out(gr.HTML(element("h3", text, class_="automerge-heading")))
