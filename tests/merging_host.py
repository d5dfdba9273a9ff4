"""A host whose merges are real: what is drawn depends on a tensor of the merged model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from lib_automerge.domain.config import GeneratorConfig
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.generate.base import StopFlag, never
from lib_automerge.merge.live import Effects, LiveMerger, changed
from lib_automerge.merge.readers import Checkpoint
from tests.fake_host import FakeGenerator, FakeHost

SEEN = "model.diffusion_model.output_blocks.11.0.in_layers.2.weight"
"""The tensor that the pictures show."""


class MergingSession:
    """Draws what a tensor of the merged model holds: brighter the nearer it is to an ideal."""

    def __init__(self, models: Mapping[str, Checkpoint], host: MergingHost) -> None:
        self._host = host
        first = models["a"]
        self._live = {key: first.tensor(key).clone() for key in first.keys()}  # noqa: SIM118
        self._merger = LiveMerger(models)
        self._held: Effects = {}

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        return None

    def put(self, key: str, tensor: Tensor) -> None:
        self._live[key].copy_(tensor)

    def apply(self, recipe: Recipe) -> None:
        wanted = self._merger.effects(recipe)
        self._merger.merge(recipe, self, changed(self._held, wanted))
        self._held = wanted
        self._host.merged.append({key: self._live[key].clone() for key in (SEEN,)})
        self._host.applied.append(recipe)

    def images(
        self, jobs: Sequence[ImageJob], stop: StopFlag
    ) -> Iterator[tuple[ImageJob, Image.Image]]:
        self._host.before_batch(jobs)
        for job in jobs:
            yield job, self._draw(job)

    def _draw(self, job: ImageJob) -> Image.Image:
        shown = self._live[SEEN].double()
        off = float((shown - self._host.ideal).norm() / self._host.ideal.norm())
        content = shown.numpy().tobytes() + f"{job.payload.prompt}|{job.seed}".encode()
        noise = hashlib.sha256(content).digest()
        value = round(max(0.0, 250 - 120 * off + 4 * (noise[0] / 255 - 0.5)))
        return Image.new("RGB", (8, 8), (value, noise[1], noise[2]))

    def rest(self) -> None:
        pass

    def warnings(self) -> list[str]:
        return []


class MergingGenerator(FakeGenerator):
    @contextlib.contextmanager
    def open(
        self, models: Mapping[str, Checkpoint], stop: StopFlag = never
    ) -> Iterator[MergingSession]:  # type: ignore[override]
        assert isinstance(self._host, MergingHost)
        yield MergingSession(models, self._host)


class MergingHost(FakeHost):
    def __init__(self, ideal: Tensor) -> None:
        super().__init__()
        self.ideal = ideal
        self.merged: list[dict[str, Tensor]] = []

    def generator(self, config: GeneratorConfig) -> MergingGenerator:
        return MergingGenerator(self)
