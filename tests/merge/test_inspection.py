from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest
import torch

from lib_automerge.domain import architectures
from lib_automerge.errors import ModelError
from lib_automerge.merge import distances
from lib_automerge.merge.inspection import (
    compare,
    format_comparison,
    format_inspection,
    inspect,
    scan,
)
from lib_automerge.merge.readers import open_checkpoint
from tests.checkpoints import tiny_state, write_tiny

OUT_BIAS = "model.diffusion_model.out.2.bias"
EMA = {"model_ema.diffusion_modelout2bias": torch.zeros(4), "model_ema.decay": torch.tensor(0.9)}


def pair(tmp_path: Path, name: str = "sd1", **changes: object) -> tuple[Path, Path]:
    """Write model A, and model B with the changes."""
    changes = {"seed": 1, **changes}
    return (
        write_tiny(tmp_path / "a.safetensors", name),
        write_tiny(tmp_path / "b.safetensors", name, **changes),  # type: ignore[arg-type]
    )


def test_inspection_counts_components_and_blocks(tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "m.safetensors",
        "sdxl",
        extra=EMA | {"notes": torch.zeros(3)},
        metadata={"modelspec.title": "Test"},
        drop=["*.logit_scale"],
    )
    found = inspect(path)
    assert (found.architecture, found.label) == ("sdxl", "Stable Diffusion XL")
    assert (found.variant, found.prediction, found.standard_size) == (None, "epsilon", False)
    assert found.size == path.stat().st_size
    assert found.strays == ("notes",)
    assert found.metadata == {"modelspec.title": "Test"}
    assert found.renamed == ()
    state = tiny_state("sdxl")
    sizes = {part.name: (part.keys, part.parameters) for part in (*found.components, *found.blocks)}
    unet = [tensor.numel() for key, tensor in state.items() if key.startswith("model.")]
    assert sizes["UNet"] == (1680, sum(unet))
    assert sizes["EMA copy"] == (2, 5)
    assert sizes["not merged"] == (2, 77 + 3)
    assert sizes["text encoder BASE_G"] == sizes["BASE_G"]
    label = [tensor.numel() for key, tensor in state.items() if ".label_emb." in key]
    assert sizes["LABEL_EMB"] == (4, sum(label))
    assert [part.name for part in found.blocks] == list(architectures.get("sdxl").blocks)
    assert list(found.dtypes) == ["F16", "I64", "F32"]
    assert (found.dtypes["I64"], found.dtypes["F32"]) == (77, 8)


def test_inspection_of_a_bare_unet(tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "m.safetensors",
        "sd1",
        drop=["cond_stage_model.*", "first_stage_model.*"],
        rename=lambda key: key.removeprefix("model.diffusion_model."),
        channels=9,
    )
    found = inspect(path)
    assert [part.name for part in found.components] == ["UNet"]
    assert found.variant == "inpainting"
    assert found.renamed == ("(none)",)
    assert "BASE" not in [part.name for part in found.blocks]


def test_inspection_lists_what_a_complete_model_has(tmp_path: Path) -> None:
    """Full-size shapes without data: every tensor shares one stored number."""
    zero = torch.zeros((), dtype=torch.float16)
    shapes = architectures.get("sd2").reference_keys
    lost = "cond_stage_model.model.transformer.resblocks.3.mlp.c_fc.weight"
    state = {
        key: zero.expand(shape)
        for key, shape in shapes.items()
        if ".resblocks.23." not in key and key != lost  # SD2 files without block 23 are complete
    }
    path = tmp_path / "m.ckpt"
    torch.save(state, path)
    found = inspect(path)
    assert found.standard_size
    assert found.missing == (lost,)
    assert f"    {lost}" in format_inspection(found)


