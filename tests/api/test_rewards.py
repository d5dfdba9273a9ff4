"""Rewards over the routes: what each needs, and downloads that are watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_automerge.domain.config import RewardConfig
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from lib_automerge.ui.reward_form import reward_values
from tests.api.bench import ROOT, make_client, make_desk
from tests.empty_home import empty_home
from tests.reward.hub_server import Hub, serving

CONTENT = b"weights" * 1000
FILE = WeightFile("weights", "Judge.pt", "people/judge", "sub/weights.pt", 7000, "MIT")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    empty_home(monkeypatch, tmp_path)
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


def test_the_page_is_told_of_a_download_and_draws_the_rewards_of_the_form(
    hub: Hub, desk, client
) -> None:
    drawn = client.get(f"{ROOT}/views/rewards").text
    assert "ImageReward" in drawn
    assert "File missing" in drawn
    desk.save_draft(reward_values(RewardConfig(name="demo")))
    drawn = client.get(f"{ROOT}/views/rewards").text
    assert "Demo" in drawn
    assert "File missing" not in drawn
    before = client.get(f"{ROOT}/status").json()
    assert not before["downloading"]
    assert client.get(f"{ROOT}/status?since={before['token']}").json().get("unchanged")
    client.post(f"{ROOT}/rewards/judge/download", json={})
    desk.downloads.wait(30)
    after = client.get(f"{ROOT}/status?since={before['token']}").json()
    assert after["views"]["rewards"] != before["views"]["rewards"]
    assert after["views"]["reward-try"] == before["views"]["reward-try"]


def test_the_page_is_told_what_rewards_say_of_an_image(desk, client, tmp_path: Path) -> None:
    assert client.get(f"{ROOT}/views/reward-try").text == ""
    before = client.get(f"{ROOT}/status").json()
    image = tmp_path / "image.png"
    image.write_bytes(b"no image")
    desk.try_rewards(RewardConfig(name="demo"), image, "a cat")
    desk.reward_try.wait(30)
    after = client.get(f"{ROOT}/status?since={before['token']}").json()
    assert after["views"]["reward-try"] != before["views"]["reward-try"]
    assert "This is no image" in client.get(f"{ROOT}/views/reward-try").text
