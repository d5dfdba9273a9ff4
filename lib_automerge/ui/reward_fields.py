"""The fields of the reward: which judge, what each of several is for, guards, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain.config import ENSEMBLE
from lib_automerge.domain.ensemble import Role
from lib_automerge.domain.guards import GUARDS, NARROWEST
from lib_automerge.domain.reward_presets import PRESETS, Preset
from lib_automerge.reward import registry
from lib_automerge.ui.fields import Field, Kind, Labels

MARK = "preset:"
"""Before the name of a preset among the names of the picker, which no reward begins with."""

READY_MADE: Mapping[str, Preset] = {
    MARK + one.name: one for one in PRESETS if len(one.ensemble.members) > 1
}
"""The presets of several rewards; the default is a reward like any other."""


def _in_order() -> tuple[str, ...]:
    """All rewards: those of the presets first, as they are asked there."""
    used = dict.fromkeys(m.reward for one in PRESETS for m in one.ensemble.members)
    known = registry.names()
    return (
        *(name for name in used if name in known),
        *(name for name in reversed(known) if name not in used),
    )


NAMES = _in_order()

REWARD_LABELS = Labels({name: registry.describe(name).label for name in NAMES})

CUSTOM_REWARDS = "Several of your choice"

REWARDS = Labels(
    {name: registry.describe(name).label for name in NAMES[:1]}
    | {key: f"{one.label} ({len(one.ensemble.members)} rewards)" for key, one in READY_MADE.items()}
    | {ENSEMBLE: CUSTOM_REWARDS}
    | {name: registry.describe(name).label for name in NAMES[1:]}
)
"""What the picker offers: rewards by name, presets by name with `MARK`, and the ensemble."""

NOT_USED = "Not used"

ROLES: Mapping[str, Role] = {
    "Maximised": "score",
    "Not below parents": "cap",
    "Only reported": "referee",
}
"""What a reward among several is for, in the form's words; `NOT_USED` is none of them."""

ROLE_LABELS: Mapping[Role, str] = {role: label for label, role in ROLES.items()}

GUARD_LABELS = Labels({guard.name: guard.label for guard in GUARDS})

PLACES = Labels(
    {
        "auto": "Chosen for you",
        "gpu": "Stays on the graphics card",
        "swap": "On the graphics card only while it judges",
        "cpu": "On the processor",
    }
)


def role_of(name: str) -> str:
    """The field that holds what a reward is for."""
    return f"role_{name}"


def weight_of(name: str) -> str:
    """The field that holds a reward's weight."""
    return f"weight_{name}"


def _member_fields(name: str) -> tuple[Field, Field]:
    label = REWARD_LABELS.label(name)
    return (
        Field(
            name=role_of(name),
            kind=Kind.CHOICE,
            label=f"What {label} is for",
            default="Maximised" if name == "image_reward" else NOT_USED,
            info="Maximised, not below the parents, or only reported.",
            choices=(NOT_USED, *ROLES),
        ),
        Field(
            name=weight_of(name),
            kind=Kind.NUMBER,
            label=f"Weight of {label}",
            default=1.0,
            info="Above 0: how much it counts among the others.",
        ),
    )


REWARD_FIELDS: tuple[Field, ...] = (
    Field(
        name="reward",
        kind=Kind.CHOICE,
        label="Reward",
        default=REWARDS.labels[0],
        info="The judge: it gives every image a score. Several are harder to fool than one.",
        choices=REWARDS.labels,
    ),
    Field(
        name="reward_weights",
        kind=Kind.TEXT,
        label="Weights file",
        default="",
        info="Where the judge's own weights are. Empty: where Automerge looks for them.",
    ),
    Field(
        name="reward_device",
        kind=Kind.TEXT,
        label="Device",
        default="",
        info="cpu, cuda, cuda:1 or mps. Empty: chosen for you.",
    ),
    Field(
        name="reward_options",
        kind=Kind.LINES,
        label="Further options as text",
        default="{}",
        info='In JSON, for example {"batch_size": 4}.',
    ),
    Field(
        name="reward_place",
        kind=Kind.CHOICE,
        label="Where rewards compute",
        default=PLACES.label("auto"),
        info="They share the graphics card with the images that are being made.",
        choices=PLACES.labels,
    ),
    *(field for name in NAMES for field in _member_fields(name)),
    Field(
        name="guards",
        kind=Kind.TICKS,
        label="Guards",
        default=tuple(map(GUARD_LABELS.label, NARROWEST)),
        info="An image pays for leaving the range of the parents' images in any of these.",
        choices=GUARD_LABELS.labels,
    ),
    Field(
        name="guard_strength",
        kind=Kind.NUMBER,
        label="Strength of the guards",
        default=1.0,
        info="0 or more: what one width of that range costs.",
    ),
    Field(
        name="diversity_strength",
        kind=Kind.NUMBER,
        label="Price of lost diversity",
        default=0.5,
        info="0 or more: what it costs if all seeds look alike.",
    ),
    Field(
        name="member_options",
        kind=Kind.LINES,
        label="Options of several rewards as text",
        default="{}",
        info='In JSON by name, in the order they are asked: {"hpsv2": {"device": "cuda:1"}}.',
    ),
)
