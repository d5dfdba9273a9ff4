from __future__ import annotations

import threading
from pathlib import Path

import pytest


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that replace files wait for each other before they do."""
    both = threading.Barrier(2, timeout=10)
    original = Path.replace

    def together(path: Path, target: Path) -> Path:
        both.wait()
        return original(path, target)

    monkeypatch.setattr(Path, "replace", together)
