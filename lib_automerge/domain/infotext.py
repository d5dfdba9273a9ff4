"""The text that the WebUI writes into its images: how an image was made.

    a prompt, of one or more lines
    Negative prompt: of one or more lines
    Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x512, ...

Values with a comma, a colon or a line break in them are written as JSON strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from lib_automerge.domain.payload import MAX_SEED, Hires, Payload, named
from lib_automerge.errors import ConfigError

NEGATIVE = "Negative prompt:"

_SETTINGS_LINE = re.compile(r"Steps: *\d+ *(,|$)")
_SETTING = re.compile(
    r"""\s*(?P<key>[^:",]+):\s*(?P<value>"(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)""", re.VERBOSE
)
_SIZE = re.compile(r"(\d+)\s*x\s*(\d+)")

_SCHEDULES_IN_NAMES = ("Karras", "Exponential")
"""Before 1.9 the WebUI wrote the schedule as the last word of the sampler: "DPM++ 2M Karras"."""


def parse(text: str) -> Payload:
    """Read a payload from an infotext; what a payload cannot hold is left out.

    Styles are part of the prompt already. The seed of the image becomes the only seed.

    Raises:
        ConfigError: it is no infotext of an image made from text, or a value is wrong.
    """
    lines = text.replace("\r\n", "\n").replace("\0", "").strip().split("\n")
    at = next((i for i in reversed(range(len(lines))) if _SETTINGS_LINE.match(lines[i])), None)
    if at is None:
        raise ConfigError(
            f"this does not say how an image was made: {lines[0][:60]!r}. Give the text that the "
            'WebUI shows under "PNG Info", with its line that begins with Steps.'
        )
    prompt, negative = _prompts(lines[:at])
    settings = _settings(" ".join(lines[at:]))
    sampler, scheduler = _sampler(settings.get("Sampler", "Euler a"), settings.get("Schedule type"))
    width, height = _size(settings, "Size") or (512, 512)
    seed = _number(settings, "Seed", -1)
    payload = Payload(
        prompt=prompt,
        negative_prompt=negative,
        seeds=(int(seed),) if 0 <= seed <= MAX_SEED else (),
        steps=int(_number(settings, "Steps", 20)),
        sampler=sampler,
        scheduler=scheduler,
        cfg_scale=_number(settings, "CFG scale", 7.0),
        width=width,
        height=height,
        clip_skip=int(_number(settings, "Clip skip", 1)),
        hires=_hires(settings),
    )
    named([payload])
    return payload


def infotext_of(payload: Payload, seed: int) -> str:
    """The infotext of an image of this payload, for the WebUI to read.

    Styles, options and batch size have no place in it.
    """
    settings: dict[str, object] = {
        "Steps": payload.steps,
        "Sampler": payload.sampler,
        "Schedule type": payload.scheduler,
        "CFG scale": _short(payload.cfg_scale),
        "Seed": seed,
        "Size": f"{payload.width}x{payload.height}",
    }
    if payload.clip_skip != 1:
        settings["Clip skip"] = payload.clip_skip
    if payload.hires is not None:
        settings |= _hires_settings(payload.hires)
    lines = [payload.prompt]
    if payload.negative_prompt:
        lines.append(f"{NEGATIVE} {payload.negative_prompt}")
    told = (f"{key}: {_quoted(str(value))}" for key, value in settings.items())
    return "\n".join([*lines, ", ".join(told)])


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt."""
    start = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(NEGATIVE)
    return "\n".join(lines[:start]).strip(), negative.strip()


def _settings(line: str) -> dict[str, str]:
    """The settings by key; the first of two with one key counts."""
    found: dict[str, str] = {}
    for match in _SETTING.finditer(line):
        found.setdefault(match["key"].strip(), _unquoted(match["value"].strip()))
    return found


def _sampler(sampler: str, schedule: str | None) -> tuple[str, str]:
    if schedule:
        return sampler, schedule
    first, _, last = sampler.rpartition(" ")
    return (first, last) if last in _SCHEDULES_IN_NAMES else (sampler, "Automatic")


def _hires(settings: Mapping[str, str]) -> Hires | None:
    """The second pass, if there was one."""
    resized = _size(settings, "Hires resize")
    if "Hires upscale" not in settings and resized is None:
        return None
    same = {"Use same sampler": None, "Use same scheduler": None, "": None}
    sampler = settings.get("Hires sampler", "")
    scheduler = settings.get("Hires schedule type", "")
    resize_x, resize_y = resized or (0, 0)
    return Hires(
        scale=_number(settings, "Hires upscale", 2.0),
        upscaler=settings.get("Hires upscaler", "Latent"),
        second_pass_steps=int(_number(settings, "Hires steps", 0)),
        denoising_strength=_number(settings, "Denoising strength", 0.7),
        resize_x=resize_x,
        resize_y=resize_y,
        sampler=same.get(sampler, sampler),
        scheduler=same.get(scheduler, scheduler),
        prompt=settings.get("Hires prompt") or None,
        negative_prompt=settings.get("Hires negative prompt") or None,
    )


def _hires_settings(hires: Hires) -> dict[str, object]:
    settings: dict[str, object] = {"Denoising strength": _short(hires.denoising_strength)}
    if hires.resize_x or hires.resize_y:
        settings["Hires resize"] = f"{hires.resize_x}x{hires.resize_y}"
    else:
        settings["Hires upscale"] = _short(hires.scale)
    if hires.second_pass_steps:
        settings["Hires steps"] = hires.second_pass_steps
    settings["Hires upscaler"] = hires.upscaler
    optional = {
        "Hires sampler": hires.sampler,
        "Hires schedule type": hires.scheduler,
        "Hires prompt": hires.prompt,
        "Hires negative prompt": hires.negative_prompt,
    }
    return settings | {key: value for key, value in optional.items() if value}


def _size(settings: Mapping[str, str], key: str) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(settings.get(key, ""))
    return (int(match[1]), int(match[2])) if match else None


def _number(settings: Mapping[str, str], key: str, default: float) -> float:
    text = settings.get(key)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"the image's {key!r} is not a number: {text[:40]!r}. Correct the text."
        ) from None


def _quoted(value: str) -> str:
    if any(mark in value for mark in ",:\n"):
        return json.dumps(value, ensure_ascii=False)
    return value


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('"')


def _short(value: float) -> str:
    return f"{value:g}"
