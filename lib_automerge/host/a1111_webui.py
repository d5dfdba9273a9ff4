"""AUTOMATIC1111's WebUI behind the port `host.ports.WebUI`. Import it only inside that WebUI.

Everything here is knowledge of version 1.10: what its functions do besides what they say, which of
its state outlives a generation, and in which order it must be asked.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from modules import (
    call_queue,
    devices,
    processing,
    sd_models,
    sd_unet,
    sd_vae,
    shared,
)

from lib_automerge.domain import architectures, refusals
from lib_automerge.domain.payload import ImageJob
from lib_automerge.errors import HostError, ModelError
from lib_automerge.generate.base import StopFlag
from lib_automerge.generate.devices import is_out_of_memory
from lib_automerge.host import turn
from lib_automerge.host.a1111_buttons import Buttons
from lib_automerge.host.a1111_facts import DECIDING, fingerprint
from lib_automerge.host.a1111_files import configuration, info_of, same_file
from lib_automerge.host.a1111_images import ImageMaker
from lib_automerge.host.live_parameters import Casts, LiveParameters
from lib_automerge.host.ports import Ending, LiveModel, Placement, Shot
from lib_automerge.host.private_options import PrivateOptions
from lib_automerge.merge.readers import Checkpoint

log = logging.getLogger(__name__)

SHARE_OPTION = "automerge_share"
"""The user's setting that lets others in between candidates."""
ALIAS = "automerge: the model of the run"
"""The title under which the run's checkpoint is selected, whatever the lists of titles say."""
FAMILIES = ("sd1", "sd2", "sdxl")


