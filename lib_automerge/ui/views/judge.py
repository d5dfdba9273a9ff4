"""The judge's panel: what the run asks its user, with the pictures that it is about.

Nothing here tells which candidate is which: names and scores would decide before the eyes do. The
pictures of the verdict's blind choices come from an address that tells nothing either.
"""

from __future__ import annotations

import zlib

from lib_automerge.app.desk import Opened
from lib_automerge.domain.blind import SIDES, Asked, Trial
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.human import Question
from lib_automerge.domain.payload import Payload
from lib_automerge.study.formats import plural, shortened
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.views.parts import address, button, image_address

PICTURES = 24
"""How many pictures of a candidate are shown."""

VIEW = "judge"

KEYS = "Keys: A or ← for left, B or → for right, E or ↓ for "


def place(run: str) -> Markup:
    """Where the page's script puts the panel."""
    return element("div", data_automerge_view=VIEW, data_run=run)


def version(question: Asked | None) -> str:
    """Changes when something else is asked."""
    return "none" if question is None else question.key


def judge(opened: Opened, question: Asked | None) -> Markup:
    """Draw the question of the run in hand; nothing if it asks none."""
    if question is None or not opened.live:
        return EMPTY
    if isinstance(question, Trial):
        return _panel(question.key, "Which picture is better?", _trial(opened, question))
    rating = question.other is None
    said = f"{plural(len(opened.state.judged), 'judgement')} so far."
    return _panel(
        question.key,
        "How good are these pictures?" if rating else "Which pictures are better?",
        element("p", f"The run waits for you. {said}", class_="hint"),
        _rating(opened, question) if rating else _choice(opened, question),
    )


def _panel(key: str, heading: str, *parts: Markup) -> Markup:
    return element(
        "section",
        element("h3", heading),
        *parts,
        class_="automerge-judge",
        data_question=key,
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
    first = float(left == question.evaluation)
    buttons = [*_choose(opened, question, first, "Equal"), _back(opened, question)]
    one, two = _shots(opened, left), _shots(opened, right)
    cards = [_card(opened, [("A", one[job]), ("B", two[job])]) for job in one if job in two]
    gallery = element("div", *cards, class_="automerge-sheet of-two", data_gallery=VIEW)
    return join([element("div", *buttons), _keys("equal"), gallery])


def _keys(neither: str) -> Markup:
    return element("p", f"{KEYS}{neither}.", class_="hint automerge-keys")


def _trial(opened: Opened, trial: Trial) -> Markup:
    """A blind choice of the verdict."""
    count = f"{plural(trial.made, 'choice')} made, at most {trial.most} left."
    enough = button(
        "Finish without a verdict",
        "judge",
        opened.id,
        confirm="End the run without a verdict? Nothing is proved then; the merge can still be "
        "saved.",
        id="automerge-judge-enough",
        data_question=trial.key,
        data_value="",
        data_enough="true",
    )
    scored = opened.state.scores[Stage.VERDICT, trial.evaluation][trial.job]
    payload = _payload(opened, scored.payload)
    pictures = [_blind(opened, trial, side, name) for side, name in zip(SIDES, "AB", strict=True)]
    return join(
        [
            EMPTY if trial.made else element("p", _explained(opened), class_="hint"),
            element("p", element("b", count), class_="hint"),
            element(
                "div", *_choose(opened, trial, 1.0, "No difference"), class_="automerge-choose"
            ),
            element(
                "figure",
                element("div", *pictures, data_gallery=VIEW),
                element("figcaption", payload.prompt if payload is not None else ""),
                class_="automerge-pair",
            ),
            _keys("no difference"),
            element("div", _back(opened, trial), enough),
        ]
    )


def _explained(opened: Opened) -> str:
    held_out = any(payload.held_out for payload in opened.manifest.config.payloads)
    return (
        "These are the blind choices of the verdict: pictures of "
        f"{'held-out prompts and seeds' if held_out else 'seeds'} that the search never saw. Both "
        "are of one prompt and seed, sides are drawn by lot, and nobody tells whose they are."
    )


def _blind(opened: Opened, trial: Trial, side: str, name: str) -> Markup:
    href = address("runs", opened.id, "pairs", trial.key, side)
    words = f"{name}: the picture on the {side}"
    return element(
        "a",
        element("img", src=href, alt=words),
        element("span", name, class_="automerge-score"),
        class_="automerge-shot",
        href=href,
        data_action="zoom",
        data_caption=words,
    )


def _choose(opened: Opened, question: Asked, left: float, neither: str) -> list[Markup]:
    """The buttons of a choice; `left` is the answer that prefers the left one."""
    answers = (("A, left", "left", left), (neither, "equal", 0.5), ("B, right", "right", 1 - left))
    return [
        button(
            label,
            "judge",
            opened.id,
            primary=name != "equal",
            id=f"automerge-judge-{name}",
            data_question=question.key,
            data_value=value,
        )
        for label, name, value in answers
    ]


def _back(opened: Opened, question: Asked) -> Markup:
    made = question.made if isinstance(question, Trial) else len(opened.state.judged)
    if not made:
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
