"""What a run taught about its blocks: plain values, for a report and for other programs.

All of it is what the search's model believes, in units of the score. Every difference comes with
its standard error; one below about two of them tells nothing. Blocks are free parameters: blocks
that are tied to one move with it.
"""

from __future__ import annotations

import msgspec

SURE = 2.0
"""How many standard errors away from zero a difference must be to be believed."""


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Change(_Value, frozen=True):
    """An expected difference of the score, with its standard error (a standard deviation)."""

    difference: float
    standard_error: float

    @property
    def sure(self) -> bool:
        """Whether it can be told from no difference."""
        return abs(self.difference) > SURE * self.standard_error


class Effect(Change, frozen=True):
    """What one block does to the score, whatever the others are.

    Attributes:
        name: the block.
        difference: expected score at the best of its levels minus that at the worst, 0 or more.
        best: the level with the highest expected score, in units of the weight.
        curve: (weight, expected score minus the mean over all levels) from low to high.
    """

    name: str
    best: float
    curve: tuple[tuple[float, float], ...]


class LengthScale(_Value, frozen=True):
    """How fast the score changes with one block, whatever the direction: after about this much of
    the block's range a score tells little about the score there.

    Attributes:
        name: the block.
        length: in units of the block's range; above about 3 the score is nearly a straight line
            or a parabola of the weight.
        low, high: the 95 % interval.
        determined: whether the scores decided it; otherwise they only tell that it is not below
            `low`, and the rest is what the model supposes of any block.
    """

    name: str
    length: float
    low: float
    high: float
    determined: bool


class Interaction(Change, frozen=True):
    """Two blocks whose effects do not add up.

    Attributes:
        first, second: the blocks, in the order of the network.
        difference: how much more (or less, below 0) raising both over their ranges changes the
            expected score than raising the first and raising the second do, taken together.
    """

    first: str
    second: str


class Predicted(_Value, frozen=True):
    """The recipe with the highest expected score: a prediction, nobody has looked at its images.

    Attributes:
        weights: of all blocks.
        score, sd: the expected score and its standard deviation.
        gain: what it is expected to be better by than the leader.
    """

    weights: dict[str, float]
    score: float
    sd: float
    gain: Change


class Sensitivity(_Value, frozen=True):
    """What it costs to be off in one block of the leader's recipe: the expected change of the score
    in the worse of the directions that its range allows, by 0.01 and by 0.05 of weight.
    """

    name: str
    hundredth: Change
    twentieth: Change


class Rounding(_Value, frozen=True):
    """The leader's recipe against itself rounded to two decimals.

    Attributes:
        change: expected score of the rounded recipe minus that of the recipe.
        harmless: whether any loss is surely too small to notice: below the noise of a score, or a
            fiftieth of the spread of the scores.
        blocks: for each block, in the order of the network.
    """

    change: Change
    harmless: bool
    blocks: tuple[Sensitivity, ...]


class Insights(_Value, frozen=True):
    """What a run taught.

    Attributes:
        evaluations: how many the model has learned from.
        leader: the number of the evaluation whose recipe was looked at.
        score, sd: its expected score and the standard deviation of that.
        noise: the learned standard deviation of a complete score.
        effects: of every searched block, the largest first.
        lengths: of every searched block, in the order of the network.
        interactions: the few that stand out, the largest first.
        predicted: the most promising recipe; None if none is expected to be better than the leader.
        rounding: what rounding the leader's recipe does.
    """

    evaluations: int
    leader: int
    score: float
    sd: float
    noise: float
    effects: tuple[Effect, ...]
    lengths: tuple[LengthScale, ...]
    interactions: tuple[Interaction, ...]
    predicted: Predicted | None
    rounding: Rounding
