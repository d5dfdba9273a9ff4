"""Payloads and the image jobs that they expand to.

Hides how prompts, settings and seeds become a fixed, ordered list of images: every candidate of a
run is judged on exactly the same jobs (common random numbers), in exactly the same batches, so that
scores are comparable and a resumed run repeats bit-identical work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lib_automerge.errors import ConfigError

MAX_SEED = 2**32 - 1


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One prompt with its txt2img settings, under the names that the WebUI uses.

    `seeds` are the seeds of the search; an empty tuple leaves them to the run. `batch_size` is how
    many images may be generated at once, together with other payloads of equal settings. `weight`
    is the payload's share in the mean score. A `held_out` payload is never seen by the search.
    `score_prompt` is what the reward reads instead of `prompt`.
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

    @property
    def judged_prompt(self) -> str:
        """The prompt that the reward reads."""
        return self.prompt if self.score_prompt is None else self.score_prompt

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
        value = getattr(payload, field)
        if value % 8:
            raise ConfigError(
                f"payload {name!r}: {field} is {value}. It must be a multiple of 8: "
                f"use {value // 8 * 8 or 8}."
            )
    if len(set(payload.seeds)) != len(payload.seeds):
        raise ConfigError(f"payload {name!r} lists a seed twice. Name each seed once.")
    for seed in payload.seeds:
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(
                f"payload {name!r}: seed {seed} is out of range. Use 0 to {MAX_SEED}; "
                "a random seed (-1) cannot be compared between candidates."
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
