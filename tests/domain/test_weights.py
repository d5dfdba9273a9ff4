from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_automerge.domain import architectures, weights
from lib_automerge.errors import ConfigError

IN = [f"IN{n:02}" for n in range(12)]
OUT = [f"OUT{n:02}" for n in range(12)]
LENGTHS = {
    "nat": 27, "slider": 27, "recipe": 27, "readme": 27, "mbw": 25, "supermerger": 26,
    "supermerger-xl": 20, "supermerger-flux": 61, "mecha": 26, "mecha-xl": 21,
    "supermerger-xl-parts": 110,
}  # fmt: skip
PER_BLOCK = {block: n / 64 for n, block in enumerate(architectures.get("sd1").parameters, start=1)}
"""A different weight for each of SD1's 27 blocks."""


def numbered(count: int) -> list[float]:
    return [n / 128 for n in range(count)]


@pytest.mark.parametrize(
    ("order", "positions"),
    [
        ("nat", [*IN, "M00", "OUT", *OUT, "TIME_EMBED"]),
        ("slider", [*IN, "M00", *OUT, "TIME_EMBED", "OUT"]),
        ("recipe", [*IN, "M00", *OUT, "OUT", "TIME_EMBED"]),
        ("readme", [*IN, "M00", "TIME_EMBED", *OUT, "OUT"]),
    ],
)
def test_the_orders_of_27(order: str, positions: list[str]) -> None:
    named = weights.from_list(numbered(27), order)
    assert [named[block] for block in positions] == numbered(27)
    assert weights.to_list(named, order) == numbered(27)
    assert set(named) == set(PER_BLOCK)


def test_recipe_file_moves_two_values_of_the_search_vector() -> None:
    """AutoMBW writes a recipe by taking out values 13 and 26 and appending them in this order."""
    vector = [f"{n}.5" for n in range(27)]
    recipe = vector[:13] + vector[14:26] + [vector[13], vector[26]]
    assert weights.convert(",".join(vector), "nat", "recipe") == ",".join(recipe)
    assert weights.convert(",".join(recipe), "recipe", "nat") == ",".join(vector)


def test_pasting_a_recipe_into_the_text_box_swaps_two_blocks() -> None:
    text = weights.format(PER_BLOCK, "recipe")
    misread = weights.parse(text, "slider")
    swapped = {block for block in PER_BLOCK if misread[block] != PER_BLOCK[block]}
    assert swapped == {"TIME_EMBED", "OUT"}


def test_25_give_the_embeddings_and_the_last_layer_their_neighbours() -> None:
    named = weights.from_list(numbered(25), "mbw")
    assert [named[block] for block in [*IN, "M00", *OUT]] == numbered(25)
    assert named["TIME_EMBED"] == named["IN00"]
    assert named["OUT"] == named["OUT11"]
    assert "BASE" not in named


def test_25_on_sdxl_drop_the_blocks_it_lacks() -> None:
    values = numbered(25)
    named = weights.from_list(values, "mbw", "sdxl")
    blocks = [*IN[:9], "M00", *OUT[:9]]
    assert [named[block] for block in blocks] == values[0:9] + values[12:22]
    assert named["TIME_EMBED"] == named["LABEL_EMB"] == named["IN00"]
    assert named["OUT"] == named["OUT08"]
    assert set(named) == {*blocks, "TIME_EMBED", "LABEL_EMB", "OUT"}


def test_supermerger_26() -> None:
    named = weights.from_list(numbered(26), "supermerger")
    assert [named[block] for block in ["BASE", *IN, "M00", *OUT]] == numbered(26)
    assert (named["TIME_EMBED"], named["OUT"], named["VAE"]) == (
        named["IN00"],
        named["OUT11"],
        named["BASE"],
    )


def test_supermerger_20() -> None:
    values = [0.25 + n / 128 for n in range(20)]
    named = weights.from_list(values, "supermerger-xl")
    assert [named[block] for block in [*IN[:9], "M00", *OUT[:9]]] == values[1:]
    assert named["BASE_L"] == named["BASE_G"] == values[0]
    assert (named["LABEL_EMB"], named["OUT"]) == (named["IN00"], named["OUT08"])
    assert "VAE" not in named
    assert weights.to_list(named, "supermerger-xl") == values


