"""What a person's blind choices came to, in words."""

from __future__ import annotations

from lib_automerge.domain.events import Choices, Comparison
from lib_automerge.study.formats import percent, plural

UNIT = "share of choices"
"""What the scores of a verdict by choices are."""


def decided(choices: Choices) -> int:
    """How many choices preferred one of the two."""
    return choices.winner + choices.baseline


def tally(choices: Choices) -> str:
    """How often the winner was preferred: "16 of 20 choices", "0 of 0 choices, 19 equal"."""
    equal = f", {choices.equal} equal" if choices.equal else ""
    return f"{choices.winner} of {plural(decided(choices), 'choice')}{equal}"


def share_text(comparison: Comparison) -> str:
    """The 95 % interval of the share that preferred the winner: "56 % to 94 %"."""
    return f"{as_share(comparison.low)} to {as_share(comparison.high)}"


def as_share(difference: float) -> str:
    """The winner's share, from the difference between it and the baseline's: "75 %" from 0.5."""
    # the two sum to one
    return percent((1.0 + difference) / 2.0)
