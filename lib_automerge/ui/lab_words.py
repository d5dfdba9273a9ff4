"""What the lab's form tells: the method, the recipe, and errors in the form's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lib_automerge.app.recipes import Converted
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.study.formats import listed, plural
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.lab_fields import ASKED, LAB_BY_NAME, MISMATCHES
from lib_automerge.ui.messages import sentence

CONTENTS = "Read their contents"
"""The button that reads the models for their SHA-256."""

_KEEP, _FILL = (f'"{MISMATCHES.label(name)}"' for name in ("keep-a", "fill-base"))
_LABELS = {name: LAB_BY_NAME[name].label for name in ("lab_dtype", "lab_zero_bad", "lab_give_up")}
_ASKED = {field.name: f'"{field.label}"' for field in ASKED}

BAD_TENSORS = "Tensors that differ or are damaged"
"""The fold with the choices for such tensors."""

FORM_WORDS = {
    "choose --on-mismatch keep-a (the first model's) or fill-base": (
        f'choose {_KEEP} or {_FILL} under "{BAD_TENSORS}"'
    ),
    "--on-mismatch keep-a": _KEEP,
    "--on-mismatch fill-base": _FILL,
    "fill-base": _FILL,
    "keep-a": _KEEP,
    "take such numbers as 0 with --on-nan zero": (
        f'tick "{_LABELS["lab_zero_bad"]}" under "{BAD_TENSORS}"'
    ),
    "add --dtype fp16 to merge": f'choose fp16 as "{_LABELS["lab_dtype"]}" for the same',
    "Leave that out with --lossy": f"Tick {_ASKED['lab_lossy']} for all but that",
    "or give them up with --lossy": f'or tick "{_LABELS["lab_give_up"]}"',
    "Leave --architecture out": "Choose that",
    "--architecture is": f"{_ASKED['lab_family']} is",
    "Add --models with its folder": f'Press "{CONTENTS}"',
    "Add --models with their folder": f'Press "{CONTENTS}"',
    "Convert it to a format": "Choose a format",
    "Start the merge without --resume": "Begin it again",
    "Delete it, or start without --resume, which replaces it": "Throw it away, and begin again",
    "go on with --resume, or delete it": 'press "Go on", or throw this away',
}
"""Options of the command line in sentences -> what the form calls them."""

ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def in_form(error: Exception | str) -> str:
    """An error's text with the form's words for options."""
    text = str(error)
    for option, words in FORM_WORDS.items():
        text = text.replace(option, words)
    return text


def asks_to_give_up(error: Exception) -> bool:
    """Whether an error is that a format cannot say all of a recipe."""
    return "--lossy" in str(error)


def about(method: LabMethod) -> Markup:
    """What a method computes, takes and is from."""
    takes = method.takes.replace(": a, b, c", ": A, B and C").replace(": a, b", ": A and B")
    return element(
        "div",
        element("p", element("code", method.formula)),
        element("p", f"Takes {takes}. ", "From: ", _linked(method.source), "."),
        class_="automerge-lab-about",
    )


def recipe(written: Converted | None, unknown: Sequence[str]) -> Markup:
    """The recipe of the form as text that can be copied; nothing while there is none.

    Args:
        written: the text.
        unknown: titles of its models whose SHA-256 is not known.
    """
    if written is None:
        return quiet("There is a recipe as soon as all models are chosen.")
    notes = [sentence(note).rstrip(".") + "." for note in written.notes]
    if unknown:
        notes.append(
            f"The SHA-256 of {listed(shortened_list(unknown))} is not known yet. Saving the merge "
            f'tells it, and so does "{CONTENTS}".'
        )
    return element(
        "div",
        element("pre", written.text, id="automerge_lab_recipe_text", tabindex="0"),
        *(element("p", in_form(note), class_="automerge-quiet") for note in notes),
        element(
            "button",
            "Copy",
            type="button",
            class_="automerge-button",
            data_action="copy",
            data_copy="automerge_lab_recipe_text",
        ),
        class_="automerge-lab-recipe",
    )


def shortened_list(titles: Sequence[str], most: int = 3) -> list[str]:
    """The first of many titles, and how many more there are."""
    more = len(titles) - most
    return [*titles[:most], *([plural(more, "more model")] if more > 0 else [])]


def target(path: Path, dtype: str | None) -> Markup:
    """Where a merge goes."""
    stored = f" in {dtype}" if dtype else ""
    told = f"Saving writes {path.name}{stored}, in {path.parent}."
    return element("p", told, class_="automerge-forecast")


def quiet(text: str) -> Markup:
    """A sentence about what is not there yet."""
    return element("p", text, class_="automerge-quiet")


def _linked(source: str) -> Markup:
    """The source with links to what is on arXiv."""
    parts: list[str] = []
    end = 0
    for match in ARXIV.finditer(source):
        href = f"https://arxiv.org/abs/{match[0]}"
        link = element("a", f"arXiv {match[0]}", href=href, target="_blank", rel="noopener")
        parts += [source[end : match.start()], link]
        end = match.end()
    return join([*parts, source[end:]]) if parts else join([source]) or EMPTY
