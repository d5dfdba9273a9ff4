"""Components are changed while a merge is written: the same as merging, then editing the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import CancelledError, ConfigError, ModelError
from lib_automerge.merge import merge_files, surgery
from lib_automerge.merge.containers import read_safetensors_header
from lib_automerge.merge.edits import METADATA, Edits, edit_file
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.lab import engine
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.lab.job import Progress
from tests.checkpoints import tiny_state, write_tiny

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
EMA = {"model_ema.diffusion_modelout2bias": torch.ones(4), "model_ema.decay": torch.tensor(0.9)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A, B, a text encoder's model in float32 and a VAE; A has averages and broken positions."""
    broken = (torch.arange(77) + 0.3).half()[None]
    write_tiny(tmp_path / "a.safetensors", "sd1", extra={**EMA, POSITIONS: broken})
    write_tiny(tmp_path / "b.safetensors", "sd1", seed=1)
    write_tiny(tmp_path / "text.safetensors", "sd1", seed=2, dtype=torch.float32)
    vae = {key[len(VAE) :]: value for key, value in tiny_state("sd1", seed=3).items()
           if key.startswith(VAE)}  # fmt: skip
    save_file(vae, tmp_path / "vae.safetensors")
    return tmp_path


def recipe(folder: Path, method: str = "weighted_sum", **more: Any) -> Recipe:
    models = {role: ModelRef(role, path=str(folder / f"{role}.safetensors")) for role in "ab"}
    return Recipe(architecture="sd1", method=method, models=models, **more)


def everything(folder: Path) -> Edits:
    return Edits(
        drop_ema=True,
        text_encoder=folder / "text.safetensors",
        vae=folder / "vae.safetensors",
        fix_positions=True,
    )


