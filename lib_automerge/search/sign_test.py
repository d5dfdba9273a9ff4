"""The sign test of paired choices: is one preferred to the other more often than by chance?

If neither is better, each choice that was made is heads or tails, whatever the prompts are like, so
of n choices the number of wins is binomial with a half (Dixon and Mood, The Statistical Sign Test,
JASA 1946). Ties say nothing of the direction and are left out. Choices among images of prompts that
differ in which one they favour vary less than that, so the test is careful then, and speaks of
these prompts (Hoeffding, On the Distribution of the Number of Successes in Independent Trials,
Annals of Mathematical Statistics 1956).
"""

from __future__ import annotations

import math

from scipy import stats

LEVEL = 0.05
"""The chance, at most, that one which is not preferred passes."""


def p_value(wins: int, losses: int) -> float:
    """The chance of at least so many wins if neither is preferred; 1 without choices."""
    made = wins + losses
    ways = sum(math.comb(made, k) for k in range(wins, made + 1))
    return ways / float(2**made)


def settled(wins: int, losses: int, left: int) -> bool | None:
    """What the test says after `left` more answers, whatever they are; None while that is open.

    Stopping here changes nothing: all answers would have said the same, so the level is exactly
    that of the test after all of them (curtailed sampling). Further losses only raise the p-value,
    further wins only lower it, and ties are between the two.
    """
    if p_value(wins, losses + left) < LEVEL:
        return True
    if p_value(wins + left, losses) >= LEVEL:
        return False
    return None


def fewest() -> int:
    """How many choices can be significant at all."""
    made = 1
    while p_value(made, 0) >= LEVEL:
        made += 1
    return made


def share_interval(wins: int, losses: int) -> tuple[float, float]:
    """The 95 % interval of the share of wins (Clopper and Pearson, Biometrika 1934)."""
    low = float(stats.beta.ppf(0.025, wins, losses + 1)) if wins else 0.0
    high = float(stats.beta.ppf(0.975, wins + 1, losses)) if losses else 1.0
    return low, high
