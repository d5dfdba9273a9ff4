"""Rewards that users write, as files in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import create, describe, names, plugins, registry
from lib_automerge.reward.base import Reward
from lib_automerge.reward.registry import Option
from lib_automerge.reward.status import status
from tests.contracts.reward import Prompts, RewardContract, sample_images

FUNCTION = '''"""How red an image is.

More about it.
"""
import numpy as np

def score(image, prompt):
    return np.asarray(image)[..., 0].mean() / 255 - len(prompt) / 1000
'''

CLASS = """from __future__ import annotations

from pathlib import Path


class Helper:
    pass


class Weighted:
    def __init__(self, weight: float, device: str | None = None, table: Path | None = None) -> None:
        self.weight = weight
        self.places = []
        self.closed = 0

    def score(self, images, prompts):
        return [self.weight * image.getpixel((0, 0))[0] for image in images]

    def place(self, device):
        self.places.append(device)

    def read_prompts(self, prompts):
        self.places += prompts

    def warnings(self):
        return ["placed on " + ", ".join(self.places)]

    def close(self):
        self.closed += 1
"""


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry as it was, without plug-ins."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_loaded", set())
    yield
    for name in [name for name in sys.modules if name.startswith(plugins.PACKAGE)]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    return tmp_path / "plugins"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


class TestAFunctionKeepsTheContract(RewardContract):
    @pytest.fixture
    def reward(self, folder: Path) -> Reward:
        write(folder, "redness.py", FUNCTION)
        assert plugins.load(folder, allowed=True).told == ()
        return create("redness")

    @pytest.fixture
    def prompts(self) -> Prompts:
        return ("a cat", "", "東京", "a cat", "x" * 100)


def test_nothing_is_run_that_is_not_allowed(folder: Path) -> None:
    path = write(folder, "spy.py", f"open({str(folder / 'ran')!r}, 'w')\n{FUNCTION}")
    found = plugins.load(folder, allowed=False)
    assert found.names == ()
    assert "spy" not in names()
    assert not (folder / "ran").exists()
    (told,) = found.told
    assert "1 were not loaded from" in told
    assert "--allow-plugins" in told
    assert plugins.load(folder, allowed=True).names == ("spy",)
    assert (folder / "ran").exists()
    path.unlink()
    assert plugins.load(folder, allowed=False) == plugins.Plugins()
    assert plugins.load(folder / "none", allowed=True) == plugins.Plugins()


def test_a_function_is_shown_like_the_built_ins(folder: Path) -> None:
    write(folder, "redness.py", FUNCTION)
    found = plugins.load(folder, allowed=True)
    assert found == plugins.Plugins(names=("redness",))
    info = describe("redness")
    assert (info.label, info.help) == ("Redness", "How red an image is.")
    assert info.options == ()
    assert status("redness").ready


def test_a_class_has_options_and_the_rest_of_the_protocol(folder: Path) -> None:
    write(folder, "weighted.py", CLASS)
    assert plugins.load(folder, allowed=True).told == ()
    assert describe("weighted").options == (
        Option(name="weight", kind="number", required=True, nullable=False),
        Option(name="device", kind="text", required=False, nullable=True),
        Option(name="table", kind="path", required=False, nullable=True),
    )
    with pytest.raises(ConfigError, match="'weighted' needs the option 'weight'"):
        create("weighted")
    reward = create("weighted", weight=2, device="cpu")
    image = sample_images()[0]
    assert reward.score([image.convert("P")], ["x"]) == [
        2.0 * image.convert("P").convert("RGB").getpixel((0, 0))[0]
    ]
    reward.place("cpu")
    assert reward.warnings() == ["placed on cpu"]
    reward.read(["a cat"])
    assert reward.warnings() == ["placed on cpu, a cat"]
    judge = reward._judge  # type: ignore[attr-defined]
    reward.close()
    reward.close()
    assert judge.closed == 1
    with pytest.raises(RewardError, match="closed: 'weighted'"):
        reward.score([image], ["x"])


def test_the_fingerprint_holds_the_file_and_the_options(folder: Path) -> None:
    path = write(folder, "weighted.py", CLASS)
    plugins.load(folder, allowed=True)
    first = create("weighted", weight=2).fingerprint
    assert first.startswith("weighted:plugin:")
    assert create("weighted", weight=2, device="cpu").fingerprint == first
    assert create("weighted", weight=3).fingerprint != first
    path.write_text(CLASS + "# changed\n")
    plugins.load(folder, allowed=True)
    assert create("weighted", weight=2).fingerprint != first


def test_loading_again_replaces_what_was_loaded(folder: Path) -> None:
    path = write(folder, "redness.py", FUNCTION)
    plugins.load(folder, allowed=True)
    path.rename(folder / "crimson.py")
    assert plugins.load(folder, allowed=True).names == ("crimson",)
    assert "redness" not in names()
    plugins.load(folder, allowed=False)
    assert "crimson" not in names()
    assert "demo" in names()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def score(image, prompt:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("x = 1\n", "it has 0 judges"),
        ("score = 3\n", "it has 0 judges"),
        (FUNCTION + "\nclass A:\n    def score(self, i, p): ...\n", "it has 2 judges"),
        ("class A:\n    def score(self): ...\nclass B(A): ...\n", "it has 2 judges"),
        ("def score(image): ...\n", "score must take an image and a prompt"),
        (CLASS.replace("weight: float", "weight"), "cannot be an option of reward 'broken'"),
        (CLASS.replace("weight: float", "weight: Unknown"), "cannot be read: name 'Unknown'"),
    ],
)
def test_a_broken_plugin_says_so_and_hides_nothing(text: str, words: str, folder: Path) -> None:
    write(folder, "broken.py", text)
    write(folder, "redness.py", FUNCTION)
    found = plugins.load(folder, allowed=True)
    assert found.names == ("broken", "redness")
    (told,) = found.told
    assert words in told
    assert str(folder / "broken.py") in told
    assert status("redness").ready
    broken = status("broken")
    assert (broken.ready, broken.told) == (False, told)
    with pytest.raises(RewardError, match="the plug-in 'broken' cannot be used"):
        create("broken")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image_reward.py", "reward name is taken: 'image_reward'. Rename the file"),
        ("ensemble.py", "reward name is taken: 'ensemble'"),
        ("My Judge.py", "not a name for a reward: 'My Judge'"),
        ("2nd.py", "not a name for a reward: '2nd'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, words: str, folder: Path) -> None:
    before = describe("image_reward")
    write(folder, name, FUNCTION)
    found = plugins.load(folder, allowed=True)
    assert found.names == ()
    assert words in found.told[0]
    assert describe("image_reward") == before


def test_names_with_an_underscore_in_front_are_left_alone(folder: Path) -> None:
    write(folder, "_helper.py", "raise ValueError")
    assert plugins.load(folder, allowed=True) == plugins.Plugins()


def test_they_are_there_for_the_others_and_count_in_their_fingerprints(folder: Path) -> None:
    write(folder, "own.py", "from . import _shared\ndef score(image, prompt): return _shared.TWO")
    found = []
    for number in (2, 3):
        write(folder, "_shared.py", f"TWO = {number}  # {'x' * number}")
        assert plugins.load(folder, allowed=True).told == ()
        reward = create("own")
        found.append((reward.fingerprint, *reward.score(sample_images()[:1], ["x"])))
    assert [score for _, score in found] == [2.0, 3.0]
    assert found[0][0] != found[1][0]


def test_a_file_that_is_an_option_counts_by_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    text = """
from pathlib import Path
class Own:
    def __init__(self, table: Path): self.value = float(table.read_text())
    def score(self, images, prompts): return [self.value for _ in images]