def test_supermerger_61_gives_every_block_of_flux_the_weight_of_its_position() -> None:
    values = numbered(61)
    named = weights.from_list(values, "supermerger-flux")
    assert set(named) == set(architectures.get("flux1").blocks) - {"VAE"}
    assert (named["BASE_L"], named["BASE_T5"]) == (values[0], values[1])
    entrances = ("IMG_IN", "TXT_IN", "TIME_IN", "VECTOR_IN", "GUIDANCE_IN")
    assert {named[block] for block in entrances} == {values[2]}
    assert (named["D00"], named["S37"], named["FINAL_LAYER"]) == (values[3], values[59], values[60])
    assert weights.to_list(named, "supermerger-flux") == values
    assert weights.lost(named, "supermerger-flux") == {}
    assert weights.lost(named | {"TXT_IN": -1.0}, "supermerger-flux") == {"TXT_IN": -1.0}


def test_mecha_gives_the_embeddings_the_weight_of_the_text_encoder() -> None:
    named = weights.from_list(numbered(26), "mecha")
    assert named["TIME_EMBED"] == named["BASE"] != named["IN00"]
    xl = weights.from_list(numbered(21), "mecha-xl")
    assert xl["LABEL_EMB"] == xl["BASE_G"] != xl["IN00"]
    assert xl["VAE"] == numbered(21)[-1]


@pytest.mark.parametrize("order", LENGTHS)
def test_lengths_are_told_and_checked(order: str) -> None:
    assert weights.orders()[order].startswith(f"{LENGTHS[order]} numbers: ")
    with pytest.raises(ConfigError, match=f"{LENGTHS[order]} numbers, the list has 3"):
        weights.from_list([0.0] * 3, order)


@given(
    # the positions of supermerger-xl-parts must agree; its round trip is with the dialects
    st.sampled_from(sorted(set(LENGTHS) - {"supermerger-xl-parts"})),
    st.lists(st.floats(-1, 2, allow_subnormal=False), min_size=61, max_size=61),
)
@settings(max_examples=60, deadline=None)
def test_every_list_survives_reading_and_writing(order: str, values: list[float]) -> None:
    values = values[: LENGTHS[order]]
    text = ",".join(map(repr, values))
    assert weights.to_list(weights.parse(text, order), order) == values
    again = weights.convert(weights.convert(text, order, "named"), None, order)
    assert list(map(float, again.split(","))) == values


def test_bare_list_is_never_guessed() -> None:
    with pytest.raises(ConfigError, match="does not say which block") as error:
        weights.parse(",".join(["0.5"] * 27))
    assert all(f"'{name}'" in str(error.value) for name in ("nat", "slider", "recipe", "readme"))
    assert "'mbw'" not in str(error.value)
    with pytest.raises(ConfigError, match=r"'supermerger' .*'mecha'"):
        weights.parse(str([0.5] * 26))


def test_bare_list_of_unknown_length() -> None:
    with pytest.raises(ConfigError, match=r"No known order has 24 numbers.*nat 27.*mbw 25"):
        weights.parse(",".join(["1"] * 24))


def test_order_for_another_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'supermerger' is not for .*XL.*supermerger-xl"):
        weights.from_list(numbered(26), "supermerger", "sdxl")


@pytest.mark.parametrize(
    "text",
    [
        "IN00:0.5,BASE:1",
        " in00 = .5 ; base = 1.0 ",
        "IN00: 0.5\nBASE: 1\n",
        '{"IN00": 0.5, "BASE": 1}',
        json.dumps({"format": 1, "method": "weighted_sum", "weights": {"IN00": 0.5, "BASE": 1}}),
    ],
)
def test_named_weights_in_all_forms(text: str) -> None:
    assert weights.parse(text) == {"IN00": 0.5, "BASE": 1.0}
    assert weights.parse(text, "named", "sd1") == {"IN00": 0.5, "BASE": 1.0}


