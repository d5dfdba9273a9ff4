"""The fake does what `behaviours` states; that a real WebUI does too: `check_real.py`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_tiny
from tests.host_fake.behaviours import ALL, Behaviour, Bench
from tests.host_fake.install import fake_webui

NAMES = ("a.safetensors", "b.safetensors", "c.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: write_tiny(folder / name, "sd1", seed=i) for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module", params=["no half", "half"])
def bench(
    request: pytest.FixtureRequest,
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    data = tmp_path_factory.mktemp("data")
    torch.set_num_threads(1)
    with fake_webui(data, checkpoints=files, no_half=request.param == "no half") as host:
        shutil.copyfile(host.sd_models_config.__file__, host.models / "c.yaml")
        yield Bench(NAMES, tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize("behaviour", ALL, ids=lambda behaviour: behaviour.name)
def test_behaviour(bench: Bench, behaviour: Behaviour) -> None:
    bench.reset()
    behaviour.run(bench)
