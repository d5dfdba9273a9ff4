"""The reward part of the form: from its values to a configuration, and back. Pure.

What each of several rewards is for, its weight and the guards are always in the fields; the picker
names them. Picking fills the fields, and editing them makes the choice one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lib_automerge.domain.config import ENSEMBLE, Options, RewardConfig, RewardMember
from lib_automerge.errors import ConfigError
from lib_automerge.reward import registry
from lib_automerge.ui.fields import Reader
from lib_automerge.ui.reward_fields import (
    CUSTOM_REWARDS,
    GUARD_LABELS,
    NAMES,
    NOT_USED,
    PLACES,
    READY_MADE,
    REWARD_FIELDS,
    REWARDS,
    ROLE_LABELS,
    ROLES,
    role_of,
    weight_of,
)
from lib_automerge.ui.texts import reason

Values = Mapping[str, object]

Decoded = TypeVar("Decoded")


def is_single(values: Values) -> bool:
    """Whether the picker stands on one reward, which then gives the score itself."""
    name = REWARDS.name(Reader(REWARD_FIELDS, values).text("reward"))
    return name != ENSEMBLE and name not in READY_MADE


def explanation(values: Values) -> str:
    """What the choice judges, in a sentence or two; empty if it is not known."""
    name = REWARDS.name(Reader(REWARD_FIELDS, values).text("reward"))
    if name in READY_MADE:
        return READY_MADE[name].explanation
    if name == ENSEMBLE:
        return "They judge together: no single one can be pleased at the cost of the others."
    return registry.describe(name).help if name in NAMES else ""


def reward_of(values: Values) -> RewardConfig:
    """The reward that the form describes.

    Raises:
        ConfigError: a value is missing or cannot be read, or nothing is maximised.
    """
    form = Reader(REWARD_FIELDS, values)
    found = RewardConfig(
        guards=tuple(map(GUARD_LABELS.name, form.names("guards"))),
        guard_strength=_strength(form, "guard_strength"),
        diversity_strength=_strength(form, "diversity_strength"),
        place=PLACES.name(form.text("reward_place")),
    )
    if is_single(values):
        name = REWARDS.name(form.text("reward"))
        return msgspec.structs.replace(found, name=name, options=_single_options(form, name))
    found = msgspec.structs.replace(found, name=ENSEMBLE, members=_members(form))
    _check_human(found)
    return found


def reward_values(config: RewardConfig) -> dict[str, object]:
    """The fields that describe a reward; `reward_of` gives it again."""
    values: dict[str, object] = {}
    for name in NAMES:
        values |= {role_of(name): NOT_USED, weight_of(name): 1.0}
    single = config.ensemble is None
    members = (RewardMember(name=config.name),) if single else config.members
    for member in members:
        if member.name in NAMES:
            values |= {
                role_of(member.name): ROLE_LABELS[member.role],
                weight_of(member.name): member.weight,
            }
    options = dict(config.options) if single else {}
    return values | {
        "reward": _label(config),
        "reward_weights": str(options.pop("weights", None) or ""),
        "reward_device": str(options.pop("device", None) or ""),
        "reward_options": msgspec.json.encode(options).decode(),
        "reward_place": PLACES.label(config.place),
        "guards": [GUARD_LABELS.label(name) for name in config.guards],
        "guard_strength": config.guard_strength,
        "diversity_strength": config.diversity_strength,
        "member_options": "{}" if single else _options_text(config.members),
    }


def picked(values: Values) -> dict[str, object]:
    """Values to change after somebody picked a reward, a preset or several."""
    form = Reader(REWARD_FIELDS, values)
    name = REWARDS.name(form.text("reward"))
    if name == ENSEMBLE:
        # what the picker stood on before is told by the rows
        used = [name for name in NAMES if form.text(role_of(name)) in ROLES]
        return _as_members(form, used[0]) if len(used) == 1 else {}
    if name in READY_MADE:
        ready = READY_MADE[name].ensemble
        config = RewardConfig(
            name=ENSEMBLE,
            members=tuple(
                RewardMember(name=m.reward, weight=m.weight, role=m.role) for m in ready.members
            ),
            guards=ready.guards,
            guard_strength=ready.guard_strength,
            diversity_strength=ready.diversity_strength,
        )
    else:
        config = RewardConfig(name=name)
    found = reward_values(config)
    # the machine is the same, whoever judges
    del found["reward_place"]
    return found


def edited(values: Values) -> dict[str, object]:
    """Values to change after somebody edited what several rewards are for, or the guards."""
    form = Reader(REWARD_FIELDS, values)
    single = is_single(values)
    changes = _as_members(form, REWARDS.name(form.text("reward"))) if single else {}
    try:
        config = reward_of({**values, **changes, "reward": CUSTOM_REWARDS})
    except ConfigError:
        # the checks tell what is wrong
        return {**changes, "reward": CUSTOM_REWARDS}
    return {**changes, "reward": _label(config)}


def _label(config: RewardConfig) -> str:
    # a person among the members is none of the ensemble's
    if config.human is None:
        for key, one in READY_MADE.items():
            if config.ensemble == one.ensemble:
                return REWARDS.label(key)
    return REWARDS.label(config.name)


def _as_members(form: Reader, name: str) -> dict[str, object]:
    """The single reward `name` becomes one of several: its options go with it."""
    changes: dict[str, object] = {
        "reward_weights": "",
        "reward_device": "",
        "reward_options": "{}",
    }
    try:
        options = _single_options(form, name)
        others = _decoded(form, "member_options", dict[str, Options])
    except ConfigError:
        return changes
    if options:
        changes["member_options"] = msgspec.json.encode({**others, name: options}).decode()
    return changes


def _members(form: Reader) -> tuple[RewardMember, ...]:
    options = _decoded(form, "member_options", dict[str, Options])
    for name in options:
        registry.describe(name)
    found = tuple(
        RewardMember(
            name=name,
            options=options.get(name, {}),
            weight=_weight(form, name),
            role=ROLES[form.text(role_of(name))],
        )
        for name in (*options, *(name for name in NAMES if name not in options))
        if form.text(role_of(name)) in ROLES
    )
    if not any(member.role == "score" for member in found):
        raise ConfigError(
            'no reward is maximised. Under "Several rewards and guards", set at least one to '
            '"Maximised".'
        )
    return found


def _check_human(config: RewardConfig) -> None:
    """Refuse what a person cannot be asked for; reading what they are asked for does that."""
    _ = config.human


def _options_text(members: tuple[RewardMember, ...]) -> str:
    """Empty where the rows of the form tell it all: there, rewards have one order."""
    names = [member.name for member in members]
    if not any(member.options for member in members) and names == [n for n in NAMES if n in names]:
        return "{}"
    return msgspec.json.encode({member.name: member.options for member in members}).decode()


def _weight(form: Reader, name: str) -> float:
    found = form.number(weight_of(name))
    if found <= 0:
        raise ConfigError(
            f'"Weight of {registry.describe(name).label}" is {found:g}. It must be above 0; set '
            f'the reward to "{NOT_USED}" if it is not to count.'
        )
    return found


def _strength(form: Reader, name: str) -> float:
    found = form.number(name)
    if found < 0:
        label = next(field.label for field in REWARD_FIELDS if field.name == name)
        raise ConfigError(f'"{label}" is {found:g}. It must be 0 or more.')
    return found


def _single_options(form: Reader, name: str) -> Options:
    known = {option.name for option in registry.describe(name).options}
    options = _decoded(form, "reward_options", Options)
    for field, option in (("reward_weights", "weights"), ("reward_device", "device")):
        if form.text(field) and option in known:
            options[option] = form.text(field)
    return options


def _decoded(form: Reader, name: str, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(form.text(name) or "{}", type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the further options of the reward cannot be read: {reason(error)}. Correct the "
            "text, or empty it."
        ) from error
