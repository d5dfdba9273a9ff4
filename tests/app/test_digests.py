from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from lib_automerge.app.digests import Digests
from lib_automerge.app.ports import ModelChoice
from lib_automerge.errors import BusyError
from lib_automerge.merge import lookup

LONG_S = 30.0


@pytest.fixture
def models(tmp_path: Path) -> list[ModelChoice]:
    found = []
    for name in "ab":
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(name.encode() * 3_000_000)
        found.append(ModelChoice(path.name, str(path)))
    return found


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "data" / "digests.json")


def content(model: ModelChoice) -> str:
    return hashlib.sha256(Path(model.path).read_bytes()).hexdigest()


def test_files_are_read_once_and_known_after_a_restart(
    digests: Digests, models: list[ModelChoice], tmp_path: Path
) -> None:
    assert [digests.known(model) for model in models] == ["", ""]
    digests.read(models)
    digests.wait(LONG_S)
    now = digests.snapshot()
    assert now.told == "The contents of 2 models are known."
    assert now.done == now.total == 6_000_000
    assert [digests.known(model) for model in models] == [content(model) for model in models]
    again = Digests(tmp_path / "data" / "digests.json")
    assert again.known(models[1]) == content(models[1])
    again.read(models)
    again.wait(LONG_S)
    assert again.snapshot().total == 0


def test_a_file_that_has_changed_is_not_known(digests: Digests, models: list[ModelChoice]) -> None:
    digests.read(models)
    digests.wait(LONG_S)
    path = Path(models[0].path)
    path.write_bytes(b"c" * 3_000_000)
    os.utime(path, ns=(1, 1))
    assert digests.known(models[0]) == ""
    assert digests.known(models[1]) == content(models[1])


def test_what_the_host_knows_is_not_read(digests: Digests, models: list[ModelChoice]) -> None:
    told = ModelChoice(models[0].title, models[0].path, "f" * 64)
    assert digests.known(told) == "f" * 64
    digests.read([told])
    digests.wait(LONG_S)
    assert digests.snapshot().total == 0


def test_a_file_that_changes_while_it_is_read_is_not_known(
    digests: Digests, models: list[ModelChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, **_options: object) -> str:
        path.write_bytes(b"other")
        return "a" * 64

    monkeypatch.setattr(lookup, "sha256", read)
    digests.read(models[:1])
    digests.wait(LONG_S)
    assert digests.known(models[0]) == ""


def test_reading_tells_how_far_it_is_and_can_be_cancelled(
    digests: Digests, models: list[ModelChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    real = lookup.sha256

    def read(path: Path, *, progress) -> str:
        def slowly(count: int) -> None:
            progress(count)
            reached.set()
            go_on.wait(LONG_S)

        return real(path, progress=slowly)

    monkeypatch.setattr(lookup, "sha256", read)
    digests.read(models)
    assert reached.wait(LONG_S)
    now = digests.snapshot()
    assert (now.running, now.name) == (True, "a.safetensors")
    assert 0 < now.done < now.total == 6_000_000
    with pytest.raises(BusyError, match="being read already"):
        digests.read(models)
    digests.cancel()
    assert digests.snapshot().cancelling
    go_on.set()
    digests.wait(LONG_S)
    now = digests.snapshot()
    assert (now.running, now.failed) == (False, False)
    assert now.told == "Reading the models was cancelled."
    assert digests.known(models[0]) == ""


def test_a_file_that_is_gone_is_said(digests: Digests, models: list[ModelChoice]) -> None:
    Path(models[1].path).unlink()
    digests.read(models)
    digests.wait(LONG_S)
    now = digests.snapshot()
    assert now.failed
    assert "cannot read" in now.told
    assert "b.safetensors" in now.told
    # what was read before it stays known
    assert digests.known(models[0]) == content(models[0])


def test_a_list_that_cannot_be_read_or_written_hinders_nothing(
    tmp_path: Path, models: list[ModelChoice]
) -> None:
    path = tmp_path / "data" / "digests.json"
    path.parent.mkdir()
    path.write_text("{")
    digests = Digests(path)
    path.unlink()
    path.mkdir()
    digests.read(models)
    digests.wait(LONG_S)
    assert not digests.snapshot().failed
    assert digests.known(models[0]) == content(models[0])
