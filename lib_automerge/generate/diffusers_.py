"""The standalone generator: diffusers pipelines from single checkpoint files, without a network.

Model A is loaded once; every candidate is merged into the loaded modules in place. Images come from
stock pipelines, with noise drawn on the CPU so that every device starts from the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import AutomergeError, ConfigError, GenerationError
from lib_automerge.generate import samplers
from lib_automerge.generate.base import StopFlag, never
from lib_automerge.generate.conditioning import Conditioner
from lib_automerge.generate.devices import (
    choose_device,
    device_name,
    free_memory,
    is_out_of_memory,
    keep_freed_memory,
    reproducible,
)
from lib_automerge.generate.live import LiveSink
from lib_automerge.generate.loading import (
    check_complete,
    components,
    load_pipeline,
    move_pipeline,
    quiet,
)
from lib_automerge.generate.parts import Parts
from lib_automerge.merge.engine import DTYPES
from lib_automerge.merge.live import Effects, LiveMerger, changed
from lib_automerge.merge.readers import Checkpoint

BLACK = 2
"""A picture whose brightest value (0 to 255) is not above this shows nothing."""


TOO_LARGE = (
    "Use smaller images, half precision (dtype fp16), or close other programs that use the device."
)


class DiffusersGenerator:
    """Makes images in this process; implements `generate.base.Generator`.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", ...; None takes the best there is.
        dtype: "fp16", "bf16" or "fp32"; None is fp32 on the CPU and fp16 elsewhere.
        threads: CPU threads for torch; None leaves its setting.
        cache: see `merge.live.LiveMerger`.

    Raises:
        ConfigError: diffusers is not installed, the device or dtype does not exist here, or
            threads is below 1.
    """

    def __init__(
        self,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        for package in ("diffusers", "transformers"):
            if find_spec(package) is None:
                raise ConfigError(
                    f"the package {package} is missing, which makes the images. Install the "
                    "standalone requirements: pip install 'lib_automerge[standalone]'."
                )
        self._device = choose_device(device)
        name = dtype or ("fp32" if self._device.type == "cpu" else "fp16")
        if name not in DTYPES:
            raise ConfigError(f"unknown dtype: {name!r}. Use one of: {', '.join(DTYPES)}.")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}. Use 1 or more.")
        self._dtype = DTYPES[name]
        self._threads = threads
        self._cache = cache

    def fingerprint(self) -> dict[str, str]:
        """What besides the recipe decides the images' bits."""
        facts = {
            "backend": "diffusers",
            **{name: version(name) for name in ("diffusers", "transformers", "torch")},
            "device": device_name(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
        }
        if self._device.type == "cpu":
            facts["threads"] = str(self._threads or torch.get_num_threads())
        return facts

    def check(self, model: Checkpoint) -> None:
        """Refuse what makes no images from prompts; see `generate.base.Generator.check`."""
        check_complete(model)

    @contextmanager
    def open(
        self,
        models: Mapping[str, Checkpoint],
        stop: StopFlag = never,  # noqa: ARG002 - nobody else has this pipeline
    ) -> Iterator[DiffusersSession]:
        """Load model A; see `generate.base.Generator.open`.

        Raises:
            ModelError: A is not a complete text-to-image checkpoint of SD1, SD2 or SDXL.
            GenerationError: diffusers could not load it as it is.
        """
        if self._device.type == "cpu":
            keep_freed_memory()
        with reproducible(self._threads), quiet():
            pipeline = load_pipeline(models["a"], self._dtype)
            try:
                yield DiffusersSession(pipeline, self._device, self._dtype, models, self._cache)
            finally:
                # The session may be referenced from outside; the weights must go all the same.
                for module in components(pipeline).values():
                    module.to("meta")
                free_memory(self._device)


class DiffusersSession:
    """A loaded pipeline that candidates are merged into; made by `DiffusersGenerator.open`."""

    def __init__(
        self,
        pipeline: Any,
        device: torch.device,
        dtype: torch.dtype,
        models: Mapping[str, Checkpoint],
        cache: Path | None,
    ) -> None:
        detection = models["a"].detection
        architecture = architectures.get(detection.architecture)
        self._sink = LiveSink(components(pipeline), architecture, models["a"].keys())
        move_pipeline(pipeline, device, models["a"].name)
        self._pipeline = pipeline
        self._sink.verify(models["a"])
        self._device = device
        self._dtype = dtype
        self._conditioner = Conditioner(pipeline, architecture.name)
        self._prediction = "v_prediction" if detection.prediction == "v" else "epsilon"
        self._zero_snr = "ztsnr" in detection.keys
        self._sdxl = architecture.name == "sdxl"
        self._merger = LiveMerger(models, cache, lambda sentence: self._news.append(sentence))
        self._live: Effects | None = {}
        self._parts = Parts()
        self._news: list[str] = []
        self._read: set[str] = set()
        if detection.prediction == "unknown":
            self._news.append(
                f"{models['a'].name} does not tell its prediction type; it is read as epsilon. "
                "If images are noise, set modelspec.prediction_type to v in its metadata."
            )

    def apply(self, recipe: Recipe) -> None:
        """Merge the recipe into the live modules: only blocks whose weight differs from theirs.

        Raises:
            ConfigError: the recipe names an unknown method, block or role.
            ModelError: the models do not hold what the recipe asks for.
            GenerationError: what is merged overflows.
        """
        wanted = self._merger.effects(recipe)
        blocks = changed(self._live, wanted)
        self._live = None
        self._sink.begin()
        self._merger.merge(recipe, self._sink, blocks)
        self._sink.finish(blocks)
        self._live = wanted

    def images(
        self, jobs: Sequence[ImageJob], stop: StopFlag
    ) -> Iterator[tuple[ImageJob, Image.Image]]:
        """See `generate.base.Session.images`."""
        return self._parts.images(jobs, stop, self._attempt)

    def rest(self) -> None:
        """Nothing to do: the pipeline is this session's own."""

    def warnings(self) -> list[str]:
        """See `generate.base.Session.warnings`."""
        news, self._news = self._news, []
        return news

    def _attempt(self, jobs: Sequence[ImageJob]) -> list[Image.Image] | None:
        """Return the jobs' pictures, or None if memory ran out and smaller batches may help."""
        try:
            return _pictures(self._generate(jobs))
        except AutomergeError:
            raise
        except Exception as error:
            # Inside a failed decoding step SDXL's VAE is left in another type than the rest.
            self._pipeline.vae.to(dtype=self._dtype)
            if not is_out_of_memory(error):
                raise GenerationError(
                    f"diffusers failed on payload {jobs[0].payload.name!r}: {_sentence(error)} "
                    "Change its settings."
                ) from error
            failure = error.with_traceback(None)  # the trace holds the tensors of the attempt
        free_memory(self._device)
        try:
            self._news.append(self._parts.halve(jobs, TOO_LARGE))
        except GenerationError as error:
            raise error from failure
        return None

    def _generate(self, jobs: Sequence[ImageJob]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Run the pipeline once; returns images (n, height, width, 3) in 0..1, NaN where broken."""
        payload = jobs[0].payload
        self._read_notes(jobs)
        plan = samplers.plan(payload.sampler, payload.scheduler)
        self._pipeline.scheduler = samplers.create(
            plan, prediction=self._prediction, zero_snr=self._zero_snr
        )
        noise = [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]
        arguments = self._conditioner.arguments(jobs, guided=payload.cfg_scale > 1)
        if self._sdxl:
            size = (payload.height, payload.width)
            arguments |= {"original_size": size, "target_size": size}
        images: np.ndarray[Any, np.dtype[np.float32]] = self._pipeline(
            **arguments,
            latents=self._latents(noise, payload.width, payload.height),
            generator=noise,
            num_inference_steps=payload.steps,
            guidance_scale=payload.cfg_scale,
            width=payload.width,
            height=payload.height,
            output_type="np",
        ).images
        return images

    def _latents(self, noise: Sequence[torch.Generator], width: int, height: int) -> Tensor:
        """Return the first noise (n, channels, height, width), drawn in float32 on the CPU."""
        scale = self._pipeline.vae_scale_factor
        shape = (1, self._pipeline.unet.config.in_channels, height // scale, width // scale)
        drawn = torch.cat([torch.randn(shape, generator=generator) for generator in noise])
        return drawn.to(self._device, self._dtype)

    def _read_notes(self, jobs: Sequence[ImageJob]) -> None:
        for payload in {job.payload.name: job.payload for job in jobs}.values():
            if payload.name in self._read:
                continue
            self._read.add(payload.name)
            self._news += self._conditioner.notes(payload)
            if payload.cfg_scale < 1:
                self._news.append(
                    f"Payload {payload.name!r} has cfg_scale {payload.cfg_scale:g}; below 1 it is "
                    "read as 1 (no guidance)."
                )


def _pictures(images: np.ndarray[Any, np.dtype[np.float32]]) -> list[Image.Image]:
    """Turn (n, height, width, 3) in 0..1 into RGB pictures that say if they are broken."""
    pictures = []
    for image in images:
        finite = bool(np.isfinite(image).all())
        values = (np.nan_to_num(image, posinf=1.0, neginf=0.0) * 255).round().astype(np.uint8)
        picture = Image.fromarray(values)
        if not finite:
            picture.info["broken"] = "NaN"
        elif int(values.max()) <= BLACK:
            picture.info["broken"] = "black"
        pictures.append(picture)
    return pictures


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else "no reason given"
    return f"{type(error).__name__}: {text}."
