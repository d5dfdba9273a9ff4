"""The standalone host: images by diffusers, no WebUI."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_automerge import REBASIN_FOLDER, reward
from lib_automerge.app.ports import Choices, ModelChoice
from lib_automerge.domain.config import GeneratorConfig, RewardMember
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError, StorageError, unknown_name
from lib_automerge.generate import samplers
from lib_automerge.generate.base import Generator
from lib_automerge.generate.devices import choose_device, device_memory
from lib_automerge.generate.diffusers_ import DiffusersGenerator
from lib_automerge.reward import Reward, cache
from lib_automerge.reward.files import FOLDER

GENERATOR = "diffusers"
CHECKPOINT_ENDINGS = (".safetensors", ".ckpt")


class StandaloneHost:
    """Implements `app.ports.Host` with what this Python environment holds.

    Args:
        data: the folder of the user's data, where the files of rewards are looked for before other
            places, and scores and orders of channels are kept; None for none of it.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._data = data

    def generator(self, config: GeneratorConfig) -> Generator:
        """The diffusers generator; see `app.ports.Host`."""
        if config.name != GENERATOR:
            raise ConfigError(unknown_name("generator", config.name, [GENERATOR]))
        cache = None if self._data is None else self._data / REBASIN_FOLDER
        return DiffusersGenerator(config.device, config.dtype, config.threads, cache)

    def check_payload(self, payload: Payload) -> None:
        """Check sampler and scheduler, and that no WebUI is needed; see `app.ports.Host`."""
        samplers.check(payload.sampler, payload.scheduler)
        for field in ("hires", "styles", "override_settings"):
            if getattr(payload, field):
                raise ConfigError(
                    f"payload {payload.name!r} has {field}, which only a WebUI knows. Remove it, "
                    "or run this in the WebUI's tab."
                )

    def reward(self, member: RewardMember) -> Reward:
        """A registered reward; see `app.ports.Host`."""
        folders = [] if self._data is None else [self._data / FOLDER]
        made = reward.create(member.name, folders=folders, **member.options)
        return made if self._data is None else cache.cached(made, self._data / cache.FILE)


class StandaloneCatalogue:
    """Implements `app.ports.Catalogue` with folders of checkpoints.

    Args:
        data: for runs, payload sets and the draft.
        folders: searched for checkpoints with everything below them.
        extra: title -> checkpoint that is offered besides; comes last.

    Raises:
        ConfigError: a folder does not exist.
    """

    name = "stand-alone (diffusers)"
    generator_name = GENERATOR

    def __init__(
        self, data: Path, folders: Sequence[Path] = (), extra: Mapping[str, Path] | None = None
    ) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"no folder of models: {folder}. Give one that exists.")
        self.data = data.absolute()
        self._folders = [folder.absolute() for folder in folders]
        self._merged = self.data / "checkpoints"
        self._extra = dict(extra or {})

    @property
    def wildcards(self) -> tuple[Path, ...]:
        """See `app.ports.Catalogue`."""
        return (self.data / "wildcards",)

    def refresh(self) -> None:
        """Nothing to do: `models` looks every time; see `app.ports.Catalogue`."""

    def models(self) -> list[ModelChoice]:
        """The checkpoints by their path below their folder, with the folder where that is taken."""
        found: dict[Path, str] = {}
        for folder in [*self._folders, self._merged]:
            for path in _checkpoints(folder):
                found.setdefault(path, path.relative_to(folder).as_posix())
        taken = Counter([*found.values(), *self._extra])
        choices = [
            ModelChoice(title if taken[title] == 1 else str(path), str(path))
            for path, title in found.items()
        ]
        choices.sort(key=lambda choice: choice.title.lower())
        return choices + [ModelChoice(title, str(path)) for title, path in self._extra.items()]

    def checkpoint_folder(self, model_a: Path) -> Path:
        """Beside the model if it is in a folder of the user's; see `app.ports.Catalogue`."""
        if any(model_a.is_relative_to(folder) for folder in self._folders):
            return model_a.parent
        try:
            self._merged.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {self._merged}: {error.strerror}."
            ) from error
        return self._merged

    def loaded_model(self) -> str | None:
        """None: models are loaded for runs only; see `app.ports.Catalogue`."""
        return None

    def choices(self) -> Choices:
        """What diffusers has under the WebUI's names."""
        return Choices(samplers=tuple(samplers.SAMPLERS), schedulers=samplers.SCHEDULES)

    def device_memory(self) -> tuple[int, int] | None:
        """That of the device on which runs are made unless told otherwise."""
        return device_memory(choose_device(None))

    def notices(self) -> list[str]:
        """Nothing but a run uses this process; see `app.ports.Catalogue`."""
        return []


def _checkpoints(folder: Path) -> list[Path]:
    """Files by their ending, below links to folders too, each link followed once."""
    found = []
    seen = set[str]()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(parent, name) for name in files if name.lower().endswith(CHECKPOINT_ENDINGS)]
    return found
