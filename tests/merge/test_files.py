from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge import merge_files
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.sinks import DictSink
from tests.checkpoints import write_tiny

WEIGHTS = {"IN00": 0.25, "M00": 0.5, "OUT11": 1.0, "BASE": 0.4, "VAE": 0.9}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    models = {}
    for seed, role in enumerate("ab"):
        path = write_tiny(
            tmp_path / f"{role}.safetensors",
            "sd1",
            seed=seed,
            metadata={"modelspec.prediction_type": "epsilon", "secret": "dropped"},
        )
        with open_checkpoint(path) as checkpoint:
            models[role] = ModelRef(role.upper(), checkpoint.sha256(), str(path))
    return Recipe(architecture="sd1", method="weighted_sum", models=models, weights=WEIGHTS)


def test_the_file_holds_the_merge_and_reads_everywhere(recipe: Recipe, tmp_path: Path) -> None:
    output = merge_files(recipe, tmp_path / "merged.safetensors")
    sink = DictSink()
    with (
        open_checkpoint(Path(recipe.models["a"].path)) as a,
        open_checkpoint(Path(recipe.models["b"].path)) as b,
    ):
        Merger({"a": a, "b": b}, "weighted_sum").merge(WEIGHTS, sink)
    stored = load_file(output)
    assert set(stored) == set(sink.tensors)
    assert all(torch.equal(stored[key], sink.tensors[key]) for key in stored)


@pytest.mark.parametrize("family", ["sd3.5_medium", "flux1", "hunyuandit", "anima"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_transformers_are_merged_block_by_block(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    paths = {
        role: write_tiny(tmp_path / f"{role}.safetensors", family, seed=seed, dtype=dtype)
        for seed, role in enumerate("ab")
    }
    found = architectures.get(family)
    weights = dict.fromkeys(found.parameters[::2], 1.0)
    output = merge_files(
        Recipe(
            architecture=family,
            method="weighted_sum",
            models={role: ModelRef(role, path=str(path)) for role, path in paths.items()},
            weights=weights,
        ),
        tmp_path / "merged.safetensors",
    )
    stored, a, b = (load_file(path) for path in (output, paths["a"], paths["b"]))
    assert set(stored) == set(found.reference_keys)
    for key, tensor in stored.items():
        source = b if found.block_of(key) in weights else a
        assert torch.equal(tensor.view(torch.uint8), source[key].view(torch.uint8)), key


def test_the_same_recipe_gives_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    one = merge_files(recipe, tmp_path / "one.safetensors").read_bytes()
    two = merge_files(recipe, tmp_path / "two.safetensors").read_bytes()
    assert one == two
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        entries = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert set(entries.values()) == {"F16", "I64"}


def test_metadata_tells_where_it_comes_from(recipe: Recipe, tmp_path: Path) -> None:
    output = merge_files(recipe, tmp_path / "merged.safetensors")
    with safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert "secret" not in metadata
    shared = json.loads(metadata["automerge_recipe"])
    assert shared["weights"] == WEIGHTS
    assert shared["models"]["a"]["sha256"] == recipe.models["a"].sha256
    assert str(tmp_path) not in json.dumps(metadata)
    webui = json.loads(metadata["sd_merge_recipe"])
    assert webui["primary_model_hash"] == recipe.models["a"].sha256
    assert set(json.loads(metadata["sd_merge_models"])) == {
        ref.sha256 for ref in recipe.models.values()
    }


def test_dtype_converts_and_says_so_in_the_file(recipe: Recipe, tmp_path: Path) -> None:
    stored = load_file(merge_files(recipe, tmp_path / "wide.safetensors", dtype="fp32"))
    kinds = {tensor.dtype for tensor in stored.values()}
    assert kinds == {torch.float32, torch.int64}


def _existing(recipe: Recipe, output: Path, _: pytest.MonkeyPatch) -> None:
    output.write_bytes(b"precious")


def _no_folder(recipe: Recipe, output: Path, _: pytest.MonkeyPatch) -> None:
    output.parent.rmdir()


def _no_space(recipe: Recipe, output: Path, patch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(output.parent)._replace(free=1000)
    patch.setattr(shutil, "disk_usage", lambda path: usage)


def _changed_model(recipe: Recipe, output: Path, _: pytest.MonkeyPatch) -> None:
    path = Path(recipe.models["b"].path)
    path.unlink()
    write_tiny(path, "sd1", seed=7)


def _lost_model(recipe: Recipe, output: Path, _: pytest.MonkeyPatch) -> None:
    Path(recipe.models["b"].path).unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (_existing, StorageError, "exists already"),
        (_no_folder, StorageError, "no folder"),
        (_no_space, StorageError, "not enough space"),
        (_changed_model, ModelError, "is not the model of the recipe"),
        (_lost_model, ModelError, "b.safetensors"),
    ],
)
def test_failures_write_nothing(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Recipe, Path, pytest.MonkeyPatch], None],
    kind: type[Exception],
    words: str,
) -> None:
    output = tmp_path / "out" / "merged.safetensors"
    output.parent.mkdir()
    spoil(recipe, output, monkeypatch)
    with pytest.raises(kind, match=words):
        merge_files(recipe, output)
    left = list(output.parent.iterdir()) if output.parent.exists() else []
    assert [path.name for path in left] == (["merged.safetensors"] if spoil is _existing else [])
    assert spoil is not _existing or output.read_bytes() == b"precious"


