from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.reward.status import status, to_download
from tests.empty_home import empty_home


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty_home(monkeypatch, tmp_path)


def test_a_reward_without_files_is_ready() -> None:
    demo = status("demo")
    assert (demo.ready, demo.files) == (True, ())
    assert demo.told == "Demo is ready."


def test_each_option_has_the_file_that_it_would_download(tmp_path: Path) -> None:
    laion = status("laion_v2", folders=[tmp_path])
    assert not laion.ready
    assert "needs the file sac+logos+ava1-l14-linearMSE.pth" in laion.told
    assert [(each.file.option, each.found) for each in laion.files] == [
        ("weights", None),
        ("encoder", None),
    ]
    assert to_download("laion_v2", [tmp_path]) == [each.file for each in laion.files]


def test_what_is_there_in_another_layout_need_not_be_downloaded(tmp_path: Path) -> None:
    (tmp_path / "ViT-L-14.pt").touch()
    laion = status("laion_v2", folders=[tmp_path])
    assert laion.files[1].found == str(tmp_path / "ViT-L-14.pt")
    assert [file.option for file in to_download("laion_v2", [tmp_path])] == ["weights"]
    (tmp_path / "sac+logos+ava1-l14-linearMSE.pth").touch()
    assert status("laion_v2", folders=[tmp_path]).ready
    assert to_download("laion_v2", [tmp_path]) == []


def test_a_named_file_counts_instead_of_those_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "ImageReward.pt").touch()
    other = tmp_path / "other.pt"
    gone = status("image_reward", {"weights": str(other)}, folders=[tmp_path])
    assert (gone.ready, gone.files[0].found) == (False, None)
    other.touch()
    there = status("image_reward", {"weights": str(other)}, folders=[tmp_path])
    assert (there.ready, there.files[0].found) == (True, str(other))


def test_an_impossible_option_is_told() -> None:
    wrong = status("demo", {"size": 3})
    assert not wrong.ready
    assert "unknown option of reward 'demo': 'size'" in wrong.told


def test_an_unknown_reward_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unknown reward: 'judge'"):
        status("judge")
