"""The merge lab's work: one merge at a time, saved or previewed, in a thread of its own.

The thread belongs to the process, not to a page: pages come and go and read snapshots.
"""

from __future__ import annotations

import enum
import io
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import msgspec

from lib_automerge.app.digests import Digests, stamp
from lib_automerge.app.lab_orders import Kept, Order, Unfinished
from lib_automerge.app.outcome import copy_host_config
from lib_automerge.app.ports import Host
from lib_automerge.domain.config import GeneratorConfig
from lib_automerge.domain.dialects.metadata import OURS as RECIPE_FIELD
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe, primary
from lib_automerge.errors import (
    AutomergeError,
    BusyError,
    CancelledError,
    ConfigError,
    GenerationError,
)
from lib_automerge.generate.base import PauseRequested
from lib_automerge.merge.files import merge_files
from lib_automerge.merge.lab import output
from lib_automerge.merge.lab.budget import own_memory
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.lab.job import Progress
from lib_automerge.merge.readers import open_checkpoint, read_header
from lib_automerge.study.formats import size

log = logging.getLogger(__name__)

PREVIEW = "preview.safetensors"
UNFINISHED = "unfinished.json"


class LabPhase(str, enum.Enum):
    """How the latest merge stands."""

    NONE = "none"
    MERGING = "merging"
    GENERATING = "generating"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"


WORKING = (LabPhase.MERGING, LabPhase.GENERATING, LabPhase.CANCELLING)


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a merge: a PNG, what it shows, and which merge it was."""

    number: int
    png: bytes
    prompt: str
    seed: int
    method: str


class LabSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The latest merge at one moment.

    Attributes:
        number: counts the merges; 0 before the first.
        phase: how it stands.
        preview: whether it is for one image, and saved nowhere.
        name: of the file, or of the method if it is a preview.
        progress: how far the merge is; None before its first step.
        told: a sentence once it has ended.
        notes: what the user should know of the result, in sentences.
        kept: the merges that have not ended and can be gone on with, also of an earlier start of
            the program.
        picture: the latest preview, also of an earlier merge.
    """

    number: int = 0
    phase: LabPhase = LabPhase.NONE
    preview: bool = False
    name: str = ""
    progress: Progress | None = None
    told: str = ""
    notes: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    picture: Picture | None = None

    @property
    def working(self) -> bool:
        """Whether the thread is at work."""
        return self.phase in WORKING

    @property
    def version(self) -> str:
        """Another text whenever something that is shown has changed."""
        done = (self.progress.done, self.progress.note) if self.progress else (0, "")
        kept = ".".join(str(one.number) for one in self.kept)
        return f"{self.number}-{self.phase.value}-{done[0]}-{done[1]}-{kept}"


