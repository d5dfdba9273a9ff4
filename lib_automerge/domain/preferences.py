"""What a person said about candidates, as numbers: choices between two, and sliders.

Every candidate i has a value t[i]; the prior is a normal distribution with mean 0 and sd 1.

    choice   P(i is preferred to j) = 1 / (1 + exp(-(t[i] - t[j])))   (Bradley and Terry, 1952)
    tie      half a choice for either
    slider   4 * (rating - 1/2) is t[i] plus noise with sd 1/2: the ends of the slider are -2 and 2

The values are those of the highest posterior density, which is unique, and the standard errors
those of the normal distribution around it (Laplace's approximation). The prior keeps both finite
whatever was said: one choice, or a candidate that always wins, moves a value by about as much as
the evidence is worth. A candidate nobody has said anything about has the value 0, error 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from operator import mul

import msgspec

from lib_automerge.errors import ConfigError

SLIDER_SPAN = 4.0
SLIDER_NOISE = 0.5
_ROUNDS = 50
_SETTLED = 1e-16
_SHORTEST = 1e-6
_NODES = 21


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A person compared two candidates; if it is a tie, which one is called winner is arbitrary."""

    winner: int
    loser: int
    tie: bool = False


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """A person rated a candidate on its own, from 0 (worst) to 1 (best)."""

    candidate: int
    rating: float


class Value(msgspec.Struct, frozen=True):
    """The value of a candidate and its standard error."""

    value: float
    standard_error: float


Judgements = Sequence[Choice | Rating]
_Matrix = list[list[float]]


class Opinion:
    """What all judgements together say.

    Takes time in proportion to the cube of the number of candidates that were judged: 0.2 seconds
    for 120.
    """

    def __init__(self, judgements: Judgements) -> None:
        """Weigh the judgements.

        Args:
            judgements: in any order; the order plays no part.

        Raises:
            ConfigError: a candidate is compared with itself, or a rating is not between 0 and 1.
        """
        for judgement in judgements:
            _check(judgement)
        self._index = {number: i for i, number in enumerate(sorted(_candidates(judgements)))}
        self._choices = [
            (self._index[one.winner], self._index[one.loser], 0.5 if one.tie else 1.0)
            for one in judgements
            if isinstance(one, Choice)
        ]
        self._ratings = [
            (self._index[one.candidate], SLIDER_SPAN * (one.rating - 0.5))
            for one in judgements
            if isinstance(one, Rating)
        ]
        self._values = self._most_likely()
        self._covariance = _inverse(_cholesky(self._precision(self._values)))

    def value(self, candidate: int) -> Value:
        """The value of a candidate, judged or not."""
        position = self._index.get(candidate)
        if position is None:
            return Value(0.0, 1.0)
        return Value(self._values[position], math.sqrt(self._covariance[position][position]))

    def difference(self, first: int, second: int) -> Value:
        """How much higher the value of the first is; judged together, it is surer than either."""
        one, other = self.value(first), self.value(second)
        variance = one.standard_error**2 + other.standard_error**2
        if first in self._index and second in self._index:
            variance -= 2 * self._covariance[self._index[first]][self._index[second]]
        return Value(one.value - other.value, math.sqrt(max(0.0, variance)))

    def next_pair(
        self, candidates: Iterable[int], *, including: int | None = None
    ) -> tuple[int, int] | None:
        """Return the pair whose comparison is expected to tell most.

        That is the pair with the greatest mutual information between the answer and the values:
        the entropy of the answer less what would be left of it if the values were known (Houlsby
        et al., Bayesian Active Learning for Classification and Preference Learning, 2011). Such
        candidates are near each other in value and unknown. Of equal pairs, the one with the
        lowest numbers.

        Args:
            candidates: those that can be shown.
            including: one of them that must be in the pair, such as the newest.

        Returns:
            Two numbers, the lower first; None if there are not two candidates.
        """
        pairs = [
            pair
            for pair in combinations(sorted(set(candidates)), 2)
            if including is None or including in pair
        ]
        if not pairs:
            return None
        return max(pairs, key=lambda pair: _information(self.difference(*pair)))

    def _most_likely(self) -> list[float]:
        """Newton's method; the posterior is log-concave, so there is one highest point.

        A step that would lead down is halved: Newton's method alone is not sure to arrive.
        """
        values = [0.0] * len(self._index)
        height = self._log_posterior(values)
        for _ in range(_ROUNDS):
            slope = self._slope(values)
            step = _solve(_cholesky(self._precision(values)), slope)
            if math.fsum(map(mul, step, slope)) < _SETTLED:
                break
            reach, moved, higher = 1.0, values, -math.inf
            while higher < height and reach > _SHORTEST:
                moved = [value + reach * change for value, change in zip(values, step)]
                higher = self._log_posterior(moved)
                reach /= 2
            if higher < height:
                break
            values, height = moved, higher
        return values

    def _log_posterior(self, values: Sequence[float]) -> float:
        parts = [-0.5 * value * value for value in values]
        for winner, loser, won in self._choices:
            ahead = values[winner] - values[loser]
            parts.append(-won * _softplus(-ahead) - (1.0 - won) * _softplus(ahead))
        for candidate, rated in self._ratings:
            parts.append(-0.5 * ((values[candidate] - rated) / SLIDER_NOISE) ** 2)
        return math.fsum(parts)

    def _slope(self, values: Sequence[float]) -> list[float]:
        slope = [-value for value in values]
        for winner, loser, won in self._choices:
            surprise = won - _logistic(values[winner] - values[loser])
            slope[winner] += surprise
            slope[loser] -= surprise
        for candidate, rated in self._ratings:
            slope[candidate] += (rated - values[candidate]) / SLIDER_NOISE**2
        return slope

    def _precision(self, values: Sequence[float]) -> _Matrix:
        """Minus the second derivative of the log posterior; positive definite."""
        count = len(values)
        matrix = [[float(row == column) for column in range(count)] for row in range(count)]
        for winner, loser, _ in self._choices:
            chance = _logistic(values[winner] - values[loser])
            weight = chance * (1.0 - chance)
            matrix[winner][winner] += weight
            matrix[loser][loser] += weight
            matrix[winner][loser] -= weight
            matrix[loser][winner] -= weight
        for candidate, _ in self._ratings:
            matrix[candidate][candidate] += SLIDER_NOISE**-2
        return matrix


