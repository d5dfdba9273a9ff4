"""Batches in the parts that memory allows: what ran out of memory is tried again in halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL.Image import Image

from lib_automerge.domain.payload import ImageJob, batches_of
from lib_automerge.errors import GenerationError
from lib_automerge.generate.base import StopFlag

Attempt = Callable[[Sequence[ImageJob]], Sequence[Image] | None]
"""Makes the images of some jobs; None if it is to be asked again, perhaps for fewer."""


class Parts:
    """How many images a session makes at once; learns from running out of memory."""

    def __init__(self) -> None:
        self._limit: int | None = None

    def images(
        self, jobs: Sequence[ImageJob], stop: StopFlag, attempt: Attempt
    ) -> Iterator[tuple[ImageJob, Image]]:
        """Yield each job with its image, in order; see `generate.base.Session.images`."""
        for batch in batches_of(jobs):
            done = 0
            while done < len(batch):
                if stop():
                    return
                part = batch[done : done + (self._limit or len(batch))]
                pictures = attempt(part)
                if pictures is not None:
                    yield from zip(part, pictures, strict=True)
                    done += len(part)

    def halve(self, jobs: Sequence[ImageJob], advice: str) -> str:
        """Make half as many images at once from now on; returns a sentence for the user.

        Args:
            jobs: those for which memory ran out.
            advice: what to do if a single image is too large.

        Raises:
            GenerationError: it was a single image.
        """
        payload = jobs[0].payload
        size = f"{payload.width}x{payload.height}"
        if len(jobs) == 1:
            raise GenerationError(f"out of memory with a single image of {size}. {advice}")
        self._limit = len(jobs) // 2
        return (
            f"Out of memory with {len(jobs)} images of {size} at once; going on with "
            f"{self._limit}. Set batch_size to {self._limit} to avoid the lost time."
        )
