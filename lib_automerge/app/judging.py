"""From what was measured of images to the scores of images and candidates, for one run.

One reward gives the score of an image as it is; an ensemble needs the parents' images first
(`domain.scale`) and judges all others in their units (`domain.judging`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lib_automerge.domain import judging
from lib_automerge.domain.config import RewardConfig
from lib_automerge.domain.events import Scored
from lib_automerge.domain.judging import Judgement
from lib_automerge.domain.preferences import Opinion
from lib_automerge.domain.reward_presets import FLOORS
from lib_automerge.domain.scale import Judged, Scale, extended, scale_of
from lib_automerge.search import statistics

Diversity = Mapping[str, float]
"""Payload -> diversity over its seeds."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The score of a candidate by some of its images; see `domain.events.Evaluated`."""

    mean: float
    standard_error: float | None
    images: int
    per_payload: dict[str, float]
    judgement: Judgement | None = None


class Judging:
    """How a run judges.

    Args:
        config: of its rewards.
        weights: payload name -> weight.
    """

    def __init__(self, config: RewardConfig, weights: Mapping[str, float]) -> None:
        self.human = config.human
        self.ensemble = config.ensemble
        self._weights = weights

    @property
    def by_person_alone(self) -> bool:
        """Whether nothing but the user judges, so that images have no scores."""
        return self.human is not None and self.human.alone

    def value(self, image: Scored, scale: Scale | None) -> float | None:
        """The score of a measured image.

        None if an ensemble does not know its units yet, or if nobody but the user judges.
        """
        if image.broken is not None:
            return None
        if self.ensemble is None:
            return next(iter(image.raw.values()), None)
        if scale is None or not self.covers(scale, [image.payload]):
            return None
        return judging.value_of(_judged(image), self.ensemble, scale).value

    def score(
        self, images: Iterable[Scored], scale: Scale | None, diversity: Diversity | None = None
    ) -> Score:
        """The score of a candidate by its images that are not broken.

        Raises:
            ConfigError: there is none, or a payload has no weight.
        """
        if self.by_person_alone:
            return _unjudged(sum(image.broken is None for image in images))
        whole = [image for image in images if image.score is not None]
        if self.ensemble is None or scale is None:
            by_payload: dict[str, list[float]] = {}
            for image in whole:
                by_payload.setdefault(image.payload, []).append(image.score or 0.0)
            found = statistics.summarize(by_payload, self._weights)
            error = found.standard_error
            return Score(
                mean=found.mean,
                standard_error=error if math.isfinite(error) else None,
                images=found.images,
                per_payload=found.per_payload,
            )
        judged = judging.judge(
            [_judged(image) for image in whole], self.ensemble, scale, self._weights, diversity
        )
        return Score(
            mean=judged.total,
            standard_error=judged.standard_error,
            images=judged.images,
            per_payload=judged.per_payload,
            judgement=judged,
        )

    def scale(
        self,
        known: Scale | None,
        images: Sequence[Scored],
        diversity: Diversity | None = None,
    ) -> Scale:
        """The units of an ensemble, from all images of both parents.

        Args:
            known: of other payloads, to be extended.
            images: the parents'.
            diversity: the parents' mean.

        Raises:
            ConfigError: the parents have no usable image of a payload.
        """
        judged = [_judged(image) for image in images]
        if known is None:
            return scale_of(judged, FLOORS, diversity)
        return extended(known, judged, diversity)

    @staticmethod
    def covers(scale: Scale | None, payloads: Iterable[str]) -> bool:
        """Whether the units of these payloads are known."""
        if scale is None:
            return False
        return all(name in centres for centres in scale.centres.values() for name in payloads)


def _unjudged(images: int) -> Score:
    """A candidate of which the user has said nothing yet."""
    value = Opinion(()).value(0)
    return Score(
        mean=value.value, standard_error=value.standard_error, images=images, per_payload={}
    )


def _judged(image: Scored) -> Judged:
    return Judged(
        evaluation=image.evaluation,
        payload=image.payload,
        seed=image.seed,
        raw=image.raw,
        looks=image.looks,
        broken=image.broken is not None,
    )
