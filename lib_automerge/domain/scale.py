"""The parents' images as the units in which everything else is judged; see `domain.judging`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from lib_automerge.errors import ConfigError

_CHANCE = 2.0
"""Standard deviations of chance that a range has beyond what is expected of each parent."""

_SAME = 1e-6
"""Scores that differ by less than this share of their size are equal: that much is rounding."""

Value = TypeVar("Value")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one image of an evaluation.

    Attributes:
        evaluation: the evaluation's number; among parents it tells one from the other.
        payload, seed: which image it is.
        raw: reward -> its score, as the reward gave it.
        looks: guard -> its measure.
        broken: True if the image is black or NaN.
    """

    evaluation: int
    payload: str
    seed: int
    raw: dict[str, float] = {}
    looks: dict[str, float] = {}
    broken: bool = False


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """What the parents' images say: the units in which everything else is judged.

    Attributes:
        centres: reward -> payload -> mean raw score of the parents.
        scales: reward -> pooled sd of raw scores, 0 or more; 0: the reward tells nothing.
        parents: reward -> payload -> number of a parent's evaluation -> its mean z.
        ranges: guard -> payload -> the range of the parents, not widened: from their lowest to
            their highest measure, and 2 sd of chance beyond what is expected of each parent if
            that is more, because few images span less than the models do.
        diversity: payload -> mean diversity of the parents over their seeds.
    """

    centres: dict[str, dict[str, float]]
    scales: dict[str, float]
    parents: dict[str, dict[str, dict[int, float]]] = {}
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    diversity: dict[str, float] = {}


def scale_of(
    images: Iterable[Judged],
    floors: Mapping[str, float],
    diversity: Mapping[str, float] | None = None,
) -> Scale:
    """Freeze what the parents' images say.

    Broken images and scores or measures that are not finite are left out.

    Args:
        images: all images of all parents; every reward that any of them has must have judged each
            payload.
        floors: reward -> the least sd to divide by, in its own units (0 if it is not listed):
            differences that mean nothing even if all parents' images agree.
        diversity: payload -> mean diversity of the parents over their seeds.

    Raises:
        ConfigError: no image, or a reward without a finite score for a payload.
    """
    usable = [image for image in images if not image.broken]
    if not usable:
        raise ConfigError(
            "the parents have no image to compare with: all are broken. Check the models with the "
            "WebUI first."
        )
    centres = _centres(usable)
    scales = {
        reward: max(_pooled_sd(reward, by_payload, usable), floors.get(reward, 0.0))
        for reward, by_payload in centres.items()
    }
    guards = dict.fromkeys(guard for image in usable for guard in image.looks)
    scale = Scale(
        centres=centres,
        scales=scales,
        ranges={guard: _ranges(guard, usable) for guard in guards},
        diversity=dict(diversity or {}),
    )
    return msgspec.structs.replace(scale, parents=_parents(usable, scale))


def extended(
    scale: Scale, images: Iterable[Judged], diversity: Mapping[str, float] | None = None
) -> Scale:
    """Return the scale with the payloads of further images of the parents added.

    For held-out payloads: their centres and ranges are their own, the units stay those of the
    search. Payloads that the scale knows keep what it says.

    Raises:
        ConfigError: as `scale_of`.
    """
    known = {payload for by_payload in scale.centres.values() for payload in by_payload}
    fresh = [image for image in images if image.payload not in known]
    if not fresh:
        return scale
    new = scale_of(fresh, {}, diversity)
    both = msgspec.structs.replace(
        scale,
        centres=_joined(scale.centres, new.centres),
        ranges=_joined(scale.ranges, new.ranges),
        scales=new.scales | scale.scales,
        diversity=new.diversity | scale.diversity,
    )
    return msgspec.structs.replace(
        both,
        parents=_joined(scale.parents, _parents([i for i in fresh if not i.broken], both)),
    )


