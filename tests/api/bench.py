"""A desk with runs in it, and a client that talks to its routes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from lib_automerge import api
from lib_automerge.app.desk import Desk
from lib_automerge.domain.payload import ImageJob
from tests.fake_host import FakeCatalogue, FakeHost, tiny_models
from tests.run_folders import Plan, build

ROOT = "/automerge/v1"
NASTY = "<img src=x onerror=alert(1)>\"'&"


def anybody(request: Request) -> bool:
    return True


def make_desk(folder: Path, host: FakeHost | None = None) -> Desk:
    """A desk over an empty folder, with two tiny models."""
    (folder / "models").mkdir(parents=True)
    models = tiny_models(folder / "models")
    return Desk(host or FakeHost(), FakeCatalogue(folder / "data", models))


def add_run(desk: Desk, run: str, plan: Plan | None = None) -> str:
    """Put a made-up run among those of the desk."""
    desk.library.root.mkdir(parents=True, exist_ok=True)
    build(desk.library.root / run, plan or Plan(evaluations=14, size=32))
    return run


def make_client(desk: Desk, guard: Callable[[Request], bool] = anybody) -> TestClient:
    app = Starlette()
    api.register(app, desk, guard)
    return TestClient(app, raise_server_exceptions=False)


class Gate:
    """Lets a run of a `FakeHost` make so many pictures, and no more until it is opened again."""

    def __init__(self, host: FakeHost, pictures: int) -> None:
        self._permits = threading.Semaphore(pictures)
        self._open = threading.Event()
        host.broken = self._pass

    def _pass(self, weights: Mapping[str, float], job: ImageJob) -> str | None:
        while not self._open.is_set() and not self._permits.acquire(timeout=0.05):
            pass
        return None

    def open(self) -> None:
        self._open.set()


@contextmanager
def running(desk: Desk, gate: Gate, start: Callable[[], str]) -> Iterator[str]:
    """A run in hand; at the end the gate is open and the run is over."""
    run = start()
    try:
        yield run
    finally:
        gate.open()
        if desk.worker.busy_with() is not None:
            desk.worker.stop()
        assert desk.worker.wait(30)
