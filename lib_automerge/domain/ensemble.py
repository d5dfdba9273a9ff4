"""Which rewards judge, and what each is for: plain data of a run's configuration."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from lib_automerge.domain.guards import NARROWEST
from lib_automerge.errors import ConfigError, unknown_name

Role = Literal["score", "cap", "referee"]
"""What a reward is for: `score` is maximised; `cap` may not fall below the parents, and does not
count above; `referee` is reported only."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A reward in an ensemble: its name in the registry, its weight (above 0), what it is for."""

    reward: str
    weight: float = 1.0
    role: Role = "score"


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """How images are judged.

    Attributes:
        members: the rewards; at least one of them with the role `score`.
        guards: the measures of an image that must stay near the parents' range.
        guard_strength: what one width of the range costs, 0 or more.
        diversity_strength: what it costs to lose all diversity over seeds (beta), 0 or more.
    """

    members: tuple[Member, ...]
    guards: tuple[str, ...] = tuple(NARROWEST)
    guard_strength: float = 1.0
    diversity_strength: float = 0.5


def check(ensemble: Ensemble) -> None:
    """Refuse an ensemble that cannot judge.

    Raises:
        ConfigError: no reward with the role `score`, one reward twice, an unknown guard, a weight
            that is not above 0, or a strength below 0.
    """
    names = [member.reward for member in ensemble.members]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the reward {name!r} is listed twice. Name each reward once.")
    if not any(member.role == "score" for member in ensemble.members):
        raise ConfigError(
            f"no reward is to be maximised: {', '.join(names) or 'the list is empty'}. "
            "Give at least one reward the role 'score'."
        )
    for member in ensemble.members:
        if not 0 < member.weight < math.inf:
            raise ConfigError(
                f"the weight of the reward {member.reward!r} is {member.weight}. "
                "It must be above 0."
            )
    for guard in ensemble.guards:
        if guard not in NARROWEST:
            raise ConfigError(unknown_name("guard", guard, NARROWEST))
    for field in ("guard_strength", "diversity_strength"):
        strength = getattr(ensemble, field)
        if not 0 <= strength < math.inf:
            raise ConfigError(f"{field} is {strength}. It must be 0 or more.")
