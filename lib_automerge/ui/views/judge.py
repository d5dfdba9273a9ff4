"""The judge's panel: what the run asks its user, with the pictures that it is about.

Nothing here tells which candidate is which: names and scores would decide before the eyes do.
"""

from __future__ import annotations

import zlib

from lib_automerge.app.desk import Opened
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.human import Question
from lib_automerge.domain.payload import Payload
from lib_automerge.study.formats import plural, shortened
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.views.parts import button, image_address

PICTURES = 24
"""How many pictures of a candidate are shown."""

VIEW = "judge"


def place(run: str) -> Markup:
    """Where the page's script puts the panel."""
    return element("div", data_automerge_view=VIEW, data_run=run)


def version(question: Question | None) -> str:
    """Changes when something else is asked."""
    return "none" if question is None else question.key


def judge(opened: Opened, question: Question | None) -> Markup:
    """Draw the question of the run in hand; nothing if it asks none."""
    if question is None or not opened.live:
        return EMPTY
    rating = question.other is None
    said = f"{plural(len(opened.state.judged), 'judgement')} so far."
    parts = [
        element("h3", "How good are these pictures?" if rating else "Which pictures are better?"),
        element("p", f"The run waits for you. {said}", class_="hint"),
        _rating(opened, question) if rating else _choice(opened, question),
    ]
    return element(
        "section",
        *parts,
        class_="automerge-judge",
        data_question=question.key,
        aria_label="Your judgement",
    )


def sides(question: Question) -> tuple[int, int]:
    """The candidates on the left and on the right: by chance, but the same on every page."""
    assert question.other is not None
    pair = (question.evaluation, question.other)
    return pair if zlib.crc32(question.key.encode()) % 2 else (pair[1], pair[0])


def _rating(opened: Opened, question: Question) -> Markup:
    name = f"automerge-rating-{question.key}"
    slider = element(
        "input",
        type="range",
        id=name,
        min=0,
        max=10,
        step=0.5,
        value=5,
        aria_label="Rating from 0 to 10",
    )
    scale = element(
        "div",
        element("span", "0 worst"),
        slider,
        element("span", "10 best"),
        element("output", "5", **{"for": name}),
        class_="automerge-rating",
    )
    rate = button(
        "Rate",
        "judge",
        opened.id,
        primary=True,
        id="automerge-judge-rate",
        data_question=question.key,
        data_slider=name,
    )
    hint = element("p", "Arrow keys move the slider, Enter rates.", class_="hint")
    shots = _shots(opened, question.evaluation)
    cards = [_card(opened, [("", shot)]) for shot in shots.values()]
    gallery = element("div", *cards, class_="automerge-sheet", data_gallery=VIEW)
    return join([scale, element("div", rate, _back(opened, question)), hint, gallery])


def _choice(opened: Opened, question: Question) -> Markup:
    left, right = sides(question)

    def choose(label: str, name: str, value: float) -> Markup:
        return button(
            label,
            "judge",
            opened.id,
            primary=name != "equal",
            id=f"automerge-judge-{name}",
            data_question=question.key,
            data_value=value,
        )

    buttons = [
        choose("A, left", "left", float(left == question.evaluation)),
        choose("Equal", "equal", 0.5),
        choose("B, right", "right", float(right == question.evaluation)),
        _back(opened, question),
    ]
    hint = "Keys: A or ← for left, B or → for right, E or ↓ for equal."
    one, two = _shots(opened, left), _shots(opened, right)
    cards = [_card(opened, [("A", one[job]), ("B", two[job])]) for job in one if job in two]
    gallery = element("div", *cards, class_="automerge-sheet of-two", data_gallery=VIEW)
    return join([element("div", *buttons), element("p", hint, class_="hint"), gallery])


def _back(opened: Opened, question: Question) -> Markup:
    if not opened.state.judged:
        return EMPTY
    return button(
        "Take back",
        "judge",
        opened.id,
        hint="Judge the last one again",
        id="automerge-judge-back",
        data_question=question.key,
        data_value="",
    )


def _shots(opened: Opened, evaluation: int) -> dict[int, Scored]:
    """The first pictures of a candidate, one prompt after the other."""
    found = opened.state.scores.get((Stage.SEARCH, evaluation), {})
    return {job: found[job] for job in sorted(found)[:PICTURES] if found[job].broken is None}


def _card(opened: Opened, shots: list[tuple[str, Scored]]) -> Markup:
    payload = _payload(opened, shots[0][1].payload)
    prompt = payload.prompt if payload is not None else ""
    return element(
        "figure",
        element("div", *(_picture(opened.id, name, shot) for name, shot in shots)),
        element("figcaption", shortened(prompt, 90), title=prompt),
    )


def _picture(run: str, name: str, shot: Scored) -> Markup:
    alt = f"{f'{name}: ' if name else ''}a picture for the prompt {shot.payload}"
    return element(
        "a",
        element("img", src=image_address(run, shot, "thumbs"), alt=alt, loading="lazy"),
        element("span", name, class_="automerge-score") if name else EMPTY,
        class_="automerge-shot",
        href=image_address(run, shot, "images"),
        data_action="zoom",
        data_caption=alt,
    )


def _payload(opened: Opened, name: str) -> Payload | None:
    return next((p for p in opened.manifest.config.payloads if p.name == name), None)
