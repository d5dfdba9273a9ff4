"""Images from inside a WebUI: the policy that keeps a run and the WebUI from harming each other.

Hides when the queue is held, how candidates get into the live model, how the user's model comes
back, and what happens when somebody skips, interrupts, reloads or swaps the model in between. What
is special to one WebUI is behind `host.ports.WebUI`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL.Image import Image

from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import GenerationError, HostError
from lib_automerge.generate.base import PauseRequested, StopFlag, never
from lib_automerge.generate.parts import Parts
from lib_automerge.host.live_merge import LiveMerge
from lib_automerge.host.ports import Ending, Placement, WebUI
from lib_automerge.host.self_check import self_check
from lib_automerge.merge.live import LiveMerger
from lib_automerge.merge.readers import Checkpoint

BREATH_S = 0.05
"""How long a shared WebUI is left to the others: its lock is fair to those who wait this long."""
TOO_LARGE = (
    "Use smaller images, start the WebUI with --medvram, or close other programs that use the "
    "graphics card."
)
ATTEMPTS = 5
"""How often a batch is made again because somebody else changed the model meanwhile."""


class WebUIGenerator:
    """Makes images with the WebUI's own code and model; implements `generate.base.Generator`.

    Args:
        host: the WebUI in whose process we are.
        threads: CPU threads for torch while a session is open; None leaves its setting.
        cache: see `merge.live.LiveMerger`.
    """

    def __init__(self, host: WebUI, threads: int | None = None, cache: Path | None = None) -> None:
        self._host = host
        self._threads = threads
        self._cache = cache
        self._placement = Placement()

    def fingerprint(self) -> dict[str, str]:
        """What besides the recipe decides the images' bits."""
        facts = self._host.fingerprint()
        if self._threads is not None and "threads" in facts:
            facts["threads"] = str(self._threads)
        return facts

    def check(self, model: Checkpoint) -> None:
        """Refuse what the WebUI makes no images from; see `generate.base.Generator.check`."""
        self._host.check(model)

    @contextmanager
    def open(
        self, models: Mapping[str, Checkpoint], stop: StopFlag = never
    ) -> Iterator[WebUISession]:
        """Hold the WebUI with model A loaded; see `generate.base.Generator.open`.

        A checkpoint alone is a merge of an earlier session's models, or any other file: it is
        loaded by the WebUI's own loader, with the configuration and VAE of that session's A.

        Raises:
            PauseRequested: `stop` said so while others had the WebUI.
            HostError: the WebUI does not load A, or does not do as it is told (`self_check`).
        """
        session = WebUISession(self._host, models, self._placement, self._cache)
        threads = torch.get_num_threads()
        if not self._host.reserve(stop):
            raise PauseRequested("You stopped the run while it waited for the WebUI's queue.")
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            session.begin()
            if len(models) > 1:
                self._placement = self._host.placement(models["a"])
            yield session
        finally:
            session.close()
            torch.set_num_threads(threads)


