"""A long run behind the page: memory, journal, and what a poll costs.

    PYTHONPATH=. python benchmarks/long_run.py [--evaluations 500] [--images 16]

Real models, merges, search, journal, worker and routes; drawn pictures, so that it takes a minute.
The status route answers from what the worker keeps; beside it, in the same run, the plain way:
folding the journal from disk for every poll.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lib_automerge import api
from lib_automerge.app.desk import Desk
from lib_automerge.domain.payload import Payload
from lib_automerge.study.store import RunFolder
from tests.fake_host import FakeCatalogue, FakeHost, tiny_config, tiny_models

POLLS = 40


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(POLLS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options.evaluations, options.images)


def measure(folder: Path, evaluations: int, images: int) -> None:
    (folder / "models").mkdir()
    models = tiny_models(folder / "models")
    host = FakeHost()
    desk = Desk(host, FakeCatalogue(folder / "data", models))
    app = Starlette()
    api.register(app, desk, lambda _request: True)
    client = TestClient(app)
    payloads = tuple(
        Payload(prompt=f"prompt {n}", seeds=(n,), batch_size=images) for n in range(images)
    )
    config = tiny_config(models, evaluations=evaluations)
    run = desk.start(msgspec.structs.replace(config, payloads=payloads))
    memory: dict[int, float] = {}
    polled: list[float] = []
    while not desk.worker.wait(0.25):
        start = time.perf_counter()
        client.get("/automerge/v1/status")
        polled.append(1000 * (time.perf_counter() - start))
        host.applied.clear()  # the fake's own memory is not what is measured
        host.batches.clear()
        state = desk.worker.snapshot().state
        if state is not None:
            memory.setdefault(len(state.history) // 100 * 100, resident_mb())
    path = desk.library.find(run).folder.path
    answer = client.get("/automerge/v1/status")
    token = answer.json()["token"]
    journal = path / "journal.jsonl"
    print(f"{evaluations} evaluations x {images} images")
    print("resident memory, MB, by evaluation:", {n: round(mb) for n, mb in memory.items()})
    print(f"journal: {journal.stat().st_size / 1e6:.2f} MB")
    print(f"poll while running: {statistics.median(polled):.1f} ms")
    full = median_ms(lambda: client.get("/automerge/v1/status"))
    same = median_ms(lambda: client.get(f"/automerge/v1/status?since={token}"))
    folded = median_ms(lambda: RunFolder(path).state())
    print(f"status: {len(answer.content) / 1e3:.1f} kB, {full:.1f} ms")
    print(f"status, nothing new: {same:.1f} ms")
    print(f"folding the journal instead: {folded:.1f} ms, {folded / same:.1f} times as long")


if __name__ == "__main__":
    main()
