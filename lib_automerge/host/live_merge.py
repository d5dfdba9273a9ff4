"""Merges in the WebUI's live model: what it holds, and how it becomes model A again.

Hides which blocks must be written for the next candidate, which VAE is nobody's to write to, and
how far one must go to be sure that A's file name never stays on merged weights.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable

import torch
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import HostError
from lib_automerge.host.ports import LiveModel, Placement, WebUI
from lib_automerge.merge.live import Effects, LiveMerger, changed
from lib_automerge.merge.readers import Checkpoint

log = logging.getLogger(__name__)


class LiveMerge:
    """The live model while its WebUI is ours.

    Args:
        host: the WebUI, reserved for this thread during every call.
        a: what the live model is loaded from.
        merger: of the open models, the first of which is A.
        placement: how A is loaded.

    Attributes:
        recipe: what was merged last; None while the model is A as loaded.
    """

    def __init__(
        self, host: WebUI, a: Checkpoint, merger: LiveMerger, placement: Placement
    ) -> None:
        self._host = host
        self._a = a
        self._placement = placement
        self._architecture = architectures.get(self._a.detection.architecture)
        self._live: LiveModel | None = None
        # what the live model holds: A for nothing, unknown for None
        self._held: Effects | None = {}
        self._pulse: list[Tensor] = []
        self._merger = merger
        self.recipe: Recipe | None = None

    def take_over(self, *, afresh: bool = False) -> None:
        """Make A the live model, as its file has it; `afresh` reads the file in any case.

        Raises:
            HostError: the WebUI does not load it.
        """
        self._host.load(self._a, self._placement, afresh=afresh)
        self._live = self._host.live(self._a)
        self._held = {}
        self.recipe = None
        self._watch()

    def let_go(self) -> None:
        """Refer to the live model no longer: it is the WebUI's again."""
        self._live = None
        self.recipe = None

    def apply(self, recipe: Recipe) -> None:
        """Merge the recipe: only blocks whose weight differs from theirs.

        Raises:
            ConfigError: the recipe names an unknown method, block or role.
            ModelError: the models do not hold what the recipe asks for.
            HostError: it merges the VAE while the WebUI uses another one.
        """
        wanted = self._merger.effects(recipe)
        self._leave_out_vae(wanted, recipe)
        blocks = changed(self._held, wanted)
        if blocks is None:
            blocks = self._merged() | set(wanted)
        self._write(recipe, wanted, blocks)
        self.recipe = recipe

    def intact(self) -> bool:
        """Whether the live model is ours, with what we merged."""
        live = self._live
        if live is None or not self._host.holds(live, self._a):
            return False
        now = live.pulse(self._architecture.blocks)
        return all(torch.equal(a, b) for a, b in zip(now, self._pulse, strict=True))

    def put_back(self) -> None:
        """Load A again and merge in again what was merged last.

        Raises:
            HostError: A cannot be loaded again.
        """
        recipe = self.recipe
        self.take_over(afresh=True)
        if recipe is not None:
            self.apply(recipe)

    def difference(self) -> str | None:
        """The first key of A that the live model does not hold."""
        return self._model().difference(self._a, vae=self._host.foreign_vae() is None)

    def restore(self) -> None:
        """Make the live model A again; never raises.

        A's weights come from its file. If they cannot be written, the WebUI reads the file again;
        if it cannot, it forgets the model: A's name must not stay on merged weights.
        """
        try:
            # The WebUI may have put it aside, from where it would bring it back as A.
            if self._live is None or not self._host.named(self._live, self._a):
                return
            if self._held != {}:
                self._write(None, {}, self._merged())
            key = self.difference()
            if key is None:
                return
            log.error("the weight %s was not restored; the WebUI reads model A again", key)
        except Exception:
            # whatever it was, the next step heals it, and the run's own error matters more
            log.exception("the model could not be restored; the WebUI reads model A again")
        try:
            self.take_over(afresh=True)
        except Exception:
            log.exception("model A could not be loaded again; the WebUI forgets it")
            self._host.disown()

    def _model(self) -> LiveModel:
        assert self._live is not None
        return self._live

    def _write(self, recipe: Recipe | None, wanted: Effects, blocks: set[str]) -> None:
        """Merge these blocks; without a recipe they are A's."""
        live = self._model()
        self._held = None
        live.begin(blocks)
        if recipe is None:
            self._merger.put_first(live, blocks)
        else:
            self._merger.merge(recipe, live, blocks)
        live.finish()
        self._held = wanted
        if not blocks.isdisjoint(self._architecture.text_encoders):
            self._host.text_encoder_changed()
        self._watch()

    def _watch(self) -> None:
        self._pulse = self._model().pulse(self._architecture.blocks)

    def _merged(self) -> set[str]:
        """The blocks that may hold something else than A; all that are ours if that is unknown."""
        if self._held is not None:
            return set(self._held)
        blocks = set(self._architecture.blocks)
        return blocks if self._host.foreign_vae() is None else blocks - {*self._architecture.vae}

    def _leave_out_vae(self, wanted: dict[str, Hashable], recipe: Recipe) -> None:
        """Never write to a VAE that is not A's: it is in no image, and it is not ours.

        Raises:
            HostError: the recipe gives the VAE a weight of its own, which would not show.
        """
        foreign = self._host.foreign_vae()
        if foreign is None:
            return
        # parameters are not searched in the VAE: what is given for it is not the run's question
        for block in self._architecture.vae:
            wanted.pop(block, None)
            weight = recipe.weights.get(block, 0.0)
            if weight and set(recipe.weights.values()) - {0.0, weight}:
                raise HostError(
                    f"the run merges the VAE, but the WebUI uses the file {foreign} for all "
                    "images. Set SD VAE to None in the WebUI's settings, or leave VAE out."
                )
