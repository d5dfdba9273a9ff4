"""The rewards of a run, asked one after the other: what they and the guards measure of images.

Only one model is on the device at a time if they are to share it with a generator.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from lib_automerge.domain.config import RewardConfig, RewardMember
from lib_automerge.domain.prompt_cleaning import VERSION
from lib_automerge.errors import RewardError
from lib_automerge.reward.base import Reward, Told

if TYPE_CHECKING:
    from PIL.Image import Image

PARKED = "cpu"
ELSEWHERE = "external"
"""The reward that another process computes."""
PROMPTS = " + prompts:"
"""In a fingerprint, before the version of prompt cleaning."""
SCARCE_BYTES = 12 * 2**30
"""Graphics cards with less memory cannot keep a reward beside a generator."""

WORDLESS = (
    "A prompt has no words that a reward could read: it is empty, or holds only tags such as "
    "<lora:name:1>. Rewards that go by the prompt judge its images against no text at all. Give "
    "its payload a score_prompt."
)

_log = logging.getLogger(__name__)

Make = Callable[[RewardMember], Reward]
"""Makes a reward, with its weights loaded."""


class Measured(msgspec.Struct, frozen=True):
    """What was measured of an image: reward -> raw score, guard -> measure."""

    raw: dict[str, float]
    looks: dict[str, float]


class Panel:
    """Rewards that judge the same images.

    Args:
        rewards: by name, in the order in which they are asked.
        devices: where each of them judges; a reward that is not listed stays where it is.
        looks: whether to measure what guards need.
        human: how the user judges besides; empty if they do not.
        apart: whether it judges on other hardware than images are made on.

    Attributes:
        apart: whether it can judge while the next images are made.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        devices: Mapping[str, str] | None = None,
        *,
        looks: bool = False,
        human: str = "",
        apart: bool = False,
    ) -> None:
        self.apart = apart
        self._rewards = dict(rewards)
        self._devices = dict(devices or {})
        self._looks = looks
        self._human = human
        self._told = Told()
        for name in self._devices:
            self._rewards[name].place(PARKED)

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards, in the order in which they are asked."""
        return tuple(self._rewards)

    @property
    def fingerprint(self) -> str:
        """Identity of everything that is measured, with the version of the cleaned prompts."""
        parts = [reward.fingerprint for reward in self._rewards.values()]
        if self._looks:
            from lib_automerge.reward import looks

            parts.append(f"looks:{looks.VERSION}")
        if self._human:
            parts.append(self._human)
        return " + ".join(parts) + f"{PROMPTS}{VERSION}"

    def measure(self, images: Sequence[Image], prompts: Sequence[str]) -> list[Measured]:
        """Have every reward score `images[i]` against `prompts[i]`.

        Returns:
            What was measured, in order; all numbers are finite.

        Raises:
            RewardError: a reward failed, or gave something else than a number for each image.
        """
        if not images:
            return []
        if self._rewards and not all(prompt.strip() for prompt in prompts):
            self._told.say(WORDLESS)
        raw: list[dict[str, float]] = [{} for _ in images]
        for name, reward in self._rewards.items():
            with self._placed(name, reward):
                scores = reward.score(images, prompts)
            if len(scores) != len(images):
                raise RewardError(
                    f"the reward {name!r} gave {len(scores)} scores for {len(images)} images. "
                    "Ask whoever made it."
                )
            for found, score, prompt in zip(raw, scores, prompts, strict=True):
                if not math.isfinite(score):
                    raise RewardError(
                        f"the reward {name!r} gave {score} for the prompt {prompt!r}. "
                        "Check its weights with another image."
                    )
                found[name] = float(score)
        return [
            Measured(found, self._measures(image)) for found, image in zip(raw, images, strict=True)
        ]

    def warnings(self) -> list[str]:
        """What the user should know that came up since the last call."""
        of_rewards = [text for reward in self._rewards.values() for text in reward.warnings()]
        return [*self._told.take(), *of_rewards]

    def close(self) -> None:
        """Free the memory of all rewards."""
        with ExitStack() as stack:
            for reward in self._rewards.values():
                stack.callback(reward.close)

    def _measures(self, image: Image) -> dict[str, float]:
        if not self._looks:
            return {}
        from lib_automerge.reward.looks import looks

        return looks(image)

    @contextmanager
    def _placed(self, name: str, reward: Reward) -> Iterator[None]:
        device = self._devices.get(name)
        if device is None:
            yield
            return
        reward.place(device)
        try:
            yield
        finally:
            reward.place(PARKED)


def assemble(config: RewardConfig, make: Make) -> Panel:
    """Make the rewards of a configuration, one after the other.

    Args:
        config: which, and where they compute.
        make: makes one of them.

    Raises:
        ConfigError, RewardError: as `make`; rewards that were made already are closed.
    """
    accelerator, memory = _accelerator()
    swap = config.place == "swap" or (
        config.place == "auto" and (len(config.judges) > 1 or memory < SCARCE_BYTES)
    )
    rewards: dict[str, Reward] = {}
    devices: dict[str, str] = {}
    ensemble = config.ensemble
    with ExitStack() as stack:
        for member in config.judges:
            chosen = member.options.get("device")
            if config.place == "cpu" and chosen is None:
                member = _on_cpu(member)
            reward = make(member)
            stack.callback(reward.close)
            rewards[member.name] = reward
            home = chosen or accelerator
            if swap and isinstance(home, str) and home != PARKED:
                devices[member.name] = home
                reward.place(PARKED)
        panel = Panel(
            rewards,
            devices,
            looks=ensemble is not None and bool(ensemble.guards),
            human=config.human.name if config.human is not None else "",
            apart=_apart(config, accelerator),
        )
        stack.pop_all()
    return panel


def _apart(config: RewardConfig, accelerator: str | None) -> bool:
    """Whether images are made on the graphics card, and judged on the processor or elsewhere."""
    default = PARKED if config.place == "cpu" else accelerator
    homes = [
        member.options.get("device") or default
        for member in config.judges
        if member.name != ELSEWHERE
    ]
    return accelerator is not None and all(home == PARKED for home in homes)


def _on_cpu(member: RewardMember) -> RewardMember:
    from lib_automerge.reward import registry

    known = {option.name for option in registry.describe(member.name).options}
    if "device" not in known:
        return member
    return msgspec.structs.replace(member, options={**member.options, "device": PARKED})


def _accelerator() -> tuple[str | None, int]:
    """The graphics card that rewards choose by themselves, and its memory; None and 0 without."""
    import torch

    if not torch.cuda.is_available():
        return None, 0
    return "cuda", int(torch.cuda.get_device_properties(0).total_memory)
