"""What a run taught, in words and numbers: for a report, and for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lib_automerge.domain import architectures
from lib_automerge.domain.insights import (
    Change,
    Effect,
    Insights,
    Interaction,
    LengthScale,
    Rounding,
)
from lib_automerge.study.findings import LABELS, Findings
from lib_automerge.study.formats import listed, number, plus_minus, signed
from lib_automerge.study.judges import unit_hint

PREDICTION = "Not evaluated, a prediction: "
BEYOND = "for raising both over their ranges, beyond the sum of raising each."
HEADINGS = ("Block", "Effect on the score", "Best weight", "Length-scale")
STEP_HEADINGS = ("Off by 0.01", "Off by 0.05")

_TOUCHY = 3
"""How many of the most sensitive blocks are named."""


def in_words(found: Findings, insights: Insights) -> str:
    """Everything as plain text, for a terminal."""
    blocks = [
        [*HEADINGS, *STEP_HEADINGS],
        *(block_row(effect, insights, found.decimals) for effect in in_order(found, insights)),
    ]
    pairs = [
        f"  {names}: {advice}. {size} {BEYOND}"
        for names, advice, size in (pair_row(p, found.decimals) for p in insights.interactions)
    ]
    unit = unit_hint(found)
    return "\n".join(
        [
            effects_hint(insights, found.decimals),
            *([unit] if unit else []),
            "",
            *_columns(blocks),
            "",
            f"Pairs: {pairs_sentence(insights)}",
            *pairs,
            f"Predicted best: {prediction(found, insights)}",
            f"Rounding: {rounding_sentence(found, insights)}",
        ]
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def in_order(found: Findings, insights: Insights) -> list[Effect]:
    """The effects in the order of the network."""
    order = architectures.get(found.manifest.architecture).blocks
    return sorted(insights.effects, key=lambda effect: order.index(effect.name))


def effects_hint(insights: Insights, decimals: int) -> str:
    """What the effects are, and how well they are known."""
    nothing = "" if any(e.sure for e in insights.effects) else " No block stands out yet."
    return (
        "How much the expected score changes from the worst weight of a block to the best, all "
        "others anywhere in their ranges, as the search's model sees it after "
        f"{insights.evaluations:,} evaluations. "
        f"One score is known to ± {number(insights.noise, decimals)}.{nothing}"
    )


def pairs_sentence(insights: Insights) -> str:
    """Whether any two blocks have to be tuned together."""
    if insights.interactions:
        return "Some blocks have to be tuned together; other effects add up, as far as known."
    return "No two blocks stand out: their effects add up, as far as these evaluations can tell."


def pair_row(pair: Interaction, decimals: int) -> tuple[str, str, str]:
    """A pair, what pays, and by how much the two do not add up."""
    return (
        f"{pair.first} and {pair.second}",
        "raise or lower both" if pair.difference > 0 else "one instead of the other",
        amount(pair, decimals),
    )


def prediction(found: Findings, insights: Insights) -> str:
    """What is expected of the most promising recipe, without `PREDICTION` where there is none."""
    decimals, leader = found.decimals, _name(found, insights.leader)
    predicted = insights.predicted
    if predicted is None:
        return f"No recipe in the searched ranges is expected to be better than {leader}."
    sure = (
        "more than two standard errors: worth an evaluation"
        if predicted.gain.sure
        else "less than two standard errors: nothing to count on"
    )
    return (
        f"{PREDICTION}the best recipe in the searched ranges is expected to score "
        f"{plus_minus(predicted.score, predicted.sd, decimals)}, "
        f"{amount(predicted.gain, decimals)} against {leader}, {sure}."
    )


def rounding_sentence(found: Findings, insights: Insights) -> str:
    """Whether two decimals of every weight are enough, and which blocks are the most sensitive."""
    rounding, decimals = insights.rounding, found.decimals + 1
    verdict = "Two decimals are enough" if rounding.harmless else "Keep the digits"
    return (
        f"{verdict}: rounding every weight of {_name(found, insights.leader)} to two decimals "
        f"changes the expected score by {amount(rounding.change, decimals)}. "
        f"{_touchy(rounding, decimals)}"
    )


def _touchy(rounding: Rounding, decimals: int) -> str:
    worst = sorted(rounding.blocks, key=lambda block: block.twentieth.difference)[:_TOUCHY]
    costly = [b for b in worst if b.twentieth.sure and b.twentieth.difference < 0]
    if not costly:
        return "No single block is known to matter at a step of 0.05."
    named = listed(f"{b.name} ({number(-b.twentieth.difference, decimals)})" for b in costly)
    return f"A step of 0.05 in one block costs most in {named}."


def block_row(effect: Effect, insights: Insights, decimals: int) -> list[str]:
    """What is known of one block, under `HEADINGS` and `STEP_HEADINGS`."""
    length = next(length for length in insights.lengths if length.name == effect.name)
    block = next(block for block in insights.rounding.blocks if block.name == effect.name)
    return [
        effect.name,
        plus_minus(effect.difference, effect.standard_error, decimals),
        number(effect.best, 2) if effect.sure else number(None, 0),
        length_text(length),
        *(amount(change, decimals + 1) for change in (block.hundredth, block.twentieth)),
    ]


def length_text(length: LengthScale) -> str:
    """A length-scale with its interval, or what is known of it."""
    if not length.determined:
        return f"above {length.low:.1f}"
    return f"{length.length:.1f} ({length.low:.1f} to {length.high:.1f})"


def amount(change: Change, decimals: int) -> str:
    """A difference with its standard error."""
    error = number(change.standard_error, decimals)
    return f"{signed(change.difference, decimals)} ± {error}"


def _name(found: Findings, leader: int) -> str:
    evaluation = found.state.evaluations[leader]
    label = LABELS.get(evaluation.origin)
    return f"evaluation {leader}" if label is None else f"{label} (evaluation {leader})"
