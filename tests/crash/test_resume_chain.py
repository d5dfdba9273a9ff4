"""Killed anywhere, a chain goes on as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.chain_record import Watch
from lib_automerge.app.chains import ChainService
from lib_automerge.domain.chain_events import (
    ChainResumed,
    ChainStopped,
    Decided,
    Pictured,
)
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.run import Status
from lib_automerge.merge.lab.job import Progress
from lib_automerge.study.chain_store import ChainFolder
from tests.chain_host import POOL, ContentHost, chain_config, write_pool

STEPS = [
    {"kind": "merge", "name": "soup"},
    {"kind": "rank", "name": "best", "keep": 2},
    {"kind": "tree", "name": "tree", "models": ["soup", "best"]},
]


@pytest.fixture(autouse=True, scope="module")
def fast() -> Iterator[None]:
    """Whether the disk has the bytes is the journal's own test; here only their order matters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    models = {name: POOL[name] for name in ("m1", "m2", "m3")}
    return write_pool(tmp_path_factory.mktemp("pool"), models)


@pytest.fixture(scope="module")
def finished(pool: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chains") / "whole"
    start(pool, folder)
    return folder


@pytest.fixture(scope="module")
def kept(pool: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with all files that it made on the way."""
    folder = tmp_path_factory.mktemp("chains") / "kept"
    start(pool, folder, keep=True)
    return folder


def start(pool: list[str], folder: Path, *, keep: bool = False, **options: object) -> ChainState:
    """What is tested: a merge, a ranking of the pool, and a tree over the merge and the best."""
    service = ChainService(ContentHost(), clock=lambda: 0.0)
    config = chain_config(pool, steps=STEPS, keep_intermediate=keep)
    return service.start(service.prepare(config), folder, **options)  # type: ignore[arg-type]


def resume(folder: Path, host: ContentHost | None = None) -> ChainState:
    return ChainService(host or ContentHost(), clock=lambda: 0.0).resume(folder)


def facts(folder: Path) -> list[dict[str, object]]:
    """The journal without times and without the traces of interruptions."""
    result = []
    for event in ChainFolder(folder).events():
        if not isinstance(event, ChainResumed | ChainStopped):
            fields = msgspec.to_builtins(event, str_keys=True)
            result.append({k: v for k, v in fields.items() if k not in ("time", "seconds")})
    return result


def outcome(folder: Path) -> dict[str, bytes]:
    """The checkpoints that are left, and the recipe of the whole."""
    paths = [*folder.rglob("*.safetensors"), folder / "recipes/whole.json"]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    # the recipe holds no path of the folder itself
    return dict(sorted(found.items()))


def test_the_chain_is_worth_testing(finished: Path) -> None:
    state = ChainFolder(finished).state()
    assert state.status is Status.FINISHED
    assert len([d for d in state.decided.values() if d.gain]) == 2
    assert state.removed == {"soup", "tree-1-1"}
    assert [path for path in outcome(finished) if path.startswith("steps")] == [
        state.made["tree-2-1"].ref.path
    ]


@pytest.mark.parametrize("part", range(2))
def test_cut_between_and_inside_events_it_ends_with_the_same_result(
    kept: Path, tmp_path: Path, part: int
) -> None:
    finished = kept
    data = (finished / "journal.jsonl").read_bytes()
    whole = facts(finished)
    events = ChainFolder(finished).events()
    ends = [0, *(i + 1 for i, byte in enumerate(data) if byte == ord("\n"))]
    # at every event that is no image, and at some images, within batches too
    chosen = [
        number
        for number, event in enumerate(events)
        if not isinstance(event, Pictured) or number % 8 == 7
    ]
    for number in chosen[part::2]:
        for length in (ends[number] if number % 2 else min(ends[number] + 30, len(data)),):
            folder = tmp_path / "cut"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(finished, folder)
            (folder / "journal.jsonl").write_bytes(data[:length])
            (folder / "report.html").unlink()
            made = sum(isinstance(e, Pictured) for e in ChainFolder(folder).events())
            host = ContentHost()
            resume(folder, host)
            assert facts(folder) == whole, number
            assert outcome(folder) == outcome(finished), number
            again = sum(len(batch) for batch in host.batches)
            missing = sum(isinstance(event, Pictured) for event in events) - made
            # images of one batch are made again, never more
            assert missing <= again <= missing + 3, number


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_kill_9_at_events_and_in_the_middle_of_merges(
    pool: list[str], finished: Path, tmp_path: Path
) -> None:
    """Children kill themselves the moment something is on disk, later and later, until done."""
    folder = tmp_path / "run"
    program = tmp_path / "killed.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            sys.path.insert(0, {str(Path.cwd())!r})
            from pathlib import Path
            from lib_automerge.app.chain_record import Watch
            from lib_automerge.app.chains import ChainService
            from lib_automerge.search import insights
            from lib_automerge.study.journal import Log
            from tests.chain_host import ContentHost
            from tests.crash.test_resume_chain import start
            os.fsync = lambda descriptor: None
            insights.insights = lambda *_, **__: None
            folder = Path({str(folder)!r})

            def die_after(left):
                def count():
                    nonlocal left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                real = Log.append
                def append(self, *events, **options):
                    result = real(self, *events, **options)
                    count()
                    return result
                Log.append = append
                class Killer(Watch):
                    merged = False
                    def merging(self, progress):
                        if not self.merged and progress.done > 0.5 * progress.total:
                            self.merged = True
                            count()
                if (folder / "chain.json").exists():
                    ChainService(ContentHost(), lambda: 0.0).resume(folder, watch=Killer())
                else:
                    start({pool!r}, folder, watch=Killer())

            deaths = 0
            for survived in (1, 2, 3, 3, 4, 6, 9, 14, 21, 30, 10**6):
                child = os.fork()
                if child == 0:
                    try:
                        die_after(survived)
                    except BaseException as error:
                        print(error, file=sys.stderr, flush=True)
                        os._exit(1)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                if os.WIFSIGNALED(status):
                    deaths += 1
                elif os.WEXITSTATUS(status):
                    sys.exit(1)
            print(deaths)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 8
    assert facts(folder) == facts(finished)
    assert outcome(folder) == outcome(finished)


@pytest.mark.parametrize("asked", [4, 40])
def test_stopping_keeps_everything_and_resuming_ends_the_same(
    pool: list[str], finished: Path, tmp_path: Path, asked: int
) -> None:
    folder = tmp_path / "run"
    left = iter([False] * asked)
    state = start(pool, folder, stop=lambda: next(left, True))
    assert state.status is Status.STOPPED
    resume(folder)
    assert facts(folder) == facts(finished)
    assert outcome(folder) == outcome(finished)


def test_a_merge_that_is_stopped_goes_on_where_it_was(
    pool: list[str], finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = [0.0]

    class Looking(Watch):
        def merging(self, progress: Progress) -> None:
            done[0] = progress.done / progress.total
            skipped.append(progress.skipped)

    skipped: list[int] = []
    state = start(pool, folder, stop=lambda: done[0] > 0.5, watch=Looking())
    assert state.status is Status.STOPPED
    assert state.made == {}
    assert list((folder / "steps/01-soup").glob("*.safetensors")) == []
    assert max(skipped) == 0
    service = ChainService(ContentHost(), clock=lambda: 0.0)
    service.resume(folder, watch=Looking())
    assert max(skipped) > 0
    assert outcome(folder) == outcome(finished)


def test_a_search_is_taken_up_inside(pool: list[str], finished: Path, tmp_path: Path) -> None:
    """What its run has scored is not made again."""
    folder = tmp_path / "run"
    host = ContentHost()
    runs = 0

    class Stopping(Watch):
        def run(self, name: str, config: object) -> object:  # type: ignore[override]
            def listen(event: object, state: object) -> None:
                nonlocal runs
                runs += 1

            return listen

    service = ChainService(host, clock=lambda: 0.0)
    config = chain_config(pool, steps=STEPS, keep_intermediate=False)
    state = service.start(service.prepare(config), folder, stop=lambda: runs > 25, watch=Stopping())
    assert state.status is Status.STOPPED
    assert not any(isinstance(event, Decided) for event in ChainFolder(folder).events())
    before = len((folder / "steps/03-tree/level-1-pair-1/journal.jsonl").read_bytes())
    assert before > 0
    resume(folder)
    assert facts(folder) == facts(finished)
    assert outcome(folder) == outcome(finished)
