"""One evaluation: a candidate is merged, its images are made and scored, every score is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from lib_automerge.app.appearance import Appearance
from lib_automerge.app.judging import Judging
from lib_automerge.app.record import Record
from lib_automerge.domain.events import Scored, Stage, Timing, Warned
from lib_automerge.domain.payload import ImageJob, batches_of
from lib_automerge.domain.recipe import Recipe
from lib_automerge.domain.run import Activity
from lib_automerge.generate.base import Session, StopFlag
from lib_automerge.reward.panel import Measured, Panel
from lib_automerge.study.store import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

SeenEnough = Callable[[Mapping[int, Scored]], str | None]
"""Told the images of all batches so far by the number of their job: why to give the candidate up,
or None."""


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop; everything finished is journalled."""


class Scores(msgspec.Struct, frozen=True):
    """The outcome of an evaluation: all its images, or why it was given up; seconds by phase.

    `broken` is the first image that is black or NaN, `given_up` why it need not be completed.
    """

    images: dict[int, Scored]
    seconds: Timing
    broken: Scored | None = None
    given_up: str | None = None

    @property
    def measured(self) -> bool:
        """Whether an image has a score; those of an ensemble may still wait for its units."""
        return any(image.score is not None for image in self.images.values())

    def by_pair(self) -> dict[tuple[str, int], float]:
        """The scores by payload name and seed."""
        return by_pair(self.images)


def by_pair(images: Mapping[int, Scored]) -> dict[tuple[str, int], float]:
    """The scores of images by payload name and seed; broken ones have none."""
    return {
        (image.payload, image.seed): image.score
        for image in images.values()
        if image.score is not None
    }


class Scorer:
    """Makes and scores the images of candidates within one session of one run."""

    def __init__(
        self,
        session: Session,
        panel: Panel,
        judging: Judging,
        folder: RunFolder,
        record: Record,
        stop: StopFlag,
    ) -> None:
        self._session = session
        self._panel = panel
        self._judging = judging
        self._folder = folder
        self._record = record
        self._stop = stop
        self._appearance = Appearance(folder)
        self._writer = ThreadPoolExecutor(1, "images")

    def rehearse(self, jobs: Sequence[ImageJob], prompts: Sequence[str]) -> None:
        """Make an image of each job with the current model, have it judged by all prompts, forget.

        What cannot be made or judged is found before a night is spent, not after it.
        """
        for job in jobs:
            if self._stop():
                raise StopRequested
            for _, image in self._session.images([job], self._stop):
                self._measured([image] * len(prompts), prompts)

    def rest(self) -> None:
        """Between evaluations: others may use the device, if the session shares it."""
        self._session.rest()

    def score(
        self,
        number: int,
        stage: Stage,
        recipe: Recipe,
        jobs: Sequence[ImageJob],
        known: Mapping[int, Scored],
        *,
        until_broken: bool = True,
        enough: SeenEnough | None = None,
    ) -> Scores:
        """Score every job of evaluation `number` that is not known yet.

        A batch is always generated whole, also when some of its images are known, so that a
        resumed evaluation has the bits of an uninterrupted one. The first batch with a broken image
        ends it, unless `until_broken` is false; so does, before the last batch, a reason of
        `enough`.

        Raises:
            StopRequested: between batches, when the user asked.
        """
        images = dict(known)
        seconds: Timing = {"merge": 0.0, "generate": 0.0, "score": 0.0}
        began = time.perf_counter()
        applied = False
        given_up = None
        batches = batches_of(jobs)
        seen: dict[int, Scored] = {}
        for batch in batches:
            if any(job.number not in images for job in batch):
                if self._stop():
                    raise StopRequested
                if not applied:
                    start = time.perf_counter()
                    self._record.tell(Activity.MERGING)
                    self._session.apply(recipe)
                    seconds["merge"] += time.perf_counter() - start
                    applied = True
                fresh = self._batch(number, stage, batch, images, seconds)
                new = [event for event in fresh if event.job not in images]
                images |= {event.job: event for event in new}
                self._record.add_scores(new)
            if until_broken and any(images[job.number].broken for job in batch):
                break
            seen |= {job.number: images[job.number] for job in batch}
            if enough is not None and batch is not batches[-1]:
                given_up = enough(seen)
                if given_up is not None:
                    break
        seconds["total"] = time.perf_counter() - began
        broken = next((image for _, image in sorted(images.items()) if image.broken), None)
        return Scores(images, seconds, broken, given_up)

    def diversity(self, images: Iterable[Scored]) -> dict[str, float]:
        """The diversity of a candidate's images over seeds, by payload, if an ensemble asks."""
        ensemble = self._judging.ensemble
        if ensemble is None or ensemble.diversity_strength == 0:
            return {}
        return self._appearance.diversity(images)

    def _measured(self, images: Sequence[Image], prompts: Sequence[str]) -> list[Measured]:
        try:
            return self._panel.measure(images, prompts)
        finally:
            for message in self._panel.warnings():
                self._record.add(Warned(message=message))

    def _batch(
        self,
        number: int,
        stage: Stage,
        batch: Sequence[ImageJob],
        known: Mapping[int, Scored],
        seconds: Timing,
    ) -> list[Scored]:
        start = time.perf_counter()
        self._record.tell(Activity.GENERATING)
        try:
            made = list(self._session.images(batch, self._stop))
        finally:
            for message in self._session.warnings():
                self._record.add(Warned(message=message))
        seconds["generate"] += time.perf_counter() - start
        if len(made) < len(batch):
            raise StopRequested
        # the pictures reach the disk while the reward looks at them
        saved = [
            self._writer.submit(self._folder.save_image, stage, number, job.number, image)
            for job, image in made
        ]
        start = time.perf_counter()
        self._record.tell(Activity.SCORING)
        whole = [(job, image) for job, image in made if "broken" not in image.info]
        measured = dict(
            zip(
                (job.number for job, _ in whole),
                self._measured(
                    [image for _, image in whole], [job.payload.judged_prompt for job, _ in whole]
                ),
                strict=True,
            )
        )
        seconds["score"] += time.perf_counter() - start
        events: list[Scored] = []
        for (job, image), writing in zip(made, saved, strict=True):
            file, digest = writing.result()
            broken = image.info.get("broken")
            found = measured.get(job.number, Measured({}, {}))
            earlier = [one for one in (*known.values(), *events) if one.job < job.number]
            event = Scored(
                evaluation=number,
                stage=stage,
                job=job.number,
                payload=job.payload.name,
                seed=job.seed,
                digest=digest,
                file=file,
                broken=None if broken is None else str(broken),
                raw=found.raw,
                looks=self._with_duplicate(found.looks, image, file, job, earlier),
            )
            score = self._judging.value(event, self._record.state.scale)
            events.append(msgspec.structs.replace(event, score=score))
        return events

    def _with_duplicate(
        self,
        looks: dict[str, float],
        image: Image,
        file: str,
        job: ImageJob,
        earlier: Iterable[Scored],
    ) -> dict[str, float]:
        if not looks:
            return looks
        same = sorted(
            (one for one in earlier if one.payload == job.payload.name and one.broken is None),
            key=lambda one: one.job,
        )
        duplicate = self._appearance.duplicate(image, file, [one.file for one in same])
        return {**looks, "duplicate": duplicate}


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where it cannot be told."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
