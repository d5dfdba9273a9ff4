from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image

from lib_automerge import reward as rewards
from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import (
    Reward,
    aesthetic,
    builtin,
    clip_rewards,
    create,
    describe,
    image_reward_pip,
    names,
    register,
    registry,
)
from lib_automerge.reward import demo as demo_module
from lib_automerge.reward import image_reward as image_reward_module
from lib_automerge.reward.aesthetic import LaionV2
from lib_automerge.reward.clip_rewards import HpsV2
from lib_automerge.reward.files import WeightFile
from lib_automerge.reward.image_reward import ImageReward
from lib_automerge.reward.registry import Option, readiness
from tests.empty_home import empty_home


class Recorder:
    """A reward that keeps the options that it was made with."""

    name = "recorder"
    fingerprint = "recorder-1"

    def __init__(self, **options: object) -> None:
        self.options = options

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        return [0.0 for _ in images]

    def read(self, prompts: Sequence[str]) -> None: ...

    def place(self, device: str) -> None: ...

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


FILE = WeightFile(
    option="weights",
    name="recorder.pt",
    repo="someone/recorder",
    path="final/recorder.pt",
    size=1_500_000,
    licence="MIT",
)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `recorder` and `plain` for one test."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @register("recorder", label="Recorder", help="Keeps its options.")
    def make(
        weights: Path,
        note: str = "none",
        strength: float = 1.0,
        count: int = 2,
        loud: bool = False,
        device: str | None = None,
    ) -> Reward:
        return Recorder(
            weights=weights, note=note, strength=strength, count=count, loud=loud, device=device
        )

    @register("finder", label="Finder", help="Looks its file up.", files=[FILE])
    def make_finder(weights: Path, second: Path | None = None) -> Reward:
        return Recorder(weights=weights, second=second)

    @register("plain", label="Plain", help="Takes nothing.")
    def make_plain() -> Reward:
        return Recorder()


def options_of(reward: Reward) -> dict[str, object]:
    assert isinstance(reward, Recorder)
    return reward.options


def test_lists_the_built_in_rewards() -> None:
    built_in = {
        *(
            "demo",
            "external",
            "image_reward",
            "image_reward_pip",
            "hpsv2",
            "pickscore",
            "clip_score",
        ),
        *("laion_v1", "laion_v2", "chad", "aes_b32", "aesthetic_v25"),
    }
    assert built_in <= set(names())
    assert names() == sorted(names())


