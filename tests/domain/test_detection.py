from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
import torch

from lib_automerge.domain import architectures
from lib_automerge.domain.detection import (
    Detection,
    Header,
    TensorInfo,
    check_mergeable,
    detect,
)
from lib_automerge.domain.refusals import no_images
from lib_automerge.errors import ModelError
from lib_automerge.merge.readers import read_header
from tests.checkpoints import tiny_shapes, write_tiny

UNET = "model.diffusion_model."
TEXT = ("cond_stage_model.*", "conditioner.*")
VAE = ("first_stage_model.*",)

ENCODERS = ("text_encoders.", "first_stage_model.", "vae.", "cond_stage_model.", "conditioner.")

Rename = Callable[[str], str]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Detection]:
    """Write a tiny model with the given changes and detect it from its header."""

    def write_and_detect(architecture: str, **changes: object) -> Detection:
        path = write_tiny(tmp_path / "model.safetensors", architecture, **changes)  # type: ignore[arg-type]
        return detect(read_header(path))

    return write_and_detect


def header_of(
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F16",
    metadata: Mapping[str, str] | None = None,
) -> Header:
    infos = {key: TensorInfo(dtype, shape, 0, 0) for key, shape in shapes.items()}
    return Header(infos, metadata or {})


def full_size(name: str) -> dict[str, tuple[int, ...]]:
    return dict(architectures.get(name).reference_keys)


def tiny(name: str) -> dict[str, tuple[int, ...]]:
    return tiny_shapes(name)


def unet_prefix(prefix: str) -> Rename:
    return lambda key: prefix + key[len(UNET) :] if key.startswith(UNET) else key


UNETS = ["sd1", "sd2", "sdxl", "sdxl_refiner"]
TRANSFORMERS = [name for name in architectures.names() if name not in UNETS]

all_architectures = pytest.mark.parametrize("name", [*UNETS, *TRANSFORMERS])
unets = pytest.mark.parametrize("name", UNETS)
transformers = pytest.mark.parametrize("name", TRANSFORMERS)


@all_architectures
def test_published_checkpoint(name: str) -> None:
    detection = detect(header_of(full_size(name)))
    assert detection.architecture == name
    assert detection.standard_size
    assert detection.variant is None
    assert detection.has_text_encoder is bool(architectures.get(name).text_encoders)
    assert detection.has_vae is bool(architectures.get(name).vae)
    assert not detection.has_ema
    assert detection.strays == ()


@all_architectures
def test_tiny_file_with_the_same_layers(name: str, found: Callable[..., Detection]) -> None:
    detection = found(name)
    assert detection.architecture == name
    assert not detection.standard_size
    assert set(detection.keys) == set(full_size(name))
    assert detection.dtype == "F16"


@unets
@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.model.", "model.", "unet.", ""])
def test_other_prefixes_of_the_unet(
    name: str, prefix: str, found: Callable[..., Detection]
) -> None:
    detection = found(name, rename=unet_prefix(prefix))
    assert detection.architecture == name
    assert detection.unet_prefix == prefix
    assert set(detection.keys) == set(full_size(name))
    key = f"{UNET}middle_block.1.norm.weight"
    assert detection.keys[key] == f"{prefix}middle_block.1.norm.weight"


@unets
@pytest.mark.parametrize("prefix", [UNET, ""])
def test_file_with_only_a_unet(name: str, prefix: str, found: Callable[..., Detection]) -> None:
    detection = found(name, drop=TEXT + VAE, rename=unet_prefix(prefix))
    assert detection.architecture == name
    assert not detection.has_text_encoder
    assert not detection.has_vae
    assert all(key.startswith(UNET) for key in detection.keys)


