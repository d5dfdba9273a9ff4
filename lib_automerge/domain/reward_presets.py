"""Ready-made ensembles, and the least spread of each reward that means anything."""

from __future__ import annotations

import msgspec

from lib_automerge.domain.ensemble import Ensemble, Member
from lib_automerge.errors import ConfigError, unknown_name

FLOORS = {
    "image_reward": 0.05,
    "image_reward_pip": 0.05,
    "hpsv2": 0.002,
    "pickscore": 0.1,
    "clip_score": 0.002,
    "laion_v1": 0.05,
    "laion_v2": 0.05,
    "chad": 0.05,
    "aes_b32": 0.05,
    "aesthetic_v25": 0.05,
    "demo": 0.01,
}
"""Reward -> the least standard deviation within a payload that its scores are measured in, in its
own units. These are choices, about a twentieth of how much the scores of different images of one
prompt usually differ; they matter only where the parents' images are nearly the same. A reward that
is not listed has none."""


class Preset(msgspec.Struct, frozen=True):
    """An ensemble with a name: its key, label and one sentence for users."""

    name: str
    label: str
    explanation: str
    ensemble: Ensemble


PRESETS = (
    Preset(
        "default",
        "ImageReward",
        "One reward, one file: runs on any machine.",
        Ensemble(members=(Member(reward="image_reward"),)),
    ),
    Preset(
        "robust",
        "Robust",
        "ImageReward, HPSv2.1 and PickScore, which learned from different people: hard to fool, "
        "loaded one at a time.",
        Ensemble(
            members=(
                Member(reward="image_reward"),
                Member(reward="hpsv2"),
                Member(reward="pickscore"),
            )
        ),
    ),
    Preset(
        "photo",
        "Photo",
        "Robust, and the LAION aesthetic score may not fall below the parents'; CLIPScore is shown "
        "but not optimised.",
        Ensemble(
            members=(
                Member(reward="image_reward"),
                Member(reward="hpsv2"),
                Member(reward="pickscore"),
                Member(reward="laion_v2", weight=0.5, role="cap"),
                Member(reward="clip_score", role="referee"),
            )
        ),
    ),
    Preset(
        "anime",
        "Anime",
        "Robust, for parents that are both anime models; the anime score aes-B32 may not fall "
        "below the parents'.",
        Ensemble(
            members=(
                Member(reward="image_reward"),
                Member(reward="hpsv2"),
                Member(reward="pickscore"),
                Member(reward="aes_b32", weight=0.5, role="cap"),
            )
        ),
    ),
)


def preset(name: str) -> Preset:
    """Return the preset `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    for one in PRESETS:
        if one.name == name:
            return one
    raise ConfigError(unknown_name("preset", name, [one.name for one in PRESETS]))
