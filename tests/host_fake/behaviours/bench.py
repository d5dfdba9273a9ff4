"""What behaviours work with: three checkpoints of a WebUI, and a way back to the beginning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Behaviour(NamedTuple):
    """One statement about a WebUI."""

    name: str
    what: str
    run: Callable[[Bench], str | None]


ALL: list[Behaviour] = []


def behaviour(run: Callable[[Bench], str | None]) -> Callable[[Bench], str | None]:
    """Register a function whose docstring is the statement and which raises if it is wrong.

    What it returns is what was observed, where the statement leaves that open.
    """
    ALL.append(Behaviour(run.__name__, " ".join((run.__doc__ or "").split()), run))
    return run


class Bench:
    """A WebUI with checkpoints `a` and `b` of one configuration and `c` of another.

    Args:
        names: file names of the three, below the WebUI's folder of checkpoints.
        folder: for files that behaviours make.
    """

    def __init__(self, names: tuple[str, str, str], folder: Path) -> None:
        from modules import devices, processing, script_callbacks, sd_models, shared

        self.folder = folder
        self._names = names
        self.loads: list[Any] = []
        script_callbacks.on_model_loaded(self.loads.append)
        self.shared = shared
        self.models = sd_models
        self.processing = processing
        self.relist()
        self._options = dict(shared.opts.data)
        self._flags = dict(vars(shared.cmd_opts))
        self._dtype_vae = devices.dtype_vae

    def relist(self) -> None:
        """Have the WebUI look for checkpoints: it makes new objects for all of them."""
        self.models.list_models()
        self.a, self.b, self.c = (self._info(name) for name in self._names)

    def _info(self, name: str) -> Any:
        info = self.models.get_closet_checkpoint_match(name)
        assert info is not None, f"the WebUI has no checkpoint {name}"
        info.calculate_shorthash()
        return info

    def reset(self) -> None:
        """Load checkpoint `a` afresh as the only one, with the options of the beginning."""
        import networks
        from modules import devices, sd_unet
        from modules.call_queue import queue_lock

        vars(self.shared.cmd_opts).update(self._flags)
        queue_lock.acquire(False)  # what a failed behaviour may have left taken
        queue_lock.release()
        self.shared.opts.data = self._options | {"sd_model_checkpoint": self.a.title}
        devices.dtype_vae = self._dtype_vae
        self.shared.state.begin(job="")
        self.shared.state.end()
        networks.loaded_networks.clear()
        data = self.models.model_data
        if sd_unet.current_unet is not None:
            sd_unet.unet_options.clear()
            sd_unet.apply_unet("None")
        data.loaded_sd_models[:] = [data.sd_model] if data.sd_model is not None else []
        if data.sd_model is None:
            data.was_loaded_at_least_once = False
            assert self.shared.sd_model is not None
        self.models.reload_model_weights(info=self.a, forced_reload=True)
        assert self.model.sd_checkpoint_info is self.a
        self.forget_conditions()
        self.loads.clear()

    @property
    def model(self) -> Any:
        return self.shared.sd_model

    def caches(self) -> list[list[Any]]:
        """The WebUI's four caches of conditions."""
        base = self.processing.StableDiffusionProcessing
        derived = self.processing.StableDiffusionProcessingTxt2Img
        return [base.cached_c, base.cached_uc, derived.cached_hr_c, derived.cached_hr_uc]

    def forget_conditions(self) -> None:
        for cache in self.caches():
            cache[:] = [None] * len(cache)

    def generate(self, **settings: Any) -> Any:
        """Call `process_images` with small defaults and return what it returns."""
        p = self.processing.StableDiffusionProcessingTxt2Img(**(DEFAULTS | settings))
        try:
            return self.processing.process_images(p)
        finally:
            p.close()

    def image(self, **settings: Any) -> bytes:
        """The pixels of the only image."""
        (image,) = self.generate(**settings).images
        pixels: bytes = image.tobytes()
        return pixels

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def weight(self, ending: str = "input_blocks.1.1.proj_in.weight") -> Tensor:
        """The one parameter whose name ends so."""
        found = [p for name, p in self.parameters().items() if name.endswith(ending)]
        assert len(found) == 1, f"{len(found)} parameters end with {ending}"
        return found[0]

    def module(self, ending: str) -> Any:
        """The layer that the weight belongs to."""
        path = ending.rpartition(".")[0]
        (found,) = [m for name, m in self.model.named_modules() if name.endswith(path)]
        return found

    def change(self, *endings: str) -> Callable[[], None]:
        """Multiply parameters in place; return what puts the former bits back."""
        tensors = [
            self.weight(ending) for ending in endings or ("input_blocks.1.1.proj_in.weight",)
        ]
        before = [tensor.data.clone() for tensor in tensors]
        for tensor in tensors:
            tensor.data.mul_(-3)

        def restore() -> None:
            for tensor, values in zip(tensors, before, strict=True):
                tensor.data.copy_(values)

        return restore

    @contextlib.contextmanager
    def after_step(self, number: int, call: Callable[[], None]) -> Iterator[None]:
        """Call once, after the `number`-th sampling step from now on (from 1)."""
        progress = self.shared.total_tqdm
        original, steps = progress.update, 0

        def update() -> None:
            nonlocal steps
            steps += 1
            if steps == number:
                call()

        progress.update = update
        try:
            yield
        finally:
            progress.update = original


DEFAULTS: dict[str, Any] = {
    "prompt": "a red heart at sunset",
    "negative_prompt": "blurry",
    "seed": 1,
    "steps": 4,
    "cfg_scale": 5.0,
    "width": 64,
    "height": 64,
    "sampler_name": "Euler",
    "scheduler": "Automatic",
    "do_not_save_samples": True,
    "do_not_save_grid": True,
}

UNET = "input_blocks.1.1.proj_in.weight"
TEXT = "encoder.layers.0.mlp.fc1.weight"
VAE = "decoder.conv_out.weight"


def levels_apart(first: bytes, second: bytes) -> int:
    """The largest difference of two images in levels of 255."""
    pair = [torch.frombuffer(bytearray(x), dtype=torch.uint8).int() for x in (first, second)]
    return int((pair[0] - pair[1]).abs().max())


def raises(call: Callable[[], object]) -> Exception | None:
    """The exception that the call raises, if it does."""
    try:
        call()
    except Exception as error:
        return error
    return None
