"""The written-out rules agree with diffusers' own converters and cover every module."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as converters
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_automerge.domain import architectures
from lib_automerge.errors import GenerationError, ModelError
from lib_automerge.generate.diffusers_config import write_config
from lib_automerge.generate.key_mapping import is_dropped, key_map
from tests.tiny_pipelines import tiny_shapes

ARCHITECTURES = ("sd1", "sd2", "sdxl")
FOLDERS = Path(__file__).parents[2] / "lib_automerge" / "data" / "diffusers"
TEXT_MODELS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def trained_keys(architecture: str) -> dict[str, tuple[int, ...]]:
    known = architectures.get(architecture)
    return {key: shape for key, shape in known.reference_keys.items() if known.block_of(key)}


def config(architecture: str, component: str) -> dict:
    return msgspec.json.decode((FOLDERS / architecture / component / "config.json").read_bytes())


def modules(architecture: str) -> dict[str, torch.nn.Module]:
    with torch.device("meta"):
        found = {
            "unet": UNet2DConditionModel.from_config(config(architecture, "unet")),
            "vae": AutoencoderKL.from_config(config(architecture, "vae")),
        }
        for name, kind in TEXT_MODELS.items():
            if (FOLDERS / architecture / name).is_dir():
                found[name] = kind(CLIPTextConfig(**config(architecture, name)))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_size_checkpoints_fill_every_tensor_of_the_modules_exactly_once(architecture):
    live = {
        (component, name.removeprefix("text_model.")): tuple(tensor.shape)
        for component, module in modules(architecture).items()
        for name, tensor in module.state_dict().items()
    }
    keys = trained_keys(architecture)
    filled = []
    for key, places in key_map(keys).items():
        for place in places:
            filled.append((place.component, place.name))
            shape = keys[key]
            if place.change == "squeezed":
                assert shape[2:] == (1, 1)
                shape = shape[:2]
            elif place.change == "transposed":
                shape = shape[::-1]
            elif place.change == "thirds":
                shape = (shape[0] // 3, *shape[1:])
            assert live[place.component, place.name] == shape, key
    assert sorted(filled) == sorted(live)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_rules_are_those_of_diffusers_own_converters(architecture):
    keys = list(trained_keys(architecture))
    tags = {key: torch.tensor([float(number)]) for number, key in enumerate(keys)}
    for component, prefix, convert in (
        ("unet", "model.diffusion_model.", converters.convert_ldm_unet_checkpoint),
        ("vae", "first_stage_model.", converters.convert_ldm_vae_checkpoint),
    ):
        tagged = {key: tag for key, tag in tags.items() if key.startswith(prefix)}
        converted = convert(tagged, config(architecture, component))
        theirs = {name: keys[int(tag.flatten()[0])] for name, tag in converted.items()}
        ours = {
            place.name: key
            for key, places in key_map(keys).items()
            for place in places
            if place.component == component
        }
        assert ours == theirs


@pytest.mark.parametrize("prefix", ["cond_stage_model.model.", "conditioner.embedders.1.model."])
def test_openclip_is_cut_and_turned_as_diffusers_does_it(prefix):
    architecture = "sd2" if prefix.startswith("cond_stage") else "sdxl"
    shapes = tiny_shapes(architecture)
    state = {key: torch.randn(shape) for key, shape in shapes.items() if key.startswith(prefix)}
    component = "text_encoder" if architecture == "sd2" else "text_encoder_2"
    settings = config(architecture, component)
    width = state[f"{prefix}ln_final.weight"].shape[0]
    settings |= {"hidden_size": width, "num_attention_heads": 1}
    with torch.device("meta"):
        model = TEXT_MODELS[component](CLIPTextConfig(**settings))
    theirs = {
        name.removeprefix("text_model."): tensor
        for name, tensor in converters.convert_open_clip_checkpoint(model, state, prefix).items()
    }
    ours = {}
    for key, places in key_map(key for key in state if "logit_scale" not in key).items():
        for place in places:
            tensor = state[key].chunk(3)[place.third] if place.change == "thirds" else state[key]
            ours[place.name] = tensor.T if place.change == "transposed" else tensor
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_only_weights_that_no_image_depends_on_are_dropped():
    last = "cond_stage_model.model.transformer.resblocks.23.ln_1.weight"
    assert is_dropped(last)
    assert key_map([last]) == {}
    for architecture in ARCHITECTURES:
        dropped = [key for key in trained_keys(architecture) if is_dropped(key)]
        assert all("resblocks.23." in key or "text_projection" in key for key in dropped)


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.input_blocks.1.0.extra_layer.weight",
        "model.diffusion_model.middle_block.3.weight",
        "first_stage_model.decoder.up.0.extra.weight",
        "cond_stage_model.model.visual.proj",
        "unheard.of",
    ],
)
def test_a_weight_without_a_place_is_an_error(key):
    with pytest.raises(GenerationError, match="has no place"):
        key_map([key])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_of_full_size_models_give_the_standard_configuration(architecture, tmp_path):
    write_config(tmp_path, architecture, architectures.get(architecture).reference_keys)
    for path in FOLDERS.joinpath(architecture).rglob("*.json"):
        made = tmp_path / path.relative_to(FOLDERS / architecture)
        assert msgspec.json.decode(made.read_bytes()) == msgspec.json.decode(path.read_bytes())


def test_a_missing_weight_that_the_configuration_needs_is_named(tmp_path):
    shapes = tiny_shapes("sd1")
    del shapes["first_stage_model.decoder.conv_in.weight"]
    with pytest.raises(ModelError, match=r"lacks the weight 'first_stage_model\.decoder"):
        write_config(tmp_path, "sd1", shapes)


def test_a_text_encoder_with_another_vocabulary_is_refused(tmp_path):
    shapes = tiny_shapes("sd1")
    key = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    shapes[key] = (300, shapes[key][1])
    with pytest.raises(ModelError, match=r"300 tokens.*49408"):
        write_config(tmp_path, "sd1", shapes)
