from __future__ import annotations

import json

import msgspec
import pytest

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.dialects import catalogue, supermerger
from lib_automerge.domain.dialects.sketch import Sketch, decided, recipe_of
from lib_automerge.domain.dialects.supermerger_keys import UnsaidError
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError
from tests.domain.dialects import published
from tests.domain.dialects.published import SUPERMERGER_25, A, B, C

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")


def sketch(fields: dict[str, str], order: str | None = None) -> Sketch:
    (found,) = catalogue.read_metadata(fields, order).found
    assert isinstance(found, Sketch)
    return found


def test_its_metadata_name_models_and_follow_its_own_orphans() -> None:
    found = sketch(published.supermerger())
    assert found.dialect == "SuperMerger's metadata"
    assert found.architectures == ("sd1", "sd2")
    recipe = recipe_of(found, SD1)
    assert recipe.method == "weighted_sum"
    assert recipe.models["a"] == ModelRef(name="anything-v3.0", sha256=A)
    assert recipe.models["b"] == ModelRef(name="basil mix", sha256=B)
    assert found.models["b"].legacy_hash == "0ff12709"
    given = recipe.weights
    assert [given[block] for block in weights.blocks_of("mbw")] == SUPERMERGER_25
    assert (given["BASE"], given["VAE"]) == (0.5, 0.5)
    assert (given["TIME_EMBED"], given["OUT"]) == (given["IN00"], given["OUT11"])


def test_as_viewers_show_it_or_alone_it_is_the_same() -> None:
    fields = published.supermerger()
    shown = {name: json.loads(value) for name, value in fields.items() if value.startswith("{")}
    assert catalogue.read(json.dumps(shown)).found == (sketch(fields),)
    assert catalogue.read(json.dumps({"__metadata__": fields})).found == (sketch(fields),)
    (alone,) = catalogue.read(fields["sd_merge_recipe"]).found
    assert isinstance(alone, Sketch)
    assert alone.models["a"].sha256 == A


def test_without_block_weights_alpha_is_for_the_whole_model() -> None:
    fields = published.supermerger(mbw=False, weights_alpha=None, base_alpha=0.7)
    found = sketch(fields)
    assert found.architectures == ()
    assert set(found.weights(SDXL).items()) == {(block, 0.7) for block in SDXL.blocks}
    with pytest.raises(ConfigError, match=r"Add --architecture, one of: .*sd1, .*sdxl"):
        decided(found, None)


@pytest.mark.parametrize(
    ("mode", "calculation", "method"),
    [
        ("Add difference:A+(B-C)*alpha", "normal", "add_difference"),
        ("Add difference", "trainDifference", "train_difference"),
        ("Triple sum", "normal", "triple_sum"),
        ("sum Twice", "normal", "sum_twice"),
    ],
)
def test_modes_of_three_models(mode: str, calculation: str, method: str) -> None:
    fields = published.supermerger(
        mode=mode, calcmode=calculation, model_c=C, weights_beta=SUPERMERGER_25[::-1]
    )
    recipe = recipe_of(sketch(fields), SD1)
    assert recipe.method == method
    assert set(recipe.models) == {"a", "b", "c"}
    if method in ("triple_sum", "sum_twice"):
        beta = recipe.parameters["beta"]
        assert isinstance(beta, dict)
        assert (beta["BASE"], beta["IN00"], beta["OUT"]) == (0.25, 0.96, 0.0)
    else:
        assert not recipe.parameters


