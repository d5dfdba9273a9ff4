from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from lib_automerge.app.desk import Desk
from lib_automerge.app.lab import LabPhase
from lib_automerge.app.lab_orders import Order
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import BusyError, ConfigError, StorageError
from tests.fake_host import FakeCatalogue, FakeHost, tiny_config
from tests.lab_desk import LONG_S, HalfWay, soup

PAYLOAD = Payload(prompt="a {red|red} ball", seeds=(7,))


@pytest.fixture
def desk(host: FakeHost, models: Mapping[str, str], tmp_path: Path) -> Desk:
    return Desk(host, FakeCatalogue(tmp_path / "data", models))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


@pytest.fixture
def half_way(monkeypatch: pytest.MonkeyPatch):
    found = HalfWay(monkeypatch)
    yield found
    found.open()


def done(desk: Desk) -> str:
    desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.DONE, found.told
    return found.told


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.safetensors.*"))


def test_a_merge_is_saved_and_tells_where(desk: Desk, models: dict[str, str], path: Path) -> None:
    (Path(models["a"]).with_suffix(".yaml")).write_text("model: {}")
    desk.merge(soup(models, path))
    assert "Saved as out.safetensors" in done(desk)
    assert str(path.parent) in desk.lab.snapshot().told
    progress = desk.lab.snapshot().progress
    assert progress is not None
    assert progress.done == progress.total
    a, b, merged = (load_file(file) for file in (models["a"], models["b"], path))
    key = "model.diffusion_model.out.2.weight"
    expected = (0.75 * a[key].double() + 0.25 * b[key].double()).half()
    assert merged[key].equal(expected)
    assert path.with_suffix(".yaml").read_text() == "model: {}"
    assert left(path.parent) == []


def test_a_merge_that_fails_says_why_and_leaves_nothing(
    desk: Desk, models: dict[str, str], path: Path
) -> None:
    desk.merge(soup({**models, "b": str(path.parent / "gone.safetensors")}, path))
    desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.FAILED
    assert "gone.safetensors" in found.told
    assert not path.exists()
    assert found.kept == ()


