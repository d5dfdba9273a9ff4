"""Puts the fake WebUI into this process, as if this were a process of the WebUI, and removes it.

    with fake_webui(tmp_path, checkpoints={"a.safetensors": path_a}) as host:
        from modules import shared            # the fake's
        host.faults.at(image=2, step=1, call=shared.state.interrupt)

Modules of the fake are executed anew for every installation, so no state is left from the last.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

WEBUI = Path(__file__).with_name("webui")
"""The fake's script folder: what the process of a real WebUI has as its first import path."""

_TOP_LEVEL = ("modules", "networks", "launch")

FORGET = ("lib_automerge.host.a1111",)
"""Prefixes of modules that may hold on to the host's: imported anew after each installation."""


class Page:
    """What `shared.demo` is: the page that is served, anew after each "Reload UI"."""

    is_running = True


class FakeHost:
    """The installed fake: its folders, its modules, and what users do to it meanwhile."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.models = data / "models" / "Stable-diffusion"

    def __getattr__(self, name: str) -> ModuleType:
        """Return the fake's module of that name: `host.shared`, `host.sd_models`, ..."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"modules.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(name) from error

    @property
    def faults(self) -> Any:
        """What goes wrong, and when; see `modules.fake_faults.Faults`."""
        return self.fake_faults.faults

    def add_checkpoint(self, source: Path, name: str | None = None) -> Any:
        """Copy a file among the models and return its CheckpointInfo."""
        target = self.models / (name or source.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        self.sd_models.list_models()
        return self.sd_models.get_closet_checkpoint_match(target.name)

    def txt2img(self, **settings: Any) -> Any:
        """Generate without touching lock or state, as an extension does; return Processed."""
        defaults = {
            "prompt": "a cat",
            "seed": 1,
            "steps": 4,
            "width": 64,
            "height": 64,
            "sampler_name": "Euler",
            "scheduler": "Automatic",
            "do_not_save_samples": True,
            "do_not_save_grid": True,
        }
        p = self.processing.StableDiffusionProcessingTxt2Img(**(defaults | settings))
        try:
            return self.processing.process_images(p)
        finally:
            p.close()

    def user_generates(self, **settings: Any) -> tuple[threading.Thread, list[Any]]:
        """Start a request as a click on Generate does; the list receives its result."""
        result: list[Any] = []
        click = self.call_queue.wrap_gradio_gpu_call(lambda _: [self.txt2img(**settings)])
        thread = threading.Thread(
            target=lambda: result.extend(click("task(user)")), name="user", daemon=True
        )
        thread.start()
        return thread, result

    def user_sets(self, key: str, value: object) -> threading.Thread:
        """Start a change in Settings: its effect waits for the job lock, as in the WebUI."""
        thread = threading.Thread(
            target=lambda: self.shared.opts.set(key, value), name="settings", daemon=True
        )
        thread.start()
        return thread

    def reload_ui(self, app: object = None) -> None:
        """What the button does to a process that goes on living."""
        self.shared.state.request_restart()
        self.shared.state.wait_for_server_command(0)
        self.script_callbacks.app_reload_callback()
        self.script_callbacks.script_unloaded_callback()
        self.shared.demo = Page()
        self.script_callbacks.app_started_callback(self.shared.demo, app)


@contextlib.contextmanager
def fake_webui(
    data: Path,
    *,
    checkpoints: Mapping[str, Path] | None = None,
    config: Mapping[str, object] | None = None,
    loras: Mapping[str, Path] | None = None,
    **flags: object,
) -> Iterator[FakeHost]:
    """Install the fake for the time of the context.

    Args:
        data: its data folder; made if missing. Checkpoints that are there already are kept.
        checkpoints: name -> file to copy into its folder of checkpoints.
        config: what its config.json holds; an option that is not in it was never set.
        loras: name (without ending) -> file to copy into its folder of LoRAs.
        flags: command line flags as argparse names them: `no_half=True`, `medvram=True`.
    """
    host = FakeHost(data)
    for folder, files, ending in (
        (host.models, checkpoints, ""),
        (data / "models" / "Lora", loras, ".safetensors"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in (files or {}).items():
            shutil.copyfile(source, folder / f"{name}{ending}")
    settings = data / "config.json"
    if config is not None:
        settings.write_text(json.dumps(dict(config)), "utf-8")
    _remove()
    sys.path.insert(0, os.fspath(WEBUI))
    try:
        options = importlib.import_module("modules.shared_cmd_options").cmd_opts
        options.data_dir = os.fspath(data)
        options.ui_settings_file = os.fspath(settings)
        options.lora_dir = os.fspath(data / "models" / "Lora")
        for name, value in flags.items():
            if not hasattr(options, name):
                raise AttributeError(f"the fake WebUI has no flag {name!r}")
            setattr(options, name, value)
        importlib.import_module("modules.initialize").initialize()
        host.shared.demo = Page()
        yield host
    finally:
        sys.path.remove(os.fspath(WEBUI))
        _remove()


def _remove() -> None:
    for name in list(sys.modules):
        ours = name.partition(".")[0] in _TOP_LEVEL
        if ours or name.startswith(FORGET):
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and hasattr(sys.modules[parent], child):
                delattr(sys.modules[parent], child)
            del sys.modules[name]