def _check(judgement: Choice | Rating) -> None:
    if isinstance(judgement, Rating):
        if not 0 <= judgement.rating <= 1:
            raise ConfigError(
                f"candidate {judgement.candidate} was rated {judgement.rating}. "
                "Use a number from 0 to 1."
            )
    elif judgement.winner == judgement.loser:
        raise ConfigError(
            f"candidate {judgement.winner} was compared with itself. Show two different ones."
        )


def _candidates(judgements: Judgements) -> set[int]:
    found: set[int] = set()
    for one in judgements:
        found |= {one.winner, one.loser} if isinstance(one, Choice) else {one.candidate}
    return found


def _information(difference: Value) -> float:
    """The mutual information, in nats, of an answer and a normally distributed difference."""
    spacing = 8.0 / (_NODES - 1)
    chance = certain = total = 0.0
    for node in range(_NODES):
        at = -4.0 + node * spacing
        weight = math.exp(-0.5 * at * at)
        won = _logistic(difference.value + at * difference.standard_error)
        chance += weight * won
        certain += weight * _entropy(won)
        total += weight
    return _entropy(chance / total) - certain / total


def _entropy(chance: float) -> float:
    if not 0 < chance < 1:
        return 0.0
    return -chance * math.log(chance) - (1 - chance) * math.log(1 - chance)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def _softplus(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _cholesky(matrix: _Matrix) -> _Matrix:
    """The lower triangle L, row by row without its zeros, with L L' = matrix.

    Row i has i + 1 numbers, so a product of two rows ends where the shorter one does.
    """
    lower: _Matrix = []
    for i, row in enumerate(matrix):
        new: list[float] = []
        for j in range(i):
            new.append((row[j] - sum(map(mul, new, lower[j]))) / lower[j][j])
        new.append(math.sqrt(row[i] - sum(map(mul, new, new))))
        lower.append(new)
    return lower


def _solve(lower: _Matrix, right: Sequence[float]) -> list[float]:
    """The x with L L' x = right."""
    forward: list[float] = []
    for row, value in zip(lower, right):
        forward.append((value - sum(map(mul, row, forward))) / row[-1])
    result = [0.0] * len(forward)
    for i in range(len(forward) - 1, -1, -1):
        below = sum(lower[j][i] * result[j] for j in range(i + 1, len(forward)))
        result[i] = (forward[i] - below) / lower[i][i]
    return result


def _inverse(lower: _Matrix) -> _Matrix:
    """The inverse of L L'."""
    count = len(lower)
    return [
        _solve(lower, [float(row == column) for row in range(count)]) for column in range(count)
    ]
