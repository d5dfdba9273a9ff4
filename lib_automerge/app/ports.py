"""What the application needs from outside: the adapters are chosen in `host.detect`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lib_automerge.domain.config import GeneratorConfig, RewardConfig
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.run import AnyEvent, RunState
from lib_automerge.generate.base import Generator
from lib_automerge.reward.base import Reward

Clock = Callable[[], float]
"""Seconds since the epoch."""

Listener = Callable[[AnyEvent, RunState], None]
"""Told of every event after it is on disk."""


class Host(Protocol):
    """Where the engine runs: it makes generators and rewards."""

    def generator(self, config: GeneratorConfig) -> Generator:
        """The image backend of this configuration.

        Raises:
            ConfigError: it is unknown here.
        """
        ...

    def check_payload(self, payload: Payload) -> None:
        """Raise ConfigError if the backend cannot honour the payload's settings."""
        ...

    def reward(self, config: RewardConfig) -> Reward:
        """The reward of this configuration, with its weights loaded.

        Raises:
            ConfigError: unknown name or option.
            RewardError: its weights are missing or wrong.
        """
        ...
