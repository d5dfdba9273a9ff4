"""Re-Basin as a method of the lab, on the demo's models and on tiny ones with every key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_automerge import cli
from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe, read_recipe
from lib_automerge.errors import CancelledError, ConfigError, ModelError
from lib_automerge.merge import merge_files
from lib_automerge.merge.containers import read_safetensors_header
from lib_automerge.merge.lab import catalogue, stack
from lib_automerge.merge.lab import rebasin as method
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.lab.job import Progress
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin.cache import cached_match
from lib_automerge.merge.rebasin.files import permute_file
from lib_automerge.merge.rebasin.formulas import amplified, basin_sum, half_way_back
from lib_automerge.merge.rebasin.tensors import Stored, whole
from tests.checkpoints import write_tiny
from tests.merge.rebasin.test_files import write_shuffled

NAMES = ("rebasin", "basin_sum", "rebasin_amplified")
SD1 = architectures.get("sd1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A and B, which is A a little further, with every key of SD1 and few channels."""
    folder = tmp_path_factory.mktemp("models")
    state = load_file(write_tiny(folder / "a.safetensors", "sd1"))
    noise = load_file(write_tiny(folder / "noise.safetensors", "sd1", seed=1))
    moved = {
        key: value + noise[key] / 8 if value.is_floating_point() else value
        for key, value in state.items()
    }
    save_file(moved, folder / "b.safetensors")
    return folder


@pytest.fixture(scope="module")
def a(folder: Path) -> Path:
    return folder / "a.safetensors"


