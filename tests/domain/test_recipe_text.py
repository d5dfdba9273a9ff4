from __future__ import annotations

import pytest

from lib_automerge.domain import architectures, recipe_text, weights
from lib_automerge.errors import ConfigError

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")

AUTOMBW = """modelA=08b-AstolfoMix-_13a_14a.safetensors
modelB=09b-AstolfoMix-_15a_16a.safetensors
modelO=15b-AstolfoMix-08b09b
position_id_fix=Keep Original
output_mode=Max Precision
0.4,0.9,0.5,0.6,0.5,0.0,0.9,0.9,1.0,0.4,0.3,0.8,0.3,0.9,0.6,0.8,0.9,0.7,0.6,1.0,0.9,0.6,0.7,0.3,0.6,1.0,0.0
"""


def numbers(count: int) -> str:
    return ",".join(f"{n / 128}" for n in range(count))


def test_a_recipe_file_of_auto_mbw_needs_no_order() -> None:
    (found,) = recipe_text.parse(AUTOMBW, SD1)
    assert found == weights.parse(AUTOMBW.splitlines()[-1], "recipe")
    assert (found["OUT11"], found["OUT"], found["TIME_EMBED"]) == (0.6, 1.0, 0.0)


@pytest.mark.parametrize(("separator", "count"), [("\t", 26), (":", 26), (":", 25)])
def test_presets_are_supermergers_or_the_older_ones(separator: str, count: int) -> None:
    text = f"GRAD_V{separator}{numbers(count)}\nFLAT_25{separator}{','.join(['0.25'] * count)}\n"
    order = {26: "supermerger", 25: "mbw"}[count]
    first, second = recipe_text.parse(text, SD1)
    assert first == weights.parse(numbers(count), order, SD1)
    assert set(second.values()) == {0.25}


def test_lists_of_one_possible_order_need_none() -> None:
    assert recipe_text.parse(numbers(25), SD1) == (weights.parse(numbers(25), "mbw", SD1),)
    twenty = weights.parse(numbers(20), "supermerger-xl", SDXL)
    assert recipe_text.parse(numbers(20), SDXL) == (twenty,)


@pytest.mark.parametrize("count", [26, 27])
def test_lists_of_several_orders_ask(count: int) -> None:
    with pytest.raises(recipe_text.AmbiguousOrderError, match="Name its order: ") as raised:
        recipe_text.parse(numbers(count), SD1)
    told = {26: ("supermerger", "mecha"), 27: ("nat", "slider", "recipe")}[count]
    assert all(f"'{order}'" in str(raised.value) for order in told)
    for order in told:
        assert recipe_text.parse(numbers(count), SD1, order) == (
            weights.parse(numbers(count), order, SD1),
        )


def test_a_list_of_equal_weights_means_the_same_in_every_order() -> None:
    (found,) = recipe_text.parse(",".join(["0.5"] * 27), SD1)
    assert found == dict.fromkeys(SD1.parameters, 0.5)


def test_pairs_and_json_are_read_as_ever() -> None:
    assert recipe_text.parse("IN00:0.5,\nM00=1", SD1) == ({"IN00": 0.5, "M00": 1.0},)
    best = '{"format":1,"evaluation":7,"score":0.2,"weights":{"IN00":0.5},"baselines":{}}'
    assert recipe_text.parse(best, SD1) == ({"IN00": 0.5},)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (numbers(28), "No known order has 28 numbers"),
        ("IN0:0.5", "unknown block .*Did you mean 'IN"),
        ("IN00:nan", "IN00 is nan"),
        ("once upon a time", "not a number"),
        ('{"architecture":"sdxl","weights":{"IN00":0.5}}', "'sdxl', the models are 'sd1'"),
        ('{"weights": {', "not valid JSON"),
        (f"P:{numbers(24)}", "No known order has 24 numbers"),
        ("modelA=x\nmodelB=y\n", "the text is empty"),
    ],
)
def test_bad_text_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        recipe_text.parse(text, SD1)