@pytest.mark.parametrize(
    ("name", "canonical", "in_file"),
    [
        ("sd1", "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
        ("sd2", "cond_stage_model.", "conditioner.embedders.0."),
        (
            "sdxl",
            "conditioner.embedders.0.transformer.text_model.",
            "conditioner.embedders.0.transformer.",
        ),
    ],
)
def test_both_layouts_of_the_text_encoder(
    name: str, canonical: str, in_file: str, found: Callable[..., Detection]
) -> None:
    usual = found(name)
    renamed = found(name, rename=lambda key: key.replace(canonical, in_file))
    assert usual.aliases == ()
    assert renamed.aliases == (in_file,)
    assert set(renamed.keys) == set(usual.keys)
    assert renamed.has_text_encoder
    assert renamed.strays == ()


def test_ema_copy_is_told_from_its_leftover_counters(found: Callable[..., Detection]) -> None:
    counters = {"model_ema.decay": torch.tensor(0.5), "model_ema.num_updates": torch.tensor(3)}
    copies = {
        "model_ema.diffusion_model" + key[len(UNET) :].replace(".", ""): torch.zeros(1)
        for key in full_size("sd1")
        if key.startswith(UNET)
    }
    assert not found("sd1", extra=counters).has_ema
    detection = found("sd1", extra=counters | copies)
    assert detection.has_ema
    assert detection.strays == ()


@pytest.mark.parametrize(
    ("name", "channels", "variant"),
    [
        ("sd1", 9, "inpainting"),
        ("sd2", 9, "inpainting"),
        ("sdxl", 9, "inpainting"),
        ("sd1", 8, "instruct-pix2pix"),
        ("sd2", 5, "depth"),
        ("sd2", 7, "upscaler"),
        ("sd1", 6, "6 input channels"),
    ],
)
def test_variants_by_input_channels(
    name: str, channels: int, variant: str, found: Callable[..., Detection]
) -> None:
    detection = found(name, channels=channels)
    assert (detection.architecture, detection.variant) == (name, variant)


def test_inpainting_model_of_standard_size() -> None:
    shapes = full_size("sd1") | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}
    assert detect(header_of(shapes)).standard_size


@pytest.mark.parametrize(
    ("extra", "metadata", "prediction"),
    [
        ({}, {}, "epsilon"),
        ({"v_pred": torch.zeros(0)}, {}, "v"),
        ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, {}, "v"),
        ({"edm_vpred.sigma_max": torch.tensor(1.0)}, {}, "v"),
        ({}, {"modelspec.prediction_type": "v"}, "v"),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"edm_mean": torch.zeros(4), "edm_std": torch.zeros(4)}, {}, "edm"),
    ],
)
def test_prediction_type_of_sdxl(
    extra: dict[str, torch.Tensor],
    metadata: dict[str, str],
    prediction: str,
    found: Callable[..., Detection],
) -> None:
    detection = found("sdxl", extra=extra, metadata=metadata)
    assert detection.prediction == prediction
    assert detection.variant == ("playground-2.5" if prediction == "edm" else None)
    assert detection.strays == ()


def test_sd2_does_not_tell_its_prediction_type() -> None:
    shapes = full_size("sd2")
    assert detect(header_of(shapes)).prediction == "unknown"
    told = {"modelspec.prediction_type": "epsilon"}
    assert detect(header_of(shapes, metadata=told)).prediction == "epsilon"


@pytest.mark.parametrize(
    ("channels", "prediction"), [(4, "unknown"), (9, "epsilon"), (5, "epsilon"), (7, "v")]
)
def test_variants_of_sd2_have_one_prediction_type_each(channels: int, prediction: str) -> None:
    shapes = full_size("sd2") | {f"{UNET}input_blocks.0.0.weight": (320, channels, 3, 3)}
    assert detect(header_of(shapes)).prediction == prediction


def test_tiny_sd1_and_sd2_with_equal_context_are_told_apart() -> None:
    """Only their projections differ: convolutions in SD1, linear layers in SD2."""
    for name in ("sd1", "sd2"):
        shapes = {
            key: (*shape[:1], 7) if ".attn2.to_k." in key or ".attn2.to_v." in key else shape
            for key, shape in tiny(name).items()
        }
        assert detect(header_of(shapes)).architecture == name


