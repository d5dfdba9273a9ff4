from __future__ import annotations

import re

import pytest

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.dialects import mecha_read, mecha_write
from lib_automerge.domain.dialects.sketch import Listed, decided, recipe_of
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.errors import ConfigError
from tests.domain.dialects import published
from tests.domain.dialects.published import A

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")

MODELS = """version 0.1.0
model "dir/a v1.0.safetensors" model_config="sd1-ldm" merge_space="weight"
model "dir/b.safetensors" model_config="sd1-ldm" merge_space="weight"
model "dir/c.safetensors" model_config="sd1-ldm" merge_space="weight"
"""


def recipe(
    method: str,
    roles: tuple[str, ...] = ("a", "b"),
    given: dict[str, float] | None = None,
    architecture: str = "sd1",
    **parameters: ParameterValue,
) -> Recipe:
    return Recipe(
        architecture=architecture,
        method=method,
        models={r: ModelRef(f"{r} v1.0", A, f"/dir/{r} v1.0.safetensors") for r in roles},
        weights=given or {},
        parameters=parameters,
    )


def test_ties_as_sd_mecha_writes_it() -> None:
    sketch = mecha_read.read(published.MECHA_TIES)
    assert decided(sketch, None) is SD1
    found = recipe_of(sketch, SD1)
    assert found.method == "ties"
    assert [ref.name for ref in found.models.values()] == ["base", "a", "b"]
    assert set(found.models) == {"base", "m001", "m002"}
    assert found.parameters["k"] == 0.2
    scale = found.parameters["scale"]
    assert isinstance(scale, dict)
    # sd-mecha's orphans are not SuperMerger's: the time embedding follows BASE
    assert (scale["BASE"], scale["TIME_EMBED"], scale["VAE"]) == (0.1, 0.1, 0.1)
    assert (scale["IN00"], scale["OUT11"], scale["OUT"]) == (0.13, 0.85, 0.85)
    assert "one change more" in sketch.notes[0]


def test_votes_by_count_are_ties_soup() -> None:
    text = published.MECHA_TIES.replace("key=true", "key=false").replace("key=0.2", "key=1.0")
    sketch = mecha_read.read(text)
    assert sketch.method == "ties_soup"
    assert not sketch.notes


def test_the_header_of_a_merge_by_blocks() -> None:
    sketch = mecha_read.read(published.MECHA_EMBEDDED)
    assert sketch.method == "add_difference"
    assert isinstance(sketch.spread, Listed)
    assert sketch.spread.order == "mecha"
    assert [(hint.name, hint.path) for hint in sketch.models.values()] == [
        ("a", ""),
        ("b", ""),
        ("c", ""),
    ]
    assert mecha_read.read(MODELS + 'merge "slerp" &0 &1').models["b"].path == "dir/b.safetensors"


def test_the_geometric_median_keeps_its_numbers() -> None:
    sketch = mecha_read.read(published.MECHA_MEDIAN)
    assert sketch.parameters == {"floor": 1e-6, "iterations": 100, "tolerance": 1e-20}
    assert list(sketch.models) == ["m001", "m002", "m003"]


@pytest.mark.parametrize(
    ("lines", "method", "weight"),
    [
        ('merge "weighted_sum" &0 &1 alpha=0.25', "weighted_sum", 0.25),
        ('merge "weighted_sum" &0 &1 0.25', "weighted_sum", 0.25),
        ('merge "weighted_sum" b=&1 a=&0', "weighted_sum", 0.5),
        ('merge "slerp" &0 &1 alpha=0.25', "slerp", 0.25),
        ('merge "add_cosine_b" &0 &1 alpha=0.25', "cosine_b", 0.25),
        ('merge "subtract" &1 &2\nmerge "add_difference" &0 &3', "add_difference", 1.0),
        ('merge "subtract" &1 &0\nmerge "add_difference" &0 &3 2', "amplified_difference", 2.0),
        (
            'merge "subtract" &1 &2\nmerge "train_difference_mask" &0 &1 &2 alpha=0.5\n'
            'merge "add_difference" &0 &3 alpha=&4',
            "train_difference",
            0.5,
        ),
    ],
)
def test_methods_by_their_graphs(lines: str, method: str, weight: float) -> None:
    sketch = mecha_read.read(MODELS + lines)
    assert sketch.method == method
    assert sketch.models["a"].name == "a v1.0"
    assert set(sketch.weights(SD1).values()) == {weight}


