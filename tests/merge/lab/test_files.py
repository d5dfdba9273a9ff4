"""Recipes of the lab, with checkpoints that have every key of a family."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe, read_recipe, recipe_json
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import merge_files
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.readers import Checkpoint
from tests.checkpoints import write_tiny

SD1 = architectures.get("sd1")
KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
TEXT_KEY = "cond_stage_model.transformer.text_model.final_layer_norm.bias"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(4):
        write_tiny(tmp_path / f"m{seed}.safetensors", "sd1", seed=seed)
    return tmp_path


def recipe(
    folder: Path,
    method: str,
    roles: Mapping[str, str],
    parameters: Mapping[str, ParameterValue] | None = None,
    **more: Any,
) -> Recipe:
    return Recipe(
        architecture="sd1",
        method=method,
        models={
            role: ModelRef(name, path=str(folder / f"{name}.safetensors"))
            for role, name in roles.items()
        },
        parameters=parameters or {},
        **{"precision": "fp64", **more},
    )


MANY = {"base": "m0", "m001": "m1", "m002": "m2", "m003": "m3"}
AB = {"a": "m0", "b": "m1"}


def test_a_recipe_of_the_lab_is_merged_block_by_block(folder: Path) -> None:
    weights = {"IN01": 0.25, "BASE": 1.0}
    path = merge_files(
        recipe(folder, "weighted_sum", AB, weights=weights), folder / "out.safetensors"
    )
    a, b, found = (load_file(folder / f"{n}.safetensors") for n in ("m0", "m1", "out"))
    assert path == folder / "out.safetensors"
    for key, value in found.items():
        weight = weights.get(SD1.block_of(key) or "", 0.0)
        if weight in (0.0, 1.0):
            assert torch.equal(value, b[key] if weight else a[key]), key
        else:
            exact = a[key].double().numpy() * 0.75 + b[key].double().numpy() * 0.25
            assert np.array_equal(value.numpy(), exact.astype(np.float16)), key


ABC = {**AB, "c": "m2"}


@pytest.mark.parametrize(
    ("method", "roles"),
    [("weighted_sum", AB), ("slerp", AB), ("add_difference", ABC), ("train_difference", ABC)],
)
def test_a_recipe_without_weights_is_the_first_model(
    method: str, roles: dict[str, str], folder: Path
) -> None:
    found = load_file(merge_files(recipe(folder, method, roles), folder / "out.safetensors"))
    first = load_file(folder / "m0.safetensors")
    assert all(torch.equal(found[key], first[key]) for key in first)


@pytest.mark.parametrize("method", ["sum_twice", "triple_sum"])
def test_sums_of_three_leave_blocks_that_are_not_named(method: str, folder: Path) -> None:
    weights, beta = {"IN01": 0.5, "M00": 0.0}, {"M00": 0.5}
    given = recipe(folder, method, ABC, {"beta": beta}, weights=weights)
    found = load_file(merge_files(given, folder / "out.safetensors"))
    first = load_file(folder / "m0.safetensors")
    changed = {SD1.block_of(key) for key in first if not torch.equal(found[key], first[key])}
    assert changed == {"IN01", "M00"}


@pytest.mark.parametrize(
    ("method", "roles", "parameters"),
    [
        ("sum_twice", ABC, {"beta": 0.5}),
        ("triple_sum", ABC, {}),
        ("cosine_a", AB, {}),
        ("cosine_b", AB, {}),
    ],
)
def test_blocks_that_are_not_named_and_would_change_are_refused(
    method: str, roles: dict[str, str], parameters: dict[str, Any], folder: Path
) -> None:
    weights = dict.fromkeys(SD1.blocks, 0.5)
    del weights["M00"]
    given = recipe(folder, method, roles, parameters, weights=weights)
    with pytest.raises(ConfigError, match=f"do not name M00.*but {method} with these"):
        merge_files(given, folder / "out.safetensors")
    every = recipe(folder, method, roles, parameters, weights={**weights, "M00": 0.5})
    assert merge_files(every, folder / "out.safetensors").exists()


def test_parameters_by_block(folder: Path) -> None:
    by_block: dict[str, ParameterValue] = {"k": {"IN01": 0.0}, "scale": {"M00": 0.0}}
    merge_files(recipe(folder, "ties", MANY, by_block), folder / "out.safetensors")
    plain = merge_files(recipe(folder, "ties", MANY), folder / "plain.safetensors")
    base, found, expected = (
        load_file(path) for path in (folder / "m0.safetensors", folder / "out.safetensors", plain)
    )
    for key, value in found.items():
        kept = SD1.block_of(key) in ("IN01", "M00")
        assert torch.equal(value, base[key] if kept else expected[key]), key


def test_the_file_tells_how_to_merge_it_again(folder: Path) -> None:
    first = merge_files(
        recipe(folder, "della", MANY, {"seed": 3, "p": {"M00": 1, "IN01": 0.4}, "epsilon": 0}),
        folder / "1.safetensors",
    )
    with safe_open(first, "pt") as file:
        metadata = file.metadata()
    stored = json.loads(metadata["automerge_recipe"])
    assert stored["precision"] == "fp64"
    assert all(len(model["sha256"]) == 64 for model in stored["models"].values())
    assert len(json.loads(metadata["sd_merge_models"])) == 4
    for role, name in MANY.items():
        stored["models"][role]["path"] = str(folder / f"{name}.safetensors")
    (folder / "again.json").write_text(json.dumps(stored))
    second = merge_files(read_recipe(folder / "again.json"), folder / "2.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_another_file_than_the_recorded_one_is_refused(folder: Path) -> None:
    given = recipe(folder, "ties", MANY)
    wrong = dict(given.models, m002=ModelRef("m2", "0" * 64, str(folder / "m2.safetensors")))
    with pytest.raises(ModelError, match="is not the model of the recipe"):
        merge_files(
            Recipe(architecture="sd1", method="ties", models=wrong), folder / "out.safetensors"
        )


def test_a_file_that_changes_while_it_is_hashed_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = Checkpoint.sha256

    def and_changed(self: Checkpoint) -> str:
        digest = hashed(self)
        if self.path.name == "m1.safetensors":
            with self.path.open("r+b") as file:
                file.seek(-4, os.SEEK_END)
                file.write(b"\0\0\0\1")
        return digest

    monkeypatch.setattr(Checkpoint, "sha256", and_changed)
    with pytest.raises(ModelError, match=r"m1\.safetensors changed while it was read"):
        merge_files(recipe(folder, "slerp", AB, {"weight": 0.5}), folder / "out.safetensors")
    assert not (folder / "out.safetensors").exists()


def test_whole_and_broken_numbers_are_one_value(folder: Path) -> None:
    given: list[dict[str, Any]] = [
        {"seed": 3, "p": {"M00": 1}, "scale": 1},
        {"seed": 3.0, "p": {"M00": 1.0}, "scale": 1.0},
    ]
    one, two = (
        merge_files(recipe(folder, "tsd", MANY, parameters), folder / f"{n}.safetensors")
        for n, parameters in enumerate(given)
    )
    assert one.read_bytes() == two.read_bytes()


def test_a_recipe_of_a_search_has_no_use_for_the_lab(folder: Path) -> None:
    given = recipe(folder, "weighted_sum", AB, precision="fp32", weights={"M00": 0.5})
    with pytest.raises(ConfigError, match="do not reach weighted_sum in fp32"):
        merge_files(given, folder / "out.safetensors", lab=LabOptions())


def test_fp64_differs_from_fp32_by_a_rounding_at_most(folder: Path) -> None:
    weights = dict.fromkeys(SD1.blocks, 0.3)
    lab = merge_files(recipe(folder, "weighted_sum", AB, weights=weights), folder / "l.safetensors")
    old = merge_files(
        recipe(folder, "weighted_sum", AB, weights=weights, precision="fp32"),
        folder / "o.safetensors",
    )
    one, two = load_file(lab), load_file(old)
    for key in one:
        assert torch.allclose(one[key].double(), two[key].double(), rtol=1e-3, atol=1e-7)


def test_keys_that_are_never_merged_come_from_the_first(folder: Path) -> None:
    extra = {"alphas_cumprod": torch.full((3,), 7.7), "model_ema.decay": torch.tensor(0.5)}
    write_tiny(folder / "m0.safetensors", "sd1", seed=0, extra=extra)
    write_tiny(folder / "m1.safetensors", "sd1", seed=1, extra={"other": torch.ones(2)})
    told: list[str] = []
    found = load_file(
        merge_files(
            recipe(folder, "average", {"m001": "m0", "m002": "m1"}),
            folder / "out.safetensors",
            dtype="fp8_e5m2",
            lab=LabOptions(tell=told.append),
        )
    )
    assert torch.equal(found["alphas_cumprod"], extra["alphas_cumprod"])
    assert "other" not in found
    assert told == ["m0.safetensors lacks what others have, so it is left out: other."]


@pytest.mark.parametrize(
    ("method", "roles", "told"),
    [
        ("ties", {"m001": "m0", "m002": "m1"}, "takes a base and 1 or more models; no base"),
        ("average", MANY, "takes 1 or more models; a base was given"),
        ("slerp", {"a": "m0", "b": "m1", "c": "m2"}, "takes 2 models: a, b; 3 were given"),
        ("slerp", {"m001": "m0", "m002": "m1"}, "takes 2 models: a, b; the recipe has"),
        ("nothing", AB, "unknown merge method: 'nothing'"),
    ],
)
def test_models_that_a_method_does_not_take(
    method: str, roles: dict[str, str], told: str, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        merge_files(recipe(folder, method, roles), folder / "out.safetensors")


@pytest.mark.parametrize(
    ("method", "parameters", "told"),
    [
        ("ties", {"k": 1.2}, "k of ties is 1.2. It must be from 0 to 1"),
        ("ties", {"kk": 1.0}, "unknown parameter of ties: 'kk'. Did you mean 'k'"),
        ("ties", {"k": "much"}, "must be a number: 'much'"),
        ("ties", {"k": {"IN99": 0.1}}, "unknown block: 'IN99'"),
        ("ties", {"k": {"IN01": 2.0}}, "It must be from 0 to 1"),
        ("ties", {"k": True}, "must be a number: True"),
        ("dare", {"seed": 1.5}, "must be a whole number: 1.5"),
        ("dare", {"seed": {"IN01": 1}}, "is one whole number for the whole merge"),
        ("dare", {"vote": "loud"}, "unknown vote of dare: 'loud'. Known: count, none, sum"),
        ("della", {"p": 0.95, "epsilon": 0.2}, "probabilities from 0.85 to 1.05"),
        ("della", {"epsilon": {"M00": 1.0}, "p": 0.2}, "probabilities from -0.3 to 0.7"),
    ],
)
def test_parameters_that_are_wrong(
    method: str, parameters: dict[str, Any], told: str, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        merge_files(recipe(folder, method, MANY, parameters), folder / "out.safetensors")
    assert not list(folder.glob("*out*")) + list(folder.glob(".out*"))


def test_shares_that_are_all_zero_are_refused(folder: Path) -> None:
    roles = {"m001": "m0", "m002": "m1"}
    with pytest.raises(ConfigError, match="all shares of average are 0"):
        merge_files(recipe(folder, "average", roles, {"shares": 0.0}), folder / "out.safetensors")
    with pytest.raises(ConfigError, match="unknown model in shares: 'm003'"):
        merge_files(
            recipe(folder, "average", roles, {"shares": {"m003": 1.0}}), folder / "out.safetensors"
        )


def test_weights_are_given_once(folder: Path) -> None:
    given = recipe(folder, "weighted_sum", AB, {"weight": 0.5}, weights={"M00": 0.1})
    with pytest.raises(ConfigError, match="are the same"):
        merge_files(given, folder / "out.safetensors")
    with pytest.raises(ConfigError, match="has no weights by block"):
        merge_files(recipe(folder, "ties", MANY, weights={"M00": 0.1}), folder / "out.safetensors")


def unlike(folder: Path) -> None:
    """Let m2 lack 6 tensors of the text encoder, and have one of another shape."""
    path = folder / "m2.safetensors"
    tensors = load_file(path)
    for key in sorted(
        key for key in tensors if ".layers.3.mlp." in key or ".layers.4.layer_norm1" in key
    )[:7]:
        del tensors[key]
    tensors[TEXT_KEY] = torch.ones(5, dtype=torch.float16)
    save_file(tensors, path)


def test_unlike_models_are_refused_with_a_list(folder: Path) -> None:
    unlike(folder)
    with pytest.raises(ModelError) as caught:
        merge_files(recipe(folder, "ties", MANY), folder / "out.safetensors")
    text = str(caught.value)
    lacking = text.count("is in m0.safetensors, not in m2.safetensors")
    assert "differ in 7 tensors" in text
    assert lacking + text.count("[5] in m2") == 5
    assert "and 2 more" in text


@pytest.mark.parametrize("policy", ["keep-a", "fill-base"])
def test_unlike_models_are_merged_by_a_policy(policy: Any, folder: Path) -> None:
    unlike(folder)
    told: list[str] = []
    options = LabOptions(on_mismatch=policy, tell=told.append)
    given = recipe(folder, "ties_soup", MANY)
    found = load_file(merge_files(given, folder / "out.safetensors", lab=options))[TEXT_KEY]
    base, one, three = (load_file(folder / f"m{n}.safetensors")[TEXT_KEY] for n in (0, 1, 3))
    if policy == "keep-a":
        assert torch.equal(found, base)
    else:
        changes = np.stack([(m.double() - base.double()).numpy() for m in (one, base, three)])
        sign = np.sign(np.sign(changes).sum(0))
        agree = (np.sign(changes) == sign) & (sign != 0)
        mean = (changes * agree).sum(0) / np.maximum(agree.sum(0), 1)
        expected = (base.double().numpy() + mean).astype(np.float16)
        assert np.array_equal(found.numpy(), expected)
    assert "7 tensors of m0.safetensors are not alike in all models" in told[0]


def made_again(path: Path, recipe: Recipe, **more: Any) -> Path:
    """Merge by the recipe in a file's metadata, with the models where they are."""
    with safe_open(path, "pt") as file:
        told = msgspec.json.decode(file.metadata()["automerge_recipe"], type=Recipe)
    models = {
        role: msgspec.structs.replace(ref, path=recipe.models[role].path)
        for role, ref in told.models.items()
    }
    again = path.with_name("again.safetensors")
    return merge_files(msgspec.structs.replace(told, models=models), again, **more)


