from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge import surgery
from lib_automerge.merge.edits import METADATA, Edits, edit_file
from lib_automerge.merge.inspection import inspect
from lib_automerge.merge.parts import open_vae
from lib_automerge.merge.readers import open_checkpoint
from tests.checkpoints import tiny_shapes, tiny_state, write_tiny

POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
EMA = {
    "model_ema.diffusion_modelout2bias": torch.ones(4),
    "model_ema.decay": torch.tensor(0.9),
    "first_stage_model.model_ema.decay": torch.tensor(0.9),
}

Edit = Callable[..., dict[str, Tensor]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "source.safetensors", "sd1", metadata={"modelspec.title": "Mine"})


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "donor.safetensors", "sd1", seed=1)


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    def run(source: Path, **edits: object) -> dict[str, Tensor]:
        output = tmp_path / f"edited_{len(list(tmp_path.iterdir()))}.safetensors"
        edit_file(source, output, Edits(**edits))  # type: ignore[arg-type]
        return load_file(output)

    return run


def only_differs(result: dict[str, Tensor], before: dict[str, Tensor], prefix: str) -> bool:
    assert set(result) == set(before)
    different = [k for k in before if not torch.equal(result[k], before[k])]
    return bool(different) and all(key.startswith(prefix) for key in different)


def test_the_text_encoder_of_another_model(source: Path, donor: Path, edit: Edit) -> None:
    result = edit(source, text_encoder=donor)
    assert only_differs(result, tiny_state("sd1"), TEXT)
    theirs = tiny_state("sd1", seed=1)
    assert all(torch.equal(result[k], theirs[k]) for k in theirs if k.startswith(TEXT))


def test_a_text_encoder_in_the_early_layout_and_into_a_bare_unet(
    tmp_path: Path, edit: Edit
) -> None:
    early = write_tiny(
        tmp_path / "early.safetensors",
        "sd1",
        seed=1,
        rename=lambda key: key.replace(".transformer.text_model.", ".transformer."),
    )
    bare = write_tiny(tmp_path / "bare.safetensors", "sd1", drop=[f"{TEXT}*", f"{VAE}*"])
    result = edit(bare, text_encoder=early)
    theirs = tiny_state("sd1", seed=1)
    encoder = {k for k in theirs if k.startswith(TEXT) and k != POSITIONS}
    assert {k for k in result if k.startswith(TEXT)} == encoder
    assert all(torch.equal(result[key], theirs[key]) for key in encoder)


def test_shorter_text_encoders_leave_no_layer_of_the_old_one(tmp_path: Path, edit: Edit) -> None:
    """SD2 files without the last layer are complete: their encoder must not get another's layer."""
    source = write_tiny(tmp_path / "long.safetensors", "sd2")
    short = write_tiny(tmp_path / "short.safetensors", "sd2", seed=1, drop=["*.resblocks.23.*"])
    result = edit(source, text_encoder=short)
    assert not any(".resblocks.23." in key for key in result)
    assert any(".resblocks.22." in key for key in result)


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_vae_file_with_and_without_prefix(
    tmp_path: Path, source: Path, edit: Edit, prefix: str, ending: str
) -> None:
    theirs = {k: t for k, t in tiny_state("sd1", seed=2).items() if k.startswith(VAE)}
    file = tmp_path / f"vae{ending}"
    held = {prefix + key[len(VAE) :]: tensor for key, tensor in theirs.items()}
    held["loss.logvar"] = torch.zeros(())
    save_file(held, file) if ending == ".safetensors" else torch.save({"state_dict": held}, file)
    result = edit(source, vae=file)
    assert only_differs(result, tiny_state("sd1"), VAE)
    assert all(torch.equal(result[key], theirs[key]) for key in theirs)