@pytest.fixture(scope="module")
def shuffled(folder: Path) -> Path:
    """B with its channels in random order."""
    return write_shuffled(folder / "b.safetensors", folder / "shuffled.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is found is found once; the first test to need it finds it."""
    return tmp_path_factory.mktemp("cache")


def recipe(name: str, a: Path, b: Path, parameters: Mapping[str, Any], **more: Any) -> Recipe:
    models = {"a": ModelRef(a.stem, path=str(a)), "b": ModelRef(b.stem, path=str(b))}
    return Recipe(
        architecture="sd1", method=name, models=models, parameters=parameters, precision="fp64",
        **more,
    )  # fmt: skip


def test_a_shuffled_model_is_put_in_order_again_exactly(
    a: Path, shuffled: Path, cache: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    out = merge_files(
        recipe("rebasin", a, shuffled, {"weight": 1.0}),
        tmp_path / "out.safetensors",
        lab=LabOptions(cache=cache, tell=told.append),
    )
    found, original = load_file(out), load_file(a.with_name("b.safetensors"))
    assert [key for key in original if not torch.equal(found[key], original[key])] == []
    assert "Channels moved in 80 of 80 places." in told


def test_a_merge_is_that_with_the_file_of_the_command(
    a: Path, shuffled: Path, cache: Path, tmp_path: Path
) -> None:
    permuted = tmp_path / "permuted.safetensors"
    permute_file(a, shuffled, permuted, cache=None)
    weights = {"IN01": 0.3, "M00": 1.0, "OUT": -0.5}
    options = LabOptions(cache=cache)
    merged, expected = (
        load_file(
            merge_files(
                recipe(name, a, b, {}, weights=weights),
                tmp_path / f"{name}.safetensors",
                lab=options,
            )
        )
        for name, b in (("rebasin", shuffled), ("weighted_sum", permuted))
    )
    assert all(torch.equal(merged[key], expected[key]) for key in expected)
    a = load_file(a)
    named = {SD1.block_of(key) for key in a if not torch.equal(merged[key], a[key])}
    assert named == set(weights)


@pytest.mark.parametrize("name", NAMES)
def test_it_equals_the_formula(
    name: str, a: Path, shuffled: Path, cache: Path, tmp_path: Path
) -> None:
    weight = 0.3
    out = merge_files(
        recipe(name, a, shuffled, {"weight": weight}),
        tmp_path / "out.safetensors",
        dtype="fp64",
        lab=LabOptions(cache=cache),
    )
    with open_checkpoint(a) as file_a, open_checkpoint(shuffled) as file_b:
        first, second = Stored(file_a), Stored(file_b)
        if name == "rebasin_amplified":
            amp = amplified(first, second)
            moved = cached_match(second, amp, "sd1", cache=cache).permuted(amp)
        else:
            moved = cached_match(first, second, "sd1", cache=cache).permuted(second)
        merged = load_file(out)
        for key, value in merged.items():
            if SD1.block_of(key) is None:
                continue
            one, two, three = (whole(m, key).double() for m in (first, second, moved))
            expected = {
                "rebasin": (1 - weight) * one + weight * three,
                "basin_sum": (1 - weight) * one + weight * (1 - weight) * two + weight**2 * three,
                "rebasin_amplified": (1 - weight) * one + weight / 2 * (two + three),
            }[name]
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15, msg=key)
        half = {
            "basin_sum": lambda: basin_sum(first, second, moved, 1 - weight),
            "rebasin_amplified": lambda: half_way_back(first, second, moved),
        }.get(name)
        if half is not None:
            options = LabOptions(cache=cache)
            weight = weight if name == "basin_sum" else 0.5
            given = recipe(name, a, shuffled, {"weight": weight})
            found = load_file(merge_files(given, tmp_path / "2.safetensors", dtype="fp64",
                                          lab=options))  # fmt: skip
            key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
            expected = whole(half(), key).double()
            torch.testing.assert_close(found[key], expected, rtol=1e-12, atol=1e-15)


def test_an_amplified_model_whose_channels_stay_is_the_model(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base.safetensors", "sd1", seed=0)
    state = load_file(base)
    for value in state.values():
        if value.is_floating_point():
            value += 1e-3 * torch.sin(torch.arange(value.numel())).view(value.shape)
    tuned = tmp_path / "tuned.safetensors"
    save_file(state, tuned)
    told: list[str] = []
    out = merge_files(
        recipe("rebasin_amplified", tuned, base, {"weight": 0.5}),
        tmp_path / "out.safetensors",
        lab=LabOptions(tell=told.append),
    )
    found = load_file(out)
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert told == [
        "2 tuned.safetensors - base.safetensors lies best as it is: no channel moved, so Re-Basin "
        "changes nothing."
    ]


@pytest.mark.parametrize("name", NAMES)
def test_bytes_depend_on_neither_threads_nor_chunks_nor_the_cache(
    name: str, a: Path, shuffled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(name, a, shuffled, {"weight": {"IN01": 0.3, "M00": 0.5, "OUT": 1.0}})
    first = merge_files(given, tmp_path / "1.safetensors", lab=LabOptions(cache=cache, threads=1))
    for number, options in enumerate(
        (
            LabOptions(cache=cache, threads=2, chunk=1001),
            LabOptions(cache=None, threads=2),
        ),
        2,
    ):
        # the second one reads a few rows at once, each by itself
        monkeypatch.setattr(stack, "SPAN", 700 if number == 2 else 1 << 20)
        monkeypatch.setattr(method, "_AT_ONCE", 0 if number == 2 else 4 << 20)
        again = merge_files(given, tmp_path / f"{number}.safetensors", lab=options)
        assert again.read_bytes() == first.read_bytes()
    with safe_open(first, "pt") as file:
        stored = json.loads(file.metadata()["automerge_recipe"])
    for role, path in (("a", a), ("b", shuffled)):
        stored["models"][role]["path"] = str(path)
    (tmp_path / "recipe.json").write_text(json.dumps(stored))
    again = merge_files(
        read_recipe(tmp_path / "recipe.json"), tmp_path / "again.safetensors",
        lab=LabOptions(cache=cache),
    )  # fmt: skip
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_weight_0_is_the_first_model_and_looks_at_nothing(
    name: str, a: Path, shuffled: Path, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    out = merge_files(
        recipe(name, a, shuffled, {}), tmp_path / "out.safetensors",
        lab=LabOptions(progress=steps.append),
    )  # fmt: skip
    found, a = load_file(out), load_file(a)
    assert all(torch.equal(found[key], a[key]) for key in a)
    assert not [step for step in steps if step.note]


def test_a_cancelled_one_goes_on_where_it_was(a: Path, shuffled: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    given = recipe("rebasin", a, shuffled, {"weight": 0.5})
    out, kept = tmp_path / "out.safetensors", tmp_path / "kept"

    def found() -> int:
        return sum("ordering" in step.note for step in steps)

    options = LabOptions(cache=kept, progress=steps.append, cancelled=lambda: found() == 30)
    with pytest.raises(
        CancelledError, match=f"order of channels is kept in {kept}: the same merge"
    ):
        merge_files(given, out, lab=options)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    merge_files(given, out, lab=LabOptions(cache=kept, progress=steps.append))
    ordering = [step for step in steps if "ordering" in step.note]
    assert (ordering[30].done, ordering[30].total) == (31, 80)
    assert "sweep 1 of at most 10" in ordering[30].note
    assert steps[-1].note == ""
    assert steps[-1].done == steps[-1].total


def test_sweeps_and_seed_are_those_of_the_recipe(a: Path, shuffled: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    given = recipe("rebasin", a, shuffled, {"weight": 0.5, "sweeps": 1, "seed": 7})
    merge_files(given, tmp_path / "o.safetensors", lab=LabOptions(progress=steps.append))
    notes = {step.note for step in steps}
    assert "ordering channels, sweep 1 of at most 1" in notes
    wrong = recipe("rebasin", a, shuffled, {"sweeps": 0})
    with pytest.raises(ConfigError, match="sweeps of rebasin is 0"):
        merge_files(wrong, tmp_path / "w.safetensors")


def test_families_without_known_symmetries_are_refused(tmp_path: Path) -> None:
    a, b = (write_tiny(tmp_path / f"{n}.safetensors", "flux1", seed=n) for n in range(2))
    given = Recipe(
        architecture="flux1",
        method="rebasin",
        models={"a": ModelRef("a", path=str(a)), "b": ModelRef("b", path=str(b))},
        parameters={"weight": 0.5},
    )
    with pytest.raises(ModelError, match=r"Re-Basin does not know the layers of Flux.*Use models"):
        merge_files(given, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [a.name, b.name]


def test_too_little_memory_is_told_before_the_search(
    a: Path, shuffled: Path, tmp_path: Path
) -> None:
    given = recipe("rebasin", a, shuffled, {"weight": 0.5})
    with pytest.raises(ConfigError, match="MiB of memory are too little for this merge"):
        merge_files(given, tmp_path / "out.safetensors", lab=LabOptions(memory=50 << 20))


def test_damaged_numbers_are_named_or_taken_as_0(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0)
    state = load_file(write_tiny(tmp_path / "b.safetensors", "sd1", seed=1))
    key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    state[key].view(-1)[3] = math.nan
    b = tmp_path / "b.safetensors"
    save_file(state, b)
    given = recipe("rebasin", a, b, {"weight": 1.0})
    with pytest.raises(ModelError, match=rf"b.*{key}.*NaN or infinite"):
        merge_files(given, tmp_path / "out.safetensors")
    told: list[str] = []
    options = LabOptions(zero_bad=True, tell=told.append)
    found = load_file(merge_files(given, tmp_path / "out.safetensors", lab=options))
    assert found[key].isfinite().all()
    assert (found[key] == 0).sum() == 1
    assert any(f"NaN or infinite numbers in {key} were taken as 0" in text for text in told)


def test_8_bit_numbers_are_put_in_order_too(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0, dtype=torch.float8_e4m3fn)
    b = write_shuffled(a, tmp_path / "b.safetensors")
    out = merge_files(recipe("rebasin", a, b, {"weight": 1.0}), tmp_path / "out.safetensors")
    types = {info.dtype for info in read_safetensors_header(out).tensors.values()}
    assert "F8_E4M3" in types
    found, expected = load_file(out), load_file(a)
    assert all(
        torch.equal(found[key].view(torch.uint8), expected[key].view(torch.uint8))
        for key in expected
    )


def test_layers_that_b_lacks_stay_a_s(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1, drop=["*layers.3.mlp*"])
    given = recipe("basin_sum", a, b, {"weight": 0.5})
    options = LabOptions(on_mismatch="keep-a")
    found = load_file(merge_files(given, tmp_path / "out.safetensors", lab=options))
    first = load_file(a)
    same = [key for key in first if torch.equal(found[key], first[key])]
    assert sum("layers.3.mlp" in key for key in same) == 4
    assert sum("layers.4.mlp" in key for key in same) == 0


def test_the_command_shows_how_far_it_is_and_what_moved(
    a: Path, shuffled: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    words = ["soup", "rebasin", str(a), str(shuffled), "-o", str(out)]
    assert cli.main([*words, "--set", "weight=1", "--cache", str(cache)]) == 0
    assert "Channels moved in 80 of 80 places." in capsys.readouterr().err
    found, original = load_file(out), load_file(a.with_name("b.safetensors"))
    assert all(torch.equal(found[key], original[key]) for key in original)


def test_catalogue_has_them_with_their_parameters() -> None:
    for name in NAMES:
        described = {p.name: p for p in catalogue.get(name).parameters}
        assert set(described) == {"weight", "sweeps", "seed"}
        assert described["weight"].per_block
        assert described["weight"].unnamed == 0.0
