"""The questions that a WebUI is asked at the start of a session, on WebUIs of every temper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import HostError
from lib_automerge.host.self_check import differing_blocks, self_check
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.checkpoints import write_tiny


class Obedient:
    """Its picture is a number of its weights; `calls` says what was asked."""

    def __init__(self) -> None:
        self.weights: Mapping[str, float] = {}
        self.recipes: list[Mapping[str, float]] = []
        self.calls: list[str] = []
        self.wrong: str | None = None

    def apply(self, recipe: Recipe) -> None:
        self.weights = recipe.weights
        self.recipes.append(recipe.weights)
        self.calls.append("apply")

    def picture(self, job: ImageJob) -> Image.Image:
        self.calls.append("picture")
        return self.shown(len([w for w in self.weights.values() if w]))

    def shown(self, level: int) -> Image.Image:
        return Image.fromarray(np.full((2, 2, 3), 100 + level, np.uint8))

    def reload(self) -> None:
        self.calls.append("reload")
        self.wrong = None

    def difference(self) -> str | None:
        return self.wrong


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checkpoint]]:
    folder = tmp_path_factory.mktemp("models")

    def made(name: str, seed: int) -> Path:
        return write_tiny(folder / f"{name}.safetensors", "sd1", seed=seed)

    with ExitStack() as stack:
        yield {
            name: stack.enter_context(open_checkpoint(made(name, seed)))
            for name, seed in (("a", 1), ("b", 2), ("same", 1))
        }


def test_the_obedient_are_asked_little(files: Mapping[str, Checkpoint]) -> None:
    webui = Obedient()
    assert self_check(webui, files["a"], files["b"]) == []
    assert webui.calls.count("picture") == 3
    assert webui.recipes == [{"IN00": 1.0, "OUT": 1.0, "BASE": 1.0}, {}]


def test_without_b_only_the_weights_are_looked_at(files: Mapping[str, Checkpoint]) -> None:
    for other in (None, files["same"]):
        webui = Obedient()
        assert self_check(webui, files["a"], other) == []
        assert webui.calls == ["picture"]


def test_wrong_weights_are_read_again_and_must_then_be_right(
    files: Mapping[str, Checkpoint],
) -> None:
    webui = Obedient()
    webui.wrong = "x"
    self_check(webui, files["a"], None)
    assert webui.calls == ["picture", "reload", "picture"]

    class Stubborn(Obedient):
        def reload(self) -> None:
            pass

    webui = Stubborn()
    webui.wrong = "unet.weight"
    with pytest.raises(HostError, match=r"not what the file of a holds: 'unet\.weight' differs"):
        self_check(webui, files["a"], None)


def test_broken_pictures_prove_nothing(files: Mapping[str, Checkpoint]) -> None:
    class Blind(Obedient):
        def shown(self, level: int) -> Image.Image:
            image = super().shown(level)
            image.info["broken"] = "black"
            return image

    with pytest.raises(HostError, match=r"model A \(a\) makes a black test image"):
        self_check(Blind(), files["a"], files["b"])


def test_weights_that_do_not_show(files: Mapping[str, Checkpoint]) -> None:
    class Deaf(Obedient):
        def shown(self, level: int) -> Image.Image:
            return super().shown(0)

    with pytest.raises(HostError, match="do not follow its weights"):
        self_check(Deaf(), files["a"], files["b"])


def test_a_faint_difference_is_looked_for_in_all_blocks(files: Mapping[str, Checkpoint]) -> None:
    class Faint(Obedient):
        def shown(self, level: int) -> Image.Image:
            return super().shown(level // 10)

    webui = Faint()
    assert self_check(webui, files["a"], files["b"]) == []
    assert len(webui.recipes[1]) == len(differing_blocks(files["a"], files["b"])) == 28


def test_what_stays_changed(files: Mapping[str, Checkpoint]) -> None:
    class Stale(Obedient):
        most = 0

        def shown(self, level: int) -> Image.Image:
            self.most = max(level, self.most)
            return super().shown(self.most)

    with pytest.raises(HostError, match="pixels differ by up to 3 of 255"):
        self_check(Stale(), files["a"], files["b"])


def test_what_never_repeats_itself_is_told(files: Mapping[str, Checkpoint]) -> None:
    class Noisy(Obedient):
        ticks = count()

        def shown(self, level: int) -> Image.Image:
            return super().shown(20 * level + next(self.ticks) % 3)

    (warning,) = self_check(Noisy(), files["a"], files["b"])
    assert "does not repeat its own images exactly" in warning