class WebUISession:
    """The WebUI's model while it is ours; made by `WebUIGenerator.open`."""

    def __init__(
        self,
        host: WebUI,
        models: Mapping[str, Checkpoint],
        placement: Placement,
        cache: Path | None,
    ) -> None:
        self._host = host
        self._models = dict(models)
        merger = LiveMerger(models, cache, lambda sentence: self._news.append(sentence))
        self._model = LiveMerge(host, models["a"], merger, placement)
        self._held = True
        self._parts = Parts()
        self._stop: StopFlag = never
        self._news: list[str] = []

    def begin(self) -> None:
        """Load A and see that the WebUI obeys.

        Raises:
            HostError: it does not.
        """
        self._model.take_over()
        foreign = self._host.foreign_vae()
        if foreign is not None:
            self._news.append(
                f"The WebUI uses the VAE {foreign} for all images; the models' own VAEs play no "
                "part in this run."
            )
        a = self._models["a"]
        others = {role: m for role, m in self._models.items() if m is not a}
        self._news += self_check(self, a, others.get("b") or next(iter(others.values()), None))

    def apply(self, recipe: Recipe) -> None:
        """Merge the recipe into the live model: only blocks whose weight differs from theirs.

        Raises:
            ConfigError: the recipe names an unknown method, block or role.
            ModelError: the models do not hold what the recipe asks for.
            HostError: it searches the VAE while the WebUI uses another one.
        """
        self._keep_hold()
        self._model.apply(recipe)

    def images(self, jobs: Sequence[ImageJob], stop: StopFlag) -> Iterator[tuple[ImageJob, Image]]:
        """See `generate.base.Session.images`."""
        self._stop = stop
        return self._parts.images(jobs, stop, self._attempt)

    def rest(self) -> None:
        """Let those in who wait for the WebUI, on the user's own model, if the user shares it."""
        if not self._held or not self._host.visitors():
            return
        self._model.restore()
        self._model.let_go()
        self._held = False
        self._host.release()
        time.sleep(BREATH_S)
        if self._host.reserve(self._stop, again=True):
            self._held = True
            self._model.take_over()

    def warnings(self) -> list[str]:
        """See `generate.base.Session.warnings`."""
        news, self._news = self._news + (self._host.wishes() if self._held else []), []
        return news

    def close(self) -> None:
        """Put A's weights back, then the user's model, then open the queue; never raises."""
        if not self._held:
            return
        try:
            self._model.restore()
        finally:
            self._model.let_go()
            self._held = False
            self._host.release()

    # --- what the self-check uses -------------------------------------------------------------

    def picture(self, job: ImageJob) -> Image:
        """One image of the model as it is.

        Raises:
            HostError: the WebUI could not make it.
        """
        for picture in self._attempt_until_made([job]):
            return picture
        raise HostError("the WebUI made no test image. Look at its console.")

    def reload(self) -> None:
        """Have the WebUI read A's file again."""
        self._model.take_over(afresh=True)

    def difference(self) -> str | None:
        """The first key of A that the live model does not hold."""
        return self._model.difference()

    # --- the images ---------------------------------------------------------------------------

    def _attempt_until_made(self, jobs: Sequence[ImageJob]) -> Sequence[Image]:
        for _ in range(ATTEMPTS):
            pictures = self._attempt(jobs)
            if pictures is not None:
                return pictures
        return ()

    def _attempt(self, jobs: Sequence[ImageJob]) -> Sequence[Image] | None:
        """Return the jobs' images, or None if they are to be made again, perhaps in smaller parts.

        Raises:
            PauseRequested: the user interrupted.
            GenerationError: the WebUI cannot make them.
        """
        failures = 0
        for _ in range(ATTEMPTS):
            self._heed(self._host.asked())
            self._keep_hold()
            shot = self._host.generate(jobs, self._labels())
            self._news += shot.notes
            if shot.ending in (Ending.SKIPPED, Ending.INTERRUPTED, Ending.RELOADING):
                self._heed(shot.ending)
                return None
            if shot.ending is Ending.OUT_OF_MEMORY:
                self._host.free_memory()
                self._news.append(self._parts.halve(jobs, TOO_LARGE))
                return None
            if shot.ending is Ending.DONE and self._model.intact():
                return shot.images
            if shot.ending is Ending.FAILED:
                failures += 1
                self._host.free_memory()
                if failures > 1 and self._model.intact():
                    raise GenerationError(
                        f"the WebUI failed on payload {jobs[0].payload.name!r}: {shot.reason} "
                        "Change its settings, or look at the WebUI's console."
                    )
        raise HostError(
            f"the WebUI's model was changed {ATTEMPTS} times while one image was made. Switch off "
            "what does that: another extension, or a program that uses the WebUI's API."
        )

    def _keep_hold(self) -> None:
        """See that the live model is ours, with what we merged; else put both back.

        Raises:
            HostError: A cannot be loaded again.
        """
        if self._model.intact():
            return
        self._news.append(
            "Somebody else changed the WebUI's model during the run. Model A was loaded again, and "
            "the images in the making were discarded."
        )
        self._model.put_back()

    def _heed(self, ending: Ending | None) -> None:
        if ending is Ending.INTERRUPTED:
            raise PauseRequested("You interrupted the WebUI.")
        if ending is Ending.RELOADING:
            self._host.wait_for_reload(self._stop)

    def _labels(self) -> dict[str, str]:
        """What the infotext says about where an image is from: the run, and the candidate."""
        recipe = self._model.recipe
        if recipe is None:
            return {}
        known = recipe.provenance
        run = {"Automerge run": str(known["run"])} if "run" in known else {}
        return run | {"Automerge candidate": candidate_name(recipe)}


def candidate_name(recipe: Recipe) -> str:
    """The evaluation's number if the recipe knows it, else "A" or eight digits of a hash of it."""
    number = recipe.provenance.get("evaluation")
    if number is not None:
        return str(number)
    if not any(recipe.weights.values()) and not recipe.parameters:
        return "A"
    told = [sorted(recipe.weights.items()), sorted(recipe.parameters.items())]
    content = json.dumps([recipe.method, *told])
    return hashlib.sha256(content.encode()).hexdigest()[:8]
