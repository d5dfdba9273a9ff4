"""The settings of the user as a judge: the reward "human"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from lib_automerge.errors import ConfigError, unknown_name

HUMAN = "human"
"""The name of the reward that is the user, who is asked in the tab (`domain.human`)."""

HUMAN_MODES = ("rate", "choose")
"""What its option `mode` can be; the first is the default."""


class HumanJudge(msgspec.Struct, frozen=True, kw_only=True):
    """The user as a judge: `mode` is "rate" (a slider) or "choose" (one of two candidates).

    `weight` is what one unit of their opinion counts beside learned rewards; `alone` whether
    there are none.
    """

    mode: str
    weight: float
    alone: bool


class _Member(Protocol):
    """A reward of a configuration; see `domain.config.RewardMember`."""

    @property
    def options(self) -> Mapping[str, str | int | float | bool | None]: ...
    @property
    def weight(self) -> float: ...
    @property
    def role(self) -> str: ...


def human_judge(member: _Member, *, alone: bool) -> HumanJudge:
    """Read the settings of the reward "human".

    Raises:
        ConfigError: an unknown option, mode or role, or a weight that is not above 0.
    """
    for option in member.options:
        if option != "mode":
            raise ConfigError(unknown_name("option of the human judge", option, ["mode"]))
    mode = str(member.options.get("mode") or HUMAN_MODES[0])
    if mode not in HUMAN_MODES:
        raise ConfigError(unknown_name("mode of the human judge", mode, HUMAN_MODES))
    if member.role != "score":
        raise ConfigError(
            f"the role of the human judge is {member.role!r}. Only 'score' is possible."
        )
    if not 0 < member.weight < math.inf:
        raise ConfigError(f"the weight of the human judge is {member.weight}. It must be above 0.")
    return HumanJudge(mode=mode, weight=member.weight, alone=alone)
