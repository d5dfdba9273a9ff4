"""The real thing in small: real checkpoints, real pipelines, the real reward."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lib_automerge import demo
from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain.config import (
    BlockRule,
    GeneratorConfig,
    OutputConfig,
    RunConfig,
    SearchConfig,
    VerdictConfig,
)
from lib_automerge.domain.events import Stage
from lib_automerge.domain.run import Status
from lib_automerge.host.standalone import StandaloneHost
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.study.store import RunFolder, pixel_digest
from tests.tiny_pipelines import write_tiny_pipeline


def small(config: RunConfig, **search: object) -> RunConfig:
    """Few prompts, few steps, one thread: the same loop in seconds."""
    searched = [p for p in config.payloads if not p.held_out][:2]
    held_out = [p for p in config.payloads if p.held_out][:2]
    payloads = [
        msgspec.structs.replace(p, steps=2, seeds=p.seeds[:2], batch_size=3)
        for p in (*searched, *held_out)
    ]
    return msgspec.structs.replace(
        config,
        payloads=tuple(payloads),
        search=msgspec.structs.replace(config.search, evaluations=5, **search),
        verdict=VerdictConfig(finalists=1, finalist_seeds=1, seeds=2),
        generator=GeneratorConfig(device="cpu", threads=1),
        output=OutputConfig(checkpoint="always"),
    )


def facts(folder: Path) -> list[dict[str, object]]:
    events = []
    for event in RunFolder(folder).events():
        fields = msgspec.to_builtins(event, str_keys=True)
        if fields["event"] not in ("resumed", "stopped"):
            events.append(
                {k: v for k, v in fields.items() if k not in ("time", "seconds", "memory_bytes")}
            )
    return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    Service(StandaloneHost()).start(small(demo.config()), folder)
    return folder


def test_the_saved_checkpoint_gives_the_scored_images(finished: Path) -> None:
    state = RunFolder(finished).state()
    assert state.status is Status.FINISHED
    assert state.saved is not None
    assert state.saved.reproduced == state.saved.checked == 3
    # and once more, by hand: every image of the verdict
    manifest = RunFolder(finished).manifest()
    assert state.verdict is not None
    scored = state.scores[Stage.VERDICT, state.verdict.winner]
    generator = StandaloneHost().generator(manifest.config.generator)
    from lib_automerge.domain.payload import batches_of, jobs_of

    payloads = {p.name: p for p in manifest.config.payloads}
    seeds: dict[str, list[int]] = {}
    for _, image in sorted(scored.items()):
        seeds.setdefault(image.payload, []).append(image.seed)
    jobs = jobs_of(
        [msgspec.structs.replace(payloads[name], seeds=tuple(s)) for name, s in seeds.items()]
    )
    with (
        open_checkpoint(finished / state.saved.file) as saved,
        generator.open({"a": saved}) as session,
    ):
        made = [
            (job.number, pixel_digest(image))
            for batch in batches_of(jobs)
            for job, image in session.images(batch, lambda: False)
        ]
    assert made == [(number, image.digest) for number, image in sorted(scored.items())]


def test_the_same_seed_gives_the_same_journal_images_and_bytes(
    finished: Path, tmp_path: Path
) -> None:
    Service(StandaloneHost()).start(small(demo.config()), tmp_path / "again")
    assert facts(tmp_path / "again") == facts(finished)


def test_a_stopped_real_run_ends_like_an_uninterrupted_one(finished: Path, tmp_path: Path) -> None:
    asked = iter([False] * 5)
    service = Service(StandaloneHost())
    state = service.start(
        small(demo.config()),
        tmp_path / "stopped",
        controls=Controls(stop=lambda: next(asked, True)),
    )
    assert state.status is Status.STOPPED
    service.resume(tmp_path / "stopped")
    assert facts(tmp_path / "stopped") == facts(finished)


def test_the_number_of_threads_is_frozen_at_the_start(tmp_path: Path) -> None:
    config = msgspec.structs.replace(small(demo.config()), generator=GeneratorConfig(device="cpu"))
    Service(StandaloneHost()).start(
        config, tmp_path / "run", controls=Controls(stop=iter([False, True]).__next__)
    )
    assert RunFolder(tmp_path / "run").manifest().config.generator.threads is not None


def test_different_weights_make_different_images(finished: Path) -> None:
    state = RunFolder(finished).state()
    digests = [
        tuple(image.digest for _, image in sorted(images.items()))
        for (stage, _), images in state.scores.items()
        if stage is Stage.SEARCH
    ]
    assert len(set(digests)) == len(digests) == 5


@pytest.mark.parametrize("architecture", ["sdxl", "sd2"])
def test_other_families_run_the_same_loop(architecture: str, tmp_path: Path) -> None:
    config = demo.config()
    models = {
        role: str(write_tiny_pipeline(tmp_path / f"{role}.safetensors", architecture, seed=seed))
        for seed, role in enumerate("ab")
    }
    blocks = {"BASE_G": BlockRule(low=0.0, high=1.0)} if architecture == "sdxl" else {}
    config = msgspec.structs.replace(config, models=models, search=SearchConfig(blocks=blocks))
    state = Service(StandaloneHost()).start(small(config), tmp_path / "run")
    assert state.status is Status.FINISHED
    assert state.saved is not None
    assert state.saved.reproduced == state.saved.checked
    searched = {name for name, weight in state.evaluations[5].weights.items() if weight}
    if architecture == "sdxl":
        assert {"LABEL_EMB", "BASE_G"} <= searched
        assert "IN09" not in state.evaluations[5].weights