def test_strays_are_listed_and_kept() -> None:
    shapes = full_size("sd1") | {"state_dict": (1,), "embedding.extra": (3, 3)}
    detection = detect(header_of(shapes))
    assert detection.strays == ("embedding.extra", "state_dict")
    assert detection.keys["state_dict"] == "state_dict"


def test_number_type_of_most_parameters_counts() -> None:
    header = header_of(full_size("sd1"))
    small = {key: info for key, info in header.tensors.items() if len(info.shape) < 2}
    mixed = {
        key: msgspec.structs.replace(info, dtype="F32") if key in small else info
        for key, info in header.tensors.items()
    }
    assert len(small) > len(mixed) / 2
    assert detect(Header(mixed, {})).dtype == "F16"


def without(shapes: dict[str, tuple[int, ...]], *parts: str) -> dict[str, tuple[int, ...]]:
    return {key: s for key, s in shapes.items() if not any(part in key for part in parts)}


def with_classes(name: str, columns: int) -> dict[str, tuple[int, ...]]:
    return full_size(name) | {f"{UNET}label_emb.0.0.weight": (1280, columns)}


BAD_HEADERS = [
    ("stored in 8 bits of a kind .*: F8_E8M0", header_of(full_size("sd1"), "F8_E8M0")),
    ("stored in 8 bits of a kind .*: F8_E4M3FNUZ", header_of(full_size("sd1"), "F8_E4M3FNUZ")),
    ("stored in 4 bits of a kind .*: F4", header_of(full_size("flux1"), "F4")),
    ("not floating point numbers: .* is I8", header_of(full_size("sd1"), "I8")),
    (
        "quantised: it holds 'model.x.weight.absmax'",
        header_of(full_size("sdxl") | {"model.x.weight.absmax": (4,)}),
    ),
    ("quantised: it holds 'scaled_fp8'", header_of(full_size("sdxl") | {"scaled_fp8": (2,)})),
    ("no weights", header_of({})),
    (
        "it is a changed or broken Flux model",
        header_of({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9, 3)}),
    ),
    (
        "transformer is not that of Stable Diffusion 3 medium: 490 of 491 weights are missing",
        header_of({f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (9, 3)}),
    ),
    ("it is a Flux.2 model", header_of({"single_stream_modulation.lin.weight": (9, 3)})),
    (
        "it is a Hunyuan Video model",
        header_of({f"{UNET}txt_in.individual_token_refiner.blocks.0.norm1.weight": (9,)}),
    ),
    (
        "it is a Cosmos model",
        header_of(without(full_size("anima"), "llm_adapter.")),
    ),
    (
        "it is a PixArt-Alpha model",
        header_of(full_size("pixart_sigma") | {f"{UNET}csize_embedder.mlp.0.weight": (1, 1)}),
    ),
    (
        "24 of 780 weights are missing, first .*double_blocks.18.*distilled",
        header_of(without(full_size("flux1"), "double_blocks.18.")),
    ),
    (
        "quantised: it holds 'model.x.weight.quant_state.bitsandbytes__nf4'",
        header_of(full_size("flux1") | {"model.x.weight.quant_state.bitsandbytes__nf4": (9,)}),
    ),
    (
        "quantised: it holds 'scaled_fp8'",
        header_of(full_size("flux1") | {"scaled_fp8": (2,)}, "F8_E4M3"),
    ),
    (
        "unknown weight in a Z-Image model: .*siglip",
        header_of(full_size("z_image") | {f"{UNET}siglip_embedder.0.weight": (1,)}),
    ),
    ("an adapter", header_of({"lora_unet_mid_block.lora_up.weight": (4, 4)})),
    ("one part of a diffusers folder", header_of({"conv_in.weight": (320, 4, 3, 3)})),
    ("only a VAE or a text encoder", header_of(without(full_size("sd1"), UNET))),
    ("kind is unknown: the first of its 1 tensors is 'w'", header_of({"w": (1,)})),
    ("video model", header_of(full_size("sd2") | {f"{UNET}middle_block.1.time_stack.0": (1,)})),
    ("unCLIP", header_of(with_classes("sd2", 1536))),
    ("Kolors", header_of(with_classes("sdxl", 5632))),
    (
        "120 of 1680 weights are missing, first .*transformer_blocks.4.*distilled",
        header_of(without(full_size("sdxl"), *(
            f"middle_block.1.transformer_blocks.{n}." for n in range(4, 10)
        ))),
    ),
    (
        "10 of 686 weights are missing, first 'model.diffusion_model.input_blocks.11.0",
        header_of(without(full_size("sd1"), "input_blocks.11.")),
    ),
    (
        "layers that Stable Diffusion 1 has not: .*transformer_blocks.1.norm1.weight",
        header_of(
            full_size("sd1")
            | {f"{UNET}input_blocks.1.1.transformer_blocks.1.norm1.weight": (320,)}
        ),
    ),
    (
        "unknown weight in a Stable Diffusion XL model: 'conditioner.embedders.2.x'",
        header_of(full_size("sdxl") | {"conditioner.embedders.2.x": (1,)}),
    ),
    (
        "'model.diffusion_model.out.2.weight' has the shape 4x320, which",
        header_of(full_size("sd1") | {f"{UNET}out.2.weight": (4, 320)}),
    ),
    (
        "the same weight twice",
        header_of(
            {unet_prefix("diffusion_model.")(key): s for key, s in full_size("sd1").items()}
            | {f"{UNET}out.2.weight": (4, 320, 3, 3)}
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "header"), BAD_HEADERS, ids=[reason for reason, _ in BAD_HEADERS]
)
def test_refused(reason: str, header: Header) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        detect(header)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@transformers
@pytest.mark.parametrize(
    "prefix",
    [UNET, f"{UNET}net.", "diffusion_model.", "net.", "model.model.", "model.", "transformer.", ""],
)
def test_other_prefixes_of_the_transformer(name: str, prefix: str) -> None:
    canonical = architectures.get(name).unet_prefix
    shapes = {
        (prefix + key[len(canonical) :] if key.startswith(canonical) else key): shape
        for key, shape in full_size(name).items()
    }
    detection = detect(header_of(shapes))
    assert (detection.architecture, detection.unet_prefix) == (name, prefix)
    assert set(detection.keys) == set(full_size(name))
    assert set(detection.keys.values()) == set(shapes)
    bare = {key: shape for key, shape in shapes.items() if not key.startswith(ENCODERS)}
    detection = detect(header_of(bare))
    assert detection.architecture == name
    assert not detection.has_text_encoder
    assert not detection.has_vae
    assert all(key.startswith(canonical) for key in detection.keys)