def test_a_vae_of_another_checkpoint_and_into_one_without(
    tmp_path: Path, donor: Path, edit: Edit
) -> None:
    bare = write_tiny(tmp_path / "bare.safetensors", "sd1", drop=[f"{VAE}*"])
    result = edit(bare, vae=donor)
    theirs = tiny_state("sd1", seed=1)
    assert set(result) == set(theirs)
    assert all(torch.equal(result[key], theirs[key]) for key in theirs if key.startswith(VAE))
    flux = write_tiny(tmp_path / "flux.safetensors", "flux1", drop=["text_encoders.*", "vae.*"])
    sixteen = write_tiny(tmp_path / "with.safetensors", "flux1", drop=["text_encoders.*"])
    joined = edit(flux, vae=sixteen)
    assert sum(key.startswith("vae.") for key in joined) == 244


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.float32])
def test_positions_are_reset(tmp_path: Path, edit: Edit, dtype: torch.dtype) -> None:
    broken = (torch.arange(77) + (0.3 if dtype.is_floating_point else 1)).to(dtype)[None]
    path = write_tiny(tmp_path / "m.safetensors", "sd1", extra={POSITIONS: broken})
    result = edit(path, fix_positions=True)
    assert result[POSITIONS].dtype == torch.int64
    assert torch.equal(result[POSITIONS], torch.arange(77)[None])
    assert only_differs({**result, POSITIONS: broken[:, :1]}, tiny_state("sd1"), POSITIONS)


def test_ema_is_dropped(tmp_path: Path, edit: Edit) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1", extra=EMA)
    result = edit(path, drop_ema=True)
    assert set(result) == set(tiny_state("sd1"))


def test_precision_per_component(tmp_path: Path, edit: Edit) -> None:
    path = write_tiny(
        tmp_path / "m.safetensors",
        "sd1",
        dtype=torch.float32,
        extra=EMA | {"betas": torch.zeros(3), "notes": torch.zeros(2)},
    )
    result = edit(path, dtypes={"denoiser": "bf16", "text_encoder": "fp16"})
    before = tiny_state("sd1", dtype=torch.float32)
    for key, tensor in before.items():
        wanted = tensor.dtype
        if wanted.is_floating_point:
            wanted = (
                torch.bfloat16
                if key.startswith(UNET)
                else torch.float16
                if key.startswith(TEXT)
                else torch.float32
            )
        assert result[key].dtype == wanted, key
        assert torch.equal(result[key], tensor.to(wanted))
    assert result["model_ema.diffusion_modelout2bias"].dtype == torch.bfloat16
    assert {result[key].dtype for key in ("betas", "notes")} == {torch.float32}


def test_8_bit_files_become_16_bit_files(tmp_path: Path, edit: Edit) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "z_image", dtype=torch.float8_e4m3fn)
    everything = dict.fromkeys(surgery.COMPONENTS, "fp16")
    result = edit(path, dtypes=everything)
    state = tiny_state("z_image", dtype=torch.float8_e4m3fn)
    assert all(torch.equal(result[key], state[key].half()) for key in state)


