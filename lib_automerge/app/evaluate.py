"""One evaluation: a candidate is merged, its images are made and scored, every score is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
from PIL.Image import Image

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


class _Made(msgspec.Struct, frozen=True, eq=False):
    """A batch of images that are stored, and judged, by other threads.

    `whole` are the numbers of the jobs whose images are not broken, in the order of `measured`.
    """

    images: list[tuple[ImageJob, Image]]
    saved: list[Future[tuple[str, str]]]
    whole: list[int]
    measured: Future[list[Measured]]

    @property
    def broken(self) -> bool:
        """Whether an image is black or NaN."""
        return len(self.whole) < len(self.images)


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
        self._judge = ThreadPoolExecutor(1, "rewards")

    def rehearse(self, jobs: Sequence[ImageJob], prompts: Sequence[str]) -> None:
        """Make an image of each job with the current model, have it judged by all prompts, forget.

        What cannot be made or judged is found before a night is spent, not after it.
        """
        for job in jobs:
            if self._stop():
                raise StopRequested
            for _, image in self._session.images([job], self._stop):
                self._panel.measure([image] * len(prompts), prompts)
                self._pass_on_of_rewards()

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

        Where the rewards have hardware of their own they judge a batch while the next one is made,
        unless `enough` must decide between the two. Whatever was made is judged and journalled,
        also when another batch cannot be made meanwhile.

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
        overlapping = self._panel.apart and enough is None
        made: list[_Made] = []
        try:
            for batch in batches:
                broken = False
                if any(job.number not in images for job in batch):
                    if self._stop():
                        raise StopRequested
                    if not applied:
                        start = time.perf_counter()
                        self._record.tell(Activity.MERGING)
                        self._session.apply(recipe)
                        seconds["merge"] += time.perf_counter() - start
                        applied = True
                    made.append(self._made(number, stage, batch, seconds))
                    broken = made[-1].broken
                    self._collect(made, number, stage, images, seconds, leave=int(overlapping))
                else:
                    broken = any(images[job.number].broken for job in batch)
                if until_broken and broken:
                    break
                if enough is not None and batch is not batches[-1]:
                    seen |= {job.number: images[job.number] for job in batch}
                    given_up = enough(seen)
                    if given_up is not None:
                        break
        finally:
            self._collect(made, number, stage, images, seconds)
        seconds["total"] = time.perf_counter() - began
        first = next((image for _, image in sorted(images.items()) if image.broken), None)
        return Scores(images, seconds, first, given_up)

    def diversity(self, images: Iterable[Scored]) -> dict[str, float]:
        """The diversity of a candidate's images over seeds, by payload, if an ensemble asks."""
        ensemble = self._judging.ensemble
        if ensemble is None or ensemble.diversity_strength == 0:
            return {}
        return self._appearance.diversity(images)

    def _pass_on(self, messages: Iterable[str]) -> None:
        for message in messages:
            self._record.add(Warned(message=message))

    def _pass_on_of_rewards(self) -> None:
        """What rewards say of prompts they say in every session of a run, and a user reads once."""
        told = self._record.state.warnings
        self._pass_on([text for text in self._panel.warnings() if text not in told])

    def _made(self, number: int, stage: Stage, batch: Sequence[ImageJob], seconds: Timing) -> _Made:
        """Make the images of a batch, and have them stored and judged meanwhile."""
        start = time.perf_counter()
        self._record.tell(Activity.GENERATING)
        try:
            made = list(self._session.images(batch, self._stop))
        finally:
            self._pass_on(self._session.warnings())
        seconds["generate"] += time.perf_counter() - start
        if len(made) < len(batch):
            raise StopRequested
        saved = [
            self._writer.submit(self._folder.save_image, stage, number, job.number, image)
            for job, image in made
        ]
        whole = [(job, image) for job, image in made if "broken" not in image.info]
        measured = self._judge.submit(
            self._panel.measure,
            [image for _, image in whole],
            [job.payload.judged_prompt for job, _ in whole],
        )
        return _Made(made, saved, [job.number for job, _ in whole], measured)

    def _collect(
        self,
        made: list[_Made],
        number: int,
        stage: Stage,
        images: dict[int, Scored],
        seconds: Timing,
        *,
        leave: int = 0,
    ) -> None:
        """Journal what was made and judged, the oldest batch first, but for the last `leave`.

        None that follows one that could not be judged.
        """
        while len(made) > leave:
            batch = made.pop(0)
            start = time.perf_counter()
            self._record.tell(Activity.SCORING)
            try:
                measured = dict(zip(batch.whole, batch.measured.result(), strict=True))
            except BaseException:
                # what comes later is compared with this batch, and must not be kept without it
                made.clear()
                raise
            finally:
                self._pass_on_of_rewards()
            seconds["score"] += time.perf_counter() - start
            events = self._events(number, stage, batch, measured, images)
            new = [event for event in events if event.job not in images]
            images |= {event.job: event for event in new}
            self._record.add_scores(new)

    def _events(
        self,
        number: int,
        stage: Stage,
        batch: _Made,
        measured: Mapping[int, Measured],
        known: Mapping[int, Scored],
    ) -> list[Scored]:
        events: list[Scored] = []
        for (job, image), writing in zip(batch.images, batch.saved, strict=True):
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