def test_auraflow_with_another_prefix_keeps_its_schedule() -> None:
    shapes = full_size("sd3_medium") | {"model.model_sampling.sigmas": (1000,)}
    bare = {unet_prefix("model.")(key): shape for key, shape in shapes.items()}
    for header in (header_of(shapes), header_of(bare)):
        assert detect(header).architecture == "sd3_medium"
        assert detect(header).strays == ()


@pytest.mark.parametrize(
    ("name", "drop", "edition"),
    [
        ("flux1", (), "dev"),
        ("flux1", ("guidance_in.",), "schnell"),
        ("hunyuandit", (), "1.0 or 1.1"),
        ("hunyuandit", ("style_embedder.",), "1.2"),
        ("sdxl", (), None),
    ],
)
def test_editions(name: str, drop: tuple[str, ...], edition: str | None) -> None:
    shapes = without(full_size(name), *drop)
    if edition == "1.2":
        shapes["model.extra_embedder.0.weight"] = (5632, 1024)
    detection = detect(header_of(shapes))
    assert (detection.architecture, detection.edition, detection.variant) == (name, edition, None)
    assert detection.standard_size


@pytest.mark.parametrize(
    ("columns", "variant"), [(64, None), (384, "fill"), (128, "depth or canny")]
)
def test_variants_of_flux(columns: int, variant: str | None) -> None:
    shapes = full_size("flux1") | {f"{UNET}img_in.weight": (3072, columns)}
    assert detect(header_of(shapes)).variant == variant


