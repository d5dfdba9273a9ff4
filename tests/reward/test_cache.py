"""Scores that are kept on disk: real files, several processes."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_automerge.errors import RewardError
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.cache import CachedReward, ScoreCache
from lib_automerge.reward.cache import cached as kept
from lib_automerge.reward.demo import DemoReward
from tests.contracts.reward import Prompts, RewardContract, sample_images
from tests.reward.tiny_clip import make_tiny
from tests.reward.tiny_image_reward import TinyImageReward, write_tiny

PROMPTS = ("a red ball", "a blue moon", "a red ball", "a house", "")


class Judge:
    """Brightness plus the length of the prompt; remembers what it was asked."""

    name = "judge"

    def __init__(self, version: str = "1") -> None:
        self.fingerprint = f"judge:{version}:fp32:abc"
        self.asked: list[list[str]] = []
        self.read_prompts: list[str] = []
        self.places: list[str] = []
        self.closed = False

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        self.asked.append(list(prompts))
        pairs = zip(images, prompts, strict=True)
        return [float(np.asarray(i.convert("RGB")).mean()) + len(p) for i, p in pairs]

    def read(self, prompts: Sequence[str]) -> None:
        self.read_prompts += prompts

    def place(self, device: str) -> None:
        self.places.append(device)

    def warnings(self) -> list[str]:
        return ["a prompt was cut"]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "scores.sqlite"


def cached(path: Path, judge: Reward | None = None, limit: int = 1000) -> CachedReward:
    return CachedReward(judge or Judge(), ScoreCache(path, limit))


class TestTheContractHoldsForWhatIsCached(RewardContract):
    @pytest.fixture
    def reward(self, tmp_path: Path) -> Iterator[Reward]:
        reward = cached(tmp_path / "scores.sqlite", DemoReward())
        yield reward
        reward.close()

    @pytest.fixture
    def prompts(self) -> Prompts:
        return ("a red ball", "a yellow star", "a green heart", "a red ball", "a ball")


def test_what_is_known_is_not_scored_again_not_even_by_another_process(path: Path) -> None:
    first = Judge()
    reward = cached(path, first)
    scores = reward.score(sample_images(), PROMPTS)
    assert scores == Judge().score(sample_images(), PROMPTS)
    assert first.asked == [list(PROMPTS)]
    assert reward.score(sample_images(), PROMPTS) == scores
    reward.close()
    second = Judge()
    again = cached(path, second)
    assert again.score(sample_images()[::-1], PROMPTS[::-1]) == scores[::-1]
    assert second.asked == []


def test_only_what_is_new_is_scored(path: Path) -> None:
    judge = Judge()
    reward = cached(path, judge)
    reward.score(sample_images()[:2], PROMPTS[:2])
    reward.score(sample_images(), PROMPTS)
    assert judge.asked == [list(PROMPTS[:2]), list(PROMPTS[2:])]


def test_the_same_image_twice_is_scored_once(path: Path) -> None:
    judge = Judge()
    image = sample_images()[0]
    one, two = cached(path, judge).score([image, image.copy()], ["x", "x"])
    assert one == two
    assert judge.asked == [["x"]]


def test_image_prompt_and_fingerprint_all_count(path: Path) -> None:
    image = sample_images()[0]
    changed = image.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    judge, newer = Judge(), Judge("2")
    reward = cached(path, judge)
    reward.score([image], ["x"])
    reward.score([changed], ["x"])
    reward.score([image], ["y"])
    reward.score([image.resize((32, 128))], ["x"])
    cached(path, newer).score([image], ["x"])
    assert len(judge.asked) == 4
    assert len(newer.asked) == 1


def test_palettes_with_the_same_indices_are_different_images(path: Path) -> None:
    one = Image.new("P", (4, 4))
    one.putpalette([250, 0, 0] * 256)
    two = Image.new("P", (4, 4))
    two.putpalette([0, 0, 9] * 256)
    assert one.tobytes() == two.tobytes()
    reward = cached(path)
    assert reward.score([one], [""]) != reward.score([two], [""])


def test_one_image_in_two_modes_is_one_image(path: Path) -> None:
    judge = Judge()
    image = sample_images()[0]
    cached(path, judge).score([image, image.convert("RGBA")], ["x", "x"])
    assert judge.asked == [["x"]]


def test_prompts_of_any_kind_are_keys(path: Path) -> None:
    odd = ["", "東京 🦊", "a\x00b", "\ud800", "x" * 10_000]
    images = sample_images()
    scores = cached(path).score(images, odd)
    judge = Judge()
    assert cached(path, judge).score(images, odd) == scores
    assert judge.asked == []


def test_what_is_no_number_is_not_remembered(path: Path) -> None:
    class Broken(Judge):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
            super().score(images, prompts)
            return [math.nan, 1.0, math.inf] if len(images) == 3 else [math.nan, math.inf]

    judge = Broken()
    reward = cached(path, judge)
    assert math.isnan(reward.score(sample_images()[:3], ["x", "y", "z"])[0])
    reward.score(sample_images()[:3], ["x", "y", "z"])
    assert judge.asked == [["x", "y", "z"], ["x", "z"]]


def test_a_judge_that_fails_leaves_nothing_behind(path: Path) -> None:
    class Failing(Judge):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
            raise RewardError("failed half way. Try again.")

    with pytest.raises(RewardError, match="failed half way"):
        cached(path, Failing()).score(sample_images(), PROMPTS)
    judge = Judge()
    cached(path, judge).score(sample_images(), PROMPTS)
    assert judge.asked == [list(PROMPTS)]


def test_a_judge_that_miscounts_is_an_error(path: Path) -> None:
    class Miscounting(Judge):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
            return [1.0]

    with pytest.raises(RewardError, match="'judge' gave 1 scores for 2 images"):
        cached(path, Miscounting()).score(sample_images()[:2], ["x", "y"])


def test_the_oldest_go_first(path: Path) -> None:
    images = sample_images()
    reward = cached(path, limit=3)
    for image in images:
        reward.score([image], ["x"])
    judge = Judge()
    kept = cached(path, judge, limit=3)
    kept.score(images[2:], ["x"] * 3)
    assert judge.asked == []
    kept.score(images[:1], ["x"])
    assert judge.asked == [["x"]]


@pytest.mark.parametrize("content", [b"not a database at all" * 50, b"SQLite format 3\x00" * 300])
def test_a_file_that_is_no_database_is_moved_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    judge = Judge()
    reward = cached(path, judge)
    reward.score(sample_images(), PROMPTS)
    assert path.with_name("scores.sqlite.damaged").read_bytes() == content
    (first, second) = reward.warnings()
    assert first == "a prompt was cut"
    assert "was damaged" in second
    assert "the old one is scores.sqlite.damaged" in second
    assert reward.warnings() == ["a prompt was cut"]
    reward.score(sample_images(), PROMPTS)
    assert judge.asked == [list(PROMPTS)]


def test_a_page_that_is_damaged_is_found_when_it_is_read(path: Path) -> None:
    writer = ScoreCache(path)
    keys = [number.to_bytes(32, "big") for number in range(3000)]
    writer.put(dict.fromkeys(keys, 1.0))
    writer.close()
    content = bytearray(path.read_bytes())
    content[8192 : len(content) - 4096] = b"\xff" * (len(content) - 12288)
    path.write_bytes(content)
    cache = ScoreCache(path)
    assert cache.get(keys) == {}
    assert "was damaged" in (cache.trouble or "")
    cache.put({keys[0]: 2.0})
    assert cache.get(keys[:1]) == {keys[0]: 2.0}
    assert path.with_name("scores.sqlite.damaged").exists()


def test_a_place_that_cannot_be_written_costs_the_saving_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    judge = Judge()
    reward = cached(tmp_path / "file" / "scores.sqlite", judge)
    for _ in range(2):
        assert reward.score(sample_images(), PROMPTS) == Judge().score(sample_images(), PROMPTS)
    assert len(judge.asked) == 2
    assert "cannot be used" in reward.warnings()[1]


def test_a_file_that_somebody_holds_costs_the_saving_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_automerge.reward.cache._WAIT_S", 0.05)
    reward = cached(path)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    assert reward.score(sample_images(), PROMPTS) == Judge().score(sample_images(), PROMPTS)
    assert "cannot be used" in reward.warnings()[1]
    assert not path.with_name("scores.sqlite.damaged").exists()
    holder.close()


WRITER = """
import sys
import threading
from pathlib import Path
from lib_automerge.reward.cache import ScoreCache
cache = ScoreCache(Path(sys.argv[1]))
for number in range(200):
    key = (int(sys.argv[2]) * 1000 + number).to_bytes(32, "big")
    cache.put({key: float(number)})
    assert cache.get([key]) == {key: float(number)}