@pytest.mark.parametrize("policy", ["keep-a", "fill-base"])
def test_a_merge_by_policies_is_made_again_without_telling_them(policy: Any, folder: Path) -> None:
    unlike(folder)
    tensors = load_file(folder / "m1.safetensors")
    tensors[KEY].view(-1)[3] = float("nan")
    save_file(tensors, folder / "m1.safetensors")
    given = recipe(folder, "ties_soup", MANY)
    out = folder / "out.safetensors"
    merge_files(given, out, lab=LabOptions(on_mismatch=policy, zero_bad=True))
    assert made_again(out, given).read_bytes() == out.read_bytes()


def test_other_policies_than_the_recipes_are_told_and_recorded(folder: Path) -> None:
    unlike(folder)
    given = recipe(folder, "ties_soup", MANY)
    plain = merge_files(
        given, folder / "plain.safetensors", lab=LabOptions(on_mismatch="fill-base")
    )
    kept = msgspec.structs.replace(given, on_mismatch="keep-a")
    told: list[str] = []
    options = LabOptions(on_mismatch="fill-base", tell=told.append)
    out = merge_files(kept, folder / "out.safetensors", lab=options)
    assert told[0] == "The recipe's on_mismatch is keep-a; fill-base takes its place."
    assert out.read_bytes() == plain.read_bytes()
    refusing = LabOptions(on_mismatch="refuse")
    with pytest.raises(ModelError, match="differ in 7 tensors"):
        merge_files(kept, folder / "other.safetensors", lab=refusing)


