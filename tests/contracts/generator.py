"""What every generator must do. Subclass with fixtures `generator` and `models` (roles a and b)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lib_automerge.domain.payload import ImageJob, Payload, jobs_of
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.generate.base import Generator, Session
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.study.store import pixel_digest

JOBS = jobs_of(
    [
        Payload(
            name=name,
            prompt=prompt,
            seeds=(1, 2),
            steps=2,
            sampler="DDIM",
            width=64,
            height=64,
            batch_size=4,
        )
        for name, prompt in (("ball", "a red ball at night"), ("star", "a blue star by the sea"))
    ]
)


def recipe(**weights: float) -> Recipe:
    return Recipe(
        architecture="sd1",
        method="weighted_sum",
        models={role: ModelRef(role) for role in "ab"},
        weights=weights,
    )


def pixels(session: Session, jobs: tuple[ImageJob, ...] = JOBS) -> list[str]:
    return [pixel_digest(image) for _, image in session.images(jobs, lambda: False)]


class GeneratorContract:
    """Tests that hold for any generator."""

    def test_fingerprint_is_text_and_stable(self, generator: Generator) -> None:
        assert generator.fingerprint() == generator.fingerprint()
        assert all(isinstance(value, str) for value in generator.fingerprint().values())

    def test_a_session_starts_as_model_a(
        self, generator: Generator, models: Mapping[str, Checkpoint]
    ) -> None:
        with generator.open(models) as session:
            fresh = pixels(session)
            session.apply(recipe(IN04=0.0))
            assert pixels(session) == fresh

    def test_what_is_applied_depends_on_the_recipe_alone(
        self, generator: Generator, models: Mapping[str, Checkpoint]
    ) -> None:
        one, other = recipe(IN04=0.3, OUT07=0.8), recipe(IN04=1.0, OUT05=0.4)
        with generator.open(models) as session:
            session.apply(one)
            first = pixels(session)
            session.apply(other)
            assert pixels(session) != first
            session.apply(one)
            assert pixels(session) == first
        with generator.open(models) as session:
            session.apply(one)
            assert pixels(session) == first

    def test_images_come_in_order_and_differ(
        self, generator: Generator, models: Mapping[str, Checkpoint]
    ) -> None:
        with generator.open(models) as session:
            made = list(session.images(JOBS, lambda: False))
        assert [job.number for job, _ in made] == [0, 1, 2, 3]
        assert len({pixel_digest(image) for _, image in made}) == len(JOBS)
        assert all(image.mode == "RGB" for _, image in made)

    def test_a_stop_ends_the_images(
        self, generator: Generator, models: Mapping[str, Checkpoint]
    ) -> None:
        single = tuple(
            msgspec.structs.replace(job, payload=msgspec.structs.replace(job.payload, batch_size=1))
            for job in JOBS
        )
        with generator.open(models) as session:
            assert list(session.images(single, lambda: True)) == []

    def test_warnings_are_told_once(
        self, generator: Generator, models: Mapping[str, Checkpoint]
    ) -> None:
        with generator.open(models) as session:
            pixels(session)
            session.warnings()
            assert session.warnings() == []
