"""The reward of the form: there and back, picking and editing."""

from __future__ import annotations

import pytest

from lib_automerge.domain.config import ENSEMBLE, RewardConfig, RewardMember
from lib_automerge.domain.reward_presets import PRESETS
from lib_automerge.errors import ConfigError
from lib_automerge.ui.fields import clean, defaults
from lib_automerge.ui.reward_fields import CUSTOM_REWARDS, NAMES, NOT_USED, REWARD_FIELDS, REWARDS
from lib_automerge.ui.reward_form import edited, picked, reward_of, reward_values

ROBUST = REWARDS.label("preset:robust")
PHOTO = REWARDS.label("preset:photo")


def form(**changes: object) -> dict[str, object]:
    return defaults(REWARD_FIELDS) | changes


def pick(label: str, **changes: object) -> dict[str, object]:
    values = form(**changes) | {"reward": label}
    return values | picked(values)


def edit(values: dict[str, object], **changes: object) -> dict[str, object]:
    values = values | changes
    return values | edited(values)


@pytest.mark.parametrize(
    "config",
    [
        RewardConfig(),
        RewardConfig(name="demo", place="cpu"),
        RewardConfig(options={"weights": "/w.pt", "device": "cuda:1", "batch_size": 4}),
        RewardConfig(
            name=ENSEMBLE,
            members=(
                RewardMember(name="pickscore", options={"weights": "/p", "device": "cpu"}),
                RewardMember(name="image_reward", weight=0.25, role="cap"),
                RewardMember(name="external", options={"url": "http://127.0.0.1:1"}, role="score"),
                RewardMember(name="demo", weight=7.5, role="referee"),
            ),
            guards=("sharpness", "contrast"),
            guard_strength=0.0,
            diversity_strength=2.5,
            place="swap",
        ),
        RewardConfig(
            name=ENSEMBLE,
            members=(RewardMember(name="pickscore"), RewardMember(name="image_reward")),
            guards=(),
        ),
    ],
)
def test_there_and_back_gives_the_same_reward(config: RewardConfig) -> None:
    values = reward_values(config)
    assert reward_of(values) == config
    assert set(values) == {field.name for field in REWARD_FIELDS}
    assert clean(REWARD_FIELDS, values) == values


def test_an_untouched_form_is_image_reward_alone() -> None:
    assert reward_of(form()) == RewardConfig()
    assert reward_values(RewardConfig()) == form()


@pytest.mark.parametrize("preset", [one for one in PRESETS if one.name != "default"])
def test_a_preset_fills_the_rows_and_is_recognised_again(preset) -> None:
    label = REWARDS.label(f"preset:{preset.name}")
    values = pick(label, weight_hpsv2=3.0, guards=[], reward_place="On the processor")
    config = reward_of(values)
    assert config.ensemble == preset.ensemble
    assert config.place == "cpu"
    assert reward_values(config) == values
    assert values["reward"] == label


def test_editing_makes_it_ones_own_and_editing_back_the_preset_again() -> None:
    own = edit(pick(ROBUST), weight_hpsv2=2.0)
    assert own["reward"] == CUSTOM_REWARDS
    assert reward_of(own).members[1] == RewardMember(name="hpsv2", weight=2.0)
    assert edit(own, weight_hpsv2=1.0)["reward"] == ROBUST
    assert edit(own, weight_hpsv2=None)["reward"] == CUSTOM_REWARDS
    fewer = edit(pick(PHOTO), guards=["Contrast"])
    assert fewer["reward"] == CUSTOM_REWARDS
    assert reward_of(fewer).guards == ("contrast",)


def test_a_person_beside_a_preset_is_no_preset() -> None:
    values = edit(pick(ROBUST), role_human_rate="Maximised")
    assert values["reward"] == CUSTOM_REWARDS
    config = reward_of(values)
    assert config.human is not None
    assert reward_values(config) == values
    with pytest.raises(ConfigError, match="listed as a judge twice"):
        reward_of(values | {"role_human_choose": "Maximised"})


def test_a_single_reward_takes_its_options_into_several() -> None:
    alone = pick("PickScore") | {"reward_device": "cuda:1", "reward_options": '{"batch_size": 2}'}
    assert reward_of(alone).name == "pickscore"
    several = edit(alone, role_hpsv2="Only reported")
    assert several["reward"] == CUSTOM_REWARDS
    assert (several["reward_device"], several["reward_options"]) == ("", "{}")
    options = {"batch_size": 2, "device": "cuda:1"}
    assert reward_of(several).members == (
        RewardMember(name="pickscore", options=options),
        RewardMember(name="hpsv2", role="referee"),
    )
    picked_several = alone | {"reward": CUSTOM_REWARDS}
    picked_several |= picked(picked_several)
    assert reward_of(picked_several).members == (RewardMember(name="pickscore", options=options),)


def test_a_single_reward_empties_the_rows_of_others() -> None:
    values = pick(ROBUST)
    values |= {"reward": "CLIPScore"}
    values |= picked(values)
    used = [name for name in NAMES if values[f"role_{name}"] != NOT_USED]
    assert used == ["clip_score"]
    assert reward_of(values) == RewardConfig(name="clip_score")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role_image_reward": NOT_USED}, "no reward is maximised"),
        ({"role_image_reward": "Only reported"}, "no reward is maximised"),
        ({"weight_image_reward": 0}, '"Weight of ImageReward" is 0. It must be above 0'),
        ({"weight_image_reward": None}, '"Weight of ImageReward" is empty'),
        ({"guard_strength": -1}, '"Strength of the guards" is -1. It must be 0 or more'),
        ({"member_options": "["}, "further options of the reward cannot be read"),
        ({"member_options": '{"hpsv3": {}}'}, "unknown reward: 'hpsv3'"),
    ],
)
def test_what_cannot_judge_is_a_sentence(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reward_of(form(reward=CUSTOM_REWARDS) | changes)
    assert words in str(caught.value)


def test_rows_are_not_read_for_a_single_reward() -> None:
    config = reward_of(form(role_image_reward=NOT_USED, weight_hpsv2=None, member_options="["))
    assert config == RewardConfig()
