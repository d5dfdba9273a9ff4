"""The WebUI's txt2img form: which of its components hold a payload, and what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lib_automerge.domain.payload import MAX_SEED, Hires, Payload

ELEMENTS = {
    "txt2img_prompt": "prompt",
    "txt2img_neg_prompt": "negative_prompt",
    "txt2img_styles": "styles",
    "txt2img_sampling": "sampler",
    "txt2img_scheduler": "scheduler",
    "txt2img_steps": "steps",
    "txt2img_cfg_scale": "cfg_scale",
    "txt2img_width": "width",
    "txt2img_height": "height",
    "txt2img_seed": "seed",
    "txt2img_hr-checkbox": "hires",
    "txt2img_hr_upscaler": "hires.upscaler",
    "txt2img_hires_steps": "hires.second_pass_steps",
    "txt2img_denoising_strength": "hires.denoising_strength",
    "txt2img_hr_scale": "hires.scale",
    "txt2img_hr_resize_x": "hires.resize_x",
    "txt2img_hr_resize_y": "hires.resize_y",
    "hr_sampler": "hires.sampler",
    "hr_scheduler": "hires.scheduler",
    "hires_prompt": "hires.prompt",
    "hires_neg_prompt": "hires.negative_prompt",
}
"""Element id of AUTOMATIC1111's page -> field of a payload; a part of Hires after a point."""

SAME = ("Use same sampler", "Use same scheduler", "")
"""What the form calls "as in the first pass"."""


class Txt2imgForm:
    """Collects the form's components while the page is built.

    Register `see` with the WebUI's `on_after_component`. A page that is built again (Reload UI)
    replaces the components of the old one.

    Args:
        clip_skip: asks for the WebUI's setting, which is not part of the form.

    Attributes:
        components: the component of each payload field that has been seen.
    """

    def __init__(self, clip_skip: Callable[[], int] = lambda: 1) -> None:
        self.components: dict[str, Any] = {}
        self._clip_skip = clip_skip

    def see(self, component: Any, **arguments: Any) -> None:
        """Keep the component if it is one of ours."""
        field = ELEMENTS.get(arguments.get("elem_id") or getattr(component, "elem_id", "") or "")
        if field is not None:
            self.components[field] = component

    def payload(self, values: Mapping[str, Any]) -> Payload:
        """The payload that values of the components describe; see `payload_of`.

        Raises:
            ConfigError: they describe none.
        """
        return payload_of(values, self._clip_skip())


def payload_of(values: Mapping[str, Any], clip_skip: int = 1) -> Payload:
    """The payload that a filled-in form describes.

    Args:
        values: the components' values by payload field; missing ones keep the payload's default.
        clip_skip: the WebUI's setting, which is not part of the form.
    """
    fields = {name: values[name] for name in ("prompt", "negative_prompt") if name in values}
    for name in ("sampler", "scheduler"):
        if values.get(name):
            fields[name] = values[name]
    for name in ("steps", "width", "height"):
        if values.get(name) is not None:
            fields[name] = int(values[name])
    if values.get("cfg_scale") is not None:
        fields["cfg_scale"] = float(values["cfg_scale"])
    return Payload(
        **fields,
        clip_skip=max(1, clip_skip),
        styles=tuple(values.get("styles") or ()),
        seeds=_seeds(values.get("seed")),
        hires=_hires(values) if values.get("hires") else None,
    )


def _seeds(value: Any) -> tuple[int, ...]:
    """The seed, or none where the form asks for a random one."""
    try:
        seed = int(value)
    except (TypeError, ValueError):
        return ()
    return (seed,) if 0 <= seed <= MAX_SEED else ()


def _hires(values: Mapping[str, Any]) -> Hires:
    given = {
        field.removeprefix("hires."): value
        for field, value in values.items()
        if field.startswith("hires.") and value is not None
    }
    fields: dict[str, Any] = {}
    for name in ("scale", "denoising_strength"):
        if name in given:
            fields[name] = float(given[name])
    for name in ("second_pass_steps", "resize_x", "resize_y"):
        if name in given:
            fields[name] = int(given[name])
    if given.get("upscaler"):
        fields["upscaler"] = given["upscaler"]
    for name in ("sampler", "scheduler", "prompt", "negative_prompt"):
        if given.get(name, "") not in SAME:
            fields[name] = given[name]
    return Hires(**fields)