def test_policies_do_not_reach_merges_in_fp32(folder: Path) -> None:
    given = recipe(folder, "weighted_sum", AB, weights={"IN00": 0.5})
    plain = msgspec.structs.replace(given, precision="fp32", on_nan="zero")
    with pytest.raises(ConfigError, match="on_nan of the recipe is for the merge lab"):
        merge_files(plain, folder / "out.safetensors")


def test_a_base_cannot_fill_what_it_lacks(folder: Path) -> None:
    path = folder / "m0.safetensors"
    tensors = load_file(path)
    lacking = [key for key in tensors if ".layers.3.mlp." in key][:1]
    del tensors[lacking[0]]
    save_file(tensors, path)
    given = recipe(folder, "ties_soup", MANY)
    out = folder / "out.safetensors"
    with pytest.raises(ModelError, match="cannot fill what it lacks itself, 1 tensor: "):
        merge_files(given, out, lab=LabOptions(on_mismatch="fill-base"))
    told: list[str] = []
    merge_files(given, out, lab=LabOptions(on_mismatch="keep-a", tell=told.append))
    assert told == [f"m0.safetensors lacks what others have, so it is left out: {lacking[0]}."]


def test_filling_needs_a_base(folder: Path) -> None:
    given = recipe(folder, "average", {"m001": "m0", "m002": "m1"})
    with pytest.raises(ConfigError, match="needs a method with a base"):
        merge_files(given, folder / "out.safetensors", lab=LabOptions(on_mismatch="fill-base"))


