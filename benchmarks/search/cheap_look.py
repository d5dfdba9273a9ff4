"""Whether a cheap first look, fewer steps or smaller images, tells recipes of the demo pair apart.

36 recipes: the start design, random ones, and some close to the best of both. A look pays only if
it agrees with the truth better than fewer images of full settings at the same price. The truth is
taken from images of full settings with other seeds. Full settings are the demo's own, 6 steps, and
18, near what users of large models take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations, islice

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.search import demo_pair, ours
from lib_automerge.domain.payload import Payload
from lib_automerge.search.design import SobolSequence, start_points

Array = NDArray[np.float64]

DESIGN, RANDOM, CLOSE = 12, 12, 12
GROUPS = {"start design and random": (0, DESIGN + RANDOM), "close to the best": (-CLOSE, None)}
"""Which recipes, by position, the agreement is told of."""

TRUTH_SEEDS = {6: 4, 18: 2}
"""Steps of full settings -> seeds of the truth; long images are dear."""

_CLOSE_SD = 0.15


class Settings(msgspec.Struct, frozen=True):
    """How images are made: a share of the steps and of the width and height; how many sets of
    seeds, none of them those of the search if `other`.
    """

    steps: float = 1.0
    size: float = 1.0
    seeds: int = 1
    other: bool = False


TRUTH = "the truth"
FULL = "full settings"
LOOKS = {
    "half the steps": Settings(steps=1 / 2),
    "a third of the steps": Settings(steps=1 / 3),
    "half the size": Settings(size=1 / 2),
    "half the steps and the size": Settings(steps=1 / 2, size=1 / 2),
}


class Look(msgspec.Struct, frozen=True):
    """All recipes under one setting.

    Attributes:
        steps: of full settings.
        scores: of every image, recipe by recipe; with several seeds, payload by payload.
        seconds: CPU time of making and judging the images, without merging.
    """

    steps: int
    settings: str
    scores: tuple[tuple[float, ...], ...]
    seconds: float


def settings_of(steps: int) -> dict[str, Settings]:
    """Return what is made; smaller images with the demo's own steps only: there they fail."""
    own = steps == min(TRUTH_SEEDS)
    looks = {name: look for name, look in LOOKS.items() if own or look.size == 1.0}
    return {FULL: Settings(), **looks, TRUTH: Settings(seeds=TRUTH_SEEDS[steps], other=True)}


def looks(steps: int) -> list[Look]:
    """Score the recipes under every setting, where full settings have so many steps."""
    from lib_automerge.reward.demo import DemoReward

    chosen = [msgspec.structs.replace(payload, steps=steps) for payload in demo_pair.payloads()]
    reward, tried = DemoReward(), settings_of(steps)
    recipes = [*_design(), *np.random.default_rng(0).random((RANDOM, ours.SPACE.dimension))]
    scores: dict[str, list[tuple[float, ...]]] = {name: [] for name in tried}
    seconds = dict.fromkeys(tried, 0.0)
    with demo_pair.opened() as (session, _):
        for number in range(DESIGN + RANDOM + CLOSE):
            if number == len(recipes):
                means = [np.mean(parts) for parts in scores[FULL]]
                recipes += _close_to(recipes[int(np.argmax(means))])
            weights = ours.SPACE.weights(ours.SPACE.scaled(recipes[number]))
            demo_pair.merge(session, weights)
            for name, settings in tried.items():
                made = [_with(payload, settings) for payload in chosen]
                began = time.process_time()
                parts = demo_pair.scores(session, reward, made)
                seconds[name] += time.process_time() - began
                scores[name].append(tuple(round(score, 5) for score in parts))
    return [Look(steps, name, tuple(scores[name]), round(seconds[name], 2)) for name in tried]


def _design() -> list[Array]:
    """Return A, B, 50:50 and the start design, fractions of the ranges, without its 50:50."""
    dimension = ours.SPACE.dimension
    baselines = [np.full(dimension, weight) for _, weight in ours.BASELINES]
    sequence = SobolSequence(dimension, 0, "start design")
    points = islice(start_points(sequence, dimension), DESIGN - len(baselines) + 1)
    return [*baselines, *(point for point in points if not np.all(point == 0.5))]


def _close_to(recipe: Array) -> list[Array]:
    steps = np.random.default_rng(1).normal(0.0, _CLOSE_SD, (CLOSE, len(recipe)))
    return list(np.clip(recipe + steps, 0.0, 1.0))


def _with(payload: Payload, settings: Settings) -> Payload:
    first = payload.seeds[0] + (10_000 if settings.other else 0)
    return msgspec.structs.replace(
        payload,
        steps=round(payload.steps * settings.steps),
        width=round(payload.width * settings.size),
        height=round(payload.height * settings.size),
        seeds=tuple(range(first, first + settings.seeds)),
    )


def rows(found: Sequence[Look]) -> list[tuple[str, list[float]]]:
    """Return, for every way to judge a recipe, its price as a share of full settings and, for each
    of `GROUPS`, the rank correlations with full settings and with the truth (NaN where the way is a
    part of the truth).

    Args:
        found: the looks of one length of full settings.
    """
    by_name = {look.settings: look for look in found}
    full = np.array(by_name[FULL].scores)
    payloads = full.shape[1]
    true = np.array(by_name[TRUTH].scores).reshape(len(full), payloads, -1)
    others = list(true.mean(axis=1).T)
    noise = _agreement(others, full.mean(axis=1))
    result = [("full settings, other seeds", [1.0, noise[0], np.nan, noise[1], np.nan])]
    ways: dict[str, tuple[float, list[Array]]] = {}
    for count in (payloads, payloads // 2, payloads // 4):
        subsets = [full[:, list(c)].mean(axis=1) for c in combinations(range(payloads), count)]
        name = FULL if count == payloads else f"{FULL}, {count} of {payloads} images"
        ways[name] = count / payloads, subsets
    for name, look in by_name.items():
        if name not in (FULL, TRUTH):
            price = look.seconds / by_name[FULL].seconds
            ways[name] = price, [np.array(look.scores).mean(axis=1)]
    for name, (price, scores) in ways.items():
        with_full = _agreement(scores, full.mean(axis=1))
        with_truth = _agreement(scores, true.mean(axis=(1, 2)))
        result.append((name, [price, with_full[0], with_truth[0], with_full[1], with_truth[1]]))
    return result


def worth_it(told: Sequence[tuple[str, list[float]]]) -> list[str]:
    """Return the looks that rank recipes more truly, in both groups, than the number of images of
    full settings whose price is nearest.
    """
    plain = [cells for name, cells in told if name.startswith(FULL) and not np.isnan(cells[2])]
    looks = [(name, cells) for name, cells in told if name in LOOKS]
    found = []
    for name, cells in looks:
        same_price = min(plain, key=lambda other: abs(other[0] - cells[0]))
        if cells[2] > same_price[2] and cells[4] > same_price[4]:
            found.append(name)
    return found


def _agreement(ways: Sequence[Array], goal: Array) -> list[float]:
    """Return the mean rank correlation of scores of all recipes with the goal, per group."""
    return [
        float(np.mean([spearmanr(way[first:last], goal[first:last]).statistic for way in ways]))
        for first, last in GROUPS.values()
    ]
