"""Killed anywhere, also where candidates are given up, noise is measured, finalists come again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.service import Service
from lib_automerge.domain import architectures
from lib_automerge.domain.config import OutputConfig, RunConfig, VerdictConfig
from lib_automerge.domain.events import Stage
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.study.store import RunFolder
from tests.app.test_learning import noisy, six_prompts
from tests.crash.test_resume import SEARCHED, facts
from tests.fake_host import FakeHost, tiny_models


def host() -> FakeHost:
    return noisy(0.005)


def config_of(models: Mapping[str, str]) -> RunConfig:
    """Few free blocks, two nearly equal start points, batches that straddle the prompts."""
    names = architectures.get("sd1").parameters
    blocks = {name: {"fixed": 0.5} for name in names if name not in SEARCHED}
    good = {"IN00": 0.9, "M00": 0.2, "OUT00": 0.2}
    config = six_prompts(
        models,
        optimizer="random",
        evaluations=11,
        blocks=blocks,
        start=(good, good | {"M00": 0.201}, *({**good, "IN00": w} for w in (0.1, 0.4, 0.7))),
        early_reject=True,
        calibration=1,
    )
    payloads = tuple(
        msgspec.structs.replace(p, seeds=p.seeds[:1], batch_size=1 + n % 2)
        for n, p in enumerate(config.payloads)
    )
    return msgspec.structs.replace(
        config,
        payloads=payloads,
        verdict=VerdictConfig(finalists=2, finalist_seeds=1, seeds=2),
        output=OutputConfig(),
    )


@pytest.fixture(autouse=True, scope="module")
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tiny_models(tmp_path_factory.mktemp("models"))
    folder = tmp_path_factory.mktemp("runs") / "whole"
    Service(host(), clock=lambda: 0.0).start(config_of(models), folder)
    return folder


def given_up(state: RunState) -> list[Evaluation]:
    return [e for e in state.history if e.per_payload and e.score is None]


def test_the_run_has_what_is_to_be_cut(finished: Path) -> None:
    state = RunFolder(finished).state()
    assert len(given_up(state)) >= 2
    assert state.calibrated is not None
    assert state.learned is not None
    rounds = [len(i) for (stage, _), i in state.scores.items() if stage is Stage.FINALISTS]
    assert max(rounds) > 6


def test_cut_at_every_decision_ends_with_the_same_result(finished: Path, tmp_path: Path) -> None:
    """After whole lines only, and every third score: the other run is cut everywhere."""
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    whole = facts(finished)
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    decided = [n for n, line in enumerate(lines, start=1) if b'"scored"' not in line or n % 3 == 0]
    for length in decided[:-1]:
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:length]))
        for name in ("best.json", "recipe.json", "verdict.json"):
            (folder / name).unlink(missing_ok=True)
        Service(host(), clock=lambda: 0.0).resume(folder)
        assert facts(folder) == whole, length
        for name in ("best.json", "recipe.json", "verdict.json"):
            assert (folder / name).read_bytes() == (finished / name).read_bytes(), (length, name)