def standardized(image: Judged, reward: str, scale: Scale) -> float:
    """Return the z of an image's score; NaN if the score is not finite.

    Raises:
        ConfigError: the reward did not score the image, or the scale does not know its payload.
    """
    if reward not in image.raw:
        raise ConfigError(
            f"the reward {reward!r} did not score {image.payload!r}, seed {image.seed}. "
            "Score every image with every reward."
        )
    centre = scale.centres.get(reward, {}).get(image.payload)
    if centre is None:
        raise ConfigError(
            f"the parents have no score of {reward!r} on payload {image.payload!r}. "
            "Score the parents' images first."
        )
    return _z(image.raw[reward], centre, scale.scales[reward])


def _z(raw: float, centre: float, sd: float) -> float:
    if not math.isfinite(raw):
        return math.nan
    return (raw - centre) / sd if sd > 0 else 0.0


def _centres(images: Sequence[Judged]) -> dict[str, dict[str, float]]:
    rewards = dict.fromkeys(reward for image in images for reward in image.raw)
    payloads = dict.fromkeys(image.payload for image in images)
    centres: dict[str, dict[str, float]] = {}
    for reward in rewards:
        for payload in payloads:
            scores = _scores(reward, payload, images)
            if not scores:
                raise ConfigError(
                    f"the parents have no score of {reward!r} on payload {payload!r}. "
                    "Check that both models can draw it."
                )
            centres.setdefault(reward, {})[payload] = _mean(scores)
    return centres


def _scores(reward: str, payload: str, images: Iterable[Judged]) -> list[float]:
    scores = (image.raw.get(reward, math.nan) for image in images if image.payload == payload)
    return [score for score in scores if math.isfinite(score)]


def _pooled_sd(reward: str, centres: Mapping[str, float], images: Sequence[Judged]) -> float:
    squares, freedom = 0.0, 0
    for payload, centre in centres.items():
        scores = _scores(reward, payload, images)
        squares += math.fsum((score - centre) ** 2 for score in scores)
        freedom += len(scores) - 1
    sd = math.sqrt(squares / freedom) if freedom else 0.0
    return sd if sd > _SAME * max(map(abs, centres.values())) else 0.0


def _ranges(guard: str, images: Sequence[Judged]) -> dict[str, tuple[float, float]]:
    """The range of each payload; see `Scale.ranges`.

    Expected of parent k on payload p is mu[p] + e[k]: the payload's mean and the mean distance of
    the parent's images from it. Chance is what is left, pooled over all images, with as many
    degrees of freedom as numbers less the means that were taken.
    """
    found = [image for image in images if math.isfinite(image.looks.get(guard, math.nan))]
    by_payload: dict[str, list[float]] = {}
    for image in found:
        by_payload.setdefault(image.payload, []).append(image.looks[guard])
    means = {payload: _mean(measures) for payload, measures in by_payload.items()}
    distances: dict[int, list[float]] = {}
    for image in found:
        distance = image.looks[guard] - means[image.payload]
        distances.setdefault(image.evaluation, []).append(distance)
    expected = [_mean(some) for some in distances.values()]
    squares = math.fsum(
        (distance - mean) ** 2
        for some, mean in zip(distances.values(), expected)
        for distance in some
    )
    freedom = len(found) - len(means) - len(expected) + 1
    reach = _CHANCE * math.sqrt(squares / freedom) if freedom > 0 else 0.0
    return {
        payload: (
            min(*measures, means[payload] + min(expected) - reach),
            max(*measures, means[payload] + max(expected) + reach),
        )
        for payload, measures in by_payload.items()
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _parents(images: Sequence[Judged], scale: Scale) -> dict[str, dict[str, dict[int, float]]]:
    found: dict[tuple[str, str, int], list[float]] = {}
    for image in images:
        for reward in image.raw:
            z = standardized(image, reward, scale)
            if math.isfinite(z):
                found.setdefault((reward, image.payload, image.evaluation), []).append(z)
    means: dict[str, dict[str, dict[int, float]]] = {}
    for (reward, payload, number), z_values in found.items():
        by_parent = means.setdefault(reward, {}).setdefault(payload, {})
        by_parent[number] = _mean(z_values)
    return means


def _joined(
    first: Mapping[str, Mapping[str, Value]], second: Mapping[str, Mapping[str, Value]]
) -> dict[str, dict[str, Value]]:
    return {
        name: {**second.get(name, {}), **first.get(name, {})}
        for name in dict.fromkeys([*first, *second])
    }
