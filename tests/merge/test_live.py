"""Merges in a model that is loaded: only what changes is written, with the bits of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.errors import ConfigError, GenerationError, ModelError
from lib_automerge.merge import merge_files
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.lab import budget
from lib_automerge.merge.lab import files as lab_files
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.live import LiveMerger, changed
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.rebasin import cache
from lib_automerge.merge.rebasin.cache import cached_match
from lib_automerge.merge.rebasin.matching import Matching
from tests.checkpoints import write_tiny
from tests.merge.rebasin.test_files import write_shuffled

SD1 = architectures.get("sd1")
KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


class Loaded:
    """A loaded model: its tensors, half of which can be written in place."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.live = {key: value.clone() for key, value in state.items()}
        self.touched: set[str] = set()

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        tensor = self.live[key]
        if len(key) % 2 or tensor.dtype != dtype:
            return None
        self.touched.add(key)
        return tensor

    def put(self, key: str, tensor: Tensor) -> None:
        self.touched.add(key)
        self.live[key].copy_(tensor)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[dict[str, Checkpoint]]:
    paths = {
        name: write_tiny(tmp_path / f"{name}.safetensors", "sd1", seed=seed)
        for seed, name in enumerate(("base", "m001", "m002", "c"))
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(open_checkpoint(path)) for name, path in paths.items()}


def recipe(
    models: Mapping[str, Checkpoint],
    method: str,
    roles: Mapping[str, str],
    parameters: Mapping[str, ParameterValue] | None = None,
    **more: Any,
) -> Recipe:
    refs = {
        role: ModelRef(models[name].name, models[name].sha256(), str(models[name].path))
        for role, name in roles.items()
    }
    return Recipe(
        architecture="sd1", method=method, models=refs, parameters=parameters or {}, **more
    )


AB = {"a": "base", "b": "m001"}
ABC = {**AB, "c": "c"}
MANY = {"base": "base", "m001": "m001", "m002": "m002"}
POOL = {"m001": "base", "m002": "m001", "m003": "m002"}

LAB: list[tuple[str, Mapping[str, str], Mapping[str, ParameterValue], Mapping[str, float]]] = [
    ("slerp", AB, {}, {"IN03": 0.3, "M00": 1.0, "BASE": 0.5}),
    ("sum_twice", ABC, {"beta": {"IN01": 0.4}}, {"IN01": 0.2, "OUT": 0.7}),
    ("train_difference", ABC, {}, {"IN05": 0.8}),
    ("ties", MANY, {"k": {"IN04": 0.5}, "scale": 0.9}, {}),
    ("della", MANY, {"p": 0.4, "seed": 3}, {}),
    ("average", POOL, {"shares": {"m001": 0.5, "m003": 2.0}}, {}),
    ("model_stock", MANY, {"scope": "model"}, {}),
]


@pytest.mark.parametrize(("method", "roles", "parameters", "weights"), LAB, ids=[x[0] for x in LAB])
def test_what_is_live_has_the_bits_of_the_file(
    opened: dict[str, Checkpoint],
    tmp_path: Path,
    method: str,
    roles: Mapping[str, str],
    parameters: Mapping[str, ParameterValue],
    weights: Mapping[str, float],
) -> None:
    asked = recipe(opened, method, roles, parameters, weights=dict(weights))
    written = load_file(merge_files(asked, tmp_path / "out.safetensors"))
    loaded = Loaded(load_file(opened["base"].path))
    merger = LiveMerger({**opened, "a": opened["base"]})
    other = recipe(opened, "weighted_sum", {"a": "base", "b": "c"}, weights={"IN07": 1.0})
    merger.merge(other, loaded, {"IN07"})
    blocks = changed(merger.effects(other), merger.effects(asked))
    merger.merge(asked, loaded, blocks)
    assert written.keys() == loaded.live.keys()
    for key, value in written.items():
        assert torch.equal(loaded.live[key].view(torch.uint8), value.view(torch.uint8)), key


