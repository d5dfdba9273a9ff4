"""What the lab's form tells: the method, the recipe, and errors in the form's own words."""

from __future__ import annotations

import re
from pathlib import Path

from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.lab_fields import MISMATCHES

FORM_WORDS = {
    "--on-mismatch keep-a": f'"{MISMATCHES.label("keep-a")}"',
    "--on-mismatch fill-base": f'"{MISMATCHES.label("fill-base")}"',
    "fill-base": f'"{MISMATCHES.label("fill-base")}"',
    "keep-a": f'"{MISMATCHES.label("keep-a")}"',
}
"""Options of the command line in sentences -> what the form calls them."""

ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def in_form(error: Exception | str) -> str:
    """An error's text with the form's words for options."""
    text = str(error)
    for option, words in FORM_WORDS.items():
        text = text.replace(option, words)
    return text


def about(method: LabMethod) -> Markup:
    """What a method computes, takes and is from."""
    takes = method.takes.replace(": a, b, c", ": A, B and C").replace(": a, b", ": A and B")
    return element(
        "div",
        element("p", element("code", method.formula)),
        element("p", f"Takes {takes}. ", "From: ", _linked(method.source), "."),
        class_="automerge-lab-about",
    )


def recipe(text: str) -> Markup:
    """The recipe of the form as text that can be copied; nothing while there is none."""
    if not text:
        return quiet("There is a recipe as soon as all models are chosen.")
    return element(
        "div",
        element("pre", text, id="automerge_lab_recipe_text", tabindex="0"),
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
