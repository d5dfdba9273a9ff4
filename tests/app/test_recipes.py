from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
import yaml

from lib_automerge.app import recipes
from lib_automerge.domain.recipe import ModelRef, Recipe, recipe_json
from lib_automerge.errors import AutomergeError, ConfigError, ModelError, StorageError
from lib_automerge.merge import merge_files
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.reward import digests
from tests.checkpoints import write_tiny
from tests.domain.dialects import published

OLD_NS = 1_700_000_000_000_000_000
"""A time of files that no clock's grain can confuse with now."""

RECIPE = Recipe(
    architecture="sd1",
    method="weighted_sum",
    models={"a": ModelRef("a", published.A), "b": ModelRef("1e5", published.B)},
    weights={"IN00": 1e-7, "OUT": 0.5},
    provenance={"run": "night: 1", "note": None},
)


def test_yaml_goes_out_and_in_as_the_same_recipe() -> None:
    text = recipes.convert(recipes.read_text(recipe_json(RECIPE)), "yaml").text
    assert yaml.safe_load(text)["weights"] == RECIPE.weights
    (found,) = recipes.read_text(text).reading.found
    assert found == RECIPE


def test_yaml_by_hand() -> None:
    text = (
        "method: weighted_sum\narchitecture: sd1\nmodels: {a: {name: x}, b: {name: y}}\n"
        "weights:\n  IN00: 0.5\n"
    )
    (found,) = recipes.read_text(text).reading.found
    assert isinstance(found, Recipe)
    assert found.weights == {"IN00": 0.5}
    with pytest.raises(ConfigError, match="not valid YAML"):
        recipes.read_text(text + "  IN01: [")
    with pytest.raises(ConfigError, match="Expected `float`, got `str`"):
        recipes.read_text(text.replace("0.5", "half"))


@pytest.mark.parametrize("target", ["supermerger", "supermerger-metadata", "preset"])
def test_what_a_format_cannot_say_is_told_or_given_up(target: str) -> None:
    source = recipes.read_text(recipe_json(RECIPE))
    with pytest.raises(ConfigError, match=f"{target} has no place of its own for .*OUT 0.5"):
        recipes.convert(source, target, name="x")
    converted = recipes.convert(source, target, name="x", lossy=True)
    assert "given up" in converted.notes[-1]
    assert converted.dialect == "a recipe of Automerge"


def test_a_block_without_a_weight_counts_as_a() -> None:
    weights = {"IN00": 0.5}
    recipe = Recipe(
        architecture="sd1", method="weighted_sum", models=RECIPE.models, weights=weights
    )
    source = recipes.read_text(recipe_json(recipe))
    # SuperMerger gives the time embedding the weight of IN00
    with pytest.raises(ConfigError, match="TIME_EMBED 0"):
        recipes.convert(source, "supermerger")


def test_what_a_recipe_cannot_say_is_told_or_left_out() -> None:
    fields = published.webui(bake_in_vae="kl-f8.pt")
    source = recipes.read_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=r"also says that the VAE kl-f8.pt.* --lossy"):
        recipes.convert(source, "json", architecture="sd1")
    converted = recipes.convert(source, "json", architecture="sd1", lossy=True)
    assert any("kl-f8.pt" in note for note in converted.notes)


def test_policies_go_to_our_own_formats_alone() -> None:
    given = msgspec.structs.replace(RECIPE, weights={}, on_mismatch="keep-a", on_nan="zero")
    source = recipes.read_text(recipe_json(given))
    for target in ("json", "yaml"):
        text = recipes.convert(source, target).text
        assert recipes.read_text(text).reading.found == (given,)
    with pytest.raises(ConfigError, match="sd-mecha cannot say on_mismatch keep-a and on_nan zero"):
        recipes.convert(source, "sd-mecha")
    assert "left out" in recipes.convert(source, "sd-mecha", lossy=True).notes[-1]
    assert "on_mismatch" not in recipe_json(RECIPE)
    assert "on_nan" not in recipe_json(RECIPE)


@pytest.mark.parametrize("target", ["json", "supermerger"])
def test_weights_below_the_block_are_told_or_left_out(target: str) -> None:
    rules = ["OUT03:attn:0.1", "OUT04::0.2"]
    source = recipes.read_text(json.dumps(published.supermerger(elemental_merge=rules)))
    with pytest.raises(ConfigError, match=r"keys of the block OUT03 .* --lossy"):
        recipes.convert(source, target, architecture="sd1")
    converted = recipes.convert(source, target, architecture="sd1", lossy=True)
    assert "OUT03" in converted.notes[0]
    plain = recipes.read_text(json.dumps(published.supermerger()))
    assert converted.text == recipes.convert(plain, target, architecture="sd1").text


def test_the_architecture_is_asked_and_checked() -> None:
    source = recipes.read_text(json.dumps(published.supermerger()))
    with pytest.raises(ConfigError, match="--architecture, one of: sd1, sd2;"):
        recipes.convert(source, "json")
    with pytest.raises(ConfigError, match="is for sd1 or sd2, not for sdxl"):
        recipes.convert(source, "json", architecture="sdxl")


