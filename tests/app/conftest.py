from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost, tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