def test_base_means_both_text_encoders_of_sdxl() -> None:
    named = weights.parse("BASE:0.5,BASE_G:0.25,IN00:1", architecture="sdxl")
    assert named == {"BASE_L": 0.5, "BASE_G": 0.25, "IN00": 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ("IN00:0.5,0.7", "not a weight: '0.7'"),
        ("IN00:half", "not a number: 'half'"),
        ("IN00:0.5,in00:0.7", "two weights for one block: 'in00'"),
        ("IN00:nan", "the weight of IN00 is nan"),
        ('{"IN00": "0.5"}', "the weight of IN00 is '0.5'"),
        ('{"IN00": true}', "the weight of IN00 is True"),
        ('{"IN00": 0.5', "not valid JSON"),
    ],
)
def test_unreadable_text(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        weights.parse(text)


@pytest.mark.parametrize("text", ["inf" + ",0" * 26, '["0"' + ",0" * 26 + "]"])
def test_lists_hold_finite_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match=r"weight of IN00 is .* It must be a finite number"):
        weights.parse(text, "nat")


def test_unknown_order_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'supermerger'"):
        weights.parse("1,2", "supermerge")


def test_validate() -> None:
    weights.validate(PER_BLOCK, "sd1")
    weights.validate(PER_BLOCK, architectures.get("sd2"))
    with pytest.raises(ConfigError, match="Did you mean 'TIME_EMBED'"):
        weights.validate({"TIME_EMBD": 0.5}, "sd1")
    with pytest.raises(ConfigError, match="unknown block of Stable Diffusion XL: 'IN09'"):
        weights.validate({"IN09": 0.5}, "sdxl")
    with pytest.raises(ConfigError, match="the weight of M00 is inf"):
        weights.validate({"M00": float("inf")}, "sd1")


def test_named_format_is_exact_and_short() -> None:
    values = {"IN00": 1.0, "M00": 0.1 + 0.2, "OUT00": -0.5}
    assert weights.format(values) == "IN00:1,M00:0.30000000000000004,OUT00:-0.5"
    assert weights.parse(weights.format(values)) == values


def test_lost_names_what_an_order_cannot_tell() -> None:
    assert weights.lost(PER_BLOCK, "nat") == {}
    told = PER_BLOCK | {"BASE": 0.25}
    assert weights.lost(told, "nat") == {"BASE": 0.25}
    assert weights.lost(PER_BLOCK, "mbw") == {
        "TIME_EMBED": PER_BLOCK["TIME_EMBED"],
        "OUT": PER_BLOCK["OUT"],
    }
    tied = PER_BLOCK | {"TIME_EMBED": PER_BLOCK["IN00"], "OUT": PER_BLOCK["OUT11"]}
    assert weights.lost(tied, "mbw") == {}
    assert weights.lost({"BASE_L": 0.5, "BASE_G": 0.75}, "supermerger-xl") == {"BASE_G": 0.75}
    assert weights.lost({"BASE_L": 0.5, "BASE_G": 0.5}, "supermerger-xl") == {}


@pytest.mark.parametrize("order", LENGTHS)
def test_lists_give_valid_weights_for_each_architecture_or_are_refused(order: str) -> None:
    accepted = {}
    for name in architectures.names():
        with contextlib.suppress(ConfigError):
            accepted[name] = weights.from_list([0.5] * LENGTHS[order], order, name)
    for name, named in accepted.items():
        weights.validate(named, name)
    unets = {"sd1", "sd2", "sdxl", "sdxl_refiner"}
    assert set(accepted) == {
        "supermerger": {"sd1", "sd2"},
        "supermerger-xl": {"sdxl"},
        "supermerger-xl-parts": {"sdxl"},
        "supermerger-flux": {"flux1"},
        "mecha": {"sd1", "sd2"},
        "mecha-xl": {"sdxl"},
    }.get(order, unets)


def test_a_unet_weight_is_not_told_as_the_text_encoders() -> None:
    named = {"TIME_EMBED": 0.011, "LABEL_EMB": 0.02, "IN01": 0.5}
    assert weights.to_list(named, "mecha-xl")[0] == 0.0
    assert {"TIME_EMBED", "LABEL_EMB"} <= weights.lost(named, "mecha-xl").keys()
