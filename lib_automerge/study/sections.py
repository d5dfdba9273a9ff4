"""The pictures and charts of a report, each with the words that it needs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lib_automerge.domain import architectures
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.recipe import recipe_json
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.block_chart import Bar, block_chart, block_rows
from lib_automerge.study.findings import (
    Findings,
    PayloadRow,
    candidates,
    label_of,
    recipe_of,
    representative,
)
from lib_automerge.study.formats import number, plural, shortened, signed
from lib_automerge.study.history_chart import history_chart
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.pictures import picture
from lib_automerge.study.searched import kept_blocks
from lib_automerge.study.tables import finalist_table, top_table

ROWS = 8
"""How many payloads the image grid shows at most."""

WIDE, PHONE = 1120.0, 360.0
"""Widths of charts in pixels; the page shows the one that fits."""


def images(found: Findings) -> Markup:
    """The same prompts and seeds, made by A, B, 50:50 and the merge."""
    entrants = found.contest.entrants
    rows = representative(found.rows, ROWS)
    if not rows:
        return EMPTY
    heads = element(
        "div",
        element("span"),
        *(
            element("span", element("b", label_of(e)), " ", element("small", found.model_of(e)))
            for e in entrants
        ),
        class_="heads",
        aria_hidden="true",
    )
    body = [_image_row(found, row, entrants) for row in rows]
    return join(
        [
            element("p", _how_chosen(found, len(rows)), class_="hint"),
            element("div", heads, *body, class_=f"gallery of-{len(entrants)}"),
        ]
    )


def _how_chosen(found: Findings, shown: int) -> str:
    unseen = {
        Stage.VERDICT: "Images of the verdict, which the search never saw.",
        Stage.SEARCH: "Images of the search.",
    }[found.contest.stage]
    total = len(found.rows)
    ordered = all(row.difference is not None for row in found.rows)
    if shown < total:
        chosen = f"{shown} of {total} payloads"
        chosen += ", evenly from the merge's largest gain to its smallest" if ordered else ""
    else:
        chosen = "Every payload"
        chosen += ", from the merge's largest gain to its smallest" if ordered else ""
    marked = " ★ marks its best score." if found.scored else ""
    return (
        f"{unseen} {chosen}; always the payload's first seed. "
        f"A row shares prompt, seed and settings.{marked}"
    )


def _image_row(found: Findings, row: PayloadRow, entrants: tuple[Evaluation, ...]) -> Markup:
    payload = row.payload
    shots = {e.number: _first(found, e, payload.name) for e in entrants}
    scores = [s.score for s in shots.values() if s is not None and s.score is not None]
    top = max(scores, default=None)
    seed = next((s.seed for s in shots.values() if s is not None), None)
    notes = [payload.name] + ([f"seed {seed}"] if seed is not None else [])
    about = [
        element("h3", shortened(payload.prompt, 140), title=payload.prompt),
        element("p", " · ".join(notes), class_="id"),
    ]
    if row.difference is not None:
        mean = signed(row.difference, found.decimals)
        about.append(element("p", f"gain {mean}, mean of {plural(row.images, 'seed')}"))
    figures = [_figure(found, e, shots[e.number], top, payload.prompt) for e in entrants]
    return element("article", element("div", *about, class_="about"), *figures, class_="row")


def _first(found: Findings, entrant: Evaluation, payload: str) -> Scored | None:
    scored = found.contest.scores.get(entrant.number, {})
    return next((s for _, s in sorted(scored.items()) if s.payload == payload), None)


def _figure(
    found: Findings, entrant: Evaluation, shot: Scored | None, top: float | None, prompt: str
) -> Markup:
    label = label_of(entrant)
    best = shot is not None and shot.score is not None and shot.score == top
    made = picture(found.path, shot.file) if shot is not None else None
    if made is None:
        view = element("div", "no image file", class_="missing", role="img", aria_label="missing")
    else:
        view = element(
            "img",
            src=made.uri,
            alt=f"{label}: {shortened(prompt, 90)}",
            width=made.width,
            height=made.height,
        )
    score = number(shot.score if shot is not None else None, found.decimals)
    caption = [
        element("span", label, class_="who"),
        element("span", score, class_="score") if found.scored else EMPTY,
        element("span", "★ best", class_="star") if best else EMPTY,
    ]
    return element("figure", view, element("figcaption", *caption), class_="best" if best else None)


def history(found: Findings) -> Markup:
    """The score of every evaluation, wide and for phones."""
    done = found.state.history
    if not done:
        return EMPTY
    merge = found.contest.merge
    shown = merge.number if merge is not None and found.state.verdict is not None else None
    charts = [
        element(
            "div",
            history_chart(
                f"history-{kind}", done, winner=shown, decimals=found.decimals, size=size
            ),
            class_=kind,
        )
        for kind, size in (("wide", (WIDE, 400.0)), ("phone", (PHONE, 340.0)))
    ]
    ended = found.state.search_ended
    why = f" The search ended: {ended.reason}. {ended.outlook}".rstrip() if ended else ""
    hint = (
        "Mean score of each evaluation on the search's images. Bars at the baselines and at each "
        f"new best are one standard error.{why}"
    )
    return join([element("p", hint, class_="hint"), *charts])


def blocks(found: Findings) -> Markup:
    """The weights of the merge and the distances of the models, block by block."""
    merge = found.contest.merge
    if merge is None:
        return EMPTY
    distances = found.manifest.distances
    kept = kept_blocks(found.manifest)
    bars = [
        Bar(block, merge.weights.get(block, 0.0), distances.get(block), kept.get(block))
        for block in architectures.get(found.manifest.architecture).blocks
    ]
    summed = found.manifest.config.method == "weighted_sum"
    ends = {0.0: "A", 1.0: "B"} if summed else {0.0: "A"}
    scale = "0 is model A, 1 is model B" if summed else "0 is model A"
    hint = (
        f"Evaluation {merge.number}, from the input of the network to its output; {scale}. "
        "The grey bars show how far the two models are apart in each block, relative to A: where "
        "they are close, the weight matters little."
    )
    if any(bar.kept is not None and not bar.idle for bar in bars):
        hint += " Hollow bars were not searched: fixed or tied as configured, or kept from A."
    wide = block_chart("blocks-wide", bars, ends=ends, width=WIDE)
    narrow = block_rows("blocks-phone", bars, ends=ends, width=PHONE)
    return join(
        [
            element("p", hint, class_="hint"),
            element("div", wide, class_="wide"),
            element("div", narrow, class_="phone"),
        ]
    )


def candidate_tables(found: Findings) -> Markup:
    """The finalists and the best evaluations."""
    if not candidates(found.state):
        return EMPTY
    return join([finalist_table(found), top_table(found)])


def recipe(file: Path, found: Findings) -> Markup:
    """The recipe as text to copy: the file if there is one, else that of the best merge so far."""
    merge = found.contest.merge
    if merge is None:
        return EMPTY
    text = recipe_json(recipe_of(found.manifest, merge))
    if found.state.verdict is not None:
        with contextlib.suppress(OSError, ValueError):
            text = file.read_text(encoding="utf-8")
    hint = [
        f"All that it takes to make evaluation {merge.number} again. "
        "Save it as recipe.json, then: ",
        element("code", "python -m lib_automerge merge recipe.json -o merge.safetensors"),
    ]
    return join(
        [
            element("p", *hint, class_="hint"),
            element(
                "div",
                element("button", "Copy", type="button", data_copy="recipe-text", hidden=True),
                element("pre", text, id="recipe-text", tabindex="0"),
                class_="copyable",
            ),
        ]
    )
