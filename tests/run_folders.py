"""Run folders with a real manifest, journal and images, for tests of what is read from them.

The scores follow a made-up truth: a best weight per block, a level per payload, and noise per
image. Nothing is generated or trained; the images are drawings that get cleaner with the score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from PIL import Image

from lib_automerge.domain import architectures
from lib_automerge.domain.config import GeneratorConfig, RewardConfig, RunConfig, SearchConfig
from lib_automerge.domain.events import (
    BASELINES,
    AnyEvent,
    Calibrated,
    Comparison,
    Evaluated,
    Failed,
    Finished,
    Learned,
    Origin,
    Proposed,
    Rejected,
    Saved,
    Scored,
    SearchEnded,
    Stage,
    StageDone,
    Started,
    Stopped,
    Verdict,
    Warned,
)
from lib_automerge.domain.payload import ImageJob, Payload, jobs_of
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.study.store import OwnedRun, RunFolder, RunManifest
from tests.drawings import PROMPTS, draw

UNIFORM = {Origin.MODEL_A: 0.0, Origin.MODEL_B: 1.0, Origin.HALF: 0.5}
BEGIN = 1_770_000_000.0


class Until(IntEnum):
    """How far the run got."""

    STARTED = 0
    BASELINES = 1
    SEARCH = 2
    FINALISTS = 3
    VERDICT = 4
    FINISHED = 5


@dataclass(frozen=True)
class Plan:
    """A run to make.

    `gain` is how much the best merge is better than the better parent, `noise` the standard
    deviation of one image's score; every score is `level` + `scale` times that. `rejected` and
    `given_up` (after the first payload) are evaluation numbers; `leader` is the one that the model
    believes in most (None: there is no model); `calibration` is what a measured noise advises;
    `size` is the images' edge, 0 for none.
    """

    architecture: str = "sd1"
    evaluations: int = 40
    payloads: tuple[Payload, ...] = ()
    until: Until = Until.FINISHED
    end: AnyEvent | None = None
    gain: float = 0.45
    noise: float = 0.12
    level: float = 0.2
    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0
    rejected: tuple[int, ...] = ()
    given_up: tuple[int, ...] = ()
    leader: int | None = None
    calibration: str = ""
    outlook: str = ""
    warnings: tuple[str, ...] = ()
    saved: bool = False
    finalists: int = 3
    size: int = 64
    name: str = "meadow-1"
    models: tuple[str, str] = ("daylight", "midnight")
    seed: int = 0
    seconds_per_image: float = 0.4


def payloads(search: int = 6, held_out: int = 6) -> tuple[Payload, ...]:
    """Named payloads, the first ones for the search, the others held out."""
    prompts = itertools.cycle(PROMPTS)
    return tuple(
        Payload(
            prompt=next(prompts),
            name=f"p{position:02d}",
            seeds=(100 + position, 200 + position) if position <= search else (),
            width=64,
            height=64,
            held_out=position > search,
        )
        for position in range(1, search + held_out + 1)
    )


def build(path: Path, plan: Plan | None = None) -> RunFolder:
    """Make the run folder of a plan; its journal is written event by event by the real code."""
    plan = plan or Plan()
    manifest = _manifest(plan)
    folder = RunFolder.create(path, manifest)
    ticks = itertools.count()
    with folder.owned(lambda: BEGIN + 2.0 * next(ticks)) as run:
        _Author(plan, manifest, run).write()
    return folder


def _manifest(plan: Plan) -> RunManifest:
    architecture = architectures.get(plan.architecture)
    config = RunConfig(
        name=plan.name,
        models={"a": f"/models/{plan.models[0]}.safetensors", "b": f"/models/{plan.models[1]}"},
        payloads=plan.payloads or payloads(),
        reward=RewardConfig(name="image_reward"),
        search=SearchConfig(evaluations=plan.evaluations, low=plan.low, high=plan.high),
        generator=GeneratorConfig(device="cpu"),
    )
    random = np.random.default_rng(plan.seed + 7)
    return RunManifest(
        config=config,
        models={
            role: ModelRef(name, digit * 64, f"/models/{name}.safetensors")
            for role, name, digit in zip("ab", plan.models, "3c", strict=True)
        },
        architecture=plan.architecture,
        distances={
            name: 0.0 if name == "VAE" else float(np.round(random.uniform(0.01, 0.2), 4))
            for name in architecture.blocks
        },
        reward="image_reward 1.0 fp32 5f2c9a0b",
        generator={"backend": "diffusers 0.42.1", "device": "cpu", "dtype": "fp32"},
        versions={"automerge": "0.1.0", "python": "3.12.4", "torch": "2.13.0"},
    )


class _Author:
    """Writes the events of one run."""

    def __init__(self, plan: Plan, manifest: RunManifest, run: OwnedRun) -> None:
        self._plan = plan
        self._manifest = manifest
        self._run = run
        self._random = np.random.default_rng(plan.seed)
        self._blocks = architectures.get(plan.architecture).parameters
        self._optimum = self._random.uniform(plan.low, plan.high, len(self._blocks))
        self._weights: dict[int, dict[str, float]] = {}
        self._means: dict[int, float] = {}
        self._pairs: dict[int, dict[tuple[str, int], float]] = {}

    def write(self) -> None:
        plan = self._plan
        self._stages()
        if plan.end is not None:
            self._append(plan.end)

    def _stages(self) -> None:
        plan = self._plan
        self._append(Started(config=self._run.folder.digest()))
        if plan.until is Until.STARTED:
            return
        search = [p for p in self._manifest.config.payloads if not p.held_out]
        count = len(BASELINES) if plan.until is Until.BASELINES else plan.evaluations
        for number in range(1, count + 1):
            self._evaluate(number, jobs_of(search))
        for message in plan.warnings:
            self._append(Warned(message=message))
        if plan.calibration:
            self._append(Calibrated(evaluation=3, seed_sd=0.03, sentence=plan.calibration))
        if plan.leader is not None:
            self._append(
                Learned(
                    evaluation=count,
                    leader=plan.leader,
                    mean=self._means[plan.leader],
                    sd=0.0123,
                    noise=0.0301,
                    gain=0.0042,
                    bound=0.0519,
                )
            )
        if plan.until <= Until.SEARCH:
            return
        ended = SearchEnded(reason=f"{count} evaluations are done", outlook=plan.outlook)
        self._append(ended)
        ranked = sorted(
            (n for n in self._means if n > len(BASELINES)), key=lambda n: -self._means[n]
        )
        fresh = {
            number: self._stage(Stage.FINALISTS, number, _reseeded(search, 2, 1000))
            for number in ranked[: plan.finalists]
        }
        if plan.until is Until.FINALISTS:
            return
        held_out = [p for p in self._manifest.config.payloads if p.held_out]
        entrants = [n for n in (1, 2, 3) if n in self._means]
        if ranked:
            winner = max(fresh, key=lambda n: self._means[n] + fresh[n])
            for number in (*entrants, winner):
                self._stage(Stage.VERDICT, number, _reseeded(held_out or search, 4, 2000))
            self._append(self._verdict(winner, entrants, bool(held_out)))
        else:
            self._append(_nothing(self._means))
        if plan.until is Until.FINISHED:
            if plan.saved:
                self._append(
                    Saved(file="merge.safetensors", sha256="e" * 64, checked=1, reproduced=1)
                )
            self._append(Finished(reason="every evaluation is done", seconds={"total": 1.0}))

    def _evaluate(self, number: int, jobs: tuple[ImageJob, ...]) -> None:
        origin, weights = self._candidate(number)
        self._weights[number] = weights
        self._append(Proposed(evaluation=number, origin=origin, weights=weights))
        if number in self._plan.rejected:
            job = jobs[0]
            self._append(self._scored(Stage.SEARCH, number, job, None))
            reason = f"black image for payload {job.payload.name!r}, seed {job.seed}"
            self._append(Rejected(evaluation=number, reason=reason, seconds={"total": 1.5}))
            return
        if number in self._plan.given_up:
            self._give_up(number, jobs)
            return
        scores = self._images(Stage.SEARCH, number, jobs)
        by_payload: dict[str, list[float]] = {}
        for job in jobs:
            by_payload.setdefault(job.payload.name, []).append(scores[job.payload.name, job.seed])
        per_payload = {name: float(np.mean(values)) for name, values in by_payload.items()}
        self._means[number] = float(np.mean(list(per_payload.values())))
        self._append(
            Evaluated(
                evaluation=number,
                mean=self._means[number],
                standard_error=self._error(len(jobs)),
                images=len(jobs),
                per_payload=per_payload,
                seconds=self._seconds(len(jobs)),
                memory_bytes=1_210_000_000 + 1_000_000 * number,
            )
        )

    def _give_up(self, number: int, jobs: tuple[ImageJob, ...]) -> None:
        first = jobs[0].payload.name
        seen = tuple(job for job in jobs if job.payload.name == first)
        scores = self._images(Stage.SEARCH, number, seen)
        prompts = len({job.payload.name for job in jobs})
        self._append(
            Rejected(
                evaluation=number,
                reason=f"given up after 1 of {prompts} prompts: -0.4 against evaluation 4",
                images=len(seen),
                per_payload={first: float(np.mean(list(scores.values())))},
                seconds=self._seconds(len(seen)),
            )
        )

    def _candidate(self, number: int) -> tuple[Origin, dict[str, float]]:
        if number <= len(BASELINES):
            origin = BASELINES[number - 1]
            return origin, dict.fromkeys(self._blocks, UNIFORM[origin])
        plan = self._plan
        progress = min(number / max(plan.evaluations, 1), 1.0)
        spread = (plan.high - plan.low) * (0.6 * (1.0 - progress) + 0.05)
        if number < 12:
            vector = self._random.uniform(plan.low, plan.high, len(self._blocks))
        else:
            vector = self._optimum + self._random.normal(0, spread, len(self._blocks))
        values = [round(float(value), 4) for value in np.clip(vector, plan.low, plan.high)]
        origin = Origin.DESIGN if number < 12 else Origin.SEARCH
        return origin, dict(zip(self._blocks, values, strict=True))

    def _quality(self, number: int) -> float:
        """0.1 for A, 0 for B, 0.2 for 50:50, up to 0.1 + gain for a candidate."""
        if number <= len(BASELINES):
            return (0.0, 0.1, min(0.2, 0.1 + 0.4 * self._plan.gain))[number - 1]
        away = np.array(list(self._weights[number].values()), np.float64) - self._optimum
        width = self._plan.high - self._plan.low
        return 0.1 + self._plan.gain - float(np.mean((away / width) ** 2)) * 3.0

    def _score(self, number: int, job: ImageJob) -> float:
        level = np.random.default_rng((5, job.seed)).normal(0, 0.1)
        tilt = np.random.default_rng((number, len(job.payload.prompt))).normal(0, 0.05)
        noise = np.random.default_rng((number, job.seed)).normal(0, self._plan.noise)
        value = self._quality(number) + level + noise + tilt * (self._plan.noise > 0)
        return float(self._plan.level + self._plan.scale * value)

    def _images(
        self, stage: Stage, number: int, jobs: tuple[ImageJob, ...]
    ) -> dict[tuple[str, int], float]:
        scores = {}
        events: list[AnyEvent] = []
        for job in jobs:
            score = self._score(number, job)
            scores[job.payload.name, job.seed] = score
            events.append(self._scored(stage, number, job, score))
        self._append(*events)
        return scores

    def _scored(self, stage: Stage, number: int, job: ImageJob, score: float | None) -> Scored:
        file, digest = f"images/e{number:04d}/{stage.value}-{job.number:04d}.png", "0" * 32
        if self._plan.size:
            image = draw(job.payload.prompt, job.seed, self._plan.size, self._quality(number))
            if score is None:
                image = Image.new("RGB", image.size)
            file, digest = self._run.folder.save_image(stage, number, job.number, image)
        return Scored(
            evaluation=number,
            stage=stage,
            job=job.number,
            payload=job.payload.name,
            seed=job.seed,
            digest=digest,
            file=file,
            score=score,
            broken=None if score is not None else "black",
        )

    def _stage(self, stage: Stage, number: int, jobs: tuple[ImageJob, ...]) -> float:
        scores = self._images(stage, number, jobs)
        mean = float(np.mean(list(scores.values())))
        if stage is Stage.VERDICT:
            self._pairs[number] = scores
        self._append(
            StageDone(
                evaluation=number,
                stage=stage,
                mean=mean,
                standard_error=self._error(len(jobs)),
                images=len(jobs),
                seconds=self._seconds(len(jobs)),
            )
        )
        return mean

    def _verdict(self, winner: int, baselines: Sequence[int], held_out: bool) -> Verdict:
        comparisons = tuple(self._comparison(winner, number) for number in baselines)
        means = {n: float(np.mean(list(pairs.values()))) for n, pairs in self._pairs.items()}
        better = BASELINES[max((1, 2), key=lambda n: means.get(n, -math.inf)) - 1]
        gain = all(c.significant for c in comparisons)
        return Verdict(
            winner=winner,
            better_parent=better,
            gain=gain,
            held_out=held_out,
            sentence=f"{'Better' if gain else 'No significant gain'}: evaluation {winner}.",
            comparisons=comparisons,
            means=means,
            images=len(self._pairs[winner]),
        )

    def _comparison(self, winner: int, number: int) -> Comparison:
        first, second = self._pairs[winner], self._pairs[number]
        differences = np.array([first[pair] - second[pair] for pair in first])
        mean = float(differences.mean())
        error = float(differences.std(ddof=1) / math.sqrt(len(differences))) or 1e-9
        return Comparison(
            baseline=BASELINES[number - 1],
            difference=mean,
            standard_error=error,
            low=mean - 2 * error,
            high=mean + 2 * error,
            p_value=0.5 * math.erfc(mean / error / math.sqrt(2)),
            pairs=len(differences),
        )

    def _seconds(self, images: int) -> dict[str, float]:
        generate = self._plan.seconds_per_image * images
        total = 0.02 + generate + 0.01 * images + 0.005
        return {"merge": 0.02, "generate": generate, "score": 0.01 * images, "total": total}

    def _error(self, images: int) -> float:
        return self._plan.scale * math.hypot(self._plan.noise, 0.1) / math.sqrt(images)

    def _append(self, *events: AnyEvent) -> None:
        self._run.journal.append(*events)


def _reseeded(chosen: list[Payload], count: int, first: int) -> tuple[ImageJob, ...]:
    jobs = [
        (payload, first + 10 * index + seed)
        for index, payload in enumerate(chosen)
        for seed in range(count)
    ]
    return tuple(ImageJob(number, payload, seed) for number, (payload, seed) in enumerate(jobs))


def _nothing(means: Mapping[int, float]) -> Verdict:
    return Verdict(
        winner=max(means, key=lambda n: means[n]),
        better_parent=Origin.MODEL_B if means.get(2, -math.inf) > means[1] else Origin.MODEL_A,
        gain=False,
        held_out=False,
        sentence="No significant gain: no candidate besides the baselines made usable images.",
        comparisons=(),
        means=dict(means),
        images=12,
    )


STOPPED = Stopped()
FAILED = Failed(message="the graphics card ran out of memory: 8 GB. Lower the batch size.")
