"""The examples of docs/rewards.md work as they stand there."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from lib_automerge.domain.config import decode_config
from lib_automerge.errors import RewardError
from lib_automerge.reward import create, describe, plugins, registry
from lib_automerge.reward.selftest import selftest

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
BLOCKS = {
    language: re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    for language in ("python", "yaml")
}
FUNCTION, CLASS, SERVER = BLOCKS["python"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_loaded", set())
    (tmp_path / "redness.py").write_text(FUNCTION)
    (tmp_path / "sharpness.py").write_text(CLASS)
    assert plugins.load(tmp_path, allowed=True).told == ()
    yield
    for name in ("redness", "sharpness"):
        del sys.modules[f"automerge_plugins.{name}"]


def test_the_plugin_with_a_function(own: None) -> None:
    reward = create("redness")
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert reward.score([red, red], ["a red ball", "a ball"]) == [1.0, -1.0]
    assert "sound" in selftest(reward)
    assert describe("redness").help == "How red an image is, for prompts that want it red."


def test_the_plugin_with_a_class(own: None) -> None:
    reward = create("sharpness", side=64)
    sharp = Image.effect_noise((64, 64), 80).convert("RGB")
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    scores = reward.score([sharp, blurred], ["", ""])
    assert scores[0] > scores[1]
    reward.place("cpu")
    assert reward.score([sharp, blurred], ["", ""]) == scores
    assert "sound" in selftest(reward)


def test_the_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "reward_server.py"
    file.write_text(SERVER)
    process = subprocess.Popen([sys.executable, str(file), str(port)], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                reward = create("external", url=url, attempts=1)
                break
            except RewardError:
                time.sleep(0.1)
        assert reward.fingerprint == "external:1:brightness:1"
        white, black = (Image.new("RGB", (9, 9), colour) for colour in ("white", "black"))
        assert reward.score([white, black], ["x", "東京"]) == [1.0, 0.0]
        assert "sound" in selftest(reward)
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("text", BLOCKS["yaml"])
def test_the_configurations(text: str) -> None:
    yaml = pytest.importorskip("yaml")
    raw = {"models": {"a": "a", "b": "b"}, "payloads": [{"prompt": "x"}], **yaml.safe_load(text)}
    config = decode_config(raw)
    known = {option.name for option in describe(config.reward.name).options}
    assert set(config.reward.options) <= known


def test_every_reward_is_in_the_table() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE.split("## Which one")[1].split("- **One")[0]))
    assert set(registry.names()) <= named
