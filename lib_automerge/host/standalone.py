"""The standalone host: images by diffusers, no WebUI."""

from __future__ import annotations

from lib_automerge import reward
from lib_automerge.domain.config import GeneratorConfig, RewardConfig
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.generate import samplers
from lib_automerge.generate.base import Generator
from lib_automerge.generate.diffusers_ import DiffusersGenerator
from lib_automerge.reward import Reward


class StandaloneHost:
    """Implements `app.ports.Host` with what this Python environment holds."""

    def generator(self, config: GeneratorConfig) -> Generator:
        """The diffusers generator; see `app.ports.Host`."""
        if config.name != "diffusers":
            raise ConfigError(unknown_name("generator", config.name, ["diffusers"]))
        return DiffusersGenerator(config.device, config.dtype, config.threads)

    def check_payload(self, payload: Payload) -> None:
        """Check sampler and scheduler, and that no WebUI is needed; see `app.ports.Host`."""
        samplers.check(payload.sampler, payload.scheduler)
        for field in ("hires", "styles", "override_settings"):
            if getattr(payload, field):
                raise ConfigError(
                    f"payload {payload.name!r} has {field}, which only a WebUI knows. Remove it, "
                    "or run this in the WebUI's tab."
                )

    def reward(self, config: RewardConfig) -> Reward:
        """A registered reward; see `app.ports.Host`."""
        return reward.create(config.name, **config.options)