def test_inspection_as_text_and_json(tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "model.safetensors", "sd1", channels=9, metadata={"long": "x\n" * 400}
    )
    found = inspect(path)
    text = format_inspection(found)
    assert str(path) in text
    assert re.search(r"family +Stable Diffusion 1, inpainting", text)
    assert re.search(r"M00 +46 +\d", text)
    assert text.isascii()
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_distance_is_the_relative_norm_of_the_difference(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    one, two = tiny_state("sd1"), tiny_state("sd1", seed=1)
    block_of = architectures.get("sd1").block_of
    for block in compare(a, b).blocks:
        keys = [key for key in one if block_of(key) == block.name]
        first, second = (torch.cat([s[k].double().flatten() for k in keys]) for s in (one, two))
        expected = ((first - second).norm() / first.norm()).item()
        assert block.distance == pytest.approx(expected, rel=1e-5)
        assert (block.keys, block.identical) == (len(keys), 0)


def test_distance_over_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(tmp_path)
    whole = compare(a, b).blocks
    monkeypatch.setattr(distances, "CHUNK", 101)
    for chunked, block in zip(compare(a, b).blocks, whole, strict=True):
        assert chunked.distance == pytest.approx(block.distance, rel=1e-5)


def test_identical_weights_are_counted(tmp_path: Path) -> None:
    changed = tiny_state("sd1")[OUT_BIAS] + 1
    a, b = pair(tmp_path, seed=0, extra={OUT_BIAS: changed})
    for block in compare(a, b).blocks:
        assert block.identical == block.keys - (block.name == "OUT")
        assert (block.distance > 0) == (block.name == "OUT")


def test_difference_whose_square_vanishes_is_not_identical(tmp_path: Path) -> None:
    value = torch.full((4,), 1e-30)
    a = write_tiny(tmp_path / "a.safetensors", "sd1", dtype=torch.float32, extra={OUT_BIAS: value})
    b = write_tiny(
        tmp_path / "b.safetensors", "sd1", dtype=torch.float32, extra={OUT_BIAS: value * 2}
    )
    by_name = {block.name: block for block in compare(a, b).blocks}
    assert by_name["OUT"].identical == by_name["OUT"].keys - 1


def test_number_types_do_not_matter_to_the_distance(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", dtype=torch.float16)
    wide = {key: t.float() if t.is_floating_point() else t for key, t in tiny_state("sd1").items()}
    b = write_tiny(tmp_path / "b.safetensors", "sd1", extra=wide)
    found = compare(a, b)
    assert all(block.distance == 0.0 for block in found.blocks)
    assert all(block.identical == block.keys for block in found.blocks)
    assert len(found.dtypes) == 1130
    assert (found.dtypes[0].a, found.dtypes[0].b) == ("F16", "F32")
    assert "F16 in A, F32 in B (1130); merged in A's type" in format_comparison(found)


def test_every_key_that_does_not_match_is_named(tmp_path: Path) -> None:
    a, b = pair(
        tmp_path,
        drop=["*.position_ids", "first_stage_model.quant_conv.*"],
        extra={
            "betas": torch.zeros(9),
            OUT_BIAS: torch.zeros(4, dtype=torch.bfloat16),
            "first_stage_model.decoder.conv_in.bias": torch.zeros(9, dtype=torch.float16),
        },
    )
    found = compare(a, b)
    text = format_comparison(found)
    assert found.only_a == (
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "first_stage_model.quant_conv.bias",
        "first_stage_model.quant_conv.weight",
    )
    assert found.only_b == ("betas",)
    shape = found.shapes[0]
    assert (len(found.shapes), shape.a, shape.b) == (1, "8", "9")
    assert [(m.key, m.a, m.b) for m in found.dtypes] == [(OUT_BIAS, "F16", "BF16")]
    for key in (*found.only_a, *found.only_b, shape.key, OUT_BIAS):
        assert f"    {key}\n" in text + "\n"
    assert "shape: 8 in A, 9 in B (1):" in text
    assert max(map(len, text.splitlines()[4:])) <= 100


def test_equal_layout_is_said(tmp_path: Path) -> None:
    text = format_comparison(compare(*pair(tmp_path)))
    assert "Every key is in both files, with the same shape and number type." in text


def test_families_that_differ_are_compared_by_key(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1")
    b = write_tiny(tmp_path / "b.safetensors", "sdxl")
    found = compare(a, b)
    assert found.blocks == ()
    assert len(found.only_a) + len(found.shapes) > 100
    assert "different families and cannot be merged" in format_comparison(found)


def test_broken_weights_are_counted_in_both_models(tmp_path: Path) -> None:
    bad_b = torch.tensor([float("nan"), 0, float("-inf"), 0], dtype=torch.float16)
    ln = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    alone = "first_stage_model.quant_conv.bias"
    a = write_tiny(
        tmp_path / "a.safetensors",
        "sd1",
        extra={
            ln: torch.full((12,), float("inf")),
            alone: torch.full((8,), float("nan")),
        },
    )
    b = write_tiny(tmp_path / "b.safetensors", "sd1", drop=[alone], extra={OUT_BIAS: bad_b})
    found = compare(a, b)
    assert [(m.key, m.a, m.b) for m in found.not_finite] == [
        (ln, "12", "0"),
        (alone, "8", "0"),
        (OUT_BIAS, "0", "2"),
    ]
    by_name = {block.name: block.distance for block in found.blocks}
    assert math.isnan(by_name["OUT"])
    assert math.isfinite(by_name["M00"])
    text = format_comparison(found)
    assert "NaN or infinite numbers: 0 in A, 2 in B (1):" in text
    assert re.search(r"OUT +nan +4 +3  not finite", text)


def test_scan_returns_distances_of_the_blocks_asked_for(tmp_path: Path) -> None:
    a, b = pair(tmp_path, drop=["first_stage_model.*"])
    expected = {block.name: block.distance for block in compare(a, b).blocks}
    with open_checkpoint(a) as one, open_checkpoint(b) as two:
        found = scan(one, two, architectures.get("sd1").blocks)
        assert found == expected
        assert "VAE" not in found
        assert list(scan(one, two, ["OUT05", "M00"])) == ["OUT05", "M00"]


def test_scan_of_a_model_with_itself_is_zero(tmp_path: Path) -> None:
    with open_checkpoint(write_tiny(tmp_path / "a.safetensors", "sd1")) as model:
        found = scan(model, model, architectures.get("sd1").blocks)
    assert set(found.values()) == {0.0}
    assert len(found) == 29


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("broken", ["a", "b"])
def test_scan_names_the_model_and_the_broken_weight(
    value: float, broken: str, tmp_path: Path
) -> None:
    bad = torch.tensor([0, 0, value, 0], dtype=torch.float16)
    for name in ("a", "b"):
        extra = {OUT_BIAS: bad} if name == broken else {}
        write_tiny(tmp_path / f"{name}.safetensors", "sd1", seed=ord(name), extra=extra)
    with (
        open_checkpoint(tmp_path / "a.safetensors") as a,
        open_checkpoint(tmp_path / "b.safetensors") as b,
    ):
        assert set(scan(a, b, ["M00"])) == {"M00"}
        with pytest.raises(ModelError, match=rf"^{broken}\.safetensors: 1 of the 4 numbers in"):
            scan(a, b, ["M00", "OUT"])


def test_scan_reads_what_only_a_has(tmp_path: Path) -> None:
    key = "first_stage_model.quant_conv.bias"
    bad = torch.full((8,), float("nan"), dtype=torch.float16)
    a = write_tiny(tmp_path / "a.safetensors", "sd1", extra={key: bad})
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1, drop=[key])
    with (
        open_checkpoint(a) as one,
        open_checkpoint(b) as two,
        pytest.raises(ModelError, match=r"a\.safetensors: 8 of the 8 numbers"),
    ):
        scan(one, two, ["VAE"])


def test_block_that_is_zero_in_a(tmp_path: Path) -> None:
    keys = [key for key in tiny_state("sd1") if key.startswith("model.diffusion_model.out.")]
    zeros = {key: torch.zeros_like(tiny_state("sd1")[key]) for key in keys}
    a = write_tiny(tmp_path / "a.safetensors", "sd1", extra=zeros)
    b = write_tiny(tmp_path / "b.safetensors", "sd1")
    by_name = {block.name: block.distance for block in compare(a, b).blocks}
    assert by_name["OUT"] == 1.0


def test_refused_files_are_refused_here_too(tmp_path: Path) -> None:
    good = write_tiny(tmp_path / "a.safetensors", "sd1")
    with pytest.raises(ModelError, match="no such file"):
        inspect(tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match="no such file"):
        compare(good, tmp_path / "absent.safetensors")