def test_only_blocks_whose_parameters_differ_are_written(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    first = recipe(opened, "ties", MANY, {"k": {"IN04": 0.5, "M00": 0.1}})
    second = recipe(opened, "ties", MANY, {"k": {"IN04": 0.5, "M00": 0.3, "OUT": 0.9}})
    blocks = changed(merger.effects(first), merger.effects(second))
    assert blocks == {"M00", "OUT"}
    loaded = Loaded(load_file(opened["base"].path))
    merger.merge(second, loaded, blocks)
    assert {SD1.block_of(key) for key in loaded.touched} == blocks


def test_one_parameter_for_all_changes_all_blocks(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    first, second = (recipe(opened, "ties", MANY, {"k": k}) for k in (0.2, 0.3))
    assert changed(merger.effects(first), merger.effects(second)) == set(SD1.blocks)
    assert merger.effects(recipe(opened, "ties", MANY, {"scale": 0.0})) == {}


def test_remerging_touches_changed_blocks_only_and_forgets_the_past(
    opened: dict[str, Checkpoint], tmp_path: Path
) -> None:
    weights = {block: 0.05 + 0.9 * n / 29 for n, block in enumerate(SD1.blocks)}
    first = recipe(opened, "weighted_sum", AB, weights=weights)
    second = recipe(
        opened, "weighted_sum", AB, weights={**weights, "IN04": 0.77, "M00": 0.0, "OUT": 1.0}
    )
    merger = LiveMerger({**opened, "a": opened["base"]})
    effects = [merger.effects(each) for each in (first, second)]
    assert changed(None, effects[0]) is None
    assert changed(*effects) == {"IN04", "M00", "OUT"}
    assert merger.effects(recipe(opened, "weighted_sum", AB, weights={"IN00": 0.0})) == {}
    loaded = Loaded(load_file(opened["base"].path))
    merger.merge(first, loaded, None)
    loaded.touched.clear()
    merger.merge(second, loaded, changed(*effects))
    assert {SD1.block_of(key) for key in loaded.touched} == {"IN04", "M00", "OUT"}
    written = load_file(merge_files(second, tmp_path / "out.safetensors"))
    assert all(torch.equal(loaded.live[key], value) for key, value in written.items())


def test_the_same_weight_of_another_model_is_another_merge(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    b, c = (
        recipe(opened, "weighted_sum", {"a": "base", "b": name}, weights={"IN00": 1.0})
        for name in ("m001", "c")
    )
    assert changed(merger.effects(b), merger.effects(c)) == {"IN00"}
    loaded = Loaded(load_file(opened["base"].path))
    merger.merge(c, loaded, {"IN00"})
    key = next(key for key in loaded.touched)
    assert torch.equal(loaded.live[key], opened["c"].tensor(key))


def test_the_first_model_comes_back_from_its_file(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    loaded = Loaded(load_file(opened["base"].path))
    merger.merge(recipe(opened, "ties", MANY), loaded, set(SD1.blocks))
    assert not torch.equal(loaded.live[KEY], opened["base"].tensor(KEY))
    merger.put_first(loaded, set(SD1.blocks))
    for key, value in load_file(opened["base"].path).items():
        assert torch.equal(loaded.live[key], value), key


def test_a_model_that_is_not_open_is_asked_for(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({"a": opened["base"], "b": opened["m001"]})
    with pytest.raises(ConfigError, match="needs model 'c'"):
        merger.effects(recipe(opened, "train_difference", ABC, weights={"IN00": 1.0}))
    strange = recipe(opened, "weighted_sum", AB, weights={"IN00": 1.0})
    other = msgspec.structs.replace(strange.models["b"], sha256="0" * 64)
    with pytest.raises(ConfigError, match="needs model 'b'"):
        merger.effects(msgspec.structs.replace(strange, models={**strange.models, "b": other}))


def test_a_merge_that_overflows_is_an_error_of_the_candidate(
    opened: dict[str, Checkpoint], tmp_path: Path
) -> None:
    state = load_file(opened["m001"].path)
    state[KEY].fill_(60000.0)
    save_file(state, tmp_path / "huge.safetensors")
    with open_checkpoint(tmp_path / "huge.safetensors") as huge:
        models = {**opened, "a": opened["base"], "huge": huge}
        merger = LiveMerger(models)
        asked = recipe(
            models, "amplified_difference", {"a": "base", "b": "huge"}, {"amount": {"IN01": 9.0}}
        )
        with pytest.raises(GenerationError, match="NaN or infinite"):
            merger.merge(asked, Loaded(load_file(opened["base"].path)), {"IN01"})


def test_a_file_that_changes_after_the_first_candidate_is_noticed(
    opened: dict[str, Checkpoint],
) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    asked = recipe(opened, "ties", MANY)
    merger.effects(asked)
    opened["m002"].path.touch()
    loaded = Loaded(load_file(opened["base"].path))
    with pytest.raises((GenerationError, ModelError), match="changed"):
        merger.merge(asked, loaded, {"IN01"})


def test_what_the_process_holds_already_is_not_the_merges(
    opened: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (budget, lab_files):
        monkeypatch.setattr(module, "own_memory", lambda: 20 << 30)
    asked = recipe(opened, "ties", MANY)
    write_merge(asked, {}, tmp_path / "out.safetensors")
    with pytest.raises(ConfigError, match="too little"):
        merge_files(asked, tmp_path / "capped.safetensors", lab=LabOptions(memory=2 << 30))


def test_a_file_that_changes_between_candidates_is_noticed(opened: dict[str, Checkpoint]) -> None:
    merger = LiveMerger({**opened, "a": opened["base"]})
    merger.effects(recipe(opened, "ties", MANY, {"k": 0.2}))
    opened["m002"].path.touch()
    with pytest.raises(ModelError, match="changed"):
        merger.effects(recipe(opened, "ties", MANY, {"k": 0.3}))


@pytest.mark.parametrize("method", ["rebasin", "basin_sum", "rebasin_amplified"])
def test_whole_models_are_looked_at_once_for_all_candidates(
    opened: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    shuffled = write_shuffled(opened["m001"].path, tmp_path / "shuffled.safetensors")
    told: list[str] = []
    matched: list[Path | None] = []

    def match(*models: Any, cache: Path | None, **more: Any) -> Matching:
        matched.append(cache)
        return cached_match(*models, cache=cache, **more)

    with open_checkpoint(shuffled) as b:
        models = {**opened, "a": opened["base"], "b": b}
        first, second, other = (
            recipe(models, method, {"a": "base", "b": "b"}, {"sweeps": 1, "seed": seed}, weights=w)
            for seed, w in ((0, {"IN01": 1.0}), (0, {"IN01": 0.5, "M00": 0.3}), (1, {"IN01": 0.5}))
        )
        written = [
            load_file(
                merge_files(each, tmp_path / f"{n}.safetensors", lab=LabOptions(cache=tmp_path))
            )
            for n, each in enumerate((first, second))
        ]
        monkeypatch.setattr(cache, "cached_match", match)
        loaded = Loaded(load_file(opened["base"].path))
        merger = LiveMerger(models, tmp_path, told.append)
        before: Mapping[str, Any] = {}
        for each, tensors in zip((first, second), written, strict=True):
            wanted = merger.effects(each)
            merger.merge(each, loaded, changed(before, wanted))
            before = wanted
            for key, value in tensors.items():
                assert torch.equal(loaded.live[key], value), key
        assert matched == [tmp_path]
        assert len(told) == 1
        assert "places" in told[0]
        merger.merge(other, loaded, {"IN01"})
        assert matched == [tmp_path, tmp_path]
    if method == "rebasin":
        # what was shuffled lies where it lay before
        assert not torch.equal(load_file(shuffled)[KEY], written[0][KEY])
