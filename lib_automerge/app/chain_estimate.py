"""What a chain takes: runs, images, files and bytes, before it begins and step by step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.app import estimate
from lib_automerge.app.chain_plan import chain_jobs
from lib_automerge.domain.chain import (
    POOL,
    MergeStep,
    RankStep,
    SearchStep,
    Step,
    TreeStep,
    named_by,
)
from lib_automerge.domain.chain_events import Purpose
from lib_automerge.domain.payload import ImageJob
from lib_automerge.errors import StorageError
from lib_automerge.merge.lab.number_types import output_type, size_of
from lib_automerge.study.chain_store import ChainManifest
from lib_automerge.study.formats import listed, plural, size

HEADER = 4 << 20
"""Bytes of a checkpoint besides its numbers, generously."""

_CHANNELS = 3
"""Bytes of a pixel; a PNG of an image takes hardly more than without compression."""


class Toll(msgspec.Struct, frozen=True, kw_only=True):
    """What work takes at most: runs, images to make, checkpoints to write, and bytes of both."""

    runs: int = 0
    images: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Toll) -> Toll:
        return Toll(
            runs=self.runs + other.runs,
            images=self.images + other.images,
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
        )


def toll(manifest: ChainManifest) -> Toll:
    """What a whole chain takes if nothing ends a search early and nobody leaves a tree."""
    total = Toll()
    counts = {member.name: 1 for member in manifest.pool}
    ranked: set[str] = set()
    shown: set[str] = set()
    for step in manifest.config.steps:
        models = _named(step, manifest, counts)
        count = sum(models.values())
        total += step_toll(
            manifest,
            step,
            count,
            unranked=sum(n for name, n in models.items() if name not in ranked),
            unshown=sum(n for name, n in models.items() if name not in shown),
        )
        # every step shows what it hands on
        shown |= {*models, step.name}
        if isinstance(step, RankStep | TreeStep):
            ranked |= {*models, step.name}
        counts[step.name] = min(step.keep, count) if isinstance(step, RankStep) else 1
    return total


def _named(step: Step, manifest: ChainManifest, counts: Mapping[str, int]) -> dict[str, int]:
    """The names that a step uses, the pool by its members, and how many models each stands for."""
    found: dict[str, int] = {}
    for name in named_by(step):
        if name == POOL:
            found |= {member.name: 1 for member in manifest.pool}
        else:
            found[name] = counts[name]
    return found


def step_toll(
    manifest: ChainManifest, step: Step, models: int, *, unranked: int, unshown: int
) -> Toll:
    """What a step takes at most.

    Args:
        manifest: of the chain.
        step: the step.
        models: how many it has to do with.
        unranked: how many of them were not ranked before.
        unshown: how many of them have no previews yet.
    """
    config = manifest.config
    preview, rank, final = (
        _images(chain_jobs(config, purpose))
        for purpose in (Purpose.PREVIEW, Purpose.RANK, Purpose.FINAL)
    )
    found = _times(preview, unshown)
    match step:
        case MergeStep():
            found += Toll(files=1, bytes=_written(manifest, step)) + preview
        case RankStep():
            found += _times(rank, unranked)
        case SearchStep():
            found += _search(manifest, step) + preview
        case TreeStep():
            searches = max(models - 1, 0)
            found += _times(_search(manifest, step) + preview + rank, searches)
            if not config.keep_intermediate:
                # the merges of a level are removed when those of the next one are made
                gone = max(0, searches - models // 2 - (models - models // 2) // 2)
                found += Toll(bytes=-gone * _largest(manifest))
            found += _times(rank, unranked) + _times(final, 2)
    return found


def _search(manifest: ChainManifest, step: SearchStep | TreeStep) -> Toll:
    roles = ("a", "b", "c") if isinstance(step, SearchStep) and step.c else ("a", "b")
    run = manifest.config.run(dict.fromkeys(roles, ""), step)
    images = estimate.forecast(run, None).images
    pixels = max(payload.width * payload.height for payload in run.payloads)
    written = _largest(manifest) + images * pixels * _CHANNELS
    return Toll(runs=1, images=images, files=1, bytes=written)


def _times(one: Toll, count: int) -> Toll:
    return sum((one for _ in range(count)), Toll())


def _images(jobs: tuple[ImageJob, ...]) -> Toll:
    pixels = sum(job.payload.width * job.payload.height for job in jobs)
    return Toll(images=len(jobs), bytes=pixels * _CHANNELS)


def _written(manifest: ChainManifest, step: MergeStep) -> int:
    """Bytes of the checkpoint that a merge writes, at most."""
    if not step.dtype:
        return max(member.size for member in manifest.pool)
    numbers = max(member.numbers for member in manifest.pool)
    return numbers * size_of(output_type(step.dtype)) + HEADER


def _largest(manifest: ChainManifest) -> int:
    """Bytes of the largest checkpoint that a search can write."""
    merges = [s for s in manifest.config.steps if isinstance(s, MergeStep)]
    sizes = [member.size for member in manifest.pool]
    return max(*sizes, *(_written(manifest, step) for step in merges))


def in_words(total: Toll, *, kept: bool) -> str:
    """One sentence on what a chain will take at most."""
    parts = [plural(total.runs, "search").replace("searchs", "searches")] if total.runs else []
    parts += [plural(total.images, "image")] if total.images else []
    parts += [f"{plural(total.files, 'checkpoint')} to write"] if total.files else []
    rest = "all are kept" if kept else "those that no later step needs are removed on the way"
    return f"This chain takes at most {listed(parts)}: {size(total.bytes)} on the disk; {rest}."


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raise StorageError unless there are so many bytes for `what` on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"not enough space in {folder} for {what}: up to {needed / 1e9:.2f} GB are needed, "
            f"{free / 1e9:.2f} GB are free. Free some, then resume the chain."
        )
