"""Does the WebUI obey? Asked with two or three tiny images at the start of every session.

A run that changes weights and looks at images must know that the WebUI shows changed weights, shows
A again after they are restored, and repeats itself. Extensions, custom attention, other denoisers
and stale caches can each break that without a sign.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from PIL.Image import Image

from lib_automerge.domain import architectures
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import HostError
from lib_automerge.merge.readers import Checkpoint

TEST = Payload(
    name="self-check",
    prompt="a picture",
    steps=2,
    sampler="Euler",
    cfg_scale=5.0,
    width=64,
    height=64,
)
SLACK = 4
"""Where a device does not repeat itself: how many times its own spread a restored image may err."""


class Subject(Protocol):
    """A session, as far as the check needs it."""

    def apply(self, recipe: Recipe) -> None:
        """Make the recipe's merge the live model."""
        ...

    def picture(self, job: ImageJob) -> Image:
        """One image of the live model."""
        ...

    def reload(self) -> None:
        """Have A's file read again."""
        ...

    def difference(self) -> str | None:
        """The first key of A that the live model does not hold."""
        ...


def self_check(session: Subject, a: Checkpoint, b: Checkpoint | None) -> list[str]:
    """See that images follow the weights, there and back; leaves A in the model.

    Without `b`, or where both models have the same weights, only that the model is A is checked.

    Returns:
        Sentences for the user.

    Raises:
        HostError: says what the WebUI does not do, and what may be the reason.
    """
    job = ImageJob(0, TEST, 1)
    # The first plain image also takes a LoRA of the user's last image out of the layers.
    first = session.picture(job)
    if session.difference() is not None:
        session.reload()
        first = session.picture(job)
        key = session.difference()
        if key is not None:
            raise HostError(
                f"the WebUI's model is not what the file of {a.name} holds: {key!r} differs. "
                "Switch off extensions that change the model's weights, and restart the WebUI."
            )
    if "broken" in first.info:
        raise HostError(
            f"model A ({a.name}) makes a {first.info['broken']} test image in the WebUI. Make an "
            "image with it by hand first; --no-half-vae or --no-half may help."
        )
    if b is None:
        return []
    blocks = differing_blocks(a, b)
    if not blocks:
        return []
    denoiser = [block for block in blocks if block in _architecture(a).parameters]
    # the first and the last that the image passes, and whatever reads the prompt
    chosen = {*denoiser[:1], *denoiser[-1:], *(set(blocks) - set(denoiser))}
    everything = set(blocks)
    if not any(_shows(session, (a, b), each, first) for each in (chosen, everything)):
        raise HostError(
            "the WebUI's images do not follow its weights: merging model B in changed nothing. "
            "Switch off extensions that replace the model's UNet or keep copies of its weights."
        )
    session.apply(_recipe(a, b, {}))
    restored = session.picture(job)
    error = _distance(first, restored)
    if error == 0:
        return []
    spread = max(_distance(restored, session.picture(job)) for _ in range(2))
    if error > SLACK * spread:
        raise HostError(
            "the WebUI does not show model A again after its weights were restored: pixels differ "
            f"by up to {error} of 255. Switch off extensions that keep copies of weights or of "
            "prompts, and restart the WebUI."
        )
    return [
        "This WebUI does not repeat its own images exactly (pixels differ by up to "
        f"{max(error, spread)} of 255): scores carry that noise, and the saved checkpoint cannot "
        "be proved bit for bit. Another cross attention optimization may repeat itself."
    ]


def differing_blocks(a: Checkpoint, b: Checkpoint) -> list[str]:
    """The blocks of denoiser and text encoders in which two models differ, in canonical order."""
    architecture = _architecture(a)
    found: set[str] = set()
    shared = set(b.keys())
    for key in a.keys():  # noqa: SIM118 - not a mapping
        block = architecture.block_of(key)
        if block is None or block in found or block in architecture.vae or key not in shared:
            continue
        if not torch.equal(a.tensor(key), b.tensor(key)):
            found.add(block)
    return [block for block in architecture.blocks if block in found]


def _shows(
    session: Subject, models: tuple[Checkpoint, Checkpoint], blocks: set[str], first: Image
) -> bool:
    session.apply(_recipe(*models, dict.fromkeys(sorted(blocks), 1.0)))
    return _distance(first, session.picture(ImageJob(0, TEST, 1))) > 0


def _recipe(a: Checkpoint, b: Checkpoint, weights: dict[str, float]) -> Recipe:
    return Recipe(
        architecture=a.detection.architecture,
        method="weighted_sum",
        models={"a": ModelRef("a"), "b": ModelRef("b", b.sha256())},
        weights=weights,
    )


def _architecture(a: Checkpoint) -> architectures.Architecture:
    return architectures.get(a.detection.architecture)


def _distance(one: Image, other: Image) -> int:
    """The largest difference of two pictures' values (0 to 255)."""
    difference = np.asarray(one).astype(np.int16) - np.asarray(other).astype(np.int16)
    return int(np.abs(difference).max(initial=0))
