"""What a run taught, as a chart, sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence

from lib_automerge.domain import architectures
from lib_automerge.domain.insights import (
    Change,
    Effect,
    Insights,
    Interaction,
    LengthScale,
    Predicted,
    Rounding,
    Sensitivity,
)
from lib_automerge.study.effects_chart import effects_chart, effects_rows
from lib_automerge.study.findings import LABELS, Findings
from lib_automerge.study.formats import number, plus_minus, signed
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.tables import table

WIDE, PHONE = 1120.0, 360.0
"""Widths of charts in pixels; the page shows the one that fits."""

_TOUCHY = 3
"""How many of the most sensitive blocks are named."""


def lessons(found: Findings, insights: Insights | None) -> Markup:
    """Draw what a run taught; nothing if that is not known."""
    if insights is None or not insights.effects:
        return EMPTY
    order = architectures.get(found.manifest.architecture).blocks
    effects = sorted(insights.effects, key=lambda effect: order.index(effect.name))
    decimals = found.decimals
    return join(
        [
            element("p", _hint(insights, decimals), class_="hint"),
            element("div", effects_chart("effects-wide", effects, decimals, WIDE), class_="wide"),
            element("div", effects_rows("effects-phone", effects, decimals, PHONE), class_="phone"),
            element(
                "dl",
                _lesson("Pairs", _pairs_sentence(insights)),
                _lesson("Predicted best", *_prediction(found, insights)),
                _lesson("Rounding", *_rounding(found, insights)),
                class_="lessons",
            ),
            _pair_table(insights.interactions, decimals),
            element(
                "details",
                element("summary", "Block by block: effect, length-scale, and what digits matter"),
                _block_table(effects, insights, decimals),
            ),
        ]
    )


def _hint(insights: Insights, decimals: int) -> str:
    nothing = "" if any(e.sure for e in insights.effects) else " No block stands out yet."
    return (
        "How much the expected score changes from the worst weight of a block to the best, all "
        "others anywhere in their ranges, as the search's model sees it after "
        f"{insights.evaluations:,} evaluations. Whiskers: one standard error; hollow: cannot be "
        f"told from chance. One score is known to ± {number(insights.noise, decimals)}.{nothing}"
    )


def _lesson(title: str, *content: str) -> Markup:
    return element("div", element("dt", title), element("dd", *content))


def _pairs_sentence(insights: Insights) -> str:
    if insights.interactions:
        return "These blocks have to be tuned together; the other effects add up, as far as known."
    return "No two blocks stand out: their effects add up, as far as these evaluations can tell."


def _pair_table(pairs: Sequence[Interaction], decimals: int) -> Markup:
    if not pairs:
        return EMPTY
    rows = [
        [
            f"{pair.first} and {pair.second}",
            "raise or lower both" if pair.difference > 0 else "one instead of the other",
            f"{signed(pair.difference, decimals)} ± {number(pair.standard_error, decimals)}",
        ]
        for pair in pairs
    ]
    headings = ["Blocks", "What pays", "Raising both, beyond the sum of raising each"]
    return table("Pairs whose effects do not add up", headings, rows, texts=2)


def _prediction(found: Findings, insights: Insights) -> list[str]:
    decimals, leader = found.decimals, _name(found, insights.leader)
    predicted = insights.predicted
    if predicted is None:
        return [f"No recipe in the searched ranges is expected to be better than {leader}."]
    gain = _amount(predicted.gain, decimals)
    sure = (
        "more than two standard errors: worth an evaluation"
        if predicted.gain.sure
        else "less than two standard errors: nothing to count on"
    )
    return [
        element("strong", "Not evaluated, a prediction: "),
        f"the best recipe in the searched ranges is expected to score "
        f"{plus_minus(predicted.score, predicted.sd, decimals)}, {gain} against {leader}, {sure}.",
        _recipe_of(predicted),
    ]


def _recipe_of(predicted: Predicted) -> Markup:
    weights = ", ".join(f'"{block}": {weight:g}' for block, weight in predicted.weights.items())
    return element(
        "details",
        element("summary", "Its weights, as a start point of another run"),
        element("pre", f"{{{weights}}}", tabindex="0"),
    )


def _rounding(found: Findings, insights: Insights) -> list[str]:
    rounding, decimals = insights.rounding, found.decimals + 1
    verdict = "Two decimals are enough" if rounding.harmless else "Keep the digits"
    change = _amount(rounding.change, decimals)
    said = f"{verdict}: rounding every weight of {_name(found, insights.leader)} to two decimals "
    said += f"changes the expected score by {change}."
    return [f"{said} {_touchy(rounding, decimals)}"]


def _touchy(rounding: Rounding, decimals: int) -> str:
    worst = sorted(rounding.blocks, key=lambda block: block.twentieth.difference)[:_TOUCHY]
    costly = [b for b in worst if b.twentieth.sure and b.twentieth.difference < 0]
    if not costly:
        return "No single block is known to matter at a step of 0.05."
    named = ", ".join(f"{b.name} {number(-b.twentieth.difference, decimals)}" for b in costly)
    return f"A step of 0.05 in one block costs most in {named}."


def _block_table(effects: Sequence[Effect], insights: Insights, decimals: int) -> Markup:
    lengths = {length.name: length for length in insights.lengths}
    blocks = {block.name: block for block in insights.rounding.blocks}
    rows = [
        [
            effect.name,
            plus_minus(effect.difference, effect.standard_error, decimals),
            number(effect.best, 2) if effect.sure else number(None, 0),
            length_text(lengths[effect.name]),
            *_steps(blocks[effect.name], decimals + 1),
        ]
        for effect in effects
    ]
    headings = ["Block", "Effect on the score", "Best weight", "Length-scale"]
    headings += ["Off by 0.01", "Off by 0.05"]
    note = (
        "The length-scale is how far a block's weight must go, in units of its range, until the "
        "score there is hardly known from here, with its 95 % interval; only its lower end where "
        "the scores did not decide it. Off by: expected change of the score in the worse direction."
    )
    return join(
        [
            element("p", note, class_="hint"),
            table("What the model knows of each block", headings, rows),
        ]
    )


def length_text(length: LengthScale) -> str:
    """A length-scale with its interval, or what is known of it."""
    if not length.determined:
        return f"not known, above {length.low:.1f}"
    return f"{length.length:.1f} ({length.low:.1f} to {length.high:.1f})"


def _steps(block: Sensitivity, decimals: int) -> list[str]:
    return [_amount(change, decimals) for change in (block.hundredth, block.twentieth)]


def _amount(change: Change, decimals: int) -> str:
    error = number(change.standard_error, decimals)
    return f"{signed(change.difference, decimals)} ± {error}"


def _name(found: Findings, leader: int) -> str:
    evaluation = found.state.evaluations[leader]
    label = LABELS.get(evaluation.origin)
    return f"evaluation {leader}" if label is None else f"{label} (evaluation {leader})"
