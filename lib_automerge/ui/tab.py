"""The tab: its skeleton and the set-up form. All that moves in it is filled in by our script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_automerge.app.desk import Desk
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui import messages, parameter_rules, space_rules
from lib_automerge.ui.components import BESIDE, HIDDEN, button, control, edited, html, kept_out
from lib_automerge.ui.earlier_runs import EarlierRuns
from lib_automerge.ui.form_fields import BY_NAME, FIELDS
from lib_automerge.ui.lab_tab import LabTab
from lib_automerge.ui.parameter_editor import ParameterEditor
from lib_automerge.ui.payload_editor import HostForm, PayloadEditor
from lib_automerge.ui.reward_section import RewardSection
from lib_automerge.ui.setup import Setup
from lib_automerge.ui.space_editor import SpaceEditor
from lib_automerge.ui.wiring import MESSAGE, SELECTED, Offer, Shown, Wiring

BindPaste = Callable[[Any, Any], None]
"""Registers a button and a text box with the host: a click sends the text's settings to txt2img."""

MODELS = ("model_a", "model_b", "model_c", "more_models")


def build(
    desk: Desk, *, host_form: HostForm | None = None, bind_paste: BindPaste | None = None
) -> Any:
    """Return the tab as `gr.Blocks`, to be rendered inside the host's or launched alone.

    Args:
        desk: what it works on.
        host_form: the host's txt2img form, to take prompts from.
        bind_paste: how to send settings back to it.
    """
    with (
        gr.Blocks(analytics_enabled=False, title="Automerge") as blocks,
        gr.Column(elem_id="automerge_root"),
    ):
        html("strip", _shell("strip"))
        with kept_out(gr.Tabs(elem_id="automerge_tabs")):
            with (
                gr.Tab("Search", elem_id="automerge_tab_search"),
                gr.Row(elem_id="automerge_search"),
            ):
                with gr.Column(elem_id="automerge_form", scale=1, min_width=320):
                    form = _Form(desk, host_form)
                with gr.Column(elem_id="automerge_live_column", scale=1, min_width=320):
                    form.build_start()
                    html("live", _shell("live"))
            with gr.Tab("Results", elem_id="automerge_tab_results"):
                html("results_view", _shell("results"))
            with gr.Tab("Merge lab", elem_id="automerge_tab_lab"):
                lab = LabTab(desk)
                lab.build(_shell("lab"))
            with gr.Tab("Runs", elem_id="automerge_tab_runs"):
                html("runs_view", _shell("runs"))
        load_draft = button("load_draft", "Load the draft", elem_classes=[HIDDEN])
        look_again = button("look_again", "Look again", elem_classes=[HIDDEN])
        if bind_paste is not None:
            infotext = kept_out(
                gr.Textbox(
                    label="Settings to send",
                    value="",
                    elem_id="automerge_infotext",
                    elem_classes=[HIDDEN],
                )
            )
            send = button("send_txt2img", "Send to txt2img", elem_classes=[HIDDEN])
            bind_paste(send, infotext)
        form.wire(blocks, load_draft, look_again)
        lab.wire(blocks)
    return blocks


def _shell(view: str) -> Markup:
    return element("div", "Loading ...", class_=f"automerge-{view}", data_automerge=view)


def _heading(number: int, text: str) -> None:
    kept_out(gr.HTML(element("h3", f"{number}. {text}", class_="automerge-heading")))