@pytest.mark.parametrize("name", ["flux1", "sd3_medium"])
def test_text_encoders_without_the_inner_name_and_the_other_name_of_the_vae(name: str) -> None:
    def rename(key: str) -> str:
        if key.startswith("vae."):
            return "first_stage_model." + key[4:]
        if key.startswith("first_stage_model."):
            return "vae." + key[18:]
        return key.replace(".transformer.text_model.", ".transformer.")

    usual = detect(header_of(full_size(name)))
    renamed = detect(header_of({rename(key): shape for key, shape in full_size(name).items()}))
    assert set(renamed.keys) == set(usual.keys)
    assert renamed.has_text_encoder
    assert renamed.has_vae
    assert len(renamed.aliases) >= 4
    projection = "text_encoders.clip_l.transformer.text_projection.weight"
    if name == "sd3_medium":
        assert renamed.keys[projection] == projection


def test_ema_copy_of_a_transformer() -> None:
    shapes = full_size("sd3_medium") | {"model_ema.joint_blocks0x_blockattnqkvweight": (4, 4)}
    detection = detect(header_of(shapes))
    assert detection.has_ema
    assert detection.strays == ()


@all_architectures
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_precisions(name: str, dtype: str) -> None:
    """The denoiser in any float, the rest in another."""
    prefix = architectures.get(name).unet_prefix
    infos = {
        key: TensorInfo(dtype if key.startswith(prefix) else "F32", shape, 0, 0)
        for key, shape in full_size(name).items()
    }
    detection = detect(Header(infos, {}))
    assert detection.architecture == name
    assert Header(infos, {}).tensors[detection.keys[next(iter(detection.keys))]].dtype == dtype


def test_flow_models_are_not_taken_for_others_by_their_metadata() -> None:
    told = {"modelspec.prediction_type": "epsilon"}
    assert detect(header_of(full_size("sd3_medium"))).prediction == "flow"
    assert detect(header_of(full_size("hunyuandit"))).prediction == "v"
    assert detect(header_of(full_size("pixart_sigma"), metadata=told)).prediction == "epsilon"


def test_dev_and_schnell_fit_and_say_what_is_kept() -> None:
    dev, schnell = model(full_size("flux1")), model(without(full_size("flux1"), "guidance_in."))
    assert check_mergeable({"a": dev, "b": schnell}) == (
        "b lacks 4 weights of the transformer: these are kept from a.",
    )
    assert check_mergeable({"a": schnell, "b": dev}) == (
        "a lacks 4 weights of the transformer: the result is without, as a.",
    )


def test_transformers_of_one_line_do_not_fit() -> None:
    models = {"a": model(full_size("sd3_medium")), "b": model(full_size("sd3.5_medium"))}
    with pytest.raises(ModelError, match="a is Stable Diffusion 3 medium, b is Stable Diff"):
        check_mergeable(models)


@pytest.mark.parametrize(
    ("name", "drop", "reason"),
    [
        ("flux1", (), "it is Flux.1, of which no images can be made here, so there is nothing to"),
        ("sdxl_refiner", (), "it is Stable Diffusion XL refiner, which makes no images"),
        ("sd1", (), None),
    ],
)
def test_families_of_a_generator(name: str, drop: tuple[str, ...], reason: str | None) -> None:
    told = no_images(detect(header_of(full_size(name))), ("sd1", "sdxl"))
    if reason is None:
        assert told is None
    else:
        assert told is not None
        assert told.startswith(reason)
        assert "Stable Diffusion 1 or Stable Diffusion XL" in told


