"""What the in-process generator needs of a WebUI: the port that A1111 and its relatives implement.

`host.webui` holds the policy (what to do, and when), an adapter behind this port the knowledge of
one WebUI (how). Everything here is called from the thread that runs the run, between `reserve` and
`release` unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec
from PIL.Image import Image
from torch import Tensor

from lib_automerge.domain.payload import ImageJob
from lib_automerge.generate.base import StopFlag
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import Sink


class Ending(Enum):
    """How a generation, or the time since the last one, ended."""

    DONE = "done"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"
    RELOADING = "reloading"
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"


class Shot(msgspec.Struct, frozen=True):
    """One call of the WebUI's generation.

    Attributes:
        ending: only DONE comes with images that are finished.
        images: one per job, in order, RGB; `info["broken"]` is "NaN" or "black" where it is.
        reason: what went wrong, as the WebUI says it, on one line.
        notes: sentences for the user about what the WebUI did on the way.
    """

    ending: Ending
    images: tuple[Image, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()


class LiveModel(Sink, Protocol):
    """The loaded model's parameters, as a sink that takes merges of model A in place."""

    def begin(self, blocks: Collection[str]) -> None:
        """Expect every key of these blocks once, until `finish`."""
        ...

    def finish(self) -> None:
        """Check that all keys of the blocks were written.

        Raises:
            HostError: one was not.
        """
        ...

    def difference(self, checkpoint: Checkpoint, *, vae: bool) -> str | None:
        """The first key whose live value is not this checkpoint's, by some elements of each.

        Without the VAE's keys unless `vae`: the WebUI may have put another VAE there.
        """
        ...

    def pulse(self, blocks: Collection[str]) -> list[Tensor]:
        """Some elements of each block, to see later whether somebody else wrote to the model."""
        ...


class Placement(msgspec.Struct, frozen=True):
    """How a checkpoint is to be loaded: as the WebUI would load `like`, a file it knows.

    `like` lends its configuration file (`like.yaml`), if it has one and the checkpoint has none,
    and `vae` is the VAE file in use with it: both depend on the name and place of a file, and would
    be lost for a merge of it that lies elsewhere. None loads the checkpoint as it is.
    """

    like: Path | None = None
    vae: str | None = None


class WebUI(Protocol):
    """A WebUI in whose process we are."""

    def fingerprint(self) -> dict[str, str]:
        """Versions, device, number types, flags and options that decide the bits of images.

        May be called any time; loads no model.
        """
        ...

    def check(self, model: Checkpoint) -> None:
        """Raise ModelError if the WebUI cannot make images with it; may be called any time."""
        ...

    def reserve(self, stop: StopFlag, *, again: bool = False) -> bool:
        """Wait for the WebUI's job queue and take it; false if `stop` said so first.

        From here on this thread sees the options as they are now, whatever the user changes; or,
        `again`, as it saw them before the last `release`.
        """
        ...

    def release(self) -> None:
        """Put back what `reserve` and `load` changed, with the user's own model, and let others in.

        Never raises; troubles are logged.
        """
        ...

    def visitors(self) -> bool:
        """Whether somebody waits for the queue whom the user lets in between candidates."""
        ...

    def load(self, checkpoint: Checkpoint, placement: Placement, *, afresh: bool = False) -> None:
        """Make this file the loaded model, by the WebUI's own loader.

        Args:
            checkpoint: any checkpoint file, also one that is not in the WebUI's folders.
            placement: how.
            afresh: read the file also if the WebUI believes that it is loaded.

        Raises:
            HostError: the WebUI could not load it.
        """
        ...

    def placement(self, checkpoint: Checkpoint) -> Placement:
        """How the loaded checkpoint was loaded, for `load` of merges of it."""
        ...

    def live(self, checkpoint: Checkpoint) -> LiveModel:
        """The loaded model's parameters by the checkpoint's keys.

        Raises:
            HostError: they do not cover each other, or the WebUI uses other weights for images.
        """
        ...

    def holds(self, live: LiveModel, checkpoint: Checkpoint) -> bool:
        """Whether `live` is still the loaded model, under the checkpoint's file name."""
        ...

    def named(self, live: LiveModel, checkpoint: Checkpoint) -> bool:
        """Whether `live`, loaded or kept aside, still goes by the checkpoint's file name."""
        ...

    def foreign_vae(self) -> str | None:
        """The name of the VAE file that is used in place of the checkpoint's own, if any."""
        ...

    def text_encoder_changed(self) -> None:
        """Forget what the WebUI has computed with the text encoder."""
        ...

    def disown(self) -> None:
        """Have the WebUI forget the loaded model, so that it must read its file again.

        The last resort when A's weights cannot be put back. Never raises.
        """
        ...

    def generate(self, jobs: Sequence[ImageJob], labels: Mapping[str, str]) -> Shot:
        """Make one batch of images with the loaded model; `labels` go into their infotexts."""
        ...

    def asked(self) -> Ending | None:
        """What the user asked by the WebUI's own buttons since the last generation.

        INTERRUPTED, RELOADING (the user interface is loaded again) or None.
        """
        ...

    def wait_for_reload(self, stop: StopFlag) -> None:
        """Wait until the user interface is back, or `stop` says so."""
        ...

    def wishes(self) -> list[str]:
        """Sentences on what the user changed meanwhile that takes effect later; each told once."""
        ...

    def free_memory(self) -> None:
        """Give memory that nothing refers to back to the device."""
        ...