assert cache.trouble is None, cache.trouble
cache.close()
"""


def test_processes_share_a_file(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)])
        for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    keys = [(w * 1000 + n).to_bytes(32, "big") for w in range(3) for n in range(200)]
    assert len(ScoreCache(path).get(keys)) == 600


def test_a_new_file_may_be_opened_by_several_at_once(tmp_path: Path) -> None:
    everyone = threading.Barrier(8)

    def trouble(file: Path) -> str | None:
        everyone.wait(60)
        cache = ScoreCache(file)
        cache.put({b"key": 1.0})
        assert cache.get([b"key"]) == {b"key": 1.0}
        cache.close()
        return cache.trouble

    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            file = tmp_path / f"{number}.sqlite"
            assert list(threads.map(trouble, [file] * 8)) == [None] * 8


def test_a_process_that_is_killed_while_it_writes_damages_nothing(path: Path) -> None:
    code = WRITER.replace("range(200)", "range(10**9)")
    writer = subprocess.Popen([sys.executable, "-c", code, str(path), "0"])
    cache = ScoreCache(path)
    first = (0).to_bytes(32, "big")
    while not cache.get([first]):
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    after = ScoreCache(path)
    assert after.get([first]) == {first: 0.0}
    assert after.trouble is None
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_model_moves_only_to_score_and_at_once_to_make_room(path: Path) -> None:
    judge = Judge()
    reward = cached(path, judge)
    reward.place("cuda")
    assert judge.places == []
    reward.score(sample_images(), PROMPTS)
    reward.place("cpu")
    assert judge.places == ["cuda", "cpu"]
    reward.place("cuda")
    reward.score(sample_images(), PROMPTS)
    reward.place("cpu")
    assert judge.places == ["cuda", "cpu"]


@pytest.mark.parametrize("name", ["image_reward", "hpsv2", "pickscore", "clip_score"])
def test_a_prompt_that_is_cut_is_told_though_its_scores_are_known(
    name: str, path: Path, tmp_path: Path
) -> None:
    def opened() -> CachedReward:
        if name == "image_reward":
            return cached(path, TinyImageReward(write_tiny(tmp_path), device="cpu"))
        return cached(path, make_tiny(name, tmp_path))

    images, long = sample_images()[:2], "a cat " * 40
    first = opened()
    scores = first.score(images, [long, "a cat"])
    told = first.warnings()
    assert len(told) == 1
    assert "word pieces of a prompt" in told[0]
    first.close()
    second = opened()
    assert second.score(images, [long, "a cat"]) == scores
    assert second.warnings() == told
    second.score(images, [long, long])
    assert second.warnings() == []
    second.close()


def test_a_prompt_is_read_once(path: Path) -> None:
    judge = Judge()
    reward = cached(path, judge)
    for _ in range(2):
        reward.score(sample_images()[:3], ["x", "y", "x"])
    assert judge.read_prompts == ["x", "y"]


def test_closing_closes_the_reward(path: Path) -> None:
    judge = Judge()
    reward = cached(path, judge)
    reward.close()
    reward.close()
    assert judge.closed
    assert reward.fingerprint == judge.fingerprint


def test_scores_are_kept_where_the_registry_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of a server, which may change behind its name, nor the demo's, which is quick."""
    demo = DemoReward()
    assert kept(demo, path) is demo
    assert not path.exists()
    assert not registry.describe("external").keep_scores
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("judge", label="Judge", help="Judges.")(Judge)
    reward = kept(Judge(), path)
    assert isinstance(reward, CachedReward)
    assert reward.score(sample_images(), PROMPTS) == Judge().score(sample_images(), PROMPTS)
    assert path.exists()
