"""The fields of one payload in the editor, and the way between them and a payload."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from lib_automerge.domain.payload import Hires, Payload, named
from lib_automerge.errors import ConfigError
from lib_automerge.ui.fields import Field, Kind, Reader
from lib_automerge.ui.texts import reason

PREFIX = "payload_"

SAME = "Same as the first pass"
"""What stands for no value of its own in the second pass."""

SETTINGS: tuple[Field, ...] = (
    Field(
        name="payload_prompt",
        kind=Kind.LINES,
        label="Prompt",
        default="",
        info="LoRA and embedding tags work; wildcards and {a|b} are drawn once per run.",
    ),
    Field(
        name="payload_negative_prompt",
        kind=Kind.LINES,
        label="Negative prompt",
        default="",
        info="What the images should not show.",
    ),
    Field(
        name="payload_name",
        kind=Kind.TEXT,
        label="Name",
        default="",
        info="Its name in tables. Empty: p01, p02, ...",
    ),
    Field(
        name="payload_held_out",
        kind=Kind.CHECK,
        label="Held out",
        default=False,
        info="Never seen by the search; used for the verdict only.",
    ),
    Field(
        name="payload_sampler",
        kind=Kind.OFFERED,
        label="Sampling method",
        default="DPM++ 2M",
        info="As in txt2img.",
    ),
    Field(
        name="payload_scheduler",
        kind=Kind.OFFERED,
        label="Schedule type",
        default="Automatic",
        info="As in txt2img.",
    ),
    Field(
        name="payload_steps",
        kind=Kind.WHOLE,
        label="Sampling steps",
        default=20,
        info="More take longer.",
    ),
    Field(
        name="payload_cfg_scale",
        kind=Kind.NUMBER,
        label="CFG scale",
        default=7,
        info="How closely the prompt is followed.",
    ),
    Field(
        name="payload_width", kind=Kind.WHOLE, label="Width", default=512, info="A multiple of 8."
    ),
    Field(
        name="payload_height", kind=Kind.WHOLE, label="Height", default=512, info="A multiple of 8."
    ),
    Field(
        name="payload_seeds",
        kind=Kind.TEXT,
        label="Seeds",
        default="",
        info="One image each: 1, 2, 3. Empty: drawn by the run.",
    ),
    Field(
        name="payload_weight",
        kind=Kind.NUMBER,
        label="Weight",
        default=1,
        info="Its share in the score.",
    ),
)

MORE: tuple[Field, ...] = (
    Field(
        name="payload_batch_size",
        kind=Kind.WHOLE,
        label="Batch size",
        default=1,
        info="Images made at once; more need more memory.",
    ),
    Field(
        name="payload_clip_skip",
        kind=Kind.WHOLE,
        label="Clip skip",
        default=1,
        info="2 suits many anime models.",
    ),
    Field(
        name="payload_score_prompt",
        kind=Kind.LINES,
        label="Prompt for the reward",
        default="",
        info="What the judge reads instead: plain words without tags. Empty: the prompt.",
    ),
    Field(
        name="payload_styles",
        kind=Kind.NAMES,
        label="Styles",
        default=(),
        info="The WebUI's prompt styles.",
    ),
    Field(
        name="payload_override_settings",
        kind=Kind.LINES,
        label="Override settings as text",
        default="{}",
        info='The WebUI\'s options for these images, in JSON: {"eta_noise_seed_delta": 31337}.',
    ),
)

HIRES: tuple[Field, ...] = (
    Field(
        name="payload_hires",
        kind=Kind.CHECK,
        label="Hires. fix",
        default=False,
        info="A second pass at a higher resolution; takes several times as long.",
    ),
    Field(
        name="payload_hires_upscaler",
        kind=Kind.OFFERED,
        label="Upscaler",
        default="Latent",
        info="As in txt2img.",
    ),
    Field(
        name="payload_hires_scale",
        kind=Kind.NUMBER,
        label="Upscale by",
        default=2,
        info="Times width and height.",
    ),
    Field(
        name="payload_hires_second_pass_steps",
        kind=Kind.WHOLE,
        label="Hires steps",
        default=0,
        info="0: as many as the first pass.",
    ),
    Field(
        name="payload_hires_denoising_strength",
        kind=Kind.NUMBER,
        label="Denoising strength",
        default=0.7,
        info="0 keeps the image, 1 replaces it.",
    ),
    Field(
        name="payload_hires_resize_x",
        kind=Kind.WHOLE,
        label="Resize width to",
        default=0,
        info="0: by the factor.",
    ),
    Field(
        name="payload_hires_resize_y",
        kind=Kind.WHOLE,
        label="Resize height to",
        default=0,
        info="0: by the factor.",
    ),
    Field(
        name="payload_hires_sampler",
        kind=Kind.OFFERED,
        label="Hires sampling method",
        default=SAME,
        info="Of the second pass.",
    ),
    Field(
        name="payload_hires_scheduler",
        kind=Kind.OFFERED,
        label="Hires schedule type",
        default=SAME,
        info="Of the second pass.",
    ),
    Field(
        name="payload_hires_prompt",
        kind=Kind.LINES,
        label="Hires prompt",
        default="",
        info="Empty: the same.",
    ),
    Field(
        name="payload_hires_negative_prompt",
        kind=Kind.LINES,
        label="Hires negative prompt",
        default="",
        info="Empty: the same.",
    ),
)

PAYLOAD_FIELDS = (*SETTINGS, *MORE, *HIRES)

_OPTIONS = dict[str, str | int | float | bool]


def payload_of(values: Mapping[str, object]) -> Payload:
    """The payload that the editor's fields describe.

    Raises:
        ConfigError: a value is missing, cannot be read or is out of range.
    """
    form = Reader(PAYLOAD_FIELDS, values)
    text = form.text("payload_override_settings") or "{}"
    try:
        options = msgspec.json.decode(text, type=_OPTIONS)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the override settings cannot be read: {reason(error)}. Correct the text, or empty it."
        ) from error
    payload = Payload(
        prompt=form.text("payload_prompt"),
        name=form.text("payload_name"),
        negative_prompt=form.text("payload_negative_prompt"),
        seeds=_seeds(form.text("payload_seeds")),
        steps=form.whole("payload_steps"),
        sampler=form.text("payload_sampler"),
        scheduler=form.text("payload_scheduler") or "Automatic",
        cfg_scale=form.number("payload_cfg_scale"),
        width=form.whole("payload_width"),
        height=form.whole("payload_height"),
        clip_skip=form.whole("payload_clip_skip"),
        batch_size=form.whole("payload_batch_size"),
        weight=form.number("payload_weight"),
        held_out=form.check("payload_held_out"),
        score_prompt=form.text("payload_score_prompt") or None,
        hires=_hires(form) if form.check("payload_hires") else None,
        styles=form.names("payload_styles"),
        override_settings=options,
    )
    named([payload])
    return payload


def payload_values(payload: Payload) -> dict[str, object]:
    """The editor's fields that describe a payload; `payload_of` gives it again."""
    raw: dict[str, object] = {
        f"{PREFIX}{name}": getattr(payload, name) for name in Payload.__struct_fields__
    }
    hires = payload.hires or Hires()
    raw |= {f"{PREFIX}hires_{name}": getattr(hires, name) for name in Hires.__struct_fields__}
    for name in ("payload_hires_sampler", "payload_hires_scheduler"):
        raw[name] = raw[name] or SAME
    raw |= {
        "payload_hires": payload.hires is not None,
        "payload_seeds": ", ".join(map(str, payload.seeds)),
        "payload_styles": list(payload.styles),
        "payload_override_settings": msgspec.json.encode(payload.override_settings).decode(),
    }
    return {name: "" if value is None else value for name, value in raw.items()}


def _hires(form: Reader) -> Hires:
    return Hires(
        scale=form.number("payload_hires_scale"),
        upscaler=form.text("payload_hires_upscaler"),
        second_pass_steps=form.whole("payload_hires_second_pass_steps"),
        denoising_strength=form.number("payload_hires_denoising_strength"),
        resize_x=form.whole("payload_hires_resize_x"),
        resize_y=form.whole("payload_hires_resize_y"),
        sampler=_unless_same(form.text("payload_hires_sampler")),
        scheduler=_unless_same(form.text("payload_hires_scheduler")),
        prompt=form.text("payload_hires_prompt") or None,
        negative_prompt=form.text("payload_hires_negative_prompt") or None,
    )


def _unless_same(text: str) -> str | None:
    return None if text in ("", SAME) else text


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    if not all(re.fullmatch(r"-?\d+", part) for part in parts):
        raise ConfigError(f'"Seeds" are not whole numbers: {text!r}. Write them like 1, 2, 3.')
    return tuple(int(part) for part in parts)
