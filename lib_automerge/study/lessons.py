"""What a run taught, as a chart, sentences and tables."""

from __future__ import annotations

from lib_automerge.domain.insights import Insights, Predicted
from lib_automerge.study.effects_chart import effects_chart, effects_rows
from lib_automerge.study.findings import Findings
from lib_automerge.study.lesson_words import (
    BEYOND,
    HEADINGS,
    PREDICTION,
    STEP_HEADINGS,
    block_row,
    effects_hint,
    in_order,
    pair_row,
    pairs_sentence,
    prediction,
    rounding_sentence,
)
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.tables import table

WIDE, PHONE = 1120.0, 360.0
"""Widths of charts in pixels; the page shows the one that fits."""


def lessons(found: Findings, insights: Insights | None) -> Markup:
    """Draw what a run taught; nothing if that is not known."""
    if insights is None or not insights.effects:
        return EMPTY
    effects, decimals = in_order(found, insights), found.decimals
    key = " Whiskers: one standard error; hollow: cannot be told from chance."
    return join(
        [
            element("p", _unbroken(effects_hint(insights, decimals) + key), class_="hint"),
            element("div", effects_chart("effects-wide", effects, decimals, WIDE), class_="wide"),
            element("div", effects_rows("effects-phone", effects, decimals, PHONE), class_="phone"),
            element(
                "dl",
                _lesson("Pairs", *_pairs(insights, decimals)),
                _lesson("Predicted best", *_prediction(found, insights)),
                _lesson("Rounding", _unbroken(rounding_sentence(found, insights))),
                class_="lessons",
            ),
            element(
                "details",
                element("summary", "Block by block: effect, length-scale, and what digits matter"),
                _block_table(found, insights),
            ),
        ]
    )


def _lesson(title: str, *content: str) -> Markup:
    return element("div", element("dt", title), element("dd", *content))


def _pairs(insights: Insights, decimals: int) -> list[str]:
    items = [element("li", *_pair(*pair_row(pair, decimals))) for pair in insights.interactions]
    return [pairs_sentence(insights), element("ul", *items) if items else EMPTY]


def _pair(names: str, advice: str, amount: str) -> list[str]:
    return [element("strong", names), f": {advice}. {_unbroken(amount)} {BEYOND}"]


def _unbroken(text: str) -> str:
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _prediction(found: Findings, insights: Insights) -> list[str]:
    said = _unbroken(prediction(found, insights))
    if insights.predicted is None:
        return [said]
    return [
        element("strong", PREDICTION),
        said.removeprefix(PREDICTION),
        _recipe_of(insights.predicted),
    ]


def _recipe_of(predicted: Predicted) -> Markup:
    weights = ", ".join(f'"{block}": {weight:g}' for block, weight in predicted.weights.items())
    return element(
        "details",
        element("summary", "Its weights, as a start point of another run"),
        element("pre", f"{{{weights}}}", tabindex="0"),
    )


def _block_table(found: Findings, insights: Insights) -> Markup:
    rows = [block_row(e, insights, found.decimals) for e in in_order(found, insights)]
    note = (
        "The length-scale is how far a block's weight must go, in units of its range, until the "
        "score there is hardly known from here, with its 95 % interval; only the lower end of "
        "that where the scores did not decide it. Off by: expected change of the score in the "
        "worse direction."
    )
    headings = [*HEADINGS, *STEP_HEADINGS]
    return join(
        [
            element("p", note, class_="hint"),
            table("What the model knows of each block", headings, rows),
        ]
    )