class Lab:
    """Makes merges.

    Args:
        host: makes the images of previews.
        generator: the name of its image backend.
        folder: for the file of a preview, which is deleted when its image is there, and for the
            list of unfinished merges.
        digests: learn what a merge has read.
        around: entered for the time of every merge.
    """

    def __init__(
        self,
        host: Host,
        generator: str,
        folder: Path,
        digests: Digests,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._host = host
        self._generator = generator
        self._folder = folder
        self._digests = digests
        self._around = around
        self._lock = threading.Lock()
        self._unfinished = Unfinished(folder / UNFINISHED)
        self._now = LabSnapshot(kept=self._unfinished.kept())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def snapshot(self) -> LabSnapshot:
        """The latest merge as it stands."""
        with self._lock:
            return self._now

    def save(self, order: Order, *, resume: bool = False) -> None:
        """Begin to write a merge; returns at once.

        Raises:
            BusyError: another merge is in progress.
        """

        def work() -> None:
            self._save(order, resume=resume)

        self._begin(LabSnapshot(name=order.path.name), order, work)

    def preview(self, order: Order, job: ImageJob) -> None:
        """Begin to make one image of a merge; its path is not used. Returns at once.

        Raises:
            BusyError: another merge is in progress.
        """

        def work() -> None:
            self._preview(order, job)

        self._begin(LabSnapshot(name=order.recipe.method, preview=True), None, work)

    def cancel(self) -> None:
        """End the merge in progress, if there is one."""
        with self._lock:
            if self._now.working:
                self._stop.set()
                self._now = msgspec.structs.replace(self._now, phase=LabPhase.CANCELLING)

    def resume(self, number: int) -> None:
        """Go on with an unfinished merge; returns at once.

        Args:
            number: of `Kept`.

        Raises:
            BusyError: another merge is in progress.
            ConfigError: there is nothing to go on with.
        """
        self.save(self._kept_order(number), resume=True)

    def discard(self, number: int) -> None:
        """Throw away what an unfinished merge has kept; see `resume`.

        Raises:
            BusyError: a merge is in progress, here or in another program.
            ConfigError: nothing is kept.
            StorageError: it cannot be deleted.
        """
        order = self._kept_order(number)
        output.discard(order.path)
        self._unfinished.end(order.path)
        self._change(kept=self._unfinished.kept())

    def unfinished(self, path: Path) -> bool:
        """Whether an unfinished merge into this file is kept."""
        return output.kept(path) is not None

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until no merge is in progress, or the time is over."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _kept_order(self, number: int) -> Order:
        with self._lock:
            if self._now.working:
                raise BusyError("a merge is in progress. Wait for it, or cancel it.")
        order = self._unfinished.order(number)
        if order is None or output.kept(order.path) is None:
            self._change(kept=self._unfinished.kept())
            raise ConfigError("nothing of that merge is kept any longer. Begin it again.")
        return order

    # --- the thread's side ------------------------------------------------------------------

    def _begin(self, begun: LabSnapshot, order: Order | None, work: Callable[[], None]) -> None:
        with self._lock:
            before = self._now
            if before.working:
                raise BusyError("a merge is in progress. Wait for it, or cancel it.")
            self._stop.clear()
            self._now = msgspec.structs.replace(
                begun,
                number=before.number + 1,
                phase=LabPhase.MERGING,
                picture=before.picture,
                kept=self._unfinished.kept(but=None if order is None else order.path),
            )
            # a daemon: half a file never has the final name
            self._thread = threading.Thread(
                target=self._work, args=(work,), name="automerge-lab", daemon=True
            )
            self._thread.start()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            with self._around():
                work()
        except CancelledError:
            told = f"The {'preview' if self._now.preview else 'merge'} was cancelled."
            self._change(phase=LabPhase.CANCELLED, told=told)
        except PauseRequested as request:
            self._change(phase=LabPhase.CANCELLED, told=str(request))
        except AutomergeError as error:
            self._change(phase=LabPhase.FAILED, told=str(error))
        except Exception as error:
            # the thread's last resort: nobody else would see it
            log.exception("a merge failed unexpectedly")
            told = f"the merge failed: {type(error).__name__}: {error}. See the log."
            self._change(phase=LabPhase.FAILED, told=told)

    def _save(self, order: Order, *, resume: bool) -> None:
        self._unfinished.begin(order)
        stamps = {ref.path: stamp(Path(ref.path)) for ref in order.recipe.models.values()}
        try:
            self._merge(order, order.path, resume=resume)
        except AutomergeError:
            if output.kept(order.path) is None:
                self._unfinished.end(order.path)
            self._change(kept=self._unfinished.kept())
            raise
        self._unfinished.end(order.path)
        for role, ref in _recorded(order.path).models.items():
            path = order.recipe.models[role].path
            self._digests.learn(path, stamps[path], ref.sha256)
        first = order.recipe.models[primary(order.recipe.models)]
        copy_host_config(Path(first.path), order.path)
        written = size(order.path.stat().st_size)
        told = f"Saved as {order.path.name} ({written}), in {order.path.parent}."
        self._change(phase=LabPhase.DONE, told=told)

    def _preview(self, order: Order, job: ImageJob) -> None:
        path = self._folder / PREVIEW
        first = Path(order.recipe.models[primary(order.recipe.models)].path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _remove(path)
            self._merge(order, path)
            copy_host_config(first, path)
            self._generate(path, order, job)
        except OSError as error:
            raise GenerationError(
                f"the preview cannot be kept in {self._folder}: {error.strerror}. Make room there."
            ) from error
        finally:
            _remove(path)

    def _merge(self, order: Order, path: Path, *, resume: bool = False) -> None:
        options = LabOptions(
            memory=own_memory() + order.memory,
            resume=resume,
            cache=self._folder / "rebasin",
            progress=lambda progress: self._change(progress=progress),
            cancelled=self._stop.is_set,
            tell=lambda note: self._change(notes=(*self.snapshot().notes, note)),
        )
        merge_files(order.recipe, path, dtype=order.dtype, lab=options)

    def _generate(self, path: Path, order: Order, job: ImageJob) -> None:
        with self._lock:
            if self._stop.is_set():
                raise CancelledError("the preview was cancelled.")
            self._now = msgspec.structs.replace(self._now, phase=LabPhase.GENERATING)
        generator = self._host.generator(GeneratorConfig(name=self._generator))
        with open_checkpoint(path) as model:
            generator.check(model)
            with generator.open({"a": model}, self._stop.is_set) as session:
                made = [image for _, image in session.images([job], self._stop.is_set)]
                notes = (*self.snapshot().notes, *session.warnings())
        if not made:
            raise CancelledError("the preview was cancelled.")
        broken = made[0].info.get("broken")
        if broken:
            raise GenerationError(
                f"the merge makes no picture: {broken}. Change its parameters, or its models."
            )
        made[0].save(file := io.BytesIO(), "PNG")
        picture = Picture(
            number=self.snapshot().number,
            png=file.getvalue(),
            prompt=job.payload.prompt,
            seed=job.seed,
            method=order.recipe.method,
        )
        told = "The preview is made; nothing was saved."
        self._change(phase=LabPhase.DONE, told=told, notes=notes, picture=picture)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._now = msgspec.structs.replace(self._now, **changes)


def _recorded(path: Path) -> Recipe:
    """The recipe in a merge that was just written."""
    return msgspec.json.decode(read_header(path).metadata[RECIPE_FIELD], type=Recipe)


def _remove(path: Path) -> None:
    """Delete what a preview wrote, complete or not."""
    with suppress(AutomergeError):
        output.discard(path)
    for file in (path, path.with_suffix(".yaml")):
        file.unlink(missing_ok=True)
