"""The settings of the user as a judge: the rewards "human_rate" and "human_choose"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from lib_automerge.errors import ConfigError

RATE, CHOOSE = "human_rate", "human_choose"

HUMANS = (RATE, CHOOSE)
"""The names of the rewards that are the user, who is asked in the tab (`domain.human`)."""

CHOICES = 23
"""So many blind choices per baseline at most, where the user alone proves a merge (`app.blind`).

Sixteen of them prove it, at a level of 4.7 %. A merge that is preferred in three of four choices
passes with 80 %, in four of five with 93 %; other numbers near it use less of the 5 %.
"""


class HumanJudge(msgspec.Struct, frozen=True, kw_only=True):
    """The user as a judge: `name` is `RATE` (a slider) or `CHOOSE` (one of two candidates).

    `weight` is what one unit of their opinion counts beside learned rewards; `alone` whether
    there are none.
    """

    name: str
    weight: float
    alone: bool


class _Member(Protocol):
    """A reward of a configuration; see `domain.config.RewardMember`."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> Mapping[str, str | int | float | bool | None]: ...
    @property
    def weight(self) -> float: ...
    @property
    def role(self) -> str: ...


def human_judge(member: _Member, *, alone: bool) -> HumanJudge:
    """Read the settings of one of `HUMANS`.

    Raises:
        ConfigError: it has an option, another role than `score`, or a weight that is not above 0.
    """
    for option in member.options:
        raise ConfigError(f"the human judge takes no options: {option!r}. Remove it.")
    if member.role != "score":
        raise ConfigError(
            f"the role of the human judge is {member.role!r}. Only 'score' is possible."
        )
    if not 0 < member.weight < math.inf:
        raise ConfigError(f"the weight of the human judge is {member.weight}. It must be above 0.")
    return HumanJudge(name=member.name, weight=member.weight, alone=alone)
