"""What can be taken from a run: the checkpoint, and the weights in every order in use."""

from __future__ import annotations

import json
from pathlib import Path

from lib_automerge.app.checkpoint_names import checkpoint_name
from lib_automerge.app.desk import Opened
from lib_automerge.domain import weights
from lib_automerge.domain.recipe import recipe_json
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.findings import Findings, candidates, label_of, recipe_of
from lib_automerge.study.formats import listed, plus_minus
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.views.parts import button

PRECISIONS = {
    "": "as model A",
    "fp16": "fp16, half the size of fp32",
    "bf16": "bf16",
    "fp32": "fp32, full",
}
CHOICES = 20
"""How many of the best evaluations can be saved from the form; the recipe has every one."""


def save_form(opened: Opened, found: Findings) -> Markup:
    """Name, precision and evaluation of a checkpoint to write, with the button that does it."""
    merge = found.contest.merge
    chosen = merge.number if merge is not None else None
    options = [
        element("option", _option(found, e), value=str(e.number), selected=e.number == chosen)
        for e in _saveable(found)
    ]
    saved = found.state.saved
    already = (
        element("p", f"The run has saved its best as {saved.file}.", class_="hint")
        if saved is not None
        else EMPTY
    )
    fields = [
        _field("Evaluation", element("select", *options, name="evaluation")),
        _field(
            "Precision",
            element(
                "select",
                *(element("option", words, value=value) for value, words in PRECISIONS.items()),
                name="dtype",
            ),
        ),
        _field(
            "File name",
            element(
                "input",
                type="text",
                name="name",
                maxlength=100,
                placeholder=_default_name(opened, chosen),
                autocomplete="off",
                spellcheck="false",
            ),
        ),
        button("Save checkpoint", "save", opened.id, primary=True),
    ]
    hint = "The scored images come from exactly these weights, and the file gives them again."
    return join(
        [
            element("div", *fields, class_="automerge-save", data_form="save"),
            element("p", hint, class_="hint"),
            already,
            element("p", data_automerge_saving=opened.id, class_="automerge-saving", role="status"),
        ]
    )


def _saveable(found: Findings) -> list[Evaluation]:
    ranked = candidates(found.state)[:CHOICES]
    merge = found.contest.merge
    if merge is not None and all(e.number != merge.number for e in ranked):
        ranked.insert(0, merge)
    half = [e for e in found.contest.baselines if e.origin.value == "50:50"]
    return [*ranked, *half]


def _option(found: Findings, evaluation: Evaluation) -> str:
    score = plus_minus(evaluation.score, evaluation.standard_error, found.decimals)
    label = label_of(evaluation)
    name = label if label == "50:50" else f"Evaluation {evaluation.number}"
    merge = found.contest.merge
    best = merge is not None and merge.number == evaluation.number
    return f"{name}: {score}" + (" ★ best" if best else "")


def _default_name(opened: Opened, evaluation: int | None) -> str:
    models = [Path(ref.path).stem for _, ref in sorted(opened.manifest.models.items())]
    return checkpoint_name(opened.id, models, "" if evaluation is None else f"-e{evaluation}")


def _field(name: str, control: Markup) -> Markup:
    return element("label", element("span", name), control, class_="automerge-field")


def copy_weights(found: Findings) -> Markup:
    """The weights of the best merge in every order that fits, each with a button to copy it."""
    merge = found.contest.merge
    if merge is None:
        return EMPTY
    config = found.manifest.config
    if config.search.parameters or config.parameters:
        recipe = recipe_json(recipe_of(found.manifest, merge))
        return element(
            "ul",
            _copyable("recipe", "The recipe, which no list of weights can say", recipe, ""),
            class_="automerge-orders",
        )
    about = weights.orders()
    rows = [_copyable("json", "Named, as JSON", json.dumps(merge.weights), "")]
    for order in weights.fitting(found.manifest.architecture):
        lost = weights.lost(merge.weights, order) if order != weights.NAMED else {}
        warning = f"It has no place for {listed(lost)}." if lost else ""
        rows.append(
            _copyable(
                order, f"{order}: {about[order]}", weights.format(merge.weights, order), warning
            )
        )
    return element("ul", *rows, class_="automerge-orders")


def _copyable(key: str, title: str, text: str, warning: str) -> Markup:
    ident = f"automerge-weights-text-{key}"
    return element(
        "li",
        element("span", title),
        element("span", warning, class_="automerge-lost") if warning else EMPTY,
        element(
            "div",
            element("code", text, id=ident, tabindex="0"),
            button("Copy", "copy", data_copy=ident, aria_label=f"Copy the weights, {title}"),
        ),
    )
