"""How much of a score is chance, and how many images it takes to make that small enough.

Two things move the score of a recipe without making it better or worse: other seeds, and other
prompts, which one recipe may suit more than another does. Both are estimated from few images: the
baselines on the images of the search, and one of them again on sets of fresh seeds.

The score of an image is the sum of what its recipe, its payload and its seed add, of what the
payload adds to this recipe only (variance `prompt`), and of what the seed adds to this recipe only
(variance `seed`). All candidates share payloads and seeds, so what these add to every recipe
cancels. For payloads with shares w_p (sum 1) and n_p seeds each, the chance that is left in the
score of a recipe has the variance

    sum w_p^2 (prompt + seed / n_p)

Both are estimated from the recipes x images table (analysis of variance with two crossed factors
and replicates: Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). Baselines
differ more from each other than a search's candidates do, so they rather overstate it. What a score
is worth by itself, on seeds that nobody shares, is told by the fresh seeds of one recipe.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from lib_automerge.errors import ConfigError
from lib_automerge.search.statistics import ImageKey

TOLERABLE = 0.15
"""The share of the baselines' spread that chance may have: more of it hides what is searched for
(measured: a search with 5 to 7 % is hardly disturbed)."""

FEWEST_PROMPTS = 5
"""So many prompts at least are proposed: fewer say nothing about others."""

MOST_IMAGES = 2000
"""Advice to score every candidate by more images than that is no advice."""

_CLEARLY_FEWER = 0.6
"""Estimates from few images are rough: a little less than there is, is no advice."""

Scores = Mapping[ImageKey, float]


class Advice(str, enum.Enum):
    """What the measured noise says about the number of images."""

    ENOUGH = "enough"
    TOO_FEW = "too few"
    TOO_MANY = "more than needed"
    HOPELESS = "too alike"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The noise of a score, in units of the score.

    Attributes:
        alone_sd: standard deviation of one recipe's score over sets of fresh seeds.
        seed_sd: standard deviation of what a set of seeds adds to one recipe only.
        prompt_sd: standard deviation of what a set of prompts adds to one recipe only.
        spread: the score of the best baseline minus that of the worst.
        prompts, seeds: of the search; seeds per prompt on average.
        enough_prompts: how many prompts, with the seeds as they are, bring the noise to 15 % of the
            spread; None if more images than can be asked for.
        enough_seeds: how many seeds per prompt, with the prompts as they are; None if no number.
    """

    alone_sd: float
    seed_sd: float
    prompt_sd: float
    spread: float
    prompts: int
    seeds: float
    enough_prompts: int | None
    enough_seeds: int | None

    @property
    def noise(self) -> float:
        """Standard deviation of the chance in a score that is compared on the same images."""
        return math.hypot(self.seed_sd, self.prompt_sd)

    @property
    def share(self) -> float:
        """The noise relative to the spread of the baselines; infinite if they score the same."""
        return self.noise / self.spread if self.spread > 0 else math.inf

    @property
    def advice(self) -> Advice:
        """Whether the search has the right number of images."""
        if self.noise > 0 and self.share > TOLERABLE:
            both = self.enough_prompts is None and self.enough_seeds is None
            return Advice.HOPELESS if both else Advice.TOO_FEW
        return Advice.TOO_MANY if self._fewer() else Advice.ENOUGH

    def _fewer(self) -> str | None:
        """How much less would clearly do, if so."""
        seeds, prompts = self.enough_seeds, self.enough_prompts
        if seeds is not None and seeds <= _CLEARLY_FEWER * self.seeds:
            return f"{_counted(seeds, 'seed')} per prompt"
        if prompts is not None and prompts <= _CLEARLY_FEWER * self.prompts:
            return f"{prompts} prompts"
        return None

    @property
    def sentence(self) -> str:
        """The noise and the advice in plain words."""
        return f"{self._measured}; {self._proposal}."

    @property
    def _measured(self) -> str:
        if self.noise == 0 and self.alone_sd == 0:
            return "Chance does not move the score of a recipe"
        said = (
            f"Other seeds move the score of a recipe by ±{self.alone_sd:.2g}; on shared images "
            f"chance leaves ±{self.noise:.2g} in it (by the seeds ±{self.seed_sd:.2g}, by the "
            f"prompts ±{self.prompt_sd:.2g})"
        )
        if self.spread == 0:
            return f"{said}, and A, B and the 50:50 merge score the same"
        return (
            f"{said}, {100 * self.share:.0f} % of the {self.spread:.2g} between the best and the "
            "worst of A, B and the 50:50 merge"
        )

    @property
    def _proposal(self) -> str:
        now = f"{_counted(self.prompts, 'prompt')} with {_counted(self.seeds, 'seed')} each"
        match self.advice:
            case Advice.TOO_FEW:
                ways = [] if self.enough_prompts is None else [f"{self.enough_prompts} prompts"]
                ways += (
                    [] if self.enough_seeds is None else [f"{self.enough_seeds} seeds per prompt"]
                )
                return f"{now} are too few: use {' or '.join(ways)} to bring that to 15 %"
            case Advice.TOO_MANY:
                return f"{now} are more than needed: {self._fewer()} would do"
            case Advice.HOPELESS:
                return (
                    f"{now} are too few, and no reasonable number would do: these models are too "
                    "alike for this reward and these prompts"
                )
        return f"{now} are enough"