class _Form:
    """The left column of Search, built where it is made, and the panel that starts the run."""

    def __init__(self, desk: Desk, host_form: HostForm | None) -> None:
        self._setup = Setup(desk)
        self._editor = PayloadEditor(desk.catalogue.choices(), host_form)
        self._space = SpaceEditor()
        self._parameters = ParameterEditor()
        self._earlier = EarlierRuns()
        self._rewards = RewardSection()
        self._controls: dict[str, Any] = {}
        self._models()
        self._payloads()
        self._reward()
        self._search()
        self._controls |= self._editor.controls | self._space.controls | self._earlier.controls
        self._controls |= self._parameters.controls
        self._controls |= self._rewards.controls
        self._controls["payload_file"] = self._editor.file

    def _add(self, name: str, **options: Any) -> None:
        self._controls[name] = control(BY_NAME[name], **options)

    def _models(self) -> None:
        titles = self._setup.titles()
        with gr.Column(variant="panel", elem_id="automerge_models"):
            _heading(1, "Models")
            self._add("model_a", choices=titles)
            self._add("model_b", choices=titles)
            with gr.Column(visible=False, elem_id="automerge_model_c_row") as self.only_c:
                self._add("model_c", choices=titles)
            with gr.Column(visible=False, elem_id="automerge_more_models_row") as self.only_many:
                self._add("more_models", choices=titles)
            with gr.Row(elem_classes=[BESIDE]):
                self.method = html("method_sentence")
                self.refresh = button(
                    "models_refresh", "Refresh the list", size="sm", scale=0, min_width=110
                )
            with gr.Accordion("Method and precision", open=False, elem_id="automerge_method_fold"):
                self._add("method")
                self._add("dtype")
            with (
                gr.Column(
                    visible=False, elem_id="automerge_parameters_row"
                ) as self.only_parameters,
                gr.Accordion(
                    "Parameters of the method", open=False, elem_id="automerge_parameter_fold"
                ),
            ):
                self._parameters.build()

    def _payloads(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_payloads_section"):
            _heading(2, "Payloads")
            self._editor.build_source(self._setup.desk.sets.names())
            with gr.Accordion("Edit the prompts", open=False, elem_id="automerge_payload_fold"):
                self._editor.build_editor()

    def _reward(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_reward_section"):
            _heading(3, "Reward")
            self._rewards.build()

    def _search(self) -> None:
        with gr.Column(variant="panel", elem_id="automerge_search_section"):
            _heading(4, "Search")
            self._add("budget")
            with gr.Row(visible=False, elem_id="automerge_custom_row") as self.only_custom:
                for name in ("evaluations", "hours", "images", "target"):
                    self._add(name, min_width=115)
            self._add("stop")
            with gr.Column(visible=False, elem_id="automerge_patience_row") as self.only_waits:
                self._add("patience")
            with (
                gr.Column(elem_id="automerge_weights_row") as self.only_weights,
                gr.Accordion("Search space", open=False, elem_id="automerge_space_fold"),
            ):
                with gr.Row():
                    self._add("low", min_width=100)
                    self._add("high", min_width=100)
                with gr.Row():
                    self._add("text_encoder", min_width=140)
                    self._add("vae", min_width=140)
                self._space.build()
            with gr.Accordion(
                "Optimizer and seeds", open=False, elem_id="automerge_optimizer_fold"
            ):
                self._add("optimizer")
                self.optimizer = html("optimizer_help")
                self._add("coarse_first")
                with gr.Row():
                    for name in ("seed", "seeds_per_payload"):
                        self._add(name, min_width=100)
            with gr.Accordion(
                "Start points and earlier runs", open=False, elem_id="automerge_start_fold"
            ):
                self._earlier.build()
                self._add("start", lines=3)
                self._add("start_order")
            with gr.Accordion(
                "Noise and poor candidates", open=False, elem_id="automerge_noise_fold"
            ):
                self._add("calibration")
                self._add("early_reject")
            with gr.Accordion("When finished", open=False, elem_id="automerge_finish_fold"):
                self._add("checkpoint")
                self._add("name")
                with gr.Row():
                    for name in ("finalists", "finalist_seeds", "verdict_seeds"):
                        self._add(name, min_width=100)

    def build_start(self) -> None:
        """The checks and the buttons, in sight without scrolling: beside the form."""
        with gr.Column(variant="panel", elem_id="automerge_start_section"):
            self.checks = html("checks")
            self.message = html("message")
            self.start = button("generate", "Start run", variant="primary", interactive=False)
            with gr.Row():
                self.trial = button(
                    "trial", "Try 4 evaluations", size="sm", min_width=120, interactive=False
                )
                self.measure = button(
                    "measure", "Measure the noise", size="sm", min_width=120, interactive=False
                )

    def wire(self, blocks: Any, load_draft: Any, look_again: Any) -> None:
        """Connect everything; called when all components exist."""
        setup = self._setup
        shown = Shown(
            checks=self.checks,
            start=self.start,
            trial=self.trial,
            measure=self.measure,
            method=self.method,
            only_c=self.only_c,
            only_many=self.only_many,
            only_weights=self.only_weights,
            only_parameters=self.only_parameters,
            parameter=self._controls["parameter"],
            parameter_table=self._parameters.table,
            only_custom=self.only_custom,
            only_waits=self.only_waits,
            count=self._editor.count,
            table=self._editor.table,
            selected=self._controls[SELECTED],
            space=self._space.picture,
            reward=self._rewards.list,
            only_single=self._rewards.only_single,
            optimizer=self.optimizer,
            earlier=self._controls["earlier_run"],
        )
        wiring = Wiring(setup, self._controls, shown, self.message)
        own = {"model_a", "method", "payload_set", "payloads", "rules", "parameters"}
        own |= {*self._rewards.controls}
        for field in FIELDS:
            if field.name not in own:
                wiring.on(edited(self._controls[field.name]), latest=True)
        self._editor.wire(wiring)
        self._space.wire(wiring)
        self._parameters.wire(wiring)
        self._earlier.wire(wiring)
        self._rewards.wire(wiring)

        def blocks_of(values: dict[str, object]) -> Offer:
            architecture = setup.architecture(values)
            return Offer(space_rules.choices(architecture) if architecture else [], [])

        def other_method(values: dict[str, object]) -> dict[str, object]:
            names = [*parameter_rules.of_search(setup.method(values))]
            return {"parameter": Offer(names, names[0] if names else "")}

        def filled(_values: dict[str, object]) -> dict[str, object]:
            new = setup.fill()
            titles = setup.titles()
            offered = {name: Offer(titles, new[name]) for name in MODELS}
            sets = Offer(setup.desk.sets.names(), new["payload_set"])
            gone = setup.gone()
            return {
                **new,
                **offered,
                **other_method(new),
                "payload_set": sets,
                "space_blocks": blocks_of(new),
                MESSAGE: messages.left_out(gone) if gone else EMPTY,
            }

        def refreshed(values: dict[str, object]) -> dict[str, object]:
            titles = setup.titles()
            return {name: Offer(titles, values[name]) for name in MODELS}

        def other_a(values: dict[str, object]) -> dict[str, object]:
            return {**setup.model_a_changed(values), "space_blocks": blocks_of(values)}

        def started(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.start(values)}

        def tried(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.trial(values)}

        def measured(values: dict[str, object]) -> dict[str, object]:
            return {MESSAGE: setup.measure(values)}

        everything = (*(field.name for field in FIELDS), "space_blocks", "parameter")
        wiring.on([blocks.load], filled, everything, keep=False)
        wiring.on([load_draft.click], filled, everything, keep=False)
        wiring.on([look_again.click], lambda _values: {MESSAGE: EMPTY}, keep=False)
        wiring.on([self.refresh.click], refreshed, MODELS)
        wiring.on(
            edited(self._controls["model_a"]),
            other_a,
            ("payload_set", "payloads", "space_blocks"),
            latest=True,
        )
        wiring.on(edited(self._controls["method"]), other_method, ("parameter",), latest=True)
        wiring.on([self.start.click], started)
        wiring.on([self.trial.click], tried)
        wiring.on([self.measure.click], measured)
