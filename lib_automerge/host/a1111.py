"""AUTOMATIC1111's WebUI as the host of runs. Import it only inside that WebUI.

`A1111Host` is what the application needs of it (generators, rewards, what there is to choose from);
`A1111` (in `a1111_webui`) is what making images needs of it.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import torch
from modules import (
    call_queue,
    devices,
    paths,
    paths_internal,
    sd_models,
    sd_samplers,
    sd_schedulers,
    shared,
)

from lib_automerge import REBASIN_FOLDER, reward
from lib_automerge.app.ports import Choices, ModelChoice
from lib_automerge.domain.config import GeneratorConfig, RewardMember
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.prompt_cleaning import without_comments
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.generate.base import Generator
from lib_automerge.generate.devices import device_memory
from lib_automerge.host.a1111_facts import loras, version
from lib_automerge.host.a1111_webui import A1111
from lib_automerge.host.txt2img_form import Txt2imgForm, payload_of
from lib_automerge.host.webui import WebUIGenerator
from lib_automerge.reward import Reward, cache
from lib_automerge.reward.files import FOLDER

__all__ = ["A1111", "A1111Host", "Txt2imgForm", "payload_of"]

LITTLE_MEMORY = 1 << 30
"""Free video memory (bytes) below which a run is likely to fail."""
MANY = 40
"""Names that are too many to list in a sentence."""
CHECKPOINT_OPTION = "sd_model_checkpoint"
_LORA = re.compile(r"<(?:lora|lyco):([^:<>]+)")


class A1111Host:
    """Implements `app.ports.Host` and `app.ports.Catalogue` with the WebUI in this process."""

    generator_name = "a1111"

    def __init__(self) -> None:
        self.name = f"AUTOMATIC1111 WebUI {version()}"
        self.data = Path(paths.data_path) / "automerge"

    @property
    def wildcards(self) -> tuple[Path, ...]:
        """The user's own folder, and those of the extensions that people keep theirs in."""
        folders = Path(paths_internal.extensions_dir).glob("*/wildcards")
        theirs = [
            folder
            for folder in sorted(folders)
            if "dynamic-prompts" in folder.parent.name or "wildcards" in folder.parent.name
        ]
        return (self.data / "wildcards", *theirs)

    def generator(self, config: GeneratorConfig) -> Generator:
        """The WebUI itself; see `app.ports.Host`."""
        if config.name != self.generator_name:
            raise ConfigError(unknown_name("generator", config.name, [self.generator_name]))
        for field in ("device", "dtype"):
            value = getattr(config, field)
            if value is not None:
                raise ConfigError(
                    f"generator.{field} is {value!r}, but in the WebUI its command line decides. "
                    "Leave it out."
                )
        return WebUIGenerator(A1111(), config.threads, self.data / REBASIN_FOLDER)

    def check_payload(self, payload: Payload) -> None:
        """Check every name that the payload takes from the WebUI; see `app.ports.Host`."""
        known = self.choices()
        samplers = set(sd_samplers.all_samplers_map)
        named: list[tuple[str, str | None, set[str]]] = [
            ("sampler", payload.sampler, samplers),
            ("scheduler", payload.scheduler, set(known.schedulers)),
            *(("style", style, set(known.styles)) for style in payload.styles),
            *(("option", key, set(shared.opts.data_labels)) for key in payload.override_settings),
        ]
        if payload.hires is not None:
            named += [
                ("sampler", payload.hires.sampler, samplers),
                ("scheduler", payload.hires.scheduler, set(known.schedulers)),
                ("upscaler", payload.hires.upscaler, set(known.upscalers)),
            ]
        available = loras()
        if available is not None:
            prompts = [payload.prompt, payload.hires.prompt or "" if payload.hires else ""]
            called = _LORA.findall("\n".join(map(without_comments, prompts)))
            named += [("LoRA", name, available) for name in called]
        for kind, name, names in named:
            if name is not None and name not in names:
                raise ConfigError(f"payload {payload.name!r}: {_unknown(kind, name, names)}")
        for key in payload.override_settings:
            if shared.opts.data_labels[key].restrict_api:
                raise ConfigError(
                    f"payload {payload.name!r}: the option {key!r} cannot be set for single images."
                    " Remove it from override_settings."
                )

    def reward(self, member: RewardMember) -> Reward:
        """A registered reward; see `app.ports.Host`."""
        made = reward.create(member.name, folders=[self.data / FOLDER], **member.options)
        return cache.cached(made, self.data / cache.FILE)

    def refresh(self) -> None:
        """Look again, unless the WebUI is working, which needs the list to last.

        Started with `--ckpt`, the WebUI selects that file again whenever it looks.
        """
        if not call_queue.queue_lock.acquire(blocking=False):
            return
        options = shared.opts.data
        chosen = options.get(CHECKPOINT_OPTION)
        try:
            shared.refresh_checkpoints()
        finally:
            if chosen is None:
                options.pop(CHECKPOINT_OPTION, None)
            else:
                options[CHECKPOINT_OPTION] = chosen
            call_queue.queue_lock.release()

    def models(self) -> list[ModelChoice]:
        """See `app.ports.Catalogue`."""
        return [
            ModelChoice(info.title, str(Path(info.filename).absolute()), info.sha256 or "")
            for info in list(sd_models.checkpoints_list.values())
        ]

    def loaded_model(self) -> str | None:
        """The title of the checkpoint that is loaded, or will be; see `app.ports.Catalogue`."""
        model = sd_models.model_data.sd_model
        if model is not None:
            title: str = model.sd_checkpoint_info.title
            return title
        chosen = sd_models.checkpoint_aliases.get(shared.opts.data.get("sd_model_checkpoint"))
        return None if chosen is None else chosen.title

    def checkpoint_folder(self, model_a: Path) -> Path:
        """Beside the model, where the WebUI found it; see `app.ports.Catalogue`."""
        return model_a.parent

    def choices(self) -> Choices:
        """See `app.ports.Catalogue`."""
        return Choices(
            samplers=tuple(sd_samplers.visible_sampler_names()),
            schedulers=tuple(scheduler.label for scheduler in sd_schedulers.schedulers),
            upscalers=(
                *shared.latent_upscale_modes,
                *(upscaler.name for upscaler in shared.sd_upscalers),
            ),
            styles=tuple(shared.prompt_styles.styles),
        )

    def notices(self) -> list[str]:
        """See `app.ports.Catalogue`."""
        found = []
        if shared.state.job:
            found.append("The WebUI is working: the run begins when that is done.")
        used, total = self.device_memory() or (0, LITTLE_MEMORY)
        free = total - used
        if free < LITTLE_MEMORY:
            found.append(
                f"Only {free / 1e9:.1f} GB of video memory are free. Close other programs that use "
                "the graphics card."
            )
        return found

    def device_memory(self) -> tuple[int, int] | None:
        """See `app.ports.Catalogue`."""
        return device_memory(torch.device(devices.device))


def _unknown(kind: str, name: str, names: set[str]) -> str:
    """As `errors.unknown_name`, but without the hundreds of names that a WebUI may have."""
    if len(names) <= MANY or difflib.get_close_matches(name, names, n=1):
        return unknown_name(kind, name, names)
    return (
        f"unknown {kind}: {name!r}. None of the WebUI's {len(names)} is like it; look it up there."
    )