def test_sdxl_asks_whether_the_vae_follows_base() -> None:
    listed = [0.1] * 19 + [0]
    fields = published.supermerger(weights_alpha=listed)
    with pytest.raises(ConfigError, match=r"'supermerger-xl' .*'supermerger-xl-vae' "):
        sketch(fields)
    assert sketch(fields, "supermerger-xl").weights(SDXL).get("VAE", 0.0) == 0.0
    assert sketch(fields, "supermerger-xl-vae").weights(SDXL)["VAE"] == 0.5
    clear = sketch(published.supermerger(weights_alpha=listed, base_alpha=0))
    assert clear.architectures == ("sdxl",)
    assert clear.weights(SDXL)["LABEL_EMB"] == clear.weights(SDXL)["IN00"] == 0.1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mode": "Triple sum", "calcmode": "cosineA"}, "'Triple sum' .*'cosineA'"),
        ({"calcmode": "smoothAdd"}, "smoothAdd"),
        ({"weights_alpha": [0.5] * 24}, "26, 20, 61 or 110 weights, this one 25"),
        ({"weights_alpha": None}, "no list of weights"),
        ({"weights_alpha": [0.5] * 24 + ["x"]}, "not a number: 'x'"),
        ({"weights_alpha": [0.5] * 24 + [float("nan")]}, "not valid JSON|damaged|not a number"),
        ({"base_alpha": True}, "not a number: True"),
        ({"model_b": None}, "leave out the SHA-256"),
        ({"mode": 3}, "'mode' is 3"),
        ({"type": "SDNext"}, "written by 'SDNext'"),
    ],
)
def test_what_is_unknown_or_damaged_is_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sketch(published.supermerger(**changes))


def merged(**changes: object) -> dict[str, float]:
    """The weights of SD1 metadata with 0.25 for BASE and 0.5 for all else."""
    fields = published.supermerger(base_alpha=0.25, weights_alpha=[0.5] * 25, **changes)
    return sketch(fields).weights(SD1)


@pytest.mark.parametrize(
    ("rules", "changed"),
    [
        (["OUT03::0.1"], {"OUT03": 0.1}),
        (["OUT10-OUT11 M00::0.1"], {"OUT10": 0.1, "OUT11": 0.1, "OUT": 0.1, "M00": 0.1}),
        (["OUT11-OUT10::0.1", "OUT11::0.5"], {"OUT10": 0.1}),
        (["BASE::1"], {"BASE": 1.0, "VAE": 1.0}),
        (["IN00::0.1", "time:is no rule"], {"IN00": 0.1, "TIME_EMBED": 0.1}),
        ([":time_embed:0.1"], {"TIME_EMBED": 0.1}),
        (["IN00:NOT time_embed:0.1"], {"IN00": 0.1}),
        (
            "NOT OUT03::0.1\nIN05::0.2",
            {**dict.fromkeys(SD1.blocks, 0.1), "OUT03": 0.5, "IN05": 0.2},
        ),
        (["in05::0.1"], {}),
    ],
)  # fmt: skip
def test_elements_of_whole_blocks_are_read(rules: object, changed: dict[str, float]) -> None:
    plain = dict.fromkeys(SD1.blocks, 0.5) | {"BASE": 0.25, "VAE": 0.25}
    assert merged(elemental_merge=rules) == plain | changed


@pytest.mark.parametrize(
    ("choice", "zero"),
    [
        ({"Exclude": ["OUT11", ""]}, {"OUT11", "OUT"}),
        ({"Exclude": ["VAE", ""]}, {"VAE"}),
        ({"Exclude": ["time_embed"]}, {"TIME_EMBED"}),
        (
            {"Include": ["BASE", "IN00", "print", ""]},
            set(SD1.blocks) - {"BASE", "VAE", "IN00", "TIME_EMBED"},
        ),
        ({"Off": ["OUT05"]}, set()),
        ({"Exclude": [""]}, set()),
    ],
)  # fmt: skip
def test_included_and_excluded_blocks_are_read(choice: dict[str, object], zero: set[str]) -> None:
    found = merged(**{"Off": None, **choice})
    assert {block for block in SD1.blocks if not found[block]} == zero


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"elemental_merge": ["OUT03:attn:0.1"]}, r"keys of the block OUT03 .*attn.* 0\.1"),
        ({"elemental_merge": ["OUT03::R"]}, "drew at random"),
        ({"Exclude": ["emb_layers"], "Off": None}, "keys of the block IN01 "),
    ],
)
def test_parts_of_blocks_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UnsaidError, match=told):
        merged(**changes)


