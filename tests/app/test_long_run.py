"""A night's work in a few seconds: what grows with the number of evaluations, and what must not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.service import Service
from lib_automerge.app.worker import Worker
from lib_automerge.domain import architectures
from lib_automerge.domain.payload import ImageJob, Payload
from tests.fake_host import FakeHost, tiny_config

EVALUATIONS = 120
IMAGES = 8


def resident() -> int:
    """Resident memory of this process in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_and_the_journal_small_over_120_evaluations(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    # few parameters: what the model costs is not looked at here
    blocks = {name: {"fixed": 0.5} for name in architectures.get("sd1").parameters[3:]}
    config = tiny_config(models, evaluations=EVALUATIONS, stop="never", blocks=blocks)
    payloads = tuple(
        Payload(prompt=f"prompt {number}", seeds=(number,), batch_size=IMAGES)
        for number in range(IMAGES)
    )
    config = msgspec.structs.replace(config, payloads=payloads)
    sizes: list[int] = []

    def measure(jobs: Sequence[ImageJob]) -> None:
        if len(host.batches) in (60, 60 + EVALUATIONS - 70):
            sizes.append(resident())

    host.before_batch = measure
    host.applied = _Forgetful()
    worker = Worker(Service(host))
    worker.start(config, folder)
    for _ in range(2000):  # a page that looks all the time
        worker.snapshot()
        if worker.wait(0.05):
            break
    assert worker.wait(60)
    state = worker.snapshot().state
    assert state is not None
    assert len(state.history) == EVALUATIONS
    early, late = sizes
    assert late - early < 50e6
    journal = (folder / "journal.jsonl").stat().st_size
    assert journal < 2e6


class _Forgetful(list):  # type: ignore[type-arg]
    """The fake's memory of what it was asked, which is not what is measured here."""

    def append(self, item: object) -> None:
        pass
