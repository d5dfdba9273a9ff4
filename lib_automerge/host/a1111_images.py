"""Images by AUTOMATIC1111's txt2img, in its own process. Import it only inside that WebUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from modules import devices, processing, sd_models, shared
from PIL import Image

from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.prompt_cleaning import without_comments
from lib_automerge.reward.rgb import as_rgb

BLACK = 2
"""A picture whose brightest value (0 to 255) is not above this shows nothing."""


class ImageMaker:
    """Turns jobs into calls of `process_images`.

    Args:
        set_options: gives this thread the options of the run, with these on top.
    """

    def __init__(self, set_options: Callable[[Mapping[str, Any]], None]) -> None:
        self._enter = set_options
        self._styled: dict[tuple[str, tuple[str, ...], bool], str] = {}

    def begin(self) -> None:
        """Forget the styles of an earlier session."""
        self._styled.clear()

    def make(self, jobs: Sequence[ImageJob], labels: Mapping[str, str]) -> list[Image.Image]:
        """One batch, as far as it came; `state` then says whether it was cut short.

        Returns:
            RGB images, those that show nothing marked "black" in `info["broken"]`.
        """
        payload = jobs[0].payload
        self._enter({"CLIP_stop_at_last_layers": payload.clip_skip, **payload.override_settings})
        self._bring_back_to_device()
        history = shared.cmd_opts.no_prompt_history
        shared.cmd_opts.no_prompt_history = True  # params.txt is the user's last image
        shared.state.begin(job=" ".join(["Automerge", *labels.values()]))
        processing_ = None
        try:
            processing_ = self._processing(jobs, labels)
            processed = processing.process_images(processing_)
        finally:
            shared.cmd_opts.no_prompt_history = history
            if processing_ is not None:
                processing_.close()
            shared.state.end()
            shared.total_tqdm.clear()
            self._enter({})
        images = processed.images[processed.index_of_first_image :][: len(jobs)]
        return [judged(image) for image in images]

    def _processing(self, jobs: Sequence[ImageJob], labels: Mapping[str, str]) -> Any:
        payload = jobs[0].payload
        hires: dict[str, Any] = {}
        if payload.hires is not None:
            second = payload.hires
            hires = {
                "enable_hr": True,
                "denoising_strength": second.denoising_strength,
                "hr_scale": second.scale,
                "hr_upscaler": second.upscaler,
                "hr_second_pass_steps": second.second_pass_steps,
                "hr_resize_x": second.resize_x,
                "hr_resize_y": second.resize_y,
                "hr_sampler_name": second.sampler,
                "hr_scheduler": second.scheduler,
                "hr_prompt": self._second(second.prompt, payload.styles),
                "hr_negative_prompt": self._second(
                    second.negative_prompt, payload.styles, negative=True
                ),
            }
        prompts = [self._style(job.payload.prompt, payload.styles) for job in jobs]
        negatives = [
            self._style(job.payload.negative_prompt, payload.styles, negative=True) for job in jobs
        ]
        return processing.StableDiffusionProcessingTxt2Img(
            sd_model=shared.sd_model,
            prompt=prompts,
            negative_prompt=negatives,
            seed=[job.seed for job in jobs],
            subseed=0,
            sampler_name=payload.sampler,
            scheduler=payload.scheduler,
            batch_size=len(jobs),
            n_iter=1,
            steps=payload.steps,
            cfg_scale=payload.cfg_scale,
            width=payload.width,
            height=payload.height,
            do_not_save_samples=True,
            do_not_save_grid=True,
            extra_generation_params={k: v.replace(",", " ") for k, v in labels.items()},
            **hires,
        )

    def _second(
        self, prompt: str | None, styles: tuple[str, ...], *, negative: bool = False
    ) -> str:
        """A prompt of the second pass; an empty one means that of the first, styles and all."""
        return self._style(prompt, styles, negative=negative) if prompt else ""

    def _style(self, prompt: str, styles: tuple[str, ...], *, negative: bool = False) -> str:
        """The prompt with the styles as they were when the run first used them."""
        key = (prompt, styles, negative)
        if key not in self._styled:
            book = shared.prompt_styles
            apply = (
                book.apply_negative_styles_to_prompt if negative else book.apply_styles_to_prompt
            )
            styled = apply(prompt, list(styles)) if styles else prompt
            # the WebUI does this in a script, and a run has no scripts
            comments = getattr(shared.opts, "enable_prompt_comments", False)
            self._styled[key] = without_comments(styled) if comments else styled
        return self._styled[key]

    def make_despite_nan(
        self, jobs: Sequence[ImageJob], labels: Mapping[str, str]
    ) -> list[Image.Image]:
        """Make a batch again in which the WebUI found NaN, to see which images are whole."""
        check = shared.cmd_opts.disable_nan_check
        shared.cmd_opts.disable_nan_check = True
        try:
            images = self.make(jobs, labels)
        finally:
            shared.cmd_opts.disable_nan_check = check
        for image in images:
            if "broken" in image.info:
                image.info["broken"] = "NaN"
        return images

    def _bring_back_to_device(self) -> None:
        """Undo "Unload checkpoint", which takes the model from the device without the queue."""
        model = shared.sd_model
        if model is None or model.lowvram:
            return
        parameter = next(model.model.diffusion_model.parameters())
        if parameter.device.type != torch.device(devices.device).type:
            sd_models.send_model_to_device(model)


def judged(image: Image.Image) -> Image.Image:
    """As RGB, marked if it shows nothing."""
    if image.mode != "RGB":
        information = image.info
        image = as_rgb(image)
        image.info.update(information)
    if max(high for _, high in image.getextrema()) <= BLACK:  # type: ignore[misc]
        image.info["broken"] = "black"
    return image
