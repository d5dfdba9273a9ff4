"""A host whose images cost nothing: real models, merges, journal and search; drawn pictures.

The picture of a candidate is a deterministic function of its weights, prompt and seed, so every
property of the loop (order, resume, verdict) can be tested in milliseconds. What a diffusion
pipeline does is tested with the real one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lib_automerge.app.ports import Choices, ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.config import GeneratorConfig, RewardMember, RunConfig, decode_config
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.domain.recipe import Recipe
from lib_automerge.generate.base import StopFlag, never
from lib_automerge.generate.loading import check_complete
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import DictSink
from tests.checkpoints import write_tiny


class FakeSession:
    """Draws one flat colour: brighter the nearer the weights are to a hidden best recipe."""

    def __init__(self, models: Mapping[str, Checkpoint], host: FakeHost) -> None:
        self._models = models
        self._host = host
        self._weights: dict[str, float] = dict.fromkeys(architectures.get("sd1").blocks, 0.0)
        self._mergers: dict[str, Merger] = {}
        saved = models["a"].header.metadata.get("automerge_recipe")
        if saved:
            import json

            self._weights = json.loads(saved)["weights"]

    def apply(self, recipe: Recipe) -> None:
        if recipe.method not in self._mergers:
            self._mergers[recipe.method] = Merger(self._models, recipe.method)
        self._mergers[recipe.method].merge(recipe.weights, DictSink(), blocks={"OUT"})
        self._weights = dict.fromkeys(architectures.get("sd1").blocks, 0.0) | recipe.weights
        self._host.applied.append(recipe)

    def images(
        self, jobs: Sequence[ImageJob], stop: StopFlag
    ) -> Iterator[tuple[ImageJob, Image.Image]]:
        if stop():
            return
        self._host.batches.append([job.number for job in jobs])
        self._host.before_batch(jobs)
        for job in jobs:
            yield job, self._draw(job)

    def _draw(self, job: ImageJob) -> Image.Image:
        unet = {k: v for k, v in self._weights.items() if k.startswith(("IN", "M", "OUT"))}
        best = {name: 0.9 if name.startswith("IN") else 0.2 for name in unet}
        distance = np.mean([abs(unet[name] - best[name]) for name in unet]) if unet else 0.6
        text = f"{job.payload.prompt}|{job.seed}".encode()
        noise = hashlib.sha256(text + repr(sorted(unet.items())).encode()).digest()
        value = 250 * (1 - distance) + 4 * (noise[0] / 255 - 0.5)
        image = Image.new("RGB", (8, 8), (round(value), noise[1], noise[2]))
        reason = self._host.broken(self._weights, job)
        if reason:
            image.info["broken"] = reason
        return image

    def rest(self) -> None:
        self._host.rests += 1

    def warnings(self) -> list[str]:
        return self._host.news.pop(0) if self._host.news else []


class FakeGenerator:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def fingerprint(self) -> dict[str, str]:
        return {"backend": "fake"}

    def check(self, model: Checkpoint) -> None:
        check_complete(model)

    @contextlib.contextmanager
    def open(
        self, models: Mapping[str, Checkpoint], stop: StopFlag = never
    ) -> Iterator[FakeSession]:
        self._host.open_sessions += 1
        try:
            yield FakeSession(models, self._host)
        finally:
            self._host.open_sessions -= 1


class BrightnessReward:
    """The share of red light, minus a half: signed."""

    name = "brightness"

    def __init__(self, fingerprint: str = "brightness-1") -> None:
        self.fingerprint = fingerprint

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [float(np.asarray(image)[..., 0].mean()) / 255 - 0.5 for image in images]

    def read(self, prompts: Sequence[str]) -> None:
        pass

    def place(self, device: str) -> None:
        pass

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


def sound(weights: Mapping[str, float], job: ImageJob) -> str | None:
    return None


class FakeHost:
    """Implements `app.ports.Host`; remembers what it was asked."""

    def __init__(self) -> None:
        self.applied: list[Recipe] = []
        self.batches: list[list[int]] = []
        self.news: list[list[str]] = []
        self.open_sessions = 0
        self.rests = 0
        self.broken: Callable[[Mapping[str, float], ImageJob], str | None] = sound
        self.before_batch: Callable[[Sequence[ImageJob]], None] = lambda jobs: None
        self.judge = BrightnessReward()

    def generator(self, config: GeneratorConfig) -> FakeGenerator:
        return FakeGenerator(self)

    def check_payload(self, payload: Payload) -> None:
        pass

    def reward(self, member: RewardMember) -> BrightnessReward:
        return self.judge


class FakeCatalogue:
    """Implements `app.ports.Catalogue` over a folder with the models of `tiny_models`."""

    name = "fake host"
    generator_name = "fake"

    def __init__(self, data: Path, models: Mapping[str, str]) -> None:
        self.data = data
        self.wildcards = (data / "wildcards",)
        self.found = [ModelChoice(Path(path).name, path) for path in models.values()]
        self.news: list[str] = []

    def refresh(self) -> None:
        pass

    def models(self) -> list[ModelChoice]:
        return self.found

    def loaded_model(self) -> str | None:
        return self.found[0].title if self.found else None

    def choices(self) -> Choices:
        return Choices(
            samplers=("Euler a", "DPM++ 2M"),
            schedulers=("Automatic", "Karras"),
            upscalers=("Latent",),
            styles=("film",),
        )

    def checkpoint_folder(self, model_a: Path) -> Path:
        return model_a.parent

    def device_memory(self) -> tuple[int, int] | None:
        return None

    def notices(self) -> list[str]:
        return self.news


def tiny_models(folder: Path) -> dict[str, str]:
    """Two different tiny SD1 checkpoints."""
    return {
        role: str(write_tiny(folder / f"{role}.safetensors", "sd1", seed=seed))
        for seed, role in enumerate("ab")
    }


def tiny_config(models: Mapping[str, str], **search: object) -> RunConfig:
    """A run of a few evaluations, two search prompts, one held-out prompt."""
    return decode_config(
        {
            "models": dict(models),
            "payloads": [
                {"prompt": "a red ball", "seeds": [1, 2, 3], "batch_size": 2},
                {"prompt": "a blue <b>star</b>", "seeds": [4, 5, 6], "batch_size": 2},
                {"prompt": "a green moon", "held_out": True, "batch_size": 3},
            ],
            "reward": {"name": "demo"},
            "search": {"optimizer": "sobol", "evaluations": 7, **search},
            "verdict": {"finalists": 2, "finalist_seeds": 1, "seeds": 4},
            "output": {"checkpoint": "gain"},
        }
    )
