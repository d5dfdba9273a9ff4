from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from lib_automerge.domain import architectures
from lib_automerge.errors import ConfigError, ModelError

BLOCK_SIZES = json.loads((Path(__file__).parent / "block_sizes.json").read_text())
"""Keys and parameters of every block, counted in the original models' own code."""

KEY_LISTS = {
    "sd1": (1131, "c6f8e9cf7aebdd47e1700940d5736969fac03089447d719c6446f94e12fbd502"),
    "sd2": (1228, "2a5635b04d9547ac65fee57e4e9ea2c54ec639e26e483ff2e6a1cfb69496f9b6"),
    "sdxl": (2515, "29005b395800d0f2ba73b65a1d56a473a9c454e82d1f3a64c2ce4d0cd9294220"),
}
"""Number of keys, and SHA-256 of the sorted lines "key 320x4x3x3", of the published checkpoints."""

SCHEDULE = [
    "alphas_cumprod", "alphas_cumprod_prev", "betas", "log_one_minus_alphas_cumprod",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    "posterior_variance", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
]  # fmt: skip

UNETS = ["sd1", "sd2", "sdxl", "sdxl_refiner"]

LAYERS = {
    "sd1": 25, "sd2": 25, "sdxl": 19, "sdxl_refiner": 25, "sd3_medium": 24, "sd3.5_medium": 24,
    "sd3.5_large": 38, "flux1": 57, "auraflow": 36, "hunyuandit": 40, "chroma": 57, "lumina2": 26,
    "z_image": 30, "pixart_sigma": 28, "anima": 28,
}  # fmt: skip
"""How many layers merge tools and papers count in each family."""

all_architectures = pytest.mark.parametrize("name", LAYERS)
unets = pytest.mark.parametrize("name", UNETS)


class Published(NamedTuple):
    """A weight of a published checkpoint; no block means that it must be copied."""

    shape: tuple[int, ...]
    dtype: str
    block: str | None


def published() -> dict[str, dict[str, Published]]:
    """Family -> key -> weight, listed from the original models' own code and files."""
    text = lzma.decompress((Path(__file__).parent / "published_keys.tsv.xz").read_bytes()).decode()
    found: dict[str, dict[str, Published]] = defaultdict(dict)
    for line in text.splitlines()[1:]:
        family, key, shape, dtype, block = line.split("\t")
        sizes = tuple(int(size) for size in shape.split("x")) if shape else ()
        found[family][key] = Published(sizes, dtype, block or None)
    return found


PUBLISHED = published()


@pytest.mark.parametrize("name", KEY_LISTS)
def test_key_list_is_that_of_the_published_checkpoint(name: str) -> None:
    keys = architectures.get(name).reference_keys
    lines = sorted(f"{key} {'x'.join(map(str, shape))}" for key, shape in keys.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(keys), digest) == KEY_LISTS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_key_is_known_with_its_block_and_shape(name: str) -> None:
    architecture = architectures.get(name)
    reference = architecture.reference_keys
    held = {key: weight for key, weight in PUBLISHED[name].items() if weight.block}
    assert {key: architecture.block_of(key) for key in PUBLISHED[name]} == {
        key: weight.block for key, weight in PUBLISHED[name].items()
    }
    assert {key: reference[key] for key in held} == {k: w.shape for k, w in held.items()}
    assert all(architecture.is_copied(key) for key in PUBLISHED[name].keys() - held.keys())
    # SD3.5's text encoders come in files of their own; some users join them with SD3's names.
    more = {key for key in reference if not key.startswith("text_encoders.")} - held.keys()
    assert not more


@all_architectures
def test_number_of_layers(name: str) -> None:
    layers = architectures.get(name).layers
    assert sum(len(blocks) for blocks in layers.values()) == LAYERS[name]


@all_architectures
def test_every_key_falls_into_one_block_of_the_right_size(name: str) -> None:
    architecture = architectures.get(name)
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    copied = []
    for key, shape in architecture.reference_keys.items():
        block = architecture.block_of(key)
        if block is None:
            copied.append(key)
        else:
            sizes[block][0] += 1
            sizes[block][1] += math.prod(shape)
    assert dict(sizes) == BLOCK_SIZES[name]
    assert {key.rpartition(".")[2] for key in copied} <= {"position_ids", "logit_scale"}


@all_architectures
def test_no_key_is_claimed_by_two_rules(name: str) -> None:
    document = architectures.get(name).document
    rules = [re.escape(prefix).replace(r"\{n\}", r"\d+") for prefix, _ in document.rules]
    for key in architectures.get(name).reference_keys:
        assert sum(re.match(rule, key) is not None for rule in rules) == 1, key


@all_architectures
def test_blocks_and_groups_are_the_same_partition(name: str) -> None:
    architecture = architectures.get(name)
    grouped = [block for group in architecture.groups.values() for block in group]
    assert tuple(grouped) == architecture.blocks
    assert len(set(grouped)) == len(grouped)
    assert set(architecture.blocks) == set(BLOCK_SIZES[name])