def test_a_sum_of_a_sum_is_a_sum_twice() -> None:
    lines = 'merge "weighted_sum" &0 &1 alpha=0.25\nmerge "weighted_sum" &3 &2 alpha=0.75'
    found = recipe_of(mecha_read.read(MODELS + lines), SD1)
    assert found.method == "sum_twice"
    assert set(found.weights.values()) == {0.25}
    assert found.parameters == {"beta": 0.75}
    assert found.models["c"].name == "c"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MODELS + 'merge "rotate" &0 &1', r'node &3 \(merge "rotate"\)'),
        (MODELS + 'merge "slerp" &0 &1\nmerge "slerp" &3 &2', r"&4 .*merges node &3 .*files"),
        (MODELS + 'merge "weighted_sum" &0', r"&3 .*argument b is missing"),
        (MODELS + 'merge "weighted_sum" &0 &1 gamma=1', r"&3 .*not known: gamma"),
        (MODELS + 'merge "model_stock" &0\nmerge "add_difference" &0 &3', "rows and neighbour"),
        (MODELS + 'merge "subtract" &1 &2', "last step can be"),
        (MODELS + 'merge "slerp" &0 &1\nmerge "fallback" &3 &2', "come from the first model"),
        (MODELS + 'dict IN00=0.5\nliteral &3 model_config="sd1-supermerger_blocks"\n'
         'merge "slerp" &0 &1 alpha=&4', "every block once; BASE"),
        (MODELS + 'dict key="x"\nmerge "slerp" &0 &1 alpha=&3', "more than numbers"),
        (MODELS.rstrip(), r"ends with node &2 \(model\), which merges nothing"),
        ("version 0.1.0", "empty"),
        ("version 0.0.9\n", "'version 0.0.9'"),
        (MODELS + 'merge "slerp" &0 &7', "line 5 .*refers to &7"),
        (MODELS + 'merge "slerp &0 &1', "line 5 .*quotation mark"),
        (MODELS + 'merge "slerp" &0 &1 alpha=nan', "no finite number"),
        (MODELS + "melt &0 &1", "line 5 .*not a line"),
        (MODELS + 'merge "slerp" &0 one', "'one'"),
        (MODELS + "\n\n" + 'merge "slerp" &0 &1', "line 5 .*not a line"),
        (
            'version 0.1.0\nmodel "l.safetensors" model_config="sd1-kohya_kohya_lora" '
            'merge_space="delta"\nmodel "a.safetensors" model_config="sd1-ldm"\n'
            'merge "weighted_sum" &1 &0',
            "holds 'delta'",
        ),
        (
            'version 0.1.0\nmodel "f.safetensors" model_config="sdxl-kohya"\n'
            'merge "weighted_sum" &0 &0',
            "is a 'sdxl-kohya'",
        ),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_told_by_its_node(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        mecha_read.read(text)


@pytest.mark.parametrize(
    ("config", "kind", "block"),
    [("sd3-comfyui", "sd3_medium", "JOINT07"), ("flux-flux", "flux1", "S37")],
)
def test_transformers_have_weights_by_key(config: str, kind: str, block: str) -> None:
    architecture = architectures.get(kind)
    given = recipe("weighted_sum", given={block: 0.25, "VAE": 1.0}, architecture=kind)
    text = mecha_write.write(given, architecture)
    assert f'model_config="{config}" merge_space="weight"' in text
    assert f'model_config="{config}" merge_space="param"' in text
    sketch = mecha_read.read(text)
    assert decided(sketch, None) is architecture
    found = sketch.weights(architecture)
    assert weights.effect(found) == {block: 0.25, "VAE": 1.0}


def test_keys_of_one_block_must_agree() -> None:
    literal = 'literal &3 model_config="sd1-ldm" merge_space="param"\n'
    one = "model.diffusion_model.out.0.bias=0.5"
    text = f'{MODELS}dict {one}\n{literal}merge "weighted_sum" &0 &1 alpha=&4'
    with pytest.raises(ConfigError, match="the keys of OUT have different weights"):
        mecha_read.read(text)
    keys = [key for key in SD1.reference_keys if SD1.block_of(key) == "OUT"]
    text = text.replace(one, " ".join(f"{key}=0.5" for key in keys))
    assert weights.effect(mecha_read.read(text).weights(SD1)) == {"OUT": 0.5}


def test_what_is_written_can_be_read_by_sd_mecha() -> None:
    given = dict.fromkeys(SD1.blocks, 0.5) | {"OUT": 0.25}
    text = mecha_write.write(recipe("weighted_sum", given=given), SD1)
    lines = text.split("\n")
    assert lines[0] == "version 0.1.0"
    assert lines[1] == f"# SHA-256 {A} a v1.0"
    assert all(line.strip() for line in lines), "sd-mecha fails on an empty line, the last included"
    assert mecha_read.read(text).models["a"].sha256 == A
    assert text.endswith('merge "fallback" &4 &0')


def test_blocks_go_out_as_blocks_where_sd_mecha_has_them() -> None:
    given = dict.fromkeys(SDXL.blocks, 0.5) | {"IN03": 0.25, "VAE": 0.0}
    text = mecha_write.write(recipe("slerp", given=given, architecture="sdxl"), SDXL)
    assert "convert_sdxl_blocks_to_sgm" in text
    assert re.search(r"dict BASE=0\.5 .*IN03=0\.25 .*VAE=0\.0", text)
    searched = dict.fromkeys(SDXL.parameters, 0.5)
    text = mecha_write.write(recipe("slerp", given=searched, architecture="sdxl"), SDXL)
    assert "convert_" not in text
    assert 'model_config="sdxl-sgm" merge_space="param"' in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (recipe("dare", ("base", "m001")), "nothing that merges exactly like dare"),
        (recipe("model_stock", ("base", "m001")), "like model_stock"),
        (recipe("geometric_median", ("m001",), scope="model"), "nothing like scope model"),
        (recipe("average", ("m001",), shares={"m001": 2.0}), "nothing like shares"),
        (recipe("ties", ("base", "m001"), k={"IN00": 0.5}), "one k for all blocks"),
        (recipe("slerp", ("a", "b", "c")), "takes the models a, b"),
        (recipe("weighted_sum", architecture="sd2"), "cannot be written for sd-mecha"),
        (recipe("weighted_sum", architecture="sd3.5_large"), "cannot be written for sd-mecha"),
    ],
)
def test_what_sd_mecha_cannot_say_is_told(given: Recipe, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        mecha_write.write(given, architectures.get(given.architecture))


def test_two_files_of_one_name_without_paths_are_told() -> None:
    models = {"a": ModelRef("same", A), "b": ModelRef("same", published.B)}
    given = Recipe(architecture="sd1", method="weighted_sum", models=models)
    with pytest.raises(ConfigError, match=r"two models are called same.safetensors"):
        mecha_write.write(given, SD1)


@pytest.mark.parametrize("path", ["/x=1/a.safetensors", "/x\n/a.safetensors"])
def test_paths_that_sd_mecha_cannot_read_are_told(path: str) -> None:
    models = {"a": ModelRef("a", "", path), "b": ModelRef("b")}
    given = Recipe(architecture="sd1", method="weighted_sum", models=models)
    with pytest.raises(ConfigError, match="sd-mecha cannot read a path"):
        mecha_write.write(given, SD1)