def test_everything_at_once_says_what_was_done_and_gives_the_same_bytes(
    tmp_path: Path, donor: Path
) -> None:
    path = write_tiny(
        tmp_path / "m.safetensors",
        "sd1",
        extra=EMA,
        metadata={"modelspec.title": "Mine", "modelspec.hash_sha256": "old"},
    )
    edits = Edits(
        drop_ema=True, text_encoder=donor, vae=donor, fix_positions=True,
        dtypes={"denoiser": "bf16"},
    )  # fmt: skip
    one = edit_file(path, tmp_path / "one.safetensors", edits)
    two = edit_file(path, tmp_path / "two.safetensors", edits)
    assert one.path.read_bytes() == two.path.read_bytes()
    assert len(one.told) == 5
    with safe_open(one.path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "Mine"
    assert "modelspec.hash_sha256" not in metadata
    (told,) = json.loads(metadata[METADATA])
    with open_checkpoint(path) as model, open_checkpoint(donor) as other:
        assert told["source"] == {"name": "m", "sha256": model.sha256()}
        assert told["steps"][1] == {
            "step": "text_encoder", "name": "donor", "sha256": other.sha256(),
        }  # fmt: skip
    assert [step["step"] for step in told["steps"]] == [
        "drop_ema", "text_encoder", "vae", "fix_positions", "dtypes",
    ]  # fmt: skip
    again = edit_file(one.path, tmp_path / "3.safetensors", Edits(dtypes={"vae": "fp32"}))
    with safe_open(again.path, "pt") as file:
        assert len(json.loads(file.metadata()[METADATA])) == 2
    assert inspect(again.path).dtypes.keys() == {"BF16", "F16", "F32", "I64"}


def test_nothing_is_overwritten_and_nothing_left_behind(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(StorageError, match="exists already"):
        edit_file(source, source, Edits(dtypes={"vae": "fp32"}))
    assert source.read_bytes() == before
    state = tiny_state("sd1", dtype=torch.float32)
    state[f"{UNET}out.2.bias"][0] = 1e5
    wide = tmp_path / "wide.safetensors"
    save_file(state, wide)
    with pytest.raises(ModelError, match=r"out\.2\.bias' holds 100000, which fp16 cannot"):
        edit_file(wide, tmp_path / "x.safetensors", Edits(dtypes={"denoiser": "fp16"}))
    assert {path.name for path in tmp_path.iterdir()} == {source.name, wide.name}


def refused(tmp_path: Path, kind: str) -> Edits:
    def vae(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
        state = {k[len(VAE) :]: t for k, t in tiny_state("sd1").items() if k.startswith(VAE)}
        path = tmp_path / "vae.safetensors"
        save_file(change(state), path)
        return path

    def tiny(name: str, **options: object) -> Path:
        return write_tiny(tmp_path / "other.safetensors", name, **options)  # type: ignore[arg-type]

    made: dict[str, Callable[[], Edits]] = {
        "nothing": Edits,
        "no ema": lambda: Edits(drop_ema=True),
        "other family": lambda: Edits(text_encoder=tiny("sd2")),
        "no text encoder": lambda: Edits(text_encoder=tiny("sd1", drop=[f"{TEXT}*"])),
        "no vae": lambda: Edits(vae=tiny("sd1", drop=[f"{VAE}*"])),
        "16 channels": lambda: Edits(vae=tiny("sd3_medium", drop=["text_encoders.*"])),
        "same layers": lambda: Edits(vae=tiny("sdxl")),
        "one layer": lambda: Edits(text_encoder=tiny("sd1", drop=[f"{TEXT}*.layers.1[01].*"])),
        "integers": lambda: Edits(vae=vae(lambda s: {k: t.to(torch.int8) for k, t in s.items()})),
        "quantised": lambda: Edits(vae=vae(lambda s: s | {"encoder.absmax": torch.ones(1)})),
        "half a vae": lambda: Edits(vae=vae(lambda s: {k: s[k] for k in s if "decoder" in k})),
        "diffusers": lambda: Edits(vae=vae(lambda s: {"encoder.down_blocks.0.w": torch.ones(1)})),
        "dtype": lambda: Edits(dtypes={"vae": "fp8"}),
        "component": lambda: Edits(dtypes={"unet": "fp16"}),
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("nothing", ConfigError, "nothing to change"),
        ("no ema", ModelError, "holds no EMA copy"),
        ("other family", ModelError, "is that of Stable Diffusion 2, not of Stable Diffusion 1"),
        ("no text encoder", ModelError, "holds no text encoder"),
        ("no vae", ModelError, "it holds no VAE"),
        ("16 channels", ModelError, "its VAE is that of Stable Diffusion 3 medium"),
        ("same layers", ModelError, "its VAE is that of Stable Diffusion XL, which Stable Diffus"),
        (
            "one layer",
            ModelError,
            r"encoder of other.safetensors is incomplete: \d+ of 196 weights",
        ),
        ("integers", ModelError, "not floating point numbers: 'encoder.conv_in.weight' is I8"),
        ("quantised", ModelError, "quantised: it holds 'encoder.absmax'"),
        ("half a vae", ModelError, "% of the weights, without 'encoder"),
        ("diffusers", ModelError, "names of a diffusers folder"),
        ("dtype", ConfigError, "unknown dtype: 'fp8'"),
        ("component", ConfigError, "unknown component: 'unet'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    source: Path, tmp_path: Path, kind: str, error: type[Exception], reason: str
) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(error, match=reason):
        edit_file(source, output, refused(tmp_path, kind))
    assert not output.exists()
    assert not list(tmp_path.glob(".*"))


def test_half_of_the_text_encoders_is_not_taken_for_all(tmp_path: Path, edit: Edit) -> None:
    source = write_tiny(tmp_path / "source.safetensors", "sdxl")
    one = write_tiny(tmp_path / "one.safetensors", "sdxl", drop=["conditioner.embedders.1.*"])
    with pytest.raises(ModelError, match=r"one\.safetensors is incomplete"):
        edit(source, text_encoder=one)


def test_a_component_that_is_not_there_cannot_be_converted(tmp_path: Path, edit: Edit) -> None:
    bare = write_tiny(tmp_path / "bare.safetensors", "sd1", drop=[f"{VAE}*"])
    with pytest.raises(ModelError, match="holds no vae"):
        edit(bare, dtypes={"vae": "fp32"})


def test_the_counters_of_an_average_are_not_rounded(tmp_path: Path, edit: Edit) -> None:
    decay = {"model_ema.decay": torch.tensor(0.9999)}
    path = write_tiny(tmp_path / "m.safetensors", "sd1", extra=EMA | decay)
    result = edit(path, dtypes=dict.fromkeys(surgery.COMPONENTS, "fp16"))
    assert result["model_ema.decay"].dtype == torch.float32
    assert result["model_ema.diffusion_modelout2bias"].dtype == torch.float16


def test_a_vae_with_other_latents_does_not_go_into_a_model_without(tmp_path: Path) -> None:
    """Full-size shapes: each weight is one stored number."""
    zero = torch.zeros((), dtype=torch.float16)
    shapes = architectures.get("flux1").reference_keys
    bare = {k: zero.expand(s) for k, s in shapes.items() if k.startswith(UNET)}
    torch.save(bare, tmp_path / "flux.ckpt")
    four = {
        k[len(VAE) :]: zero.expand(s)
        for k, s in architectures.get("sd1").reference_keys.items()
        if k.startswith(VAE)
    }
    torch.save(four, tmp_path / "vae.ckpt")
    with (
        open_checkpoint(tmp_path / "flux.ckpt") as model,
        pytest.raises(ModelError, match=r"which the VAE of Flux\.1 cannot have"),
    ):
        open_vae(tmp_path / "vae.ckpt", model.detection, architectures.get("flux1"))


def test_operations_read_nothing_until_they_are_asked() -> None:
    """So a merge can hand over its result key by key."""
    asked: list[str] = []

    def piece(key: str, shape: tuple[int, ...]) -> surgery.Piece:
        def read() -> Tensor:
            asked.append(key)
            return torch.full(shape, 0.5)

        return surgery.Piece(torch.float32, shape, read)

    architecture = architectures.get("sdxl")
    pieces: surgery.Pieces = {k: piece(k, s) for k, s in tiny_shapes("sdxl").items()}
    pieces = surgery.with_positions_reset(surgery.without_ema(pieces))
    pieces = surgery.converted(pieces, {"denoiser": "fp16"}, architecture)
    assert asked == []
    key = f"{UNET}out.2.bias"
    assert pieces[key].read().dtype == pieces[key].dtype == torch.float16
    assert asked == [key]
