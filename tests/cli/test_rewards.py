from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib_automerge import cli
from lib_automerge.reward import plugins, published, registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.files import WeightFile
from tests.empty_home import empty_home
from tests.reward.hub_server import Hub
from tests.reward.hub_server import serving as hub_serving
from tests.reward.judge_server import serving

CONTENT = b"weights" * 1000
FILE = WeightFile("weights", "Judge.pt", "people/judge", "sub/weights.pt", 7000, "MIT")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without weights; returns the folder of data."""
    empty_home(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_loaded", set())
    return tmp_path / "data"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    with hub_serving(Hub(CONTENT)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def judge() -> None:
    @registry.register("judge", label="Judge", help="Judges.", files=[FILE])
    def make(weights: Path) -> Reward:
        raise NotImplementedError


def test_lists_every_reward_with_what_it_needs(
    capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert cli.main(["rewards", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert "demo             ready      Demo: " in told
    assert "image_reward     not ready  ImageReward: " in told
    assert "    ImageReward.pt (1.8 GB, Apache-2.0): missing; from https://" in told
    (data / "rewards").mkdir(parents=True)
    file = data / "rewards" / "ImageReward.pt"
    file.touch()
    assert cli.main(["rewards", "image_reward", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("image_reward     ready ")
    assert f"(1.8 GB, Apache-2.0): {file}" in told
    assert "demo" not in told


def test_lists_as_json(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    assert cli.main(["rewards", "hpsv2", "--json", "--data", str(data)]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["name"], one["ready"]) == ("hpsv2", False)
    assert one["files"][0]["file"]["licence"] == published.HPS_V2[0].licence


def test_downloads_what_is_missing_into_the_data_folder(
    hub: Hub, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    judge()
    assert cli.main(["rewards", "--download", "judge", "--data", str(data)]) == 0
    told = capsys.readouterr()
    assert (data / "rewards" / "Judge.pt").read_bytes() == CONTENT
    assert str(data / "rewards" / "Judge.pt") in told.out
    assert "MIT" in told.out
    assert "Judge.pt: 7 kB of 7 kB, 100 %" in told.err
    assert cli.main(["rewards", "--download", "judge", "--data", str(data)]) == 0
    assert capsys.readouterr().out == "judge: nothing to download.\n"
    assert len(hub.asked) == 1


def test_a_download_that_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    judge()
    assert cli.main(["rewards", "--download", "judge", "--data", str(data)]) == 2
    assert "Error: Judge.pt cannot be downloaded: " in capsys.readouterr().err
    assert cli.main(["rewards", "--download"]) == 2
    assert "needs the name of a reward" in capsys.readouterr().err


def test_checks_what_is_ready_and_says_what_is_not(
    capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert cli.main(["rewards", "--selftest", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert "demo is sound: " in told
    assert "image_reward was not checked: ImageReward needs the file" in told


def test_a_reward_that_is_not_sound_is_told_after_the_others(
    capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    (data / "rewards").mkdir(parents=True)
    (data / "rewards" / "HPS_v2.1_compressed.pt").write_bytes(b"")
    arguments = ["rewards", "--selftest", "--device", "cpu", "--data", str(data)]
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert "hpsv2 is not sound: not a weights file" in told.err
    assert "demo is sound: " in told.out
    assert cli.main([*arguments, "hpsv2"]) == 2
    assert "Error: not a weights file" in capsys.readouterr().err


def test_a_server_is_asked_for_scores(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    arguments = ["rewards", "external", "--selftest", "--data", str(data), "--option"]
    with serving() as server:
        address = f"url={server.url}"
        assert cli.main([*arguments, address]) == 0
        told = capsys.readouterr().out
        scores, seconds = r"[\d., ]+ for two drawn pictures", r"[\d.e-]+ seconds for another one"
        sentence = rf"steady and finite: {scores}, {seconds}\. It is external:1:HPSv3:1\.0\."
        assert re.match(f"external is sound: {sentence}", told)
        assert len({str(request["images"]) for request in server.requests}) > 1
        server.answer = lambda _: (200, b'{"scores": [1, 2, 3]}')
        assert cli.main([*arguments, address]) == 2
        told = capsys.readouterr().err
        assert "does not keep the contract: it gave 3 scores for 2 images" in told
        noise = itertools.count()

        def guess(request: dict[str, Any]) -> tuple[int, bytes]:
            return 200, json.dumps({"scores": [next(noise) for _ in request["images"]]}).encode()

        server.answer = guess
        assert cli.main([*arguments, address]) == 2
        told = capsys.readouterr().err
        assert "for the same pictures. Correct what computes its scores." in told
    assert cli.main([*arguments, address, "--option", "attempts=1"]) == 2
    assert f"the reward server at {server.url} failed 1 times: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("external", "url", "not an option: 'url'. Write it as NAME=VALUE."),
        ("external", "port=3", "unknown option of reward 'external': 'port'"),
        (
            "external",
            "attempts=few",
            "'attempts' of reward 'external' must be a whole number",
        ),
        (None, "url=x", "'url=x' is an option of which reward? Give its name as well."),
    ],
)
def test_options_are_read_as_they_are_written(
    name: str | None, option: str, words: str, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    named = [] if name is None else [name]
    assert cli.main(["rewards", *named, "--option", option, "--data", str(data)]) == 2
    assert words in capsys.readouterr().err


def test_options_of_a_plug_in_reach_it(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    folder = data / "rewards" / "plugins"
    folder.mkdir(parents=True)
    (folder / "weighted.py").write_text(
        "class Weighted:\n"
        "    def __init__(self, weight: float, loud: bool, name: str, times: int = 1):\n"
        "        assert (weight, loud, name, times) == (0.5, True, 'a=b', 3)\n"
        "    def score(self, images, prompts):\n"
        "        return [image.resize((1, 1)).getpixel((0, 0))[0] for image in images]\n"
    )
    arguments = ["rewards", "weighted", "--allow-plugins", "--data", str(data)]
    assert cli.main([*arguments, "--selftest"]) == 2
    assert "'weighted' needs the option 'weight' (number)" in capsys.readouterr().err
    for option in ("weight=0.5", "loud=true", "name=a=b", "times=3"):
        arguments += ["--option", option]
    assert cli.main(arguments) == 0
    assert "weighted         ready " in capsys.readouterr().out
    assert cli.main([*arguments, "--selftest"]) == 0
    assert "weighted is sound" in capsys.readouterr().out


def test_a_file_that_an_option_names_is_not_downloaded(
    hub: Hub, capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    judge()
    (tmp_path / "own.pt").touch()
    option = f"weights={tmp_path / 'own.pt'}"
    arguments = ["rewards", "judge", "--download", "--option", option, "--data", str(data)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "judge: nothing to download.\n"
    assert hub.asked == []


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_the_users_own_rewards_are_listed_and_checked_when_allowed(
    by: str, capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data / "rewards" / "plugins"
    folder.mkdir(parents=True)
    (folder / "redness.py").write_text(
        "def score(image, prompt):\n    return image.resize((1, 1)).getpixel((0, 0))[0]\n"
    )
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    arguments = ["rewards", "--data", str(data)]
    assert cli.main([*arguments, "redness"]) == 2
    assert "unknown reward: 'redness'" in capsys.readouterr().err
    if by == "flag":
        arguments.append("--allow-plugins")
    else:
        monkeypatch.setenv("AUTOMERGE_ALLOW_PLUGINS", "1")
    assert cli.main(arguments) == 0
    told = capsys.readouterr()
    assert "redness          ready      Redness: Your plug-in redness.py." in told.out
    assert "broken           not ready  Broken: " in told.out
    assert "Warning: the plug-in 'broken' cannot be used: ModuleNotFoundError" in told.err
    assert cli.main([*arguments, "--selftest", "redness"]) == 0
    assert "redness is sound" in capsys.readouterr().out
