"""A user's home without any file of a reward, whatever this machine has."""

from __future__ import annotations

from pathlib import Path

import pytest


def empty_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let the home and the hub's cache be in a folder; returns the home, which does not exist."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = folder / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return home