def test_elements_need_blocks_that_are_known() -> None:
    with pytest.raises(ConfigError, match="'OUT99' is no block"):
        merged(elemental_merge=["OUT03-OUT99::0.1"])
    with pytest.raises(ConfigError, match="not a number: 'much'"):
        merged(elemental_merge=["OUT03::much"])


def test_which_blocks_elements_of_sdxl_mean_is_not_guessed() -> None:
    listed = {"weights_alpha": [0.5] * 19, "base_alpha": 0}
    named = sketch(published.supermerger(**listed, elemental_merge=["OUT03::0.1"]))
    with pytest.raises(UnsaidError, match="do not say which"):
        named.weights(SDXL)
    free = sketch(published.supermerger(**listed, elemental_merge=[":label_emb:0.1"]))
    assert free.weights(SDXL)["LABEL_EMB"] == 0.1
    assert free.weights(SDXL)["TIME_EMBED"] == 0.5


def parts(**changed: float) -> list[float]:
    """110 numbers: 0.5, and others for the blocks that are named."""
    positions = weights.blocks_of("supermerger-xl-parts")
    return [changed.get(position.partition(".")[0], 0.5) for position in positions]


def test_lists_of_110_are_read_if_the_parts_of_a_block_agree() -> None:
    base, *listed = parts(BASE_L=0.1, BASE_G=0.2, IN04=0.3, TIME_EMBED=0.4, OUT=0.6, M00=0.7)
    found = sketch(published.supermerger(weights_alpha=listed, base_alpha=base))
    assert found.architectures == ("sdxl",)
    assert found.weights(SDXL) == dict.fromkeys(SDXL.blocks, 0.5) | {
        # SuperMerger merges the VAE by the number of CLIP-L, whatever the VAE's is
        "BASE_L": 0.1, "VAE": 0.1, "BASE_G": 0.2, "IN04": 0.3, "TIME_EMBED": 0.4, "OUT": 0.6,
        "M00": 0.7,
    }  # fmt: skip
    elements = sketch(
        published.supermerger(
            weights_alpha=listed, base_alpha=base, elemental_merge=["OUT80 IN41 IN410-IN411::0.9"]
        )
    )
    with pytest.raises(UnsaidError, match="keys of the block IN04"):
        elements.weights(SDXL)
    last = ["OUT80 OUT9::0.9"]
    elements = sketch(
        published.supermerger(weights_alpha=listed, base_alpha=base, elemental_merge=last)
    )
    assert (elements.weights(SDXL)["OUT08"], elements.weights(SDXL)["OUT"]) == (0.9, 0.9)


def test_lists_of_110_with_uneven_parts_are_refused() -> None:
    listed = parts()
    listed[weights.blocks_of("supermerger-xl-parts").index("M00.1.4")] = 0.75
    with pytest.raises(ConfigError, match=r"parts of M00 .*M00\.0 has 0\.5, M00\.1\.4 0\.75"):
        catalogue.read(",".join(map(str, listed)))
    (found,) = catalogue.read(",".join(map(str, parts(OUT07=0.25)))).found
    assert isinstance(found, Sketch)
    assert weights.effect({b: w - 0.5 for b, w in found.weights(SDXL).items()}) == {"OUT07": -0.25}


def test_lists_of_110_for_three_models_are_refused() -> None:
    base, *listed = parts()
    fields = published.supermerger(
        mode="Triple sum", model_c=C, weights_alpha=listed, weights_beta=listed, base_beta=base
    )
    with pytest.raises(ConfigError, match="takes beta's weights for alpha's"):
        sketch(fields)