class A1111:
    """The WebUI in whose process we are; implements `host.ports.WebUI`."""

    def __init__(self) -> None:
        self._options = PrivateOptions({})
        self._frozen: dict[str, Any] = {}
        self._told: set[str] = set()
        self._info: Any = None
        self._aliases: dict[str, Any] = {}
        self._titles: dict[str, Any] = {}
        self._empty_prompt: tuple[Any, Any] = (None, None)
        self._dtype_vae = devices.dtype_vae
        self._buttons = Buttons()
        self._images = ImageMaker(self._enter)

    def fingerprint(self) -> dict[str, str]:
        """See `host.ports.WebUI`."""
        return fingerprint()

    def check(self, model: Checkpoint) -> None:
        """See `host.ports.WebUI`."""
        detection = model.detection
        reason = refusals.no_images(detection, FAMILIES)
        if reason:
            raise ModelError(f"{model.name}: {reason}")
        for part, present in (
            ("text encoder", detection.has_text_encoder),
            ("VAE", detection.has_vae),
        ):
            if not present:
                raise ModelError(f"{model.name} has no {part}. Pick a full checkpoint as A.")

    # --- the queue and the user's state -------------------------------------------------------

    def reserve(self, stop: StopFlag, *, again: bool = False) -> bool:
        """See `host.ports.WebUI`."""
        if not turn.take(call_queue.queue_lock, stop):
            return False
        try:
            # Loads the user's model if that has not happened yet, with the user's options.
            model = shared.sd_model
            self._empty_prompt = (model, getattr(model, "cond_stage_model_empty_prompt", None))
            self._dtype_vae = devices.dtype_vae
            self._aliases = dict(sd_models.checkpoint_aliases)
            self._titles = dict(sd_models.checkpoints_list)
            if not again:
                self._frozen = dict(shared.opts.data)
                self._told.clear()
                self._images.begin()
            self._options = PrivateOptions(shared.opts.data)
            shared.opts.data = self._options
            self._enter({})
            self._buttons.begin()
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """See `host.ports.WebUI`."""
        steps = (
            self._give_options_back,
            self._give_model_back,
            self._unregister,
            self._buttons.clear,
        )
        try:
            for step in steps:
                try:
                    step()
                except Exception:
                    log.exception("the WebUI's state could not be put back in full")
        finally:
            self._info = None
            call_queue.queue_lock.release()

    def _give_options_back(self) -> None:
        self._options.leave()
        if shared.opts.data is self._options:
            shared.opts.data = self._options.shared()

    def _give_model_back(self) -> None:
        model = sd_models.model_data.sd_model
        if model is not None and devices.dtype_vae != self._dtype_vae:
            devices.dtype_vae = self._dtype_vae
            model.first_stage_model.to(self._dtype_vae)
        options = shared.opts.data
        absent = {"sd_model_checkpoint", "sd_checkpoint_hash"} - set(options)
        sd_models.reload_model_weights()
        for key in absent:  # loading writes them
            options.pop(key, None)
        self._forget_conditions()
        model, prompt = self._empty_prompt
        if model is not None and model is sd_models.model_data.sd_model and prompt is not None:
            model.cond_stage_model_empty_prompt = prompt

    def visitors(self) -> bool:
        """See `host.ports.WebUI`."""
        if not self._options.shared().get(SHARE_OPTION, False):
            return False
        waiting = getattr(call_queue.queue_lock, "_pending_threads", None)
        return waiting is None or len(waiting) > 0

    def wishes(self) -> list[str]:
        """See `host.ports.WebUI`."""
        now = self._options.shared()
        changed = {
            key
            for key in ("sd_model_checkpoint", *DECIDING)
            if now.get(key) != self._frozen.get(key)
        }
        fresh = sorted(changed - self._told)
        self._told |= changed
        labels = shared.opts.data_labels
        return [
            f"You changed the WebUI's setting {labels[key].label if key in labels else key!r} to "
            f"{now.get(key)!r}: that takes effect when the run ends or is paused."
            for key in fresh
        ]

    def _enter(self, overrides: Mapping[str, Any]) -> None:
        """Give this thread the options of the run, as if nothing had happened since it began."""
        own = {"sd_model_checkpoint": ALIAS, "sd_unet": "None"}
        self._options.enter({**self._frozen, **own, **overrides})
        if self._info is not None:
            # The lists of checkpoints are made anew by every refresh.
            sd_models.checkpoint_aliases[ALIAS] = self._info

    # --- the model ----------------------------------------------------------------------------

    def load(self, checkpoint: Checkpoint, placement: Placement, *, afresh: bool = False) -> None:
        """See `host.ports.WebUI`."""
        self._info = info_of(checkpoint.path)
        self._enter({})
        try:
            with configuration(Path(self._info.filename), placement.like):
                sd_models.reload_model_weights(info=self._info, forced_reload=afresh)
                model = sd_models.model_data.sd_model
                if placement.like is not None and sd_vae.loaded_vae_file != placement.vae:
                    sd_vae.reload_vae_weights(model, vae_file=placement.vae)
        except Exception as error:
            raise HostError(
                f"the WebUI could not load {checkpoint.name}: {_sentence(error)} Try it by hand, "
                "and look at the WebUI's console."
            ) from error
        if model is None or not same_file(model.sd_checkpoint_info.filename, checkpoint.path):
            raise HostError(
                f"the WebUI did not load {checkpoint.name}. Try it by hand, and look at the "
                "WebUI's console."
            )
        sd_unet.apply_unet("None")
        self._enter({})
        self.text_encoder_changed()

    def placement(self, checkpoint: Checkpoint) -> Placement:
        """See `host.ports.WebUI`."""
        return Placement(like=checkpoint.path, vae=sd_vae.loaded_vae_file)

    def live(self, checkpoint: Checkpoint) -> LiveModel:
        """See `host.ports.WebUI`."""
        half = None if shared.cmd_opts.no_half else torch.float16
        model = half or torch.float32
        vae = None if half and shared.cmd_opts.no_half_vae else model
        return LiveParameters(
            sd_models.model_data.sd_model,
            architectures.get(checkpoint.detection.architecture),
            checkpoint.keys(),
            Casts(model, vae),
        )

    def named(self, live: LiveModel, checkpoint: Checkpoint) -> bool:
        """See `host.ports.WebUI`."""
        assert isinstance(live, LiveParameters)
        model: Any = live.model
        info = getattr(model, "sd_checkpoint_info", None)
        thrown_away = next(model.parameters()).is_meta
        return info is not None and not thrown_away and same_file(info.filename, checkpoint.path)

    def holds(self, live: LiveModel, checkpoint: Checkpoint) -> bool:
        """See `host.ports.WebUI`."""
        assert isinstance(live, LiveParameters)
        return live.model is sd_models.model_data.sd_model and self.named(live, checkpoint)

    def foreign_vae(self) -> str | None:
        """See `host.ports.WebUI`."""
        file = sd_vae.loaded_vae_file
        return None if file is None else Path(file).name

    def text_encoder_changed(self) -> None:
        """See `host.ports.WebUI`."""
        self._forget_conditions()
        model = sd_models.model_data.sd_model
        if hasattr(model, "cond_stage_model_empty_prompt"):
            with devices.autocast(), torch.no_grad():
                model.cond_stage_model_empty_prompt = sd_models.get_empty_cond(model)

    def disown(self) -> None:
        """See `host.ports.WebUI`."""
        data = sd_models.model_data
        model, data.sd_model = data.sd_model, None
        data.loaded_sd_models = [kept for kept in data.loaded_sd_models if kept is not model]
        data.was_loaded_at_least_once = False
        if model is not None:
            # Whoever still holds it must not make images with it.
            try:
                sd_models.send_model_to_trash(model)
            except Exception:
                log.exception("the model could not be thrown away")

    def _forget_conditions(self) -> None:
        """Empty the caches of prompts that outlive a generation.

        They are class attributes that other code refers to, of another length in other WebUIs.
        """
        base = processing.StableDiffusionProcessing
        txt2img = processing.StableDiffusionProcessingTxt2Img
        for cache in (base.cached_c, base.cached_uc, txt2img.cached_hr_c, txt2img.cached_hr_uc):
            cache[:] = [None] * len(cache)

    def _unregister(self) -> None:
        """Take the run's checkpoint out of the lists in which the WebUI did not have it."""
        for names, before in (
            (sd_models.checkpoint_aliases, self._aliases),
            (sd_models.checkpoints_list, self._titles),
        ):
            names.pop(ALIAS, None)
            if self._info is None or self._info in self._titles.values():
                continue
            for name in [name for name, info in names.items() if info is self._info]:
                if name in before:
                    names[name] = before[name]
                else:
                    del names[name]

    # --- the images ---------------------------------------------------------------------------

    def generate(self, jobs: Sequence[ImageJob], labels: Mapping[str, str]) -> Shot:
        """See `host.ports.WebUI`."""
        dtype_vae = devices.dtype_vae
        try:
            images = self._images.make(jobs, labels)
        except Exception as error:
            if isinstance(error, devices.NansException):
                try:
                    images = self._images.make_despite_nan(jobs, labels)
                except Exception as second:
                    return self._failure(second)
            else:
                return self._failure(error)
        ending = self.asked() or (Ending.SKIPPED if self._buttons.skipped() else Ending.DONE)
        if ending is Ending.DONE and len(images) != len(jobs):
            return Shot(Ending.FAILED, reason=f"it made {len(images)} of {len(jobs)} images.")
        notes: tuple[str, ...] = ()
        if devices.dtype_vae != dtype_vae:
            notes = (
                f"The WebUI switched the VAE to {str(devices.dtype_vae).removeprefix('torch.')} "
                "because it made NaN: images from now on differ in their last bits from earlier "
                "ones. Start the WebUI with --no-half-vae to avoid that.",
            )
        return Shot(ending, tuple(images), notes=notes)

    def _failure(self, error: Exception) -> Shot:
        ending = self.asked()
        if ending is None:
            ending = Ending.OUT_OF_MEMORY if is_out_of_memory(error) else Ending.FAILED
        if ending is Ending.FAILED:
            log.error("the WebUI failed to generate", exc_info=error)
        return Shot(ending, reason=_sentence(error))

    def free_memory(self) -> None:
        """See `host.ports.WebUI`."""
        gc.collect()
        devices.torch_gc()

    def asked(self) -> Ending | None:
        """See `host.ports.WebUI`."""
        return self._buttons.asked()

    def wait_for_reload(self, stop: StopFlag) -> None:
        """See `host.ports.WebUI`."""
        self._buttons.wait_for_reload(stop)


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else "no reason given"
    return f"{type(error).__name__}: {text}."