def test_families_are_not_mixed(folder: Path) -> None:
    write_tiny(folder / "m1.safetensors", "sd2", seed=1)
    with pytest.raises(ModelError, match="different families"):
        merge_files(recipe(folder, "ties", MANY), folder / "out.safetensors")


def test_pickles_are_refused(folder: Path) -> None:
    torch.save({"state_dict": load_file(folder / "m1.safetensors")}, folder / "m1.ckpt")
    given = recipe(folder, "ties", MANY)
    models = dict(given.models, m001=ModelRef("m1", path=str(folder / "m1.ckpt")))
    with pytest.raises(ModelError, match="is not a safetensors file"):
        merge_files(
            Recipe(architecture="sd1", method="ties", models=models), folder / "out.safetensors"
        )


def test_quantised_files_are_refused(folder: Path) -> None:
    (folder / "m1.safetensors").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match="quantised GGUF"):
        merge_files(recipe(folder, "ties", MANY), folder / "out.safetensors")


def test_nan_is_told_by_model_and_key(folder: Path) -> None:
    tensors = load_file(folder / "m2.safetensors")
    tensors[KEY].view(-1)[3] = float("nan")
    save_file(tensors, folder / "m2.safetensors")
    given = recipe(folder, "average", {"m001": "m0", "m002": "m2"})
    with pytest.raises(ModelError, match=rf"m2\.safetensors: '{KEY}' holds NaN"):
        merge_files(given, folder / "out.safetensors")
    told: list[str] = []
    merge_files(given, folder / "out.safetensors", lab=LabOptions(zero_bad=True, tell=told.append))
    assert told == [f"m2.safetensors: NaN or infinite numbers in {KEY} were taken as 0."]


