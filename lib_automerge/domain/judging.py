"""From the raw scores of several rewards to one number per candidate that is hard to fool.

Notation: x[r, i] the raw score of image i by reward r; p the payload of i; w shares, summing to 1.

    centre   mu[r, p] = the mean of the parents' images of payload p
    scale    s[r] = the pooled sd of the parents' images within their payloads, not below a floor
    z        (x[r, i] - mu[r, p]) / s[r]
    image    across rewards: mean - 0.5 sd, the weighted median from four rewards on, of the z, of
             which none counts as more than 4 above the middle one;
             beyond 4 on either side, it grows with its logarithm only;
             minus 1 for every width of the parents' range by which the worst guard lies outside it
             (the range of that payload, widened by 15 % of its width on either side; few images
             understate it, so it is 2 sd of chance beyond each parent's mean at least);
             not below -10. A broken image, or one with a NaN, is -10
    payload  v[p] = the mean of its images
    total    0.7 * sum w[p] v[p] + 0.3 * (the mean of the worst quarter of the payloads by weight)
             - beta * max(0, 1 - D / D_parents) - how far the caps are undercut

Why: rewards disagree on units, so each is measured in the spread of the parents' own images of the
same prompts. A candidate that games one reward makes the rewards disagree, which `sd` punishes, and
a reward cannot leave the others behind by more than 4. `sd` is the sample sd, which is strict where
rewards are few: a gain in one reward alone counts 15 % with two rewards, 4 % with three. The
logarithm keeps a single image from deciding alone, and guards from being outbid, but never hides
which of two candidates is better: one that is far better than its parents can still be improved. A
better score never lowers the value: with n equal rewards that holds for mean - c sd as long as
c <= 1 / sqrt(n), hence the median from four on (`aggregation`). No sigmoid and no geometric mean:
one hides large differences, the other has no meaning for signed scores.

Sources: Coste et al., Reward Model Ensembles Help Mitigate Overoptimization, 2023; Rockafellar and
Uryasev, Optimization of Conditional Value-at-Risk, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median_low

import msgspec

from lib_automerge.domain import aggregation
from lib_automerge.domain.ensemble import Ensemble
from lib_automerge.domain.guards import NARROWEST
from lib_automerge.domain.scale import Judged, Scale, standardized
from lib_automerge.errors import ConfigError

WORST = -10.0
"""The value of a broken image: nothing is worse."""
LINEAR = 4.0
"""Up to here a value counts in full; and so far may one reward rise above the middle one."""
WIDENING = 0.15
"""How much of its width a range is widened by on either side."""
ENOUGH_PAYLOADS = 5
"""From here on the standard error is that between payloads, below that between images."""


class ImageValue(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one image.

    Attributes:
        value: -10 or more; what is averaged.
        rewards: the same before the penalty.
        penalty: 0 or more.
        z: reward -> z; NaN where the raw score is.
        outside: guard -> how many widths outside the parents' widened range, above 0 only.
        broken: True if the value stands for an image that could not be judged.
    """

    value: float
    rewards: float
    penalty: float = 0.0
    z: dict[str, float] = {}
    outside: dict[str, float] = {}
    broken: bool = False


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a candidate.

    `total` is what the search maximises:
    0.7 * `mean` + 0.3 * `worst_quarter` - `diversity_penalty` - `cap_penalty`, at least -10.

    Attributes:
        standard_error: of the total, from chance between payloads (from five on; below that,
            between images); None for a single image.
        images: how many images were judged.
        diversity_ratio: diversity in units of the parents'; None if it is not known.
        below_caps: caps that the candidate undercuts: it must not win, whatever its total.
        per_payload: payload -> mean value of its images.
        z: reward -> payload-weighted mean z over the images that have one, referees included.
        outside: guard -> share of the images that lie outside the parents' widened range.
    """

    total: float
    standard_error: float | None
    mean: float
    worst_quarter: float
    diversity_penalty: float
    cap_penalty: float
    images: int
    diversity_ratio: float | None
    below_caps: tuple[str, ...]
    per_payload: dict[str, float]
    z: dict[str, float]
    outside: dict[str, float]


def value_of(image: Judged, ensemble: Ensemble, scale: Scale) -> ImageValue:
    """Judge one image.

    Raises:
        ConfigError: a reward of the ensemble did not score it, or the scale does not know its
            payload.
    """
    z = {member.reward: standardized(image, member.reward, scale) for member in ensemble.members}
    scoring = [member for member in ensemble.members if member.role == "score"]
    needed = [z[member.reward] for member in ensemble.members if member.role != "referee"]
    needed += [image.looks[guard] for guard in ensemble.guards if guard in image.looks]
    if image.broken or not all(map(math.isfinite, needed)):
        return ImageValue(value=WORST, rewards=WORST, z=z, broken=True)
    rewards = _across([z[member.reward] for member in scoring], [m.weight for m in scoring])
    outside = _outside(image, ensemble.guards, scale)
    penalty = ensemble.guard_strength * max(outside.values(), default=0.0)
    return ImageValue(
        value=max(WORST, rewards - penalty),
        rewards=rewards,
        penalty=penalty,
        z=z,
        outside=outside,
    )


def judge(
    images: Sequence[Judged],
    ensemble: Ensemble,
    scale: Scale,
    weights: Mapping[str, float],
    diversity: Mapping[str, float] | None = None,
) -> Judgement:
    """Judge a candidate by its images, of all payloads or of some.

    Args:
        images: of one candidate, at least one.
        ensemble: what `check` accepts.
        scale: from the parents' images.
        weights: payload -> its weight, above 0, in any unit.
        diversity: payload -> the candidate's diversity over its seeds, of the same measure as the
            parents' and of as many seeds; None where it was not measured.

    Raises:
        ConfigError: there is no image, a payload has no weight, or as `value_of`.
    """
    if not images:
        raise ConfigError("there is nothing to judge: no image. Score at least one.")
    values = [value_of(image, ensemble, scale) for image in images]
    by_payload: dict[str, list[float]] = {}
    for image, value in zip(images, values):
        by_payload.setdefault(image.payload, []).append(value.value)
    per_payload = {name: math.fsum(some) / len(some) for name, some in by_payload.items()}
    shares = _shares(per_payload, weights)
    means, by_share = list(per_payload.values()), list(shares.values())
    z = _mean_z(images, values, shares)
    ratio = _diversity_ratio(diversity or {}, scale, shares)
    diversity_penalty = (
        0.0 if ratio is None else ensemble.diversity_strength * max(0.0, 1.0 - ratio)
    )
    undercut = _undercut(ensemble, z, scale, shares)
    cap_penalty = math.fsum(undercut.values())
    total = aggregation.across_payloads(means, by_share) - diversity_penalty - cap_penalty
    return Judgement(
        total=max(WORST, total),
        standard_error=_standard_error(list(by_payload.values()), by_share),
        mean=aggregation.mean(means, by_share),
        worst_quarter=aggregation.worst(means, by_share),
        diversity_penalty=diversity_penalty,
        cap_penalty=cap_penalty,
        images=len(images),
        diversity_ratio=ratio,
        below_caps=tuple(undercut),
        per_payload=per_payload,
        z=z,
        outside=_outside_shares(values),
    )


def won_against(
    candidate: Mapping[str, float], others: Collection[Mapping[str, float]]
) -> tuple[int, int]:
    """Return on how many payloads a candidate beats all others, and on how many all were judged.

    For display: "beats both parents on 9 of 12 payloads". A draw is not a win.

    Args:
        candidate: payload -> value, as in `Judgement.per_payload`.
        others: the same of each other.
    """
    common = [name for name in candidate if all(name in other for other in others)]
    wins = sum(all(candidate[name] > other[name] for other in others) for name in common)
    return wins, len(common)


def _across(z: Sequence[float], weights: Sequence[float]) -> float:
    highest = median_low(z) + LINEAR
    value = aggregation.across_rewards([min(one, highest) for one in z], weights)
    beyond = abs(value) - LINEAR
    return math.copysign(LINEAR + math.log1p(beyond), value) if beyond > 0 else value


def _outside(image: Judged, guards: Collection[str], scale: Scale) -> dict[str, float]:
    """How many widths beyond the widened range, of the guards that are violated."""
    found: dict[str, float] = {}
    for guard in guards:
        limits = scale.ranges.get(guard, {}).get(image.payload)
        if limits is None or guard not in image.looks:
            continue
        low, high = limits
        width = max(high - low, NARROWEST[guard])
        beyond = max(low - image.looks[guard], image.looks[guard] - high) / width - WIDENING
        if beyond > 0:
            found[guard] = beyond
    return found


def _shares(payloads: Iterable[str], weights: Mapping[str, float]) -> dict[str, float]:
    for name in payloads:
        if not 0 < weights.get(name, 0.0) < math.inf:
            raise ConfigError(
                f"the weight of payload {name!r} is {weights.get(name)}. It must be above 0."
            )
    total = math.fsum(weights[name] for name in payloads)
    return {name: weights[name] / total for name in payloads}


def _mean_z(
    images: Sequence[Judged], values: Sequence[ImageValue], shares: Mapping[str, float]
) -> dict[str, float]:
    found: dict[str, dict[str, list[float]]] = {}
    for image, value in zip(images, values):
        for reward, z in value.z.items():
            if math.isfinite(z):
                found.setdefault(reward, {}).setdefault(image.payload, []).append(z)
    return {
        reward: aggregation.mean(
            [math.fsum(z) / len(z) for z in by_payload.values()],
            [shares[payload] for payload in by_payload],
        )
        for reward, by_payload in found.items()
    }


def _diversity_ratio(
    diversity: Mapping[str, float], scale: Scale, shares: Mapping[str, float]
) -> float | None:
    common = [name for name in shares if name in diversity and name in scale.diversity]
    parents = math.fsum(shares[name] * scale.diversity[name] for name in common)
    if not parents > 0:
        return None
    return math.fsum(shares[name] * diversity[name] for name in common) / parents


def _undercut(
    ensemble: Ensemble, z: Mapping[str, float], scale: Scale, shares: Mapping[str, float]
) -> dict[str, float]:
    """How far each violated cap lies below the worse parent, times its weight.

    The range of the parents' means is widened like that of a guard, and taken to be 1 wide at
    least, so that chance alone does not undercut two equal parents.
    """
    found: dict[str, float] = {}
    for member in ensemble.members:
        by_parent: dict[int, tuple[list[float], list[float]]] = {}
        for payload, parents in scale.parents.get(member.reward, {}).items():
            for number, level in parents.items():
                if payload in shares:
                    levels, weights = by_parent.setdefault(number, ([], []))
                    levels.append(level)
                    weights.append(shares[payload])
        if member.role != "cap" or member.reward not in z or not by_parent:
            continue
        means = [aggregation.mean(levels, weights) for levels, weights in by_parent.values()]
        low, high = min(means), max(means)
        short = low - WIDENING * max(high - low, 1.0) - z[member.reward]
        if short > 0:
            found[member.reward] = member.weight * short
    return found


def _standard_error(by_payload: Sequence[Sequence[float]], shares: Sequence[float]) -> float | None:
    means = [math.fsum(values) / len(values) for values in by_payload]
    if len(means) >= ENOUGH_PAYLOADS:
        error = aggregation.error_across_payloads(means, shares)
    else:
        parts = aggregation.tilted(means, shares)
        error = aggregation.error_of_mean(
            [value for values in by_payload for value in values],
            [part / len(values) for part, values in zip(parts, by_payload) for _ in values],
        )
    return error if math.isfinite(error) else None


def _outside_shares(values: Sequence[ImageValue]) -> dict[str, float]:
    counts: dict[str, int] = {}
    for value in values:
        for guard in value.outside:
            counts[guard] = counts.get(guard, 0) + 1
    return {guard: count / len(values) for guard, count in counts.items()}