def content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes after the header; the header without what it calls the source of an edit."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    edit = json.loads(header["__metadata__"][METADATA])
    del edit[-1]["source"]
    header["__metadata__"][METADATA] = edit
    return data[begin:], header


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("edits", ["all", "positions", "ema"])
def test_it_is_the_edited_copy_of_the_merge(
    precision: Any, dtype: str | None, edits: str, folder: Path
) -> None:
    given = {
        "all": everything(folder),
        "positions": Edits(fix_positions=True),
        "ema": Edits(drop_ema=True),
    }[edits]
    weights = {"IN01": 0.3, "M00": 1.0, "BASE": 0.5, "VAE": 0.5}
    chosen = recipe(folder, precision=precision, weights=weights)
    plain = merge_files(chosen, folder / "plain.safetensors", dtype=dtype)
    edit_file(plain, folder / "then.safetensors", given)
    at_once = merge_files(chosen, folder / "once.safetensors", dtype=dtype, edits=given)
    assert content(at_once) == content(folder / "then.safetensors")
    with safe_open(at_once, "pt") as file:
        assert json.loads(file.metadata()["automerge_recipe"])["weights"] == weights
    again = merge_files(chosen, folder / "again.safetensors", dtype=dtype, edits=given)
    assert again.read_bytes() == at_once.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_the_components_are_those_that_were_asked_for(precision: Any, folder: Path) -> None:
    told: list[str] = []
    chosen = recipe(folder, precision=precision, weights={"M00": 0.5, "BASE": 1.0})
    edits = everything(folder)
    out = merge_files(chosen, folder / "out.safetensors", edits=edits, tell=told.append)
    found, text, vae = load_file(out), tiny_state("sd1", seed=2, dtype=torch.float32), tiny_state(
        "sd1", seed=3
    )  # fmt: skip
    for key, value in found.items():
        if key == POSITIONS:
            assert torch.equal(value, torch.arange(77)[None])
        elif key.startswith(TEXT):
            assert torch.equal(value, text[key]), key
        elif key.startswith(VAE):
            assert torch.equal(value, vae[key]), key
    assert not any(key.startswith("model_ema") for key in found)
    assert {"Took the text encoder of text.safetensors.", f"Reset {POSITIONS}."} <= set(told)
    types = {key: info.dtype for key, info in read_safetensors_header(out).tensors.items()}
    assert types[POSITIONS] == "I64"


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_what_is_replaced_is_not_merged(
    precision: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[str] = []
    plain, of_lab = Merger._merge_key, engine._Merge._write

    def watched(self: Any, key: str, weight: float, sink: Any) -> None:
        merged.append(key)
        plain(self, key, weight, sink)

    def watched_lab(self: Any, task: Any, pieces: Any) -> None:
        merged.append(task.key)
        of_lab(self, task, pieces)

    monkeypatch.setattr(Merger, "_merge_key", watched)
    monkeypatch.setattr(engine._Merge, "_write", watched_lab)
    weights = {"IN01": 0.5, "BASE": 0.5, "VAE": 0.5}
    chosen = recipe(folder, precision=precision, weights=weights)
    merge_files(chosen, folder / "out.safetensors", edits=everything(folder))
    assert any(key.startswith(f"{UNET}input_blocks.1.") for key in merged)
    assert not [key for key in merged if not key.startswith(UNET)]


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    ("edits", "told"),
    [
        (lambda _folder: Edits(dtypes={"vae": "fp32"}), "stored in one number type, with --dtype"),
        (lambda folder: Edits(vae=folder / "none.safetensors"), "none.safetensors"),
        (lambda folder: Edits(text_encoder=folder / "vae.safetensors"), "vae.safetensors"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_written(
    precision: Any, edits: Any, told: str, folder: Path
) -> None:
    before = set(folder.iterdir())
    chosen = recipe(folder, precision=precision, weights={"M00": 0.5})
    with pytest.raises((ConfigError, ModelError), match=told):
        merge_files(chosen, folder / "out.safetensors", edits=edits(folder))
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_a_merge_without_averages_has_none_to_drop(precision: Any, folder: Path) -> None:
    write_tiny(folder / "c.safetensors", "sd1", seed=4)
    chosen = recipe(folder, precision=precision, weights={"M00": 0.5})
    models = {"a": chosen.models["b"], "b": ModelRef("c", path=str(folder / "c.safetensors"))}
    chosen = Recipe(
        architecture="sd1", method="weighted_sum", models=models, precision=precision,
        weights={"M00": 0.5},
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"the merge holds no EMA copy\. Leave out that step"):
        merge_files(chosen, folder / "out.safetensors", edits=Edits(drop_ema=True))


def test_a_part_that_changes_meanwhile_is_noticed(folder: Path) -> None:
    def touch(_progress: Progress) -> None:
        os.utime(folder / "vae.safetensors", ns=(1, 1))

    chosen = recipe(folder, precision="fp64", weights={"M00": 0.5})
    with pytest.raises(ModelError, match=r"vae\.safetensors changed while it was read"):
        merge_files(
            chosen, folder / "out.safetensors", edits=everything(folder),
            lab=LabOptions(progress=touch),
        )  # fmt: skip
    assert not (folder / "out.safetensors").exists()


def test_a_cancelled_one_goes_on_with_the_same_edits_only(folder: Path) -> None:
    steps: list[Progress] = []
    chosen = recipe(folder, precision="fp64", parameters={"weight": 0.5})
    out, edits = folder / "out.safetensors", everything(folder)
    options = LabOptions(progress=steps.append, cancelled=lambda: len(steps) > 300, threads=1)
    with pytest.raises(CancelledError, match="Go on with --resume"):
        merge_files(chosen, out, edits=edits, lab=options)
    with pytest.raises(ConfigError, match="is of another merge"):
        merge_files(chosen, out, edits=Edits(drop_ema=True), lab=LabOptions(resume=True))
    merge_files(chosen, out, edits=edits, lab=LabOptions(resume=True))
    whole = merge_files(chosen, folder / "whole.safetensors", edits=edits)
    assert out.read_bytes() == whole.read_bytes()


def test_rebasin_sees_its_two_models_only(folder: Path) -> None:
    chosen = recipe(folder, "basin_sum", parameters={"weight": 0.5})
    (folder / "a.safetensors").unlink()
    write_tiny(folder / "a.safetensors", "sd1")
    edits = Edits(vae=folder / "vae.safetensors")
    merge_files(chosen, folder / "plain.safetensors")
    edit_file(folder / "plain.safetensors", folder / "then.safetensors", edits)
    once = merge_files(chosen, folder / "once.safetensors", edits=edits)
    assert content(once) == content(folder / "then.safetensors")


@pytest.mark.parametrize(("dtype", "step"), [("fp16", 2.0**-11), ("bf16", 2.0**-8)])
def test_numbers_of_64_bits_are_rounded_once(dtype: str, step: float, tmp_path: Path) -> None:
    # a little above the middle of two numbers: float32 in between would fall to the lower one
    key = f"{UNET}out.2.bias"
    values = torch.full((4,), 1.0 + step + 2.0**-40, dtype=torch.float64)
    path = write_tiny(tmp_path / "m.safetensors", "sd1", extra={key: values})
    edit_file(path, tmp_path / "out.safetensors", Edits(dtypes={"denoiser": dtype}))
    found = load_file(tmp_path / "out.safetensors")[key]
    assert found.double().tolist() == [1.0 + 2 * step] * 4
    strange = torch.tensor([-0.0, torch.inf, -torch.inf, torch.nan, 1e-300], dtype=torch.float64)
    rounded = surgery._rounded(strange.view(5, 1), torch.float16).view(-1)
    assert rounded.tolist()[:3] == [0.0, torch.inf, -torch.inf]
    assert rounded[3].isnan()
    assert rounded[4] == 0.0