def test_parameters_are_the_ones_that_runs_search() -> None:
    numbered = [f"{side}{n:02}" for side in ("IN", "OUT") for n in range(12)]
    sd_blocks = (*numbered[:12], "M00", *numbered[12:], "TIME_EMBED", "OUT")
    assert architectures.get("sd1").parameters == sd_blocks
    assert architectures.get("sd2").parameters == sd_blocks
    assert len(sd_blocks) == 27
    sdxl = architectures.get("sdxl")
    assert sdxl.parameters == (
        *numbered[:9], "M00", *numbered[12:21], "TIME_EMBED", "LABEL_EMB", "OUT",
    )  # fmt: skip
    assert len(sdxl.parameters) == 22
    assert sdxl.text_encoders == ("BASE_L", "BASE_G")
    assert sdxl.blocks[-3:] == ("BASE_L", "BASE_G", "VAE")


@unets
@pytest.mark.parametrize(
    "key",
    [
        *SCHEDULE,
        "model_ema.decay",
        "model_ema.diffusion_modelinput_blocks00weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
        "v_pred",
        "ztsnr",
        "edm_vpred.sigma_max",
    ],
)
def test_companions_of_weights_are_copied(name: str, key: str) -> None:
    architecture = architectures.get(name)
    assert architecture.block_of(key) is None
    assert architecture.is_copied(key)


def test_foreign_keys_are_copied_but_not_known() -> None:
    sd1 = architectures.get("sd1")
    assert sd1.block_of("state_dict") is None
    assert not sd1.is_copied("state_dict")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sd1", "model.diffusion_model.input_blocks.12.0.weight"),
        ("sd1", "model.diffusion_model.label_emb.0.0.weight"),
        ("sdxl", "model.diffusion_model.output_blocks.9.0.in_layers.0.weight"),
        ("sdxl", "model.diffusion_model.time_stack.weight"),
        ("sdxl", "conditioner.embedders.2.model.weight"),
    ],
)
def test_unknown_key_of_the_model_is_an_error(name: str, key: str) -> None:
    with pytest.raises(ModelError, match=re.escape(repr(key))):
        architectures.get(name).block_of(key)
    assert not architectures.get(name).has_block(key)


def test_label_embedding_does_not_end_the_map() -> None:
    """Walking sorted keys along a fixed list of blocks stops at SDXL's label embedding."""
    sdxl = architectures.get("sdxl")
    prefix = "model.diffusion_model."
    assert sdxl.block_of(f"{prefix}label_emb.0.0.bias") == "LABEL_EMB"
    assert sdxl.block_of(f"{prefix}middle_block.1.norm.weight") == "M00"
    assert sdxl.block_of(f"{prefix}output_blocks.8.0.in_layers.0.bias") == "OUT08"
    assert sdxl.block_of(f"{prefix}out.2.weight") == "OUT"


def test_optional_keys() -> None:
    sd2 = architectures.get("sd2")
    layer = "cond_stage_model.model.transformer.resblocks.{}.ln_1.weight"
    assert sd2.is_optional(layer.format(23))
    assert not sd2.is_optional(layer.format(22))
    assert not sd2.is_optional("model.diffusion_model.out.2.weight")
    assert sd2.is_optional("cond_stage_model.model.logit_scale")
    assert sd2.is_optional("betas")


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sdxl_refiner'"):
        architectures.get("sdxl-refiner")
    assert architectures.names() == tuple(sorted(LAYERS))


def test_the_data_of_all_families_stay_small() -> None:
    data = architectures.keylists.DATA
    files = [*(data / "architectures").glob("*.json"), data / "modules.json"]
    assert sum(path.stat().st_size for path in files) < 70_000


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("flux1", "model.diffusion_model.double_blocks.19.img_attn.qkv.weight"),
        ("sd3_medium", "model.diffusion_model.joint_blocks.24.x_block.attn.qkv.weight"),
        ("auraflow", "model.attn.weight"),
        ("hunyuandit", "model.blocks.40.norm1.weight"),
        ("anima", "model.diffusion_model.llm_adapter.blocks.6.norm_mlp.weight"),
        ("z_image", "model.diffusion_model.siglip_embedder.0.weight"),
    ],
)
def test_unknown_key_of_a_transformer_is_an_error(name: str, key: str) -> None:
    with pytest.raises(ModelError, match=re.escape(repr(key))):
        architectures.get(name).block_of(key)


@all_architectures
def test_the_documentation_names_every_block(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    architecture = architectures.get(name)
    (row,) = [line for line in text.splitlines() if f"(`{name}`)" in line]
    assert f"| {LAYERS[name]} |" in row
    assert architecture.label in row
    for group, blocks in architecture.groups.items():
        for block in blocks:
            numbered = block.removeprefix(group).isdigit() and len(blocks) > 1
            first, last = blocks[0], [b for b in blocks if b[-2:].isdigit()][-1:]
            assert (f"{first}-{last[0][-2:]}" if numbered else block) in row, block