def test_weights_alone_are_no_recipe() -> None:
    source = recipes.read_text("IN00:0.5,M00:1")
    assert recipes.convert(source, "named").text == "IN00:0.5,M00:1\n"
    with pytest.raises(ConfigError, match="holds weights, but no models"):
        recipes.convert(source, "json", architecture="sd1")


def test_a_list_asks_for_its_order_only_if_it_matters() -> None:
    numbers = ",".join(f"0.{n:02}" for n in range(1, 28))
    with pytest.raises(ConfigError, match=r"'nat' .*'slider' .*'recipe' "):
        recipes.read_text(numbers)
    same = ",".join(["0.5"] * 27)
    assert "0.5" in recipes.convert(recipes.read_text(same), "named").text
    twenty_five = ",".join(f"0.{n:02}" for n in range(25))
    assert "'mbw'" in recipes.read_text(twenty_five).reading.dialect


def test_presets_keep_their_names() -> None:
    numbers = ",".join(["0.5"] * 26)
    text = (
        f"preset_name\tpreset_weights\nOUT07\t{numbers}\nFLAT_25:{numbers}\nR_STEP*2\t{numbers}\n"
    )
    source = recipes.read_text(text)
    lines = recipes.convert(source, "preset", architecture="sd1").text.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["OUT07", "FLAT_25", "R_STEP*2"]
    assert len(recipes.convert(source, "supermerger").text.splitlines()) == 3


def models(folder: Path) -> dict[str, ModelRef]:
    refs = {}
    for seed, role in enumerate("ab"):
        path = write_tiny(folder / f"{role}.safetensors", "sd1", seed=seed)
        with open_checkpoint(path) as checkpoint:
            refs[role] = ModelRef(role.upper(), checkpoint.sha256(), str(path))
    return refs


def test_metadata_of_supermerger_find_their_models_and_kind(tmp_path: Path) -> None:
    refs = models(tmp_path)
    fields = published.supermerger(model_a=refs["a"].sha256, model_b=refs["b"].sha256)
    source = recipes.read_text(json.dumps(fields))
    recipe, notes = recipes.recipe(source, models=[tmp_path])
    assert recipe.architecture == "sd1"
    assert [Path(ref.path).name for ref in recipe.models.values()] == [
        "a.safetensors",
        "b.safetensors",
    ]
    assert notes == ()
    merge_files(recipe, tmp_path / "merged.safetensors")
    with pytest.raises(ConfigError, match="--architecture is sd2, but the model is sd1"):
        recipes.recipe(source, models=[tmp_path], architecture="sd2")


def test_a_checkpoint_tells_its_recipe_and_its_kind(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sdxl", metadata=published.webui())
    source = recipes.read_path(path)
    assert source.architecture == "sdxl"
    text = recipes.convert(source, "json").text
    assert json.loads(text)["architecture"] == "sdxl"
    bare = write_tiny(tmp_path / "bare.safetensors", "sd1")
    with pytest.raises(ConfigError, match=r"bare.safetensors: the metadata hold no recipe"):
        recipes.read_path(bare)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", b"", "empty"),
        ("x.json", b'{"kind": "automerge-recipe"', "not valid JSON"),
        ("x.json", b'{"kind": "automerge-recipe"}', "missing required field"),
        ("x.txt", b"\xff\xfe\x00", "not text"),
        ("x.mecha", b"version 0.1.0\nfoo", "line 2"),
        ("x.safetensors", b"\x00" * 20, "neither a safetensors file"),
        ("x.ckpt", b"PK\x03\x04" + b"\x00" * 20, "pickled checkpoint"),
        ("x.csv", b"0,1,score\n1,2,3\n", "2 numbered columns"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((ConfigError, ModelError), match=told):
        recipes.read_path(path)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        recipes.read_path(tmp_path / "none.json")
    with pytest.raises(AutomergeError):
        recipes.read_path(tmp_path)


def test_models_are_read_once_for_all_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = tmp_path / "models", tmp_path / "data"
    folder.mkdir()
    refs = models(folder)
    for path in folder.iterdir():
        os.utime(path, ns=(OLD_NS, OLD_NS))
    fields = published.supermerger(model_a=refs["a"].sha256, model_b=refs["b"].sha256)
    source = recipes.read_text(json.dumps(fields))

    def search() -> list[str]:
        """As a process of its own: the sentences about what it reads."""
        monkeypatch.setattr(digests, "_memory", {})
        told: list[str] = []
        recipe, _ = recipes.recipe(source, models=[folder], data=data, told=told.append)
        assert {ref.sha256 for ref in recipe.models.values()} == {
            refs["a"].sha256,
            refs["b"].sha256,
        }
        return [Path(sentence).name for sentence in told]

    everything = sorted(path.name for path in folder.iterdir())
    assert sorted(search()) == everything
    assert search() == []
    (data / recipes.DIGESTS).write_text('{"version": 2, "files": {"torn')
    assert sorted(search()) == everything

    name = everything[0]
    (folder / name).touch()
    assert search() == [name]
    swapped = (folder / name).read_bytes()
    (folder / name).write_bytes(swapped[:-1] + bytes([swapped[-1] ^ 1]))
    os.utime(folder / name, ns=(OLD_NS, OLD_NS))
    with pytest.raises(ModelError, match="is not in the folders"):
        search()