def test_the_vae_of_flux_is_not_merged() -> None:
    flux = architectures.get("flux1")
    fields = published.supermerger(mbw=False, weights_alpha=None, base_alpha=0.7)
    found = recipe_of(sketch(fields), flux)
    assert weights.effect(found.weights) == {b: 0.7 for b in flux.blocks if b != "VAE"}
    again = catalogue.read_metadata(supermerger.write_metadata(found, flux)).found[0]
    assert recipe_of(again, flux).weights == found.weights
    assert catalogue.write(found, "supermerger-text") == "anything-v3.0 x 0.3 + basil mix x 0.7\n"
    whole = msgspec.structs.replace(found, weights=dict.fromkeys(flux.blocks, 0.7))
    assert catalogue.lost_of(whole, "supermerger-metadata") == {"VAE": 0.7}


@pytest.mark.parametrize(
    ("text", "method", "names", "weight"),
    [
        ("a x 0.7 + b v2.1 x 0.3", "weighted_sum", ("a", "b v2.1"), 0.3),
        ("a + (b -  c) x 0.5", "add_difference", ("a", "b", "c"), 0.5),
        ("Model: a x 0.7 + b x 0.3 ID 12", "weighted_sum", ("a", "b"), 0.3),
    ],
)
def test_model_strings_with_one_weight(
    text: str, method: str, names: tuple[str, ...], weight: float
) -> None:
    (found,) = catalogue.read(text).found
    assert isinstance(found, Sketch)
    assert found.method == method
    assert tuple(hint.name for hint in found.models.values()) == names
    assert set(found.weights(SD1).values()) == {weight}


def test_model_strings_of_infotexts_have_spaces_for_commas() -> None:
    numbers = [0.5, *SUPERMERGER_25]
    text = f"A x (1-alpha) + B x alpha ({','.join(map(str, numbers))})"
    spaced = text.replace(",", " ")
    infotext = (
        f"a cat, best\nNegative prompt: x\nSteps: 20, Sampler: Euler, Model: {spaced}, VAE: y"
    )
    for given in (text, text[:-1], infotext):
        (found,) = catalogue.read(given).found
        assert isinstance(found, Sketch)
        assert found.models["b"].name == "B"
        assert found.weights(SD1) == weights.from_list(numbers, "supermerger", SD1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a x 0.7 + b x 0.3_cosineA", "cosineA"),
        ("a x 0.4 + b x 0.3 + c x 0.3", "merge"),
        ("(a x 0.5 +b x 0.5) x 0.7 + c x 0.3", "merge"),
        ("a x (1-alpha) + b x alpha (0.1,0.2)", "26, 20, 61 or 110"),
        ("a x 0.7 + b x 0.6", "do not add up"),
    ],
)
def test_other_model_strings_are_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        catalogue.read(text)


def test_what_its_files_cannot_say_is_told() -> None:
    models = {role: ModelRef(role, digest) for role, digest in zip("ab", (A, B), strict=True)}
    recipe = Recipe(architecture="sd1", method="slerp", models=models)
    with pytest.raises(ConfigError, match="slerp"):
        supermerger.write_metadata(recipe, SD1)
    unnamed = Recipe(
        architecture="sd1", method="weighted_sum", models={**models, "b": ModelRef("b")}
    )
    with pytest.raises(ConfigError, match=r"model 'b' \(b\) is not known. Add --models"):
        supermerger.write_metadata(unnamed, SD1)
    refiner = architectures.get("sdxl_refiner")
    spread = Recipe(
        architecture=refiner.name, method="weighted_sum", models=models, weights={"M00": 1.0}
    )
    with pytest.raises(ConfigError, match="no weights of blocks"):
        supermerger.write_metadata(spread, refiner)


def test_blocks_that_beta_does_not_name_have_none_of_c() -> None:
    recipe = Recipe(
        architecture="sd1",
        method="sum_twice",
        models={"a": ModelRef("A"), "b": ModelRef("B"), "c": ModelRef("C")},
        parameters={"beta": {"M00": 0.5}},
    )
    found = supermerger.beta(recipe, SD1)
    assert {block for block, value in found.items() if value} == {"M00"}
