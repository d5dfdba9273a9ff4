"""A fake WebUI with two models of one kind, of which `a` is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.checkpoints import write_tiny
from tests.host_fake.install import FakeHost, fake_webui


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        f"{role}.safetensors": write_tiny(folder / f"{role}.safetensors", "sd1", seed=seed)
        for seed, role in enumerate("abc")
    }


@pytest.fixture
def webui(tmp_path: Path, tiny_files: Mapping[str, Path]) -> Iterator[FakeHost]:
    torch.set_num_threads(1)
    with fake_webui(tmp_path / "data", checkpoints=tiny_files, no_half=True) as host:
        assert host.shared.sd_model is not None
        yield host


@pytest.fixture
def models(webui: FakeHost) -> Iterator[dict[str, Checkpoint]]:
    with ExitStack() as stack:
        yield {
            role: stack.enter_context(open_checkpoint(webui.models / f"{role}.safetensors"))
            for role in "ab"
        }


@pytest.fixture
def generator(webui: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Any:
    from lib_automerge.host import a1111_buttons
    from lib_automerge.host.a1111 import A1111
    from lib_automerge.host.webui import WebUIGenerator

    monkeypatch.setattr(a1111_buttons, "RELOAD_NOTICE_S", 0.2)
    return WebUIGenerator(A1111())
