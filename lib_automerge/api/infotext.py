"""A payload as text in the form that the WebUI writes into its pictures and reads back."""

from __future__ import annotations

import json

from lib_automerge.domain.payload import Hires, Payload


def infotext(payload: Payload, seed: int) -> str:
    """The prompt, and a line of settings; the WebUI fills its form from it."""
    lines = [payload.prompt]
    if payload.negative_prompt:
        lines.append(f"Negative prompt: {payload.negative_prompt}")
    settings = {
        "Steps": str(payload.steps),
        "Sampler": payload.sampler,
        "Schedule type": payload.scheduler,
        "CFG scale": f"{payload.cfg_scale:g}",
        "Seed": str(seed),
        "Size": f"{payload.width}x{payload.height}",
    }
    if payload.clip_skip > 1:
        settings["Clip skip"] = str(payload.clip_skip)
    if payload.hires is not None:
        settings |= _hires(payload.hires)
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _hires(hires: Hires) -> dict[str, str]:
    settings = {"Denoising strength": f"{hires.denoising_strength:g}"}
    if hires.resize_x or hires.resize_y:
        settings["Hires resize"] = f"{hires.resize_x}x{hires.resize_y}"
    else:
        settings["Hires upscale"] = f"{hires.scale:g}"
    if hires.second_pass_steps:
        settings["Hires steps"] = str(hires.second_pass_steps)
    settings["Hires upscaler"] = hires.upscaler
    return settings


def _quoted(value: str) -> str:
    """As the WebUI quotes values in which its separators occur."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value
