"""The worker and the desk over it, with real models, merges and journals."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lib_automerge.app.service import Service
from lib_automerge.app.worker import Phase, Worker
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Activity, Status
from lib_automerge.errors import BusyError, ConfigError
from lib_automerge.study.journal import Journal
from lib_automerge.study.store import RunFolder
from tests.fake_host import FakeHost, tiny_config

LONG_S = 30.0


class Gate:
    """Holds the generator at a batch until it is opened."""

    def __init__(self, host: FakeHost, batch: int) -> None:
        self.reached = threading.Event()
        self._go = threading.Event()

        def hold(jobs: Sequence[ImageJob]) -> None:
            if len(host.batches) == batch:
                self.reached.set()
                assert self._go.wait(LONG_S)

        host.before_batch = hold

    def open(self) -> None:
        self._go.set()


@pytest.fixture
def worker(host: FakeHost) -> Iterator[Worker]:
    made = Worker(Service(host))
    yield made
    if made.busy_with() is not None:
        made.stop()
    assert made.wait(LONG_S)


def test_a_run_goes_on_without_anybody_watching(
    host: FakeHost, worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    host.news = [[f"news {number}"] for number in range(12)]
    worker.start(tiny_config(models), folder)
    assert worker.wait(LONG_S)
    snapshot = worker.snapshot()
    assert snapshot.phase is Phase.IDLE
    assert snapshot.folder == folder
    assert snapshot.state is not None
    assert snapshot.state.status is Status.FINISHED
    folded = RunFolder(folder).state()
    assert folded.status is Status.FINISHED
    assert snapshot.state.warnings == folded.warnings
    assert len(folded.warnings) >= 10


def test_snapshots_show_a_run_in_progress_and_are_the_callers_own(
    host: FakeHost, worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    gate = Gate(host, 2 + 3 + 2)
    worker.start(tiny_config(models), folder)
    assert gate.reached.wait(LONG_S)
    before = worker.snapshot()
    assert before.phase is Phase.RUNNING
    assert before.activity is Activity.GENERATING
    assert before.state is not None
    assert len(before.state.history) == 1
    assert len(before.state.pending) == 1
    before.state.evaluations.clear()
    again = worker.snapshot()
    assert again.sequence == before.sequence
    assert again.state is not None
    assert len(again.state.history) == 1
    gate.open()
    assert worker.wait(LONG_S)
    assert worker.snapshot().sequence > before.sequence


def test_only_one_run_at_a_time(
    host: FakeHost, worker: Worker, models: Mapping[str, str], tmp_path: Path
) -> None:
    gate = Gate(host, 3)
    worker.start(tiny_config(models), tmp_path / "one")
    assert gate.reached.wait(LONG_S)
    with pytest.raises(BusyError, match="the run one is in progress"):
        worker.start(tiny_config(models), tmp_path / "two")
    with pytest.raises(BusyError):
        worker.resume(tmp_path / "one")
    gate.open()
    assert not (tmp_path / "two").exists()


def test_two_that_start_at_once_make_one_run(
    worker: Worker, models: Mapping[str, str], tmp_path: Path
) -> None:
    config = tiny_config(models)
    barrier = threading.Barrier(8)
    refused = []

    def start(number: int) -> None:
        barrier.wait()
        try:
            worker.start(config, tmp_path / str(number))
        except BusyError:
            refused.append(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert worker.wait(LONG_S)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("wish", "phase", "status"),
    [("pause", Phase.PAUSING, Status.PAUSED), ("stop", Phase.STOPPING, Status.STOPPED)],
)
def test_a_wish_is_shown_at_once_and_carried_out_soon(
    host: FakeHost,
    worker: Worker,
    models: Mapping[str, str],
    folder: Path,
    wish: str,
    phase: Phase,
    status: Status,
) -> None:
    gate = Gate(host, 2 + 3 * 3 + 1)
    worker.start(tiny_config(models), folder)
    assert gate.reached.wait(LONG_S)
    getattr(worker, wish)()
    assert worker.snapshot().phase is phase
    gate.open()
    assert worker.wait(LONG_S)
    state = worker.snapshot().state
    assert state is not None
    assert state.status is status
    worker.resume(folder)
    assert worker.wait(LONG_S)
    assert RunFolder(folder).state().status is Status.FINISHED


def test_a_pause_after_a_stop_does_not_look_like_one(
    host: FakeHost, worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    gate = Gate(host, 3)
    worker.start(tiny_config(models), folder)
    assert gate.reached.wait(LONG_S)
    worker.stop()
    worker.pause()
    assert worker.snapshot().phase is Phase.STOPPING
    gate.open()


def test_wishes_need_a_run_and_do_not_outlive_it(
    host: FakeHost, worker: Worker, models: Mapping[str, str], tmp_path: Path
) -> None:
    for wish in (worker.pause, worker.stop, worker.finish):
        with pytest.raises(ConfigError, match="no run is in progress"):
            wish()
    gate = Gate(host, 2 + 3 * 3 + 1)
    worker.start(tiny_config(models), tmp_path / "one")
    assert gate.reached.wait(LONG_S)
    worker.stop()
    gate.open()
    assert worker.wait(LONG_S)
    worker.start(tiny_config(models), tmp_path / "two")
    assert worker.wait(LONG_S)
    assert RunFolder(tmp_path / "two").state().status is Status.FINISHED


def test_what_keeps_a_run_from_starting_is_told(
    host: FakeHost, worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    worker.start(tiny_config(models), folder)
    assert worker.wait(LONG_S)
    assert "not empty" in worker.snapshot().failure
    host.judge.score = None  # type: ignore[assignment,method-assign]
    worker.start(tiny_config(models), folder.with_name("other"))
    assert worker.wait(LONG_S)
    # a run that had begun tells its failure itself
    assert worker.snapshot().failure == ""
    assert RunFolder(folder.with_name("other")).state().status is Status.FAILED


def test_what_surrounds_a_run_is_left_in_its_thread(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    seen: list[tuple[str, str]] = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append(("in", threading.current_thread().name))
        yield
        seen.append(("out", threading.current_thread().name))

    worker = Worker(Service(host), around)
    worker.start(tiny_config(models), folder)
    assert worker.wait(LONG_S)
    assert seen == [("in", "automerge-run"), ("out", "automerge-run")]


def test_a_journal_that_cannot_be_written_is_told_by_the_worker(
    host: FakeHost,
    worker: Worker,
    models: Mapping[str, str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Journal._write

    def full(self: Journal, data: bytes, *, durable: bool = True) -> None:
        if len(host.batches) > 8:
            raise OSError(28, "No space left on device")
        real(self, data, durable=durable)

    monkeypatch.setattr(Journal, "_write", full)
    worker.start(tiny_config(models), folder)
    assert worker.wait(LONG_S)
    assert "No space left on device" in worker.snapshot().failure
