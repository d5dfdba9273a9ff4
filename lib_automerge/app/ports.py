"""What the application needs from outside: the adapters are chosen in `host.detect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lib_automerge.app.question import Ask
from lib_automerge.domain.config import GeneratorConfig, RewardMember
from lib_automerge.domain.events import AnyEvent
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.run import Activity, RunState
from lib_automerge.generate.base import Generator, StopFlag, never
from lib_automerge.reward.base import Reward


class Controls(msgspec.Struct, frozen=True):
    """What the user can ask of a run while it goes on; each flag is asked again and again.

    `stop` ends it after the images in the air, `pause` after the evaluation in progress; both can
    be resumed. `finish` ends the search after the evaluation in progress and goes on to the
    verdict. `ask` asks the user what they think of a candidate; None where nobody can answer.
    """

    stop: StopFlag = never
    pause: StopFlag = never
    finish: StopFlag = never
    ask: Ask | None = None


LEFT_ALONE = Controls()
"""Nobody asks anything of the run."""


Clock = Callable[[], float]
"""Seconds since the epoch."""

Listener = Callable[[AnyEvent | Activity, RunState], None]
"""Told of every event after it is on disk, and of what the run does between them."""


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

    def reward(self, member: RewardMember) -> Reward:
        """One of the rewards of a configuration, with its weights loaded.

        Raises:
            ConfigError: unknown name or option.
            RewardError: its weights are missing or wrong.
        """
        ...


class ModelChoice(msgspec.Struct, frozen=True):
    """A checkpoint that the host offers.

    Attributes:
        title: unique among them.
        path: of its file.
        sha256: of the file's content if the host knows it without reading the file; else empty.
    """

    title: str
    path: str
    sha256: str = ""


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The names that a payload may use here."""

    samplers: tuple[str, ...]
    schedulers: tuple[str, ...]
    upscalers: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


class Catalogue(Protocol):
    """What a host has to choose from, and where it keeps the user's data. Loads no model."""

    name: str
    """Of the host, for users: "AUTOMATIC1111 WebUI v1.10.1", "stand-alone (diffusers)"."""

    generator_name: str
    """The `GeneratorConfig.name` of runs that are started here."""

    data: Path
    """The folder for runs, payload sets and the draft."""

    @property
    def wildcards(self) -> tuple[Path, ...]:
        """Folders of wildcard files, the user's first; may not exist."""
        ...

    def refresh(self) -> None:
        """Look for checkpoints again; may take a moment, so only when somebody asks."""
        ...

    def models(self) -> list[ModelChoice]:
        """The checkpoints, as they were found last."""
        ...

    def loaded_model(self) -> str | None:
        """The title of the checkpoint in use, if there is one."""
        ...

    def choices(self) -> Choices:
        """Samplers, schedulers, upscalers and styles."""
        ...

    def checkpoint_folder(self, model_a: Path) -> Path:
        """The existing folder for merges of this model, from which the host offers them."""
        ...

    def device_memory(self) -> tuple[int, int] | None:
        """Used and total bytes of the graphics card's memory; None without one."""
        ...

    def notices(self) -> list[str]:
        """What may stand in the way of a run started now, in sentences (low VRAM, other work)."""
        ...
