"""What a generator is: the port between the search loop and whatever makes the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from PIL.Image import Image

from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.merge.readers import Checkpoint

StopFlag = Callable[[], bool]
"""Asked between batches; true means: finish what is in the air and return."""


def never() -> bool:
    """A flag that is never set."""
    return False


class PauseRequested(Exception):  # noqa: N818 - a request, not an error
    """The user interrupted the backend itself; the text says how. Nothing finished is lost."""


class Session(Protocol):
    """The time a generator holds a model: candidates are merged into it, images come out of it."""

    def apply(self, recipe: Recipe) -> None:
        """Make the recipe's merge the current model.

        The result depends on the recipe alone, never on what was applied before.
        """
        ...

    def images(self, jobs: Sequence[ImageJob], stop: StopFlag) -> Iterator[tuple[ImageJob, Image]]:
        """Yield each job with its RGB image, in order.

        The caller passes one batch of `batches_of` at a time; a batch is generated in one go,
        except when memory runs out: then in halves, with a warning. An image that is no picture
        says so in `image.info["broken"]`: "NaN" or "black". Fewer images than jobs come only when
        `stop` said so.

        Raises:
            GenerationError: an image could not be made; says why and what to change.
            PauseRequested: the user interrupted the backend itself.
        """
        ...

    def rest(self) -> None:
        """A candidate is done: let others use the device now, if this session shares it."""
        ...

    def warnings(self) -> list[str]:
        """Sentences for the user that came up since the last call (halved batches, ...)."""
        ...


class Generator(Protocol):
    """Opens sessions over a set of models."""

    def fingerprint(self) -> dict[str, str]:
        """What besides the recipe decides the images' bits: backend, versions, device, dtype."""
        ...

    def check(self, model: Checkpoint) -> None:
        """Raise ModelError if this checkpoint cannot be model A here; loads nothing."""
        ...

    def open(
        self, models: Mapping[str, Checkpoint], stop: StopFlag = never
    ) -> AbstractContextManager[Session]:
        """Hold a model of these parents (roles "a", "b", ...), starting as A itself.

        Everything that was changed outside is restored when the context closes. `stop` is asked
        while others have the device.

        Raises:
            PauseRequested: `stop` said so.
        """
        ...