def model(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None
) -> tuple[Header, Detection]:
    header = header_of(shapes, metadata=metadata)
    return header, detect(header)


def test_models_of_one_family_fit() -> None:
    names = ("a", "b", "c")
    assert check_mergeable({name: model(full_size("sdxl")) for name in names}) == ()


def test_mixed_families_are_refused() -> None:
    models = {"a": model(full_size("sd1")), "b": model(full_size("sdxl"))}
    with pytest.raises(ModelError, match="a is Stable Diffusion 1, b is Stable Diffusion XL"):
        check_mergeable(models)


def test_mixed_variants_are_refused() -> None:
    wide = full_size("sd1") | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}
    models = {"a": model(wide), "b": model(full_size("sd1"))}
    with pytest.raises(ModelError, match="a is inpainting, b is a plain text-to-image model"):
        check_mergeable(models)
    assert check_mergeable({"a": model(wide), "b": model(wide)}) == ()


def test_mixed_prediction_types_are_refused() -> None:
    models = {
        "a": model(full_size("sdxl")),
        "b": model(full_size("sdxl") | {"v_pred": (0,)}),
    }
    with pytest.raises(ModelError, match="a predicts epsilon, b predicts v"):
        check_mergeable(models)


def test_unknown_prediction_type_is_noted() -> None:
    told = {"modelspec.prediction_type": "v"}
    notes = check_mergeable({"a": model(full_size("sd2")), "b": model(full_size("sd2"), told)})
    assert len(notes) == 1
    assert "does not tell its prediction type" in notes[0]


def test_other_sizes_are_refused() -> None:
    models = {"a": model(full_size("sd1")), "b": model(tiny("sd1"))}
    with pytest.raises(ModelError, match=r"models of different sizes: .* in a and .* in b"):
        check_mergeable(models)


def test_third_model_is_checked_too() -> None:
    models = {"a": model(full_size("sd1")), "b": model(full_size("sd1")), "c": model(tiny("sd1"))}
    with pytest.raises(ModelError, match=r"in a and .* in c"):
        check_mergeable(models)


@pytest.mark.parametrize("lacking", ["a", "b"])
def test_unet_with_other_layers_is_refused(lacking: str) -> None:
    header, detection = model(full_size("sd1"))
    keys = {key: name for key, name in detection.keys.items() if "out.2.bias" not in key}
    models = {"a": (header, detection), "b": (header, detection)}
    models[lacking] = (header, msgspec.structs.replace(detection, keys=keys))
    holder = "b" if lacking == "a" else "a"
    with pytest.raises(ModelError, match=f"only {holder} has '{UNET}out.2.bias'"):
        check_mergeable(models)


def test_absent_components_are_tolerated_and_noted() -> None:
    whole, bare = model(full_size("sd1")), model(without(full_size("sd1"), "_stage_model."))
    assert check_mergeable({"a": whole, "b": bare}) == (
        "b lacks 196 weights of the text encoder: these are kept from a.",
        "b lacks 248 weights of the VAE: these are kept from a.",
    )
    assert check_mergeable({"a": bare, "b": whole}) == (
        "a lacks 196 weights of the text encoder: the result is without, as a.",
        "a lacks 248 weights of the VAE: the result is without, as a.",
    )


def test_optional_and_copied_keys_may_differ() -> None:
    shorter = without(full_size("sd2"), "resblocks.23.", "logit_scale")
    notes = check_mergeable({"a": model(full_size("sd2")), "b": model(shorter | {"betas": (9,)})})
    assert notes == ("b lacks 12 weights of the text encoder: these are kept from a.",)
