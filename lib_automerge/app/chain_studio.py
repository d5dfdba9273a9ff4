"""The images of a chain's models, and what their scores say: rankings and the final comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from PIL.Image import Image

from lib_automerge.app.appearance import Appearance
from lib_automerge.app.chain_models import ChainModels
from lib_automerge.app.chain_plan import ChainPlan
from lib_automerge.app.chain_record import ChainRecord
from lib_automerge.app.evaluate import StopRequested, by_pair
from lib_automerge.app.judging import Judging
from lib_automerge.app.ports import Host
from lib_automerge.domain.chain_events import Pictured, Purpose, Standing
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.payload import ImageJob, batches_of
from lib_automerge.domain.scale import Scale
from lib_automerge.errors import ConfigError
from lib_automerge.generate.base import Session, StopFlag
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.reward import panel
from lib_automerge.reward.panel import Measured, Panel
from lib_automerge.search import statistics
from lib_automerge.search.statistics import Difference, ImageKey
from lib_automerge.study.chain_store import ChainFolder
from lib_automerge.study.formats import listed
from lib_automerge.study.store import RunFolder


class Studio:
    """Makes images of single models and judges them.

    What was made of a model's content for a purpose is never made again, whichever step asks.

    Args:
        folder: of the chain.
        plan: says which images.
        record: takes every image.
        models: finds the files.
        host: makes generator and rewards.
        stop: asked between batches.
    """

    def __init__(
        self,
        folder: ChainFolder,
        plan: ChainPlan,
        record: ChainRecord,
        models: ChainModels,
        host: Host,
        stop: StopFlag,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._record = record
        self._models = models
        self._host = host
        self._stop = stop
        self._judging = Judging(plan.config.reward, plan.weights)
        # images of a chain are compared as those of a run are: by files of one folder
        self._appearance = Appearance(RunFolder(folder.path))

    def show(self, names: Iterable[str]) -> None:
        """Make the previews of models that have none yet.

        Raises:
            StopRequested: between batches, when the user asked.
        """
        for name in names:
            self._make(name, (Purpose.PREVIEW,), None)

    def score(self, names: Sequence[str], purpose: Purpose) -> None:
        """Make and judge the images of models, and their previews where they have none.

        Raises:
            StopRequested: between batches, when the user asked.
            ConfigError: the reward is not what the chain began with.
        """
        missing = [name for name in names if self._missing(name, purpose)]
        if not missing:
            self.show(names)
            return
        config = self._plan.config.reward
        with closing(panel.assemble(config, self._host.reward)) as judges:
            began_with = self._plan.manifest.reward
            if judges.fingerprint != began_with:
                raise ConfigError(
                    f"the reward has changed since the chain began: it was {began_with}, it is "
                    f"{judges.fingerprint}. Restore its weights, or start a new chain."
                )
            for name in names:
                self._make(name, (purpose, Purpose.PREVIEW), judges)
            for message in judges.warnings():
                self._record.warn(message)

    def broken(self, name: str, purpose: Purpose) -> str | None:
        """What is wrong with the first broken image of a model; None if all are whole."""
        found = self._pictures(name, purpose)
        return next((p.broken for _, p in sorted(found.items()) if p.broken is not None), None)

    def ranking(self, names: Sequence[str], reference: Sequence[str]) -> tuple[Standing, ...]:
        """The models in the order of their scores; all must be scored.

        Of equal ones, and of those that make broken images, the first named comes first.

        Args:
            names: of the models.
            reference: the models whose images are the units of several rewards.

        Raises:
            ConfigError: no model makes whole images.
        """
        scale = self._scale(reference, Purpose.RANK)
        found = {
            name: self._scored(name, Purpose.RANK, number, scale)
            for number, name in enumerate(names)
        }
        whole = {
            name: images
            for name, images in found.items()
            if all(image.broken is None for image in images)
        }
        if not whole:
            raise ConfigError(
                f"every model makes a black or NaN image: {', '.join(names)}. Check the models, "
                "the payloads and the precision."
            )
        scores = {name: self._judging.score(images, scale) for name, images in whole.items()}
        order = sorted(whole, key=lambda name: -scores[name].mean)
        first = _pairs(whole[order[0]])
        standings = []
        for name in order:
            behind = self._behind(first, _pairs(whole[name])) if name != order[0] else None
            standings.append(
                Standing(
                    model=name,
                    mean=scores[name].mean,
                    standard_error=scores[name].standard_error,
                    images=scores[name].images,
                    behind=behind.difference if behind else 0.0,
                    behind_error=behind.standard_error if behind else None,
                    behind_p=behind.p_value if behind else None,
                )
            )
        broken = [name for name in names if name not in whole]
        if broken:
            self._record.warn(f"Black or NaN images, so ranked last and left: {listed(broken)}.")
        return (*standings, *(Standing(model=name, mean=None) for name in broken))

    def comparison(
        self, winner: str, best: str, reference: Sequence[str]
    ) -> tuple[Difference, dict[str, float]]:
        """A model against another on the images of the final verdict; both must be scored.

        Images of which one of them is broken are left out.

        Returns:
            The paired difference, and the mean score of each.

        Raises:
            ConfigError: fewer than two images can be compared.
        """
        scale = self._scale(reference, Purpose.RANK)
        if scale is not None:
            ours = [
                image
                for number, name in enumerate((winner, best))
                for image in self._scored(name, Purpose.FINAL, number, None)
            ]
            scale = self._judging.scale(scale, ours)
        one, two = (
            _pairs(self._scored(name, Purpose.FINAL, number, scale))
            for number, name in enumerate((winner, best))
        )
        shared = sorted(one.keys() & two.keys())
        ones, twos = ({key: pairs[key] for key in shared} for pairs in (one, two))
        found = self._behind(ones, twos)
        means = {}
        for name, pairs in ((winner, ones), (best, twos)):
            by_payload: dict[str, list[float]] = {}
            for (payload, _), score in pairs.items():
                by_payload.setdefault(payload, []).append(score)
            means[name] = statistics.summarize(by_payload, self._plan.weights).mean
        return found, means

    def _behind(self, first: dict[ImageKey, float], other: dict[ImageKey, float]) -> Difference:
        return statistics.compare(first, other, self._plan.weights)

    def _scale(self, names: Sequence[str], purpose: Purpose) -> Scale | None:
        """The units of several rewards; None if a single one gives the score."""
        if self._judging.ensemble is None:
            return None
        images = [
            image
            for number, name in enumerate(names)
            for image in self._scored(name, purpose, number, None)
        ]
        return self._judging.scale(None, images)

    def _scored(
        self, name: str, purpose: Purpose, number: int, scale: Scale | None
    ) -> list[Scored]:
        """A model's images as a run would have them, with their scores."""
        found = self._pictures(name, purpose)
        images = [_as_scored(found[job.number], number) for job in self._plan.jobs(purpose)]
        return [
            msgspec.structs.replace(image, score=self._judging.value(image, scale))
            for image in images
        ]

    def _pictures(self, name: str, purpose: Purpose) -> dict[int, Pictured]:
        return self._record.state.pictures.get((self._models.digest(name), purpose), {})

    def _missing(self, name: str, purpose: Purpose) -> bool:
        known = self._pictures(name, purpose)
        return any(job.number not in known for job in self._plan.jobs(purpose))

    def _make(self, name: str, purposes: Sequence[Purpose], judges: Panel | None) -> None:
        """Make what is missing of a model's images, in one session.

        A batch is always made whole, also if some of its images are known, so that a resumed chain
        has the bits of an uninterrupted one.
        """
        wanted = [purpose for purpose in purposes if self._missing(name, purpose)]
        if not wanted:
            return
        if self._stop():
            raise StopRequested
        self._record.watch.doing(f"images of {name}")
        ref = self._models.ref(name)
        generator = self._host.generator(self._plan.config.generator)
        with (
            open_checkpoint(Path(ref.path)) as model,
            generator.open({"a": model}, self._stop) as session,
        ):
            for purpose in wanted:
                for batch in batches_of(self._plan.jobs(purpose)):
                    known = self._pictures(name, purpose)
                    if any(job.number not in known for job in batch):
                        judge = None if purpose is Purpose.PREVIEW else judges
                        self._batch(session, name, purpose, batch, judge)

    def _batch(
        self,
        session: Session,
        name: str,
        purpose: Purpose,
        batch: Sequence[ImageJob],
        judges: Panel | None,
    ) -> None:
        if self._stop():
            raise StopRequested
        made = list(session.images(batch, self._stop))
        for message in session.warnings():
            self._record.warn(message)
        if len(made) < len(batch):
            raise StopRequested
        known = self._pictures(name, purpose)
        measured = self._measured(made, judges)
        events: list[Pictured] = []
        for job, image in made:
            if job.number in known:
                continue
            file, digest = self._folder.save_image(name, purpose, job.number, image)
            broken = image.info.get("broken")
            found = measured.get(job.number, Measured({}, {}))
            earlier = [one for one in (*known.values(), *events) if one.job < job.number]
            events.append(
                Pictured(
                    model=name,
                    sha256=self._models.digest(name),
                    purpose=purpose,
                    job=job.number,
                    payload=job.payload.name,
                    seed=job.seed,
                    digest=digest,
                    file=file,
                    broken=None if broken is None else str(broken),
                    raw=found.raw,
                    looks=self._looks(found.looks, image, file, job, earlier),
                )
            )
        self._record.add(*events)

    def _measured(
        self, made: Sequence[tuple[ImageJob, Image]], judges: Panel | None
    ) -> dict[int, Measured]:
        whole = [(job, image) for job, image in made if "broken" not in image.info]
        if judges is None:
            return {}
        found = judges.measure(
            [image for _, image in whole], [job.payload.judged_prompt for job, _ in whole]
        )
        return {job.number: one for (job, _), one in zip(whole, found, strict=True)}

    def _looks(
        self,
        looks: dict[str, float],
        image: Image,
        file: str,
        job: ImageJob,
        earlier: Iterable[Pictured],
    ) -> dict[str, float]:
        """What guards measure, with whether an earlier image of the payload looks the same."""
        if not looks:
            return looks
        same = sorted(
            (one for one in earlier if one.payload == job.payload.name and one.broken is None),
            key=lambda one: one.job,
        )
        duplicate = self._appearance.duplicate(image, file, [one.file for one in same])
        return {**looks, "duplicate": duplicate}


def _as_scored(picture: Pictured, number: int) -> Scored:
    """An image as an event of a run, in which the model is evaluation `number`."""
    return Scored(
        evaluation=number,
        stage=Stage.VERDICT,
        job=picture.job,
        payload=picture.payload,
        seed=picture.seed,
        digest=picture.digest,
        file=picture.file,
        broken=picture.broken,
        raw=picture.raw,
        looks=picture.looks,
    )


def _pairs(images: Sequence[Scored]) -> dict[ImageKey, float]:
    return by_pair({image.job: image for image in images})