"""
    write(folder, "own.py", text)
    plugins.load(folder, allowed=True)
    table, fingerprints = tmp_path / "table.txt", []
    for value in "12":
        table.write_text(value)
        fingerprints.append(create("own", table=table).fingerprint)
    assert fingerprints[0] != fingerprints[1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def score(self, i, p): return (1 / 0 for _ in i)", "ZeroDivisionError"),
        ("def score(self, i, p): return {0.5: 'a'}", "TypeError: a list of numbers was expected"),
        ("def score(self, i, p): raise SystemExit(3)", "SystemExit: 3"),
        (
            "def score(self, i, p): return [0.5]\n    def warnings(self): raise OSError('no disk')",
            "OSError: no disk",
        ),
    ],
)
def test_whatever_a_class_does_is_a_sentence(body: str, words: str, folder: Path) -> None:
    write(folder, "own.py", f"class Own:\n    {body}")
    plugins.load(folder, allowed=True)
    own = create("own")
    with pytest.raises(RewardError, match=f"'own' failed: {words}"):
        _ = own.score(sample_images()[:1], ["x"]), own.warnings()


def test_a_fingerprint_that_fails_is_a_sentence(folder: Path) -> None:
    text = """
class Own:
    @property
    def fingerprint(self): raise KeyError("weights")
    def score(self, images, prompts): return [0.5 for _ in images]
"""
    write(folder, "own.py", text)
    plugins.load(folder, allowed=True)
    with pytest.raises(RewardError, match="cannot be made: KeyError"):
        create("own")


def test_a_helper_called_read_is_the_plugins_own(folder: Path) -> None:
    write(
        folder,
        "reader.py",
        """class Reader:
    def read(self, path, mode):
        raise RuntimeError(path)

    def score(self, images, prompts):
        return [1.0] * len(images)
""",
    )
    plugins.load(folder, allowed=True)
    create("reader").read(["a cat"])


def test_warnings_may_be_none(folder: Path) -> None:
    body = "def score(self, i, p): return [0.5]\n    def warnings(self): return None"
    write(folder, "own.py", f"class Own:\n    {body}")
    plugins.load(folder, allowed=True)
    assert create("own").warnings() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no face found')", "ValueError: no face found"),
        ("return None", "NoneType"),
        ("return 'good'", "could not convert string"),
        ("return float('nan')", "it gave no number"),
        ("return 10 ** 400", "too large"),
    ],
)
def test_what_is_no_score_is_a_sentence(body: str, words: str, folder: Path) -> None:
    write(folder, "odd.py", f"def score(image, prompt):\n    {body}\n")
    plugins.load(folder, allowed=True)
    with pytest.raises(RewardError, match=r"the plug-in 'odd' failed: ") as failure:
        create("odd").score(sample_images()[:1], ["x"])
    assert words in str(failure.value)
    assert str(folder / "odd.py") in str(failure.value)


def test_a_class_that_miscounts_or_cannot_be_made_is_a_sentence(folder: Path) -> None:
    write(
        folder, "few.py", "class Few:\n    def score(self, images, prompts):\n        return [1]\n"
    )
    write(folder, "shy.py", CLASS.replace("self.weight = weight", "raise OSError('no table')"))
    plugins.load(folder, allowed=True)
    with pytest.raises(RewardError, match="'few' failed: it gave 1 scores for 2 images"):
        create("few").score(sample_images()[:2], ["x", "y"])
    with pytest.raises(RewardError, match="'shy' cannot be made: OSError: no table"):
        create("shy", weight=1)
