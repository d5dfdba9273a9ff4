"""Payloads and the image jobs that they expand to.

Hides how prompts, settings and seeds become a fixed, ordered list of images: every candidate of a
run is judged on exactly the same jobs (common random numbers), in exactly the same batches, so that
scores are comparable and a resumed run repeats bit-identical work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from lib_automerge.domain.prompt_cleaning import cleaned
from lib_automerge.errors import ConfigError

MAX_SEED = 2**32 - 1

CHANGES_MODEL = frozenset(
    {
        "sd_model_checkpoint",
        "sd_checkpoint_hash",
        "sd_vae",
        "sd_unet",
        "refiner_checkpoint",
        "hr_checkpoint_name",
        "fp8_storage",
        "cache_fp16_weight",
    }
)
"""Options of the WebUI that load other weights than those that are to be judged."""


NETWORK_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]+>")
"""A tag in a prompt that loads an extra network: `<lora:name:0.8>`."""


class Hires(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The second pass of the WebUI's "Hires. fix", under the names of its API without `hr_`.

    `second_pass_steps` 0 means as many as the first pass; `resize_x` and `resize_y` (pixels, a
    multiple of 8) replace `scale` when they are not 0; None leaves sampler, scheduler and prompts
    as in the first pass.
    """

    scale: float = 2.0
    upscaler: str = "Latent"
    second_pass_steps: int = 0
    denoising_strength: float = 0.7
    resize_x: int = 0
    resize_y: int = 0
    sampler: str | None = None
    scheduler: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One prompt with its txt2img settings, under the names that the WebUI uses.

    `seeds` are the seeds of the search; an empty tuple leaves them to the run. `batch_size` is how
    many images may be generated at once, together with other payloads of equal settings. `weight`
    is the payload's share in the mean score. A `held_out` payload is never seen by the search.
    `score_prompt` is what the reward reads instead of the words of `prompt`. `hires`, `styles`
    (names of the WebUI's prompt styles) and `override_settings` (the WebUI's options for these
    images only) need a WebUI.
    """

    prompt: str
    name: str = ""
    negative_prompt: str = ""
    seeds: tuple[int, ...] = ()
    steps: int = 20
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    clip_skip: int = 1
    batch_size: int = 1
    weight: float = 1.0
    held_out: bool = False
    score_prompt: str | None = None
    hires: Hires | None = None
    styles: tuple[str, ...] = ()
    override_settings: dict[str, str | int | float | bool] = {}

    @property
    def judged_prompt(self) -> str:
        """The prompt that the reward reads: `score_prompt` as it is, or the words of `prompt`."""
        return cleaned(self.prompt, self.steps) if self.score_prompt is None else self.score_prompt

    def settings(self) -> tuple[object, ...]:
        """Everything that images must share to be generated in one batch."""
        return (
            self.steps,
            self.sampler,
            self.scheduler,
            self.cfg_scale,
            self.width,
            self.height,
            self.clip_skip,
            self.batch_size,
            self.hires,
            self.styles,
            tuple(sorted(self.override_settings.items())),
            # a batch is generated with one set of extra networks
            tuple(sorted(NETWORK_TAG.findall(self.prompt))),
        )


class ImageJob(msgspec.Struct, frozen=True):
    """One image to make: the `number`-th job (from 0) of its list, of a payload, with one seed."""

    number: int
    payload: Payload
    seed: int


def named(payloads: Iterable[Payload]) -> tuple[Payload, ...]:
    """Return the payloads with a unique name each: `p01`, `p02`, ... where none is given.

    Raises:
        ConfigError: two payloads have the same name, a number is out of its range, or a prompt is
            empty.
    """
    result: list[Payload] = []
    seen: set[str] = set()
    for position, payload in enumerate(payloads, start=1):
        name = payload.name or f"p{position:02d}"
        if name in seen:
            raise ConfigError(f"two payloads have the name {name!r}. Give each its own name.")
        seen.add(name)
        _check(payload, name)
        result.append(msgspec.structs.replace(payload, name=name))
    return tuple(result)


def _check(payload: Payload, name: str) -> None:
    if not payload.prompt.strip():
        raise ConfigError(f"payload {name!r} has an empty prompt. Write one or remove the payload.")
    ranges: tuple[tuple[str, float, float], ...] = (
        ("steps", 1, 1000),
        ("cfg_scale", 0, 100),
        ("width", 8, 16384),
        ("height", 8, 16384),
        ("clip_skip", 1, 12),
        ("batch_size", 1, 1024),
        ("weight", 1e-6, 1e6),
    )
    for field, low, high in ranges:
        value = getattr(payload, field)
        if not low <= value <= high:
            raise ConfigError(
                f"payload {name!r}: {field} is {value}. It must be between {low:g} and {high:g}."
            )
    for field in ("width", "height"):
        _check_eights(name, field, getattr(payload, field))
    if payload.hires is not None:
        _check_hires(payload.hires, name)
    for key in payload.override_settings:
        if key in CHANGES_MODEL:
            raise ConfigError(
                f"payload {name!r}: the option {key!r} would put another model in the place of "
                "the merge. Remove it from override_settings."
            )
    if len(set(payload.seeds)) != len(payload.seeds):
        raise ConfigError(f"payload {name!r} lists a seed twice. Name each seed once.")
    for seed in payload.seeds:
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(
                f"payload {name!r}: seed {seed} is out of range. Use 0 to {MAX_SEED}; "
                "a random seed (-1) cannot be compared between candidates."
            )


def _check_hires(hires: Hires, name: str) -> None:
    ranges: tuple[tuple[str, float, float], ...] = (
        ("scale", 1, 8),
        ("second_pass_steps", 0, 1000),
        ("denoising_strength", 0, 1),
        ("resize_x", 0, 16384),
        ("resize_y", 0, 16384),
    )
    for field, low, high in ranges:
        value = getattr(hires, field)
        if not low <= value <= high:
            raise ConfigError(
                f"payload {name!r}: hires.{field} is {value}. It must be between {low:g} and "
                f"{high:g}."
            )
    _check_eights(name, "hires.resize_x", hires.resize_x)
    _check_eights(name, "hires.resize_y", hires.resize_y)


def _check_eights(name: str, field: str, value: int) -> None:
    if value % 8:
        raise ConfigError(
            f"payload {name!r}: {field} is {value}. It must be a multiple of 8: "
            f"use {value // 8 * 8 or 8}."
        )


def jobs_of(payloads: Sequence[Payload]) -> tuple[ImageJob, ...]:
    """Expand payloads to jobs, payload by payload, seed by seed, numbered from 0."""
    pairs = [(payload, seed) for payload in payloads for seed in payload.seeds]
    return tuple(ImageJob(number, payload, seed) for number, (payload, seed) in enumerate(pairs))


def batches_of(jobs: Sequence[ImageJob]) -> tuple[tuple[ImageJob, ...], ...]:
    """Cut jobs into the batches in which they are always generated.

    Consecutive jobs with equal settings share a batch of at most `batch_size` images. The cut
    depends on the list alone: floating point results differ between batch shapes, and a resumed
    evaluation must give the bits of an uninterrupted one.
    """
    batches: list[tuple[ImageJob, ...]] = []
    current: list[ImageJob] = []
    for job in jobs:
        full = current and len(current) >= current[0].payload.batch_size
        if current and (full or job.payload.settings() != current[0].payload.settings()):
            batches.append(tuple(current))
            current = []
        current.append(job)
    if current:
        batches.append(tuple(current))
    return tuple(batches)