def test_the_memory_is_counted_from_what_the_process_holds(
    desk: Desk, models: dict[str, str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a WebUI holds more than the whole cap before anything is merged
    for module in ("lib_automerge.app.lab", "lib_automerge.merge.lab.budget"):
        monkeypatch.setattr(f"{module}.own_memory", lambda: 9 << 30)
    desk.merge(soup(models, path, memory=1 << 30))
    done(desk)


def test_a_cancelled_merge_can_be_taken_up_again(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay, tmp_path: Path
) -> None:
    desk.merge(soup(models, path))
    half_way.wait()
    assert desk.lab.snapshot().working
    desk.lab.cancel()
    assert desk.lab.snapshot().phase is LabPhase.CANCELLING
    half_way.open()
    desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.CANCELLED
    assert not path.exists()
    (kept,) = found.kept
    assert (kept.name, kept.folder) == ("out.safetensors", str(path.parent))
    assert kept.size > 0
    desk.resume_merge(kept.number)
    done(desk)
    progress = desk.lab.snapshot().progress
    assert progress is not None
    assert progress.skipped > 0
    assert desk.lab.snapshot().kept == ()
    assert left(path.parent) == []
    whole = tmp_path / "whole.safetensors"
    desk.merge(soup(models, whole))
    done(desk)
    assert whole.read_bytes() == path.read_bytes()


def test_what_a_cancelled_merge_kept_is_told_until_it_is_thrown_away(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay
) -> None:
    desk.merge(soup(models, path))
    half_way.wait()
    with pytest.raises(BusyError, match="in progress"):
        desk.lab.discard(1)
    desk.lab.cancel()
    half_way.open()
    desk.lab.wait(LONG_S)
    assert left(path.parent)
    desk.merge(soup(models, path.with_name("other.safetensors")))
    done(desk)
    # another merge does not hide it
    (kept,) = desk.lab.snapshot().kept
    assert kept.name == "out.safetensors"
    desk.lab.discard(kept.number)
    assert desk.lab.snapshot().kept == ()
    assert left(path.parent) == []
    with pytest.raises(ConfigError, match="nothing of that merge is kept"):
        desk.resume_merge(kept.number)


def again(desk: Desk, models: Mapping[str, str]) -> Desk:
    """The desk of the program after it was started again."""
    return Desk(FakeHost(), FakeCatalogue(desk.catalogue.data, models))


def cancelled(desk: Desk, order: Order, half_way: HalfWay) -> None:
    half_way.reached.clear()
    desk.merge(order)
    half_way.wait()
    desk.lab.cancel()
    half_way.open()
    desk.lab.wait(LONG_S)


def test_unfinished_merges_are_known_after_a_restart(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay
) -> None:
    cancelled(desk, soup(models, path, dtype="fp32", on_nan="zero"), half_way)
    cancelled(desk, soup(models, path.with_name("other.safetensors")), half_way)
    desk = again(desk, models)
    first, second = desk.lab.snapshot().kept
    assert (first.name, second.name) == ("out.safetensors", "other.safetensors")
    desk.lab.discard(second.number)
    desk.resume_merge(first.number)
    done(desk)
    progress = desk.lab.snapshot().progress
    assert progress is not None
    assert progress.skipped > 0
    # with what it was ordered with
    assert load_file(path)["model.diffusion_model.out.2.weight"].dtype == torch.float32
    assert left(path.parent) == []
    assert again(desk, models).lab.snapshot().kept == ()


def test_a_program_that_dies_leaves_its_merge_to_be_offered(
    models: dict[str, str], path: Path, tmp_path: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from lib_automerge.app.desk import Desk
from lib_automerge.merge.lab import output
from tests.fake_host import FakeCatalogue, FakeHost
from tests.lab_desk import soup

output.SYNCED = 1  # as if the tensors were large
real = output.Output.finish
def finish(self, key):
    real(self, key)
    if len(self.finished) > 40:
        os._exit(9)
output.Output.finish = finish
models = dict(zip("ab", sys.argv[1:3]))
desk = Desk(FakeHost(), FakeCatalogue(Path(sys.argv[3]), models))
desk.merge(soup(models, Path(sys.argv[4])))
desk.lab.wait()
"""
    data = tmp_path / "data"
    given = [models["a"], models["b"], str(data), str(path)]
    ended = subprocess.run([sys.executable, "-c", code, *given], check=False)
    assert ended.returncode == 9
    assert not path.exists()
    desk = Desk(FakeHost(), FakeCatalogue(data, models))
    (kept,) = desk.lab.snapshot().kept
    desk.resume_merge(kept.number)
    done(desk)
    progress = desk.lab.snapshot().progress
    assert progress is not None
    assert progress.skipped > 0
    whole = tmp_path / "whole.safetensors"
    desk.merge(soup(models, whole))
    done(desk)
    assert whole.read_bytes() == path.read_bytes()


def test_what_another_program_writes_is_not_thrown_away(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay
) -> None:
    cancelled(desk, soup(models, path), half_way)
    (kept,) = desk.lab.snapshot().kept
    before = left(path.parent)
    with (
        FileLock(path.with_name(f".{path.name}.lock")),
        pytest.raises(StorageError, match="being written by another merge"),
    ):
        desk.lab.discard(kept.number)
    assert set(before) <= set(left(path.parent))
    desk.lab.discard(kept.number)
    assert left(path.parent) == []


def test_a_list_of_unfinished_merges_that_cannot_be_read_hinders_nothing(
    desk: Desk, models: dict[str, str], path: Path
) -> None:
    listed = desk.catalogue.data / "lab" / "unfinished.json"
    listed.parent.mkdir(parents=True)
    listed.write_text('[{"number": "x"')
    desk = again(desk, models)
    desk.merge(soup(models, path))
    done(desk)


def test_a_merge_teaches_the_contents_of_its_models(
    desk: Desk, models: dict[str, str], path: Path
) -> None:
    first = desk.catalogue.models()[0]
    assert desk.digests.known(first) == ""
    desk.merge(soup(models, path))
    done(desk)
    digest = hashlib.sha256(Path(first.path).read_bytes()).hexdigest()
    assert desk.digests.known(first) == digest
    assert again(desk, models).digests.known(first) == digest


def test_a_preview_makes_one_image_and_keeps_no_file(
    desk: Desk, host: FakeHost, models: dict[str, str], path: Path
) -> None:
    desk.preview_merge(soup(models, path), PAYLOAD)
    done(desk)
    picture = desk.lab.snapshot().picture
    assert picture is not None
    assert (picture.seed, picture.prompt, picture.method) == (7, "a red ball", "weighted_sum")
    assert picture.png.startswith(b"\x89PNG")
    assert host.open_sessions == 0
    assert not path.exists()
    folder = desk.catalogue.data / "lab"
    assert [*folder.iterdir()] == []
    # a later merge leaves it in sight
    desk.merge(soup(models, path))
    done(desk)
    assert desk.lab.snapshot().picture == picture


def test_a_cancelled_preview_keeps_nothing(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay
) -> None:
    desk.preview_merge(soup(models, path), PAYLOAD)
    half_way.wait()
    desk.lab.cancel()
    half_way.open()
    desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert (found.phase, found.told) == (LabPhase.CANCELLED, "The preview was cancelled.")
    assert found.kept == ()
    assert [*(desk.catalogue.data / "lab").iterdir()] == []


def test_a_merge_that_makes_no_picture_says_so(
    desk: Desk, host: FakeHost, models: dict[str, str], path: Path
) -> None:
    host.broken = lambda _weights, _job: "NaN"
    desk.preview_merge(soup(models, path), PAYLOAD)
    desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.FAILED
    assert "makes no picture: NaN" in found.told
    assert host.open_sessions == 0
    assert [*(desk.catalogue.data / "lab").iterdir()] == []


def test_a_merge_and_a_run_are_never_at_work_together(
    desk: Desk, models: dict[str, str], path: Path, half_way: HalfWay
) -> None:
    run = desk.start(tiny_config(models))
    assert desk.worker.wait(LONG_S)
    other = desk.start(tiny_config(models))
    with pytest.raises(BusyError, match=other):
        desk.merge(soup(models, path))
    with pytest.raises(BusyError, match=other):
        desk.preview_merge(soup(models, path), PAYLOAD)
    desk.worker.stop()
    assert desk.worker.wait(LONG_S)
    desk.merge(soup(models, path))
    half_way.wait()
    runs = len(desk.library.entries())
    with pytest.raises(BusyError, match="merge lab is at work"):
        desk.start(tiny_config(models))
    assert len(desk.library.entries()) == runs
    with pytest.raises(BusyError, match="merge lab is at work"):
        desk.resume(run)
    image = path.with_name("image.png")
    Image.new("RGB", (8, 8)).save(image)
    with pytest.raises(BusyError, match="merge lab is at work"):
        desk.try_rewards(tiny_config(models).reward, image, "a ball")
    with pytest.raises(BusyError, match="merge lab is at work"):
        desk.merge(soup(models, path.with_name("other.safetensors")))
    half_way.open()
    done(desk)