def _counted(count: float, noun: str) -> str:
    return f"{count:.3g} {noun}" + ("" if count == 1 else "s")


def calibrate(
    recipes: Sequence[Scores], repeated: Scores, weights: Mapping[str, float]
) -> Calibration:
    """Return the noise of a score in a search.

    Args:
        recipes: the scores of the baselines on the images of the search: the same payloads and
            seeds for each of them.
        repeated: the scores of one of them, on those images and on fresh seeds of their payloads.
        weights: payload name -> its share in the score, above 0, in any unit.

    Raises:
        ConfigError: the recipes have no image in common, or no payload was repeated.
    """
    images = sorted(set.intersection(*(set(scores) for scores in recipes))) if recipes else []
    if not images:
        raise ConfigError(
            f"the {len(recipes)} recipes have no image in common. Score them on the same ones."
        )
    payloads = sorted({payload for payload, _ in images})
    total = sum(weights[name] for name in payloads)
    shares = np.array([weights[name] / total for name in payloads])
    seeds = np.array([sum(name == payload for name, _ in images) for payload in payloads])
    alone = _between_seeds(repeated)
    seed, prompt = _own(recipes, images, payloads, alone)
    each_seed = float(shares**2 @ (1.0 / seeds))
    by_seeds, by_prompts = seed * each_seed, prompt * float(shares @ shares)
    means = [
        sum(
            share * np.mean([scores[image] for image in images if image[0] == payload])
            for share, payload in zip(shares, payloads, strict=True)
        )
        for scores in recipes
    ]
    spread = float(max(means) - min(means))
    tolerable = (TOLERABLE * spread) ** 2
    each = float(seeds.mean())
    return Calibration(
        alone_sd=math.sqrt(alone * each_seed),
        seed_sd=math.sqrt(by_seeds),
        prompt_sd=math.sqrt(by_prompts),
        spread=spread,
        prompts=len(payloads),
        seeds=each,
        enough_prompts=_prompts(len(payloads), each, (by_seeds + by_prompts), tolerable),
        enough_seeds=_seeds(len(payloads), each, by_seeds, tolerable - by_prompts),
    )


def _prompts(prompts: int, seeds: float, variance: float, tolerable: float) -> int | None:
    """How many prompts bring the variance, which falls with their number, to what is tolerable."""
    if variance > 0 and tolerable <= 0:
        return None
    needed = math.ceil(prompts * variance / tolerable - 1e-9) if variance > 0 else 0
    needed = max(needed, min(FEWEST_PROMPTS, prompts))
    return needed if needed * seeds <= MOST_IMAGES else None


def _seeds(prompts: int, seeds: float, variance: float, tolerable: float) -> int | None:
    """How many seeds per prompt bring their variance to what the prompts leave of the tolerable."""
    if variance == 0 and tolerable >= 0:
        return 1
    if tolerable <= 0:
        return None
    needed = max(1, math.ceil(seeds * variance / tolerable - 1e-9))
    return needed if needed * prompts <= MOST_IMAGES else None


def _between_seeds(repeated: Scores) -> float:
    """Return the variance between seeds within a payload, pooled."""
    groups: dict[str, list[float]] = {}
    for (payload, _), score in repeated.items():
        groups.setdefault(payload, []).append(score)
    freedom = sum(len(scores) - 1 for scores in groups.values())
    if freedom < 1:
        raise ConfigError(
            f"no payload was scored on two seeds: {len(repeated)} images. Score fresh seeds."
        )
    squares = sum(float(np.var(scores)) * len(scores) for scores in groups.values())
    return squares / freedom


def _own(
    recipes: Sequence[Scores], images: Sequence[ImageKey], payloads: Sequence[str], alone: float
) -> tuple[float, float]:
    """Return the variances of what a seed, and a payload, adds to one recipe only.

    Where no payload has two seeds they cannot be told apart: as much as the seeds do to a recipe by
    themselves, `alone`, is then put down to them.
    """
    scores = np.array([[recipe[image] for image in images] for recipe in recipes])
    apart = scores - scores.mean(axis=0)
    own = [  # (recipes, seeds) for each payload
        apart[:, [name == payload for name, _ in images]] for payload in payloads
    ]
    counts = np.array([part.shape[1] for part in own])
    rows = len(recipes) - 1
    replicates = rows * int((counts - 1).sum())
    squares = sum(float(((part - part.mean(axis=1, keepdims=True)) ** 2).sum()) for part in own)
    seed = squares / replicates if replicates else alone
    if not rows or len(payloads) < 2:
        return seed, 0.0
    table = np.array([part.mean(axis=1) for part in own]).T
    table -= table.mean(axis=1, keepdims=True)
    between = float((table**2).sum()) / (rows * (len(payloads) - 1))
    seed = seed if replicates else min(seed, between)
    return seed, max(0.0, between - seed * float(np.mean(1.0 / counts)))