def test_a_damaged_model_is_refused_and_leaves_no_file(recipe: Recipe, tmp_path: Path) -> None:
    key = "model.diffusion_model.out.2.bias"
    path = tmp_path / "nan.safetensors"
    write_tiny(path, "sd1", seed=1, extra={key: torch.full((4,), torch.nan).half()})
    models = {**recipe.models, "b": ModelRef("B", "", str(path))}
    spoiled = Recipe(architecture="sd1", method="weighted_sum", models=models, weights={"OUT": 0.5})
    with pytest.raises(ModelError, match=f"first in {key}"):
        merge_files(spoiled, tmp_path / "merged.safetensors")
    assert not list(tmp_path.glob("*merged*"))


def test_an_unknown_block_is_refused_before_anything_is_written(
    recipe: Recipe, tmp_path: Path
) -> None:
    wrong = Recipe(
        architecture="sd1", method="weighted_sum", models=recipe.models, weights={"IN1": 0.5}
    )
    with pytest.raises(ConfigError, match="IN1"):
        merge_files(wrong, tmp_path / "merged.safetensors")
    assert not list(tmp_path.glob("*merged*"))


def test_the_same_file_twice_another_family_and_another_ending_are_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    twice = msgspec.structs.replace(
        recipe, models={"a": recipe.models["a"], "b": recipe.models["a"]}
    )
    other = msgspec.structs.replace(recipe, architecture="sd2")
    cases = [
        (twice, "m.safetensors", ModelError, "are the same file"),
        (other, "m.safetensors", ModelError, "the recipe is for sd2"),
        (recipe, "m.ckpt", ConfigError, "Give it the ending"),
    ]
    for wrong, name, kind, words in cases:
        with pytest.raises(kind, match=words):
            merge_files(wrong, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_the_metadata_name_models_by_content_that_the_recipe_did_not_know(
    recipe: Recipe, tmp_path: Path
) -> None:
    nameless = {
        role: msgspec.structs.replace(ref, sha256="") for role, ref in recipe.models.items()
    }
    output = tmp_path / "merged.safetensors"
    merge_files(msgspec.structs.replace(recipe, models=nameless), output, dtype="bf16")
    with safe_open(output, "pt") as file:
        kept = json.loads(file.metadata()["automerge_recipe"])
    assert [m["sha256"] for m in kept["models"].values()] == [
        ref.sha256 for ref in recipe.models.values()
    ]
    assert kept["dtype"] == "bf16"
