"""Rewards over the routes: what each needs, and downloads that are watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from tests.api.bench import ROOT, make_client, make_desk
from tests.reward.hub_server import Hub, serving

CONTENT = b"weights" * 1000
FILE = WeightFile("weights", "Judge.pt", "people/judge", "sub/weights.pt", 7000, "MIT")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @registry.register("judge", label="Judge", help="Judges.", files=[FILE])
    def make(weights: Path, count: int = 1) -> Reward:
        raise NotImplementedError

    return make_desk(tmp_path)


@pytest.fixture
def client(desk):
    return make_client(desk)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    with serving(Hub(CONTENT)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def judge(client) -> dict[str, object]:
    rewards = client.get(f"{ROOT}/rewards").json()["rewards"]
    return next(one for one in rewards if one["name"] == "judge")


def test_a_reward_tells_what_it_lacks_and_is_downloaded(hub: Hub, desk, client) -> None:
    before = judge(client)
    assert (before["ready"], before["options"]) == (False, ["weights", "count"])
    assert "needs the file Judge.pt" in str(before["told"])
    (file,) = before["files"]  # type: ignore[misc]
    assert (file["found"], file["file"]["licence"]) == (None, "MIT")
    assert client.get(f"{ROOT}/rewards").json()["download"]["phase"] == "none"
    answer = client.post(f"{ROOT}/rewards/judge/download", json={})
    assert answer.status_code == 200
    assert answer.json()["reward"] == "judge"
    desk.downloads.wait(30)
    download = client.get(f"{ROOT}/rewards").json()["download"]
    assert (download["phase"], download["have"], download["size"]) == ("done", 7000, 7000)
    path = desk.catalogue.data / "rewards" / "Judge.pt"
    assert path.read_bytes() == CONTENT
    after = judge(client)
    assert after["ready"]
    assert after["files"][0]["found"] == str(path)  # type: ignore[index]
    again = client.post(f"{ROOT}/rewards/judge/download", json={})
    assert again.status_code == 400
    assert "nothing to download" in again.json()["error"]


def test_what_cannot_be_downloaded_is_a_sentence(client) -> None:
    unknown = client.post(f"{ROOT}/rewards/judges/download", json={})
    assert unknown.status_code == 400
    assert "unknown reward: 'judges'" in unknown.json()["error"]
    assert client.get(f"{ROOT}/rewards/judge/download").status_code == 405
    assert client.post(f"{ROOT}/rewards/cancel", json={}).json()["phase"] == "none"
