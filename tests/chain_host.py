"""Tiny models whose pictures show what is in them, and a host that draws them, for chains.

A model is good at as many of three blocks as their probes are near 1; a picture is the brighter
the better the model, with a little noise by prompt, seed and model. So merges of models that are
good at different blocks are really better, whatever file they come from.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_automerge.domain import architectures
from lib_automerge.domain.chain import ChainConfig, decode_chain
from lib_automerge.domain.config import GeneratorConfig
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.generate.base import StopFlag, never
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import DictSink
from tests.checkpoints import write_tiny
from tests.fake_host import FakeGenerator, FakeHost

PROBES = {
    "IN00": "model.diffusion_model.input_blocks.0.0.bias",
    "M00": "model.diffusion_model.middle_block.0.in_layers.0.bias",
    "OUT00": "model.diffusion_model.output_blocks.0.0.in_layers.0.bias",
}
Skill = tuple[float, float, float]

POOL: dict[str, Skill] = {
    "m1": (1.0, 0.0, 0.1),
    "m2": (0.0, 1.0, 0.0),
    "m3": (0.0, 0.1, 0.8),
    "m4": (0.1, 0.6, 0.0),
    "m5": (0.3, 0.0, 0.0),
}


def write_model(path: Path, skill: Skill, *, seed: int = 0, **options: Any) -> Path:
    """A tiny SD1 checkpoint that is so good at each probed block."""
    known = write_tiny(path, "sd1", seed=seed, **options)
    from safetensors.torch import load_file, save_file

    state = load_file(known)
    for key, value in zip(PROBES.values(), skill, strict=True):
        state[key] = torch.full_like(state[key], value)
    save_file(state, path)
    return path


def write_pool(folder: Path, pool: Mapping[str, Skill] = POOL) -> list[str]:
    """The models of a pool; returns their paths."""
    return [str(write_model(folder / f"{name}.safetensors", skill)) for name, skill in pool.items()]


class ContentSession:
    """Draws what the current merge holds."""

    def __init__(self, models: Mapping[str, Checkpoint], host: ContentHost) -> None:
        self._models = models
        self._host = host
        self._skill = [float(models["a"].tensor(k).float().mean()) for k in PROBES.values()]

    def apply(self, recipe: Recipe) -> None:
        sink = DictSink()
        merger = Merger(self._models, recipe.method)
        merger.merge(recipe.weights, sink, keys=list(PROBES.values()))
        self._skill = [float(sink.tensors[key].float().mean()) for key in PROBES.values()]
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
        text = f"{job.payload.prompt}|{job.seed}|{[round(s, 3) for s in self._skill]}"
        noise = hashlib.sha256(text.encode()).digest()
        off = sum(abs(1.0 - skill) for skill in self._skill) / len(self._skill)
        value = 245 * (1 - off) + 3 * (noise[0] / 255 - 0.5)
        image = Image.new("RGB", (8, 8), (max(0, min(255, round(value))), noise[1], noise[2]))
        reason = self._host.broken(dict(zip(PROBES, self._skill, strict=True)), job)
        if reason:
            image.info["broken"] = reason
        return image

    def rest(self) -> None:
        self._host.rests += 1

    def warnings(self) -> list[str]:
        return self._host.news.pop(0) if self._host.news else []


class ContentGenerator(FakeGenerator):
    def __init__(self, host: ContentHost) -> None:
        super().__init__(host)
        self._content = host

    @contextlib.contextmanager
    def open(  # type: ignore[override]
        self, models: Mapping[str, Checkpoint], stop: StopFlag = never
    ) -> Iterator[ContentSession]:
        yield ContentSession(models, self._content)


class ContentHost(FakeHost):
    """A host whose pictures show what is in the models."""

    def generator(self, config: GeneratorConfig) -> ContentGenerator:
        return ContentGenerator(self)


def chain_config(pool: Sequence[str], **sections: object) -> ChainConfig:
    """A chain with few and small runs, in which every good corner of a pair is tried."""
    return decode_chain({**chain_sections(pool), **sections})


def chain_sections(pool: Sequence[str]) -> dict[str, object]:
    """What `chain_config` decodes."""
    names = architectures.get("sd1").parameters
    corners = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)]
    return {
        "pool": list(pool),
        "payloads": [
            {"prompt": "a red ball", "batch_size": 2},
            {"prompt": "a blue star", "batch_size": 2},
            {"prompt": "a green moon", "held_out": True, "batch_size": 4},
        ],
        "reward": {"name": "demo"},
        "search": {
            "optimizer": "sobol",
            "evaluations": 9,
            "seeds_per_payload": 1,
            "blocks": {name: {"fixed": 0} for name in names if name not in PROBES},
            "start": [dict(zip(PROBES, corner, strict=True)) for corner in corners],
        },
        "verdict": {"finalists": 1, "finalist_seeds": 1, "seeds": 6},
        "rank_seeds": 4,
    }
