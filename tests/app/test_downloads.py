from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

pytest.importorskip("huggingface_hub")

from lib_automerge.app import downloads
from lib_automerge.app.downloads import DownloadPhase, Downloads
from lib_automerge.errors import BusyError, ConfigError
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from tests.empty_home import empty_home
from tests.reward.hub_server import Hub, serving

CONTENT = b"weights!" * 400_000
FILE = WeightFile("weights", "Judge.pt", "people/judge", "sub/weights.pt", len(CONTENT), "MIT")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    empty_home(monkeypatch, tmp_path)
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr("lib_automerge.reward.download.PAUSE_S", 0.01)
    second = msgspec.structs.replace(FILE, option="encoder", name="Encoder.pt")

    @registry.register("judge", label="Judge", help="Judges.", files=[FILE, second])
    def make(weights: Path, encoder: Path) -> Reward:
        raise NotImplementedError

    with serving(Hub(CONTENT)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def test_gets_every_file_that_is_missing(hub: Hub, tmp_path: Path) -> None:
    work = Downloads(tmp_path)
    assert work.snapshot().phase is DownloadPhase.NONE
    work.start("judge")
    work.wait(30)
    found = work.snapshot()
    assert found.phase is DownloadPhase.DONE
    assert not found.running
    assert found.told == "Downloaded Judge.pt and Encoder.pt."
    assert (found.reward, found.file) == ("judge", "Encoder.pt")
    assert (found.have, found.size) == (len(CONTENT), len(CONTENT))
    assert (tmp_path / "Judge.pt").read_bytes() == CONTENT
    assert (tmp_path / "Encoder.pt").read_bytes() == CONTENT
    with pytest.raises(ConfigError, match="nothing to download for the reward 'judge'"):
        work.start("judge")


def test_one_at_a_time_and_cancelled_when_asked(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    real = downloads.fetch

    def held(file, folder, progress, cancelled):  # type: ignore[no-untyped-def]
        def tell(have: int, size: int) -> None:
            progress(have, size)
            if have:
                reached.set()
                assert go_on.wait(30)

        return real(file, folder, tell, cancelled)

    monkeypatch.setattr(downloads, "fetch", held)
    work = Downloads(tmp_path)
    work.start("judge")
    assert reached.wait(30)
    running = work.snapshot()
    assert running.phase is DownloadPhase.RUNNING
    assert 0 < running.have < running.size == len(CONTENT)
    with pytest.raises(BusyError, match=r"Judge\.pt is being downloaded"):
        work.start("judge")
    work.cancel()
    assert work.snapshot().phase is DownloadPhase.CANCELLING
    go_on.set()
    work.wait(30)
    ended = work.snapshot()
    assert ended.phase is DownloadPhase.CANCELLED
    assert "are kept" in ended.told
    work.cancel()
    assert work.snapshot() == ended
    work.start("judge")
    work.wait(30)
    assert work.snapshot().phase is DownloadPhase.DONE
    assert hub.asked[1].startswith("bytes=")


def test_what_fails_is_a_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.said_digest = "0" * 64
    work = Downloads(tmp_path)
    work.start("judge")
    work.wait(30)
    assert work.snapshot().phase is DownloadPhase.FAILED
    assert "not the published file" in work.snapshot().told

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(downloads, "fetch", broken)
    work.start("judge")
    work.wait(30)
    assert work.snapshot().phase is DownloadPhase.FAILED
    assert "ZeroDivisionError: oh" in work.snapshot().told


def test_an_unknown_reward_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown reward: 'judges'"):
        Downloads(tmp_path).start("judges")


def test_the_pace_leaves_out_what_an_earlier_download_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    work = Downloads(tmp_path)
    paces = []
    for have in (600, 650, 700):
        work._progress(have, 1000)
        paces.append(work.snapshot().pace)
    assert paces == [0.0, 0.0, 50.0]