def test_listing_and_describing_import_no_model() -> None:
    code = (
        "import sys\n"
        "from lib_automerge.reward import describe, names\n"
        "infos = [describe(name) for name in names()]\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exports_are_complete_and_sorted() -> None:
    assert rewards.__all__ == sorted(rewards.__all__)
    assert all(hasattr(rewards, name) for name in rewards.__all__)


def test_describes_options_from_the_signature() -> None:
    info = describe("image_reward")
    assert info.label == "ImageReward"
    assert info.options == (
        Option(name="weights", kind="path", required=False, nullable=True),
        Option(name="dtype", kind="text", required=False, nullable=True),
        Option(name="device", kind="text", required=False, nullable=True),
        Option(name="batch_size", kind="whole number", required=False, nullable=False, default=8),
    )


def test_the_options_of_the_built_in_rewards_are_their_constructors() -> None:
    def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
        return list(inspect.signature(function).parameters.values())

    model = parameters(builtin.options_of_a_model)
    assert model == parameters(ImageReward)
    assert model[1:] == parameters(HpsV2)[1:]
    assert parameters(builtin.options_of_a_head) == parameters(LaionV2)


@pytest.mark.parametrize("name", names())
def test_a_built_in_reward_makes_what_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each factory's class bears the factory's name; the class is replaced to load nothing."""
    info = describe(name)
    made: list[str] = []
    modules = (image_reward_module, image_reward_pip, clip_rewards, aesthetic, demo_module)
    for module in modules:
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__ and "name" in vars(cls):
                monkeypatch.setattr(
                    cls, "__init__", lambda self, *_, **__: made.append(type(self).name)
                )
    if info.files or name == "demo":
        registry._entries[name].factory(**{file.option: Path("x") for file in info.files})
        assert made == [name]


def test_every_published_file_has_its_own_name() -> None:
    """A models folder has one file of a name; two that share it are the same published file."""
    by_name: dict[str, set[tuple[object, ...]]] = {}
    for name in names():
        for file in describe(name).files:
            known = (file.path, file.size, file.licence, file.sha256, file.kept)
            by_name.setdefault(file.name, set()).add(known)
    assert all(len(known) == 1 for known in by_name.values())
    options = [(name, file.option) for name in names() for file in describe(name).files]
    assert {option for _, option in options} == {"weights", "encoder"}


def test_creates_with_defaults_and_converts_paths_and_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "x.pt").touch()
    options = options_of(create("recorder", weights="~/x.pt", strength=2))
    assert options == {
        "weights": tmp_path / "x.pt",
        "note": "none",
        "strength": 2.0,
        "count": 2,
        "loud": False,
        "device": None,
    }
    assert type(options["strength"]) is float


def test_none_means_the_default_where_it_is_allowed(tmp_path: Path) -> None:
    assert options_of(create("recorder", weights=tmp_path, device=None))["device"] is None


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("weights", 3, "path"),
        ("weights", None, "path"),
        ("note", 3, "text"),
        ("note", Path("x"), "text"),
        ("strength", "1", "number"),
        ("strength", True, "number"),
        ("count", 2.5, "whole number"),
        ("count", "8", "whole number"),
        ("count", True, "whole number"),
        ("loud", 1, "true or false"),
        ("device", 0, "text"),
    ],
)
def test_refuses_a_value_of_another_type(option: str, value: object, kind: str) -> None:
    options = {"weights": "x", option: value}
    with pytest.raises(ConfigError) as failure:
        create("recorder", **options)
    assert f"'{option}' of reward 'recorder' must be a {kind}: {value!r}" in str(failure.value)


def test_an_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown reward: 'imagereward'.*'image_reward'"):
        create("imagereward")
    with pytest.raises(ConfigError, match=r"unknown reward: 'demmo'.*'demo'"):
        describe("demmo")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"option of reward 'recorder': 'weight'.*'weights'"):
        create("recorder", weight="x")


def test_a_reward_without_options_says_so() -> None:
    with pytest.raises(ConfigError, match="'plain' takes no options: 'weights'"):
        create("plain", weights="x")


def test_a_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match="'recorder' needs the option 'weights'"):
        create("recorder", count=4)


def test_a_name_can_be_taken_only_once() -> None:
    with pytest.raises(ConfigError, match="taken: 'demo'"):
        register("demo", label="Other", help="Other.")
    with pytest.raises(ConfigError, match="taken: 'ensemble'"):
        register("ensemble", label="Other", help="Other.")


def test_refuses_factories_whose_options_cannot_be_checked() -> None:
    def no_annotation(weights=None) -> Reward:  # type: ignore[no-untyped-def]
        return Recorder(weights=weights)

    def other_type(weights: list[str]) -> Reward:
        return Recorder(weights=weights)

    def two_types(weights: Path | int) -> Reward:
        return Recorder(weights=weights)

    def any_keyword(**options: str) -> Reward:
        return Recorder(**options)

    def by_position(weights: Path, /) -> Reward:
        return Recorder(weights=weights)

    def folders(folders: str) -> Reward:
        return Recorder(folders=folders)

    for factory in (no_annotation, other_type, two_types, any_keyword, by_position, folders):
        with pytest.raises(ConfigError, match="cannot be an option of reward 'new'"):
            register("new", label="New", help="New.")(factory)
    assert "new" not in names()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any file of a reward; returns a folder for some."""
    empty_home(monkeypatch, tmp_path)
    return tmp_path / "rewards"


@pytest.mark.parametrize("given", [{}, {"weights": None}])
def test_a_file_that_no_option_names_is_looked_up(given: dict[str, object], nowhere: Path) -> None:
    nowhere.mkdir()
    (nowhere / "recorder.pt").touch()
    made = create("finder", folders=[nowhere / "none", nowhere], **given)
    assert options_of(made) == {"weights": nowhere / "recorder.pt", "second": None}
    assert registry.readiness("finder", given, folders=[nowhere]) == "Finder is ready."


def test_a_published_file_with_other_content_is_refused(nowhere: Path) -> None:
    published = WeightFile("weights", "exact.pt", "", "https://x", 3, "MIT", sha256="12345678")

    @register("exact", label="Exact", help="Knows its file.", files=[published])
    def make(weights: Path) -> Reward:
        return Recorder(weights=weights)

    nowhere.mkdir()
    (nowhere / "exact.pt").write_bytes(b"other")
    with pytest.raises(RewardError, match=r"is not the published exact\.pt"):
        create("exact", folders=[nowhere])
    (nowhere / "exact.pt").rename(nowhere / "mine.pt")
    assert options_of(create("exact", weights=nowhere / "mine.pt"))


def test_a_reward_that_cannot_be_made_here_says_so_before_anything_else() -> None:
    def refuse() -> None:
        raise ConfigError("it needs the moon. Wait for it.")

    @register("lunar", label="Lunar", help="Not here.", files=[FILE], ready=refuse)
    def make(weights: Path) -> Reward:
        raise AssertionError

    with pytest.raises(ConfigError, match="needs the moon"):
        create("lunar")
    with pytest.raises(ConfigError, match="needs the moon"):
        registry.readiness("lunar", {})


def test_a_file_that_is_nowhere_is_described(nowhere: Path) -> None:
    sentence = (
        f"Finder needs the file recorder.pt (1.5 MB, MIT): it is not in {nowhere} or the Hugging "
        "Face cache. Download it (python -m lib_automerge rewards --download finder), or get it "
        f"from https://huggingface.co/someone/recorder/blob/main/final/recorder.pt and put it into "
        f"{nowhere}."
    )
    for ask in (registry.readiness, lambda name, o, folders: create(name, folders=folders, **o)):
        with pytest.raises(RewardError) as failure:
            ask("finder", {}, folders=[nowhere])
        assert str(failure.value) == sentence


def test_a_named_file_must_be_there(nowhere: Path, tmp_path: Path) -> None:
    there = tmp_path / "x.pt"
    there.touch()
    gone = {"weights": str(tmp_path / "gone.pt")}
    with pytest.raises(RewardError, match=r"its weights: there is no file .*gone.pt. Get recorder"):
        create("finder", **gone)
    with pytest.raises(RewardError, match=r"its weights: there is no file .*gone.pt"):
        registry.readiness("finder", gone)
    with pytest.raises(RewardError, match=r"its second: there is no file .*gone. Correct the path"):
        registry.readiness("finder", {"weights": str(there), "second": str(tmp_path / "gone")})
    assert registry.readiness("finder", {"weights": str(there)}) == "Finder is ready."


def test_says_where_the_files_come_from() -> None:
    assert describe("finder").files == (FILE,)
    assert f"{FILE} from {FILE.address}" == (
        "recorder.pt (1.5 MB, MIT) from "
        "https://huggingface.co/someone/recorder/blob/main/final/recorder.pt"
    )
    assert describe("plain").files == ()


def test_a_file_belongs_to_a_path_option() -> None:
    def no_such(count: int = 1) -> Reward:
        return Recorder(count=count)

    with pytest.raises(ConfigError, match="file is of no option of reward 'new': 'weights'"):
        register("new", label="New", help="New.", files=[FILE])(no_such)


@pytest.mark.parametrize("name", ["human_rate", "human_choose"])
def test_a_person_is_no_model_to_load(name: str) -> None:
    with pytest.raises(RewardError, match="asked in the tab"):
        create(name)
    with pytest.raises(RewardError, match="asked in the tab"):
        readiness(name, {})
