"""A desk with little behind it, for building the tab: no test framework, no models needed."""

from __future__ import annotations

from pathlib import Path

from lib_automerge.app.desk import Desk
from lib_automerge.app.ports import Choices, ModelChoice
from lib_automerge.domain.config import GeneratorConfig, RewardMember
from lib_automerge.domain.payload import Payload
from lib_automerge.generate.base import Generator
from lib_automerge.reward.base import Reward


class FakeCatalogue:
    """Implements `app.ports.Catalogue` over a folder of checkpoints."""

    name = "a fake host"
    generator_name = "fake"

    def __init__(self, data: Path, models: Path) -> None:
        self.data = data
        self.wildcards: tuple[Path, ...] = ()
        self.loaded: str | None = None
        self._models = models

    def refresh(self) -> None:
        pass

    def models(self) -> list[ModelChoice]:
        return [ModelChoice(p.name, str(p)) for p in sorted(self._models.glob("*.safetensors"))]

    def loaded_model(self) -> str | None:
        return self.loaded

    def choices(self) -> Choices:
        return Choices(
            samplers=("DPM++ 2M", "Euler a"),
            schedulers=("Automatic", "Karras"),
            upscalers=("Latent", "None"),
            styles=("photo", "painting"),
        )

    def checkpoint_folder(self, model_a: Path) -> Path:
        return model_a.parent

    def device_memory(self) -> tuple[int, int] | None:
        return None

    def notices(self) -> list[str]:
        return []


class IdleHost:
    """A host that is never asked to run anything."""

    def generator(self, config: GeneratorConfig) -> Generator:
        raise NotImplementedError

    def check_payload(self, payload: Payload) -> None:
        pass

    def reward(self, member: RewardMember) -> Reward:
        raise NotImplementedError


def idle_desk(folder: Path) -> Desk:
    """A desk over an empty folder."""
    return Desk(IdleHost(), FakeCatalogue(folder / "data", folder / "models"))
