"""Killed anywhere, a run goes on as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain import architectures
from lib_automerge.domain.config import OutputConfig, RunConfig, VerdictConfig
from lib_automerge.domain.events import Resumed, Scored, Stage, Stopped
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.study.store import RunFolder
from tests.checkpoints import write_tiny
from tests.fake_host import BrightnessReward, FakeHost, tiny_config, tiny_models

PARTS = 3
"""Of a long test, for as many processes; odd, so that each has both kinds of cuts."""

SEARCHED = ("IN00", "M00", "OUT00")
"""Few enough that the start design is short and the Gaussian process proposes too."""


def config_of(models: Mapping[str, str]) -> RunConfig:
    blocks = {
        name: {"fixed": 0.5} for name in architectures.get("sd1").parameters if name not in SEARCHED
    }
    config = tiny_config(models, optimizer="bayes", evaluations=8, blocks=blocks)
    payloads = [
        msgspec.structs.replace(payload, seeds=payload.seeds[:2], batch_size=2 - n % 2)
        for n, payload in enumerate(config.payloads)
    ]
    return msgspec.structs.replace(
        config,
        payloads=tuple(payloads),
        verdict=VerdictConfig(finalists=2, finalist_seeds=1, seeds=2),
        output=OutputConfig(checkpoint="always"),
    )


@pytest.fixture(autouse=True, scope="module")
def fast_disk() -> Iterator[None]:
    """Whether the disk has the bytes is the journal's own test; here only their order matters.

    What a run taught is left out, too: it would take most of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def finished(models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the Bayesian search, to be cut and resumed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    Service(FakeHost(), clock=lambda: 0.0).start(config_of(models), folder)
    return folder


def facts(folder: Path) -> list[dict[str, object]]:
    """The journal without times and without the traces of interruptions."""
    result = []
    for event in RunFolder(folder).events():
        if not isinstance(event, Resumed | Stopped):
            fields = msgspec.to_builtins(event, str_keys=True)
            result.append(
                {k: v for k, v in fields.items() if k not in ("time", "seconds", "memory_bytes")}
            )
    return result


def cut_copy(finished: Path, target: Path, length: int) -> Path:
    """The run as a kill would have left it when the journal was `length` bytes long."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(finished, target)
    journal = target / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:length])
    for name in ("best.json", "recipe.json", "verdict.json", "report.html"):
        (target / name).unlink()
    state = RunFolder(target).state()
    if state.verdict is None:
        for path in target.glob("*.safetensors"):
            path.unlink()
    return target


def resumed(folder: Path) -> tuple[RunState, FakeHost]:
    host = FakeHost()
    return Service(host, clock=lambda: 0.0).resume(folder), host


@pytest.mark.parametrize("part", range(PARTS))
def test_cut_at_every_event_and_inside_it_ends_with_the_same_result(
    finished: Path, tmp_path: Path, part: int
) -> None:
    data = (finished / "journal.jsonl").read_bytes()
    whole = facts(finished)
    ends = [0, *(i + 1 for i, byte in enumerate(data) if byte == ord("\n"))]
    for number, end in list(enumerate(ends))[part::PARTS]:
        # right after an event, or in the middle of the next one
        for length in (end if number % 2 else min(end + 40, len(data)),):
            folder = cut_copy(finished, tmp_path / "cut", length)
            before = {(s.stage, s.evaluation, s.job) for s in scored(folder)}
            _, host = resumed(folder)
            assert facts(folder) == whole, number
            for name in ("best.json", "recipe.json", "verdict.json"):
                assert (folder / name).read_bytes() == (finished / name).read_bytes(), (
                    number,
                    name,
                )
            assert (folder / "report.html").is_file()
            assert checkpoint(folder) == checkpoint(finished)
            made = sum(len(batch) for batch in host.batches)
            missing = len(scored(finished)) - len(before)
            # made again: the batch in progress, the rehearsal, and the proof of the saved file
            assert made <= missing + 1 + 2 + 2, number


def checkpoint(folder: Path) -> tuple[str, bytes]:
    (path,) = folder.glob("*.safetensors")
    return path.name, path.read_bytes()


def scored(folder: Path) -> list[Scored]:
    return [event for event in RunFolder(folder).events() if isinstance(event, Scored)]


def test_cut_anywhere_loses_no_finished_event(finished: Path, tmp_path: Path) -> None:
    """Around every line's end and in steps between; the journal's own test cuts every byte."""
    data = (finished / "journal.jsonl").read_bytes()
    folder = cut_copy(finished, tmp_path / "cut", len(data))
    journal = folder / "journal.jsonl"
    position = 0
    for number, line in enumerate(data.splitlines(keepends=True)):
        end = position + len(line) - 1
        for length in {position + 1, *range(position, end, 50), end - 1, end, end + 1}:
            journal.write_bytes(data[:length])
            assert len(RunFolder(folder).events()) == number + (length >= end)
        position = end + 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_9_at_every_event(models: Mapping[str, str], finished: Path, tmp_path: Path) -> None:
    """A process kills itself the moment an event is on disk, again and again, until it is done."""
    folder = tmp_path / "run"
    program = tmp_path / "killed.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            sys.path.insert(0, {str(Path.cwd())!r})
            from pathlib import Path
            from lib_automerge.app.service import Service
            from lib_automerge.study.journal import Journal
            from tests.crash.test_resume import config_of
            from tests.fake_host import FakeHost
            os.fsync = lambda descriptor: None
            real, left = Journal.append, int(sys.argv[1])
            def append(self, *events, **options):
                global left
                result = real(self, *events, **options)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result
            Journal.append = append
            folder = Path({str(folder)!r})
            service = Service(FakeHost(), clock=lambda: 0.0)
            if (folder / "run.json").exists():
                service.resume(folder)
            else:
                service.start(config_of({dict(models)!r}), folder)
            """
        )
    )
    deaths = 0
    # the first appends of a process are the start and the resume: die on later and later ones
    for survived in (1, 2, 3, 5, 8, 13, 21, 10**6):
        done = subprocess.run(
            [sys.executable, str(program), str(survived)], check=False, capture_output=True
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        deaths += done.returncode != 0
    assert deaths >= 6
    assert facts(folder) == facts(finished)


def test_stopping_keeps_everything_and_resuming_ends_the_same(
    models: Mapping[str, str], finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # asked once at the start, then twice for every batch: two to rehearse, seven to score
    asked = iter([False] * (1 + 2 * 2 + 2 * 7) + [True] * 9)
    state = Service(FakeHost(), clock=lambda: 0.0).start(
        config_of(models), folder, controls=Controls(stop=lambda: next(asked, False))
    )
    assert state.status is Status.STOPPED
    assert len(scored(folder)) == 10
    assert Service(FakeHost()).status(folder).state == "stopped"
    resumed(folder)
    assert facts(folder) == facts(finished)


def test_a_finished_run_is_left_alone(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = (folder / "journal.jsonl").read_bytes()
    state, host = resumed(folder)
    assert state.status is Status.FINISHED
    assert host.applied == []
    assert (folder / "journal.jsonl").read_bytes() == before


def interrupted(finished: Path, target: Path) -> Path:
    data = (finished / "journal.jsonl").read_bytes()
    return cut_copy(finished, target, len(data) // 2)


def test_a_changed_configuration_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = interrupted(finished, tmp_path / "run")
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"evaluations": 8', '"evaluations": 9'))
    with pytest.raises(ConfigError, match=r"run\.json has been changed"):
        resumed(folder)


def test_changed_models_are_refused(models: Mapping[str, str], tmp_path: Path) -> None:
    copies = {}
    for role, path in models.items():
        copies[role] = str(shutil.copy(path, tmp_path / f"{role}.safetensors"))
    folder = tmp_path / "run"
    asked = iter([False] * (1 + 2 * 2 + 2 * 4))
    Service(FakeHost()).start(
        tiny_config(copies), folder, controls=Controls(stop=lambda: next(asked, True))
    )
    Path(copies["b"]).unlink()
    write_tiny(Path(copies["b"]), "sd1", seed=5)
    with pytest.raises(ConfigError, match="model 'b' has changed since the run began"):
        resumed(folder)


def test_a_changed_reward_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = interrupted(finished, tmp_path / "run")
    host = FakeHost()
    host.judge = BrightnessReward("brightness-2")
    with pytest.raises(ConfigError, match="the reward has changed since the run began"):
        Service(host).resume(folder)


def test_prompts_that_are_cleaned_otherwise_are_no_change_of_the_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(finished, tmp_path / "run")
    monkeypatch.setattr("lib_automerge.reward.panel.VERSION", 99)
    with pytest.raises(ConfigError, match="this version of Automerge cleans prompts in another"):
        Service(FakeHost()).resume(folder)


def test_two_processes_cannot_work_on_one_run(finished: Path, tmp_path: Path) -> None:
    folder = interrupted(finished, tmp_path / "run")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
            "print('held', flush=True); time.sleep(60)",
            str(folder / "run.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert Service(FakeHost()).status(folder).state == "running"
        with pytest.raises(StorageError, match="another process is working on the run"):
            resumed(folder)
    finally:
        os.kill(holder.pid, signal.SIGTERM)
        holder.wait()
    assert Service(FakeHost()).status(folder).state == "interrupted"
    assert resumed(folder)[0].status is Status.FINISHED


def test_a_journal_damaged_in_the_middle_is_refused_and_untouched(
    finished: Path, tmp_path: Path
) -> None:
    folder = interrupted(finished, tmp_path / "run")
    journal = folder / "journal.jsonl"
    damaged = bytearray(journal.read_bytes())
    damaged[len(damaged) // 3] ^= 0x20
    journal.write_bytes(bytes(damaged))
    with pytest.raises(StorageError, match="is damaged in line"):
        resumed(folder)
    assert journal.read_bytes() == bytes(damaged)


def test_status_and_runs_read_a_run_from_outside(finished: Path, tmp_path: Path) -> None:
    interrupted(finished, tmp_path / "half")
    shutil.copytree(finished, tmp_path / "whole")
    (tmp_path / "unrelated").mkdir()
    summaries = Service(FakeHost()).runs(tmp_path)
    assert [(s.name, s.state) for s in summaries] == [
        ("half", "interrupted"),
        ("whole", "finished"),
    ]
    assert summaries[1].evaluations == 8
    assert summaries[1].best is not None
    assert summaries[1].verdict is not None
    with pytest.raises(StorageError, match="no run in"):
        Service(FakeHost()).status(tmp_path)


def test_search_images_come_from_the_search_stage_only(finished: Path) -> None:
    stages = {event.stage for event in scored(finished)}
    assert stages == {Stage.SEARCH, Stage.FINALISTS, Stage.VERDICT}