@pytest.mark.parametrize("weights", [{}, {"IN00": 0.5}, dict.fromkeys(SD1.blocks, 1.0)])
def test_damaged_numbers_of_a_block_that_is_copied(weights: dict[str, float], folder: Path) -> None:
    which = "m1" if len(weights) > 1 else "m0"
    tensors = load_file(folder / f"{which}.safetensors")
    tensors[KEY].view(-1)[3] = float("nan")
    save_file(tensors, folder / f"{which}.safetensors")
    given = recipe(folder, "weighted_sum", AB, weights=weights)
    out = folder / "out.safetensors"
    with pytest.raises(ModelError, match=rf"{which}\.safetensors: '{KEY}' holds NaN"):
        merge_files(given, out)
    told: list[str] = []
    merge_files(given, out, lab=LabOptions(zero_bad=True, tell=told.append))
    assert told == [f"{which}.safetensors: NaN or infinite numbers in {KEY} were taken as 0."]
    tensors[KEY].view(-1)[3] = 0.0
    assert torch.equal(load_file(out)[KEY], tensors[KEY])


@pytest.mark.parametrize("dtype", ["fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_8_bits_are_read_and_written(family: str, dtype: str, folder: Path) -> None:
    for seed in range(2):
        write_tiny(folder / f"m{seed}.safetensors", family, seed=seed)
    one = msgspec.structs.replace(
        recipe(folder, "average", {"m001": "m0", "m002": "m1"}), architecture=family
    )
    merge_files(one, folder / "eight.safetensors", dtype=dtype)
    two = msgspec.structs.replace(
        recipe(folder, "average", {"m001": "eight", "m002": "m0"}), architecture=family
    )
    found = load_file(merge_files(two, folder / "out.safetensors"))[KEY]
    eight, other = (load_file(folder / f"{name}.safetensors")[KEY] for name in ("eight", "m0"))
    assert found.dtype == eight.dtype
    assert eight.element_size() == 1
    exact = (eight.double() + other.double()) / 2
    assert torch.equal(found.float(), exact.float().to(found.dtype).float())


@pytest.mark.parametrize(
    ("dtype", "stored"), [("fp32", "F32"), ("bf16", "BF16"), ("fp8_e4m3", "F8_E4M3")]
)
def test_the_dtype_of_the_result(dtype: str, stored: str, folder: Path) -> None:
    given = recipe(folder, "average", {"m001": "m0", "m002": "m1"})
    path = merge_files(given, folder / "out.safetensors", dtype=dtype)
    with safe_open(path, "pt") as file:
        assert file.get_slice(KEY).get_dtype() == stored
        position = "cond_stage_model.transformer.text_model.embeddings.position_ids"
        assert file.get_slice(position).get_dtype() == "I64"


def test_a_resumed_merge_is_of_the_same_recipe(folder: Path) -> None:
    told: list[object] = []
    out = folder / "out.safetensors"
    from lib_automerge.errors import CancelledError

    options = LabOptions(progress=told.append, cancelled=lambda: len(told) > 300, threads=1)
    given = recipe(folder, "ties", MANY)
    with pytest.raises(CancelledError, match="Go on with --resume"):
        merge_files(given, out, lab=options)
    assert not out.exists()
    with pytest.raises(ConfigError, match="of another merge"):
        merge_files(recipe(folder, "ties", MANY, {"k": 0.3}), out, lab=LabOptions(resume=True))
    merge_files(given, out, lab=LabOptions(resume=True))
    whole = merge_files(given, folder / "whole.safetensors")
    assert out.read_bytes() == whole.read_bytes()


def test_recipes_of_today_are_written_as_before() -> None:
    old = Recipe(
        architecture="sd1",
        method="weighted_sum",
        models={"a": ModelRef("A"), "b": ModelRef("B")},
        weights={"M00": 0.5},
    )
    assert "precision" not in recipe_json(old)
    assert list(json.loads(recipe_json(old))) == [
        "format", "kind", "architecture", "method", "models", "weights", "parameters", "provenance",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        (["base"], "Number them without a gap"),
        (["base", "m002"], "Number them without a gap"),
        (["a", "m001"], "roles of two kinds"),
        (["a", "base", "m001"], "roles of two kinds"),
        (["a", "m1"], "unknown model role: 'm1'"),
        (["b"], "no model 'a'"),
    ],
)
def test_roles_that_do_not_go_together(roles: list[str], told: str, tmp_path: Path) -> None:
    raw = {
        "architecture": "sd1", "method": "ties", "weights": {},
        "models": {role: {"name": role} for role in roles},
    }  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=told):
        read_recipe(tmp_path / "r.json")
