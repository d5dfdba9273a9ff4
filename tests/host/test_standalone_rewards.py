"""What the stand-alone host adds to a reward: where its files are, and that its scores are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.domain.config import RewardMember
from lib_automerge.errors import RewardError
from lib_automerge.host.standalone import StandaloneHost
from lib_automerge.reward.cache import CachedReward
from lib_automerge.reward.image_reward import ImageReward
from tests.contracts.reward import sample_images
from tests.empty_home import empty_home
from tests.reward.tiny_image_reward import TINY, write_tiny


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    empty_home(monkeypatch, tmp_path)
    monkeypatch.setattr(ImageReward, "sizes", TINY)
    return tmp_path / "data"


MEMBER = RewardMember(name="image_reward", options={"device": "cpu"})


def test_weights_come_from_the_data_folder_and_scores_go_there(data: Path) -> None:
    with pytest.raises(RewardError, match=f"it is not in {data / 'rewards'}"):
        StandaloneHost(data).reward(MEMBER)
    (data / "rewards").mkdir(parents=True)
    write_tiny(data / "rewards")
    reward = StandaloneHost(data).reward(MEMBER)
    assert isinstance(reward, CachedReward)
    reward.score(sample_images()[:1], ["a cat"])
    reward.close()
    assert (data / "scores.sqlite").exists()


def test_without_a_data_folder_nothing_is_looked_up_or_kept_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_tiny(tmp_path)
    options = {"device": "cpu", "weights": str(file)}
    reward = StandaloneHost().reward(RewardMember(name="image_reward", options=options))
    assert isinstance(reward, ImageReward)
    reward.score(sample_images()[:1], ["a cat"])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_demo_leaves_no_file_of_scores(data: Path) -> None:
    reward = StandaloneHost(data).reward(RewardMember(name="demo"))
    reward.score(sample_images()[:1], ["a red ball"])
    assert not data.exists()
