from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost, tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def taught() -> None:
    """Asked for by tests in which a run says what it taught."""


@pytest.fixture(autouse=True)
def untaught(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a small run, computing what it taught would take longer than all before."""
    if "taught" not in request.fixturenames:
        monkeypatch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
