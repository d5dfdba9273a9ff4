from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter, Settings
from lib_automerge.ui import lab_blocks
from lib_automerge.ui.fields import Kind, defaults
from lib_automerge.ui.lab_fields import (
    LAB_BY_NAME,
    LAB_FIELDS,
    LAB_METHODS,
    field_name,
)
from lib_automerge.ui.lab_form import (
    by_block,
    needs,
    recipe_of,
    values_of,
    values_text,
    with_matching,
)

MODELS = tuple(ModelChoice(f"{name}.st [12ab]", f"/models/{name}.safetensors") for name in "abcde")
SD1 = architectures.get("sd1")
BLOCKS = SD1.blocks


def title(name: str) -> str:
    return f"{name}.st [12ab]"


def filled(method: str, **changes: object) -> dict[str, object]:
    """The form with this method and everything that it needs."""
    found = catalogue.get(method)
    values = defaults(LAB_FIELDS) | {"lab_method": found.label}
    for role in found.roles:
        values[f"lab_{role}"] = title(role)
    if not found.roles:
        values |= {"lab_base": title("e"), "lab_models": [title("b"), title("a"), title("c")]}
    return values | changes


def between(parameter: Parameter, share: float) -> float:
    assert parameter.low is not None
    assert parameter.high is not None
    return parameter.low + share * (parameter.high - parameter.low)


def settled(recipe: Recipe, method: LabMethod) -> list[Mapping[str, object]]:
    """The parameters that a recipe means, block by block."""
    given = dict(recipe.parameters)
    if method.weight is not None and method.weight not in given:
        given[method.weight] = recipe.weights
    roles = [role for role in recipe.models if role != "base"]
    settings = Settings(method.name, method.parameters, given, blocks=BLOCKS, roles=roles)
    return [settings.at(block) for block in BLOCKS]


# --- the schema -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.names())
def test_every_parameter_has_a_field_with_its_range_default_and_help(name: str) -> None:
    method = catalogue.get(name)
    for parameter in method.parameters:
        field = LAB_BY_NAME[field_name(name, parameter.name)]
        assert parameter.help[1:] in field.info
        assert field.choices == parameter.choices
        if parameter.kind == "number per model":
            assert (field.kind, field.default) == (Kind.TEXT, "")
        else:
            assert field.default == parameter.default
        if parameter.low is not None:
            assert f"From {parameter.low:g}" in field.info


@pytest.mark.parametrize("name", catalogue.names())
def test_an_untouched_form_of_every_method_means_its_defaults(name: str) -> None:
    method = catalogue.get(name)
    assert LAB_METHODS.name(method.label) == name
    recipe = recipe_of(filled(name), MODELS, SD1)
    assert (recipe.method, recipe.precision, recipe.architecture) == (name, "fp64", "sd1")
    roles = [role for role in recipe.models if role != "base"]
    bare = Settings(name, method.parameters, {}, blocks=BLOCKS, roles=roles)
    assert settled(recipe, method) == [bare.at(block) for block in BLOCKS]
    # all that decides bytes is in the recipe, also when a later version has other defaults
    own = {p.name for p in method.parameters if p.kind != "number per model"}
    assert set(recipe.parameters) == own


# --- models and needs -------------------------------------------------------------------------


def test_roles_are_the_recipes() -> None:
    recipe = recipe_of(filled("ties"), MODELS, SD1)
    paths = {role: ref.path for role, ref in recipe.models.items()}
    assert paths == {
        "base": "/models/e.safetensors",
        "m001": "/models/b.safetensors",
        "m002": "/models/a.safetensors",
        "m003": "/models/c.safetensors",
    }
    assert list(recipe_of(filled("average"), MODELS, SD1).models) == ["m001", "m002", "m003"]
    assert list(recipe_of(filled("sum_twice"), MODELS, SD1).models) == ["a", "b", "c"]


def test_needs_are_said_in_words() -> None:
    assert needs(filled("ties")) == ()
    assert needs(filled("ties", lab_base="")) == ("TIES needs a base model: choose it as Base.",)
    (told,) = needs(filled("ties", lab_models=[]))
    assert told == "TIES needs at least one model besides the base: choose it under Models."
    assert needs(filled("average", lab_base="")) == ()
    both = needs(filled("weighted_sum", lab_a="", lab_b=""))
    assert both == (
        "Weighted sum needs model A: choose it as Model A.",
        "Weighted sum needs model B: choose it as Model B.",
    )
    # what another method would need is not asked for
    assert needs(filled("weighted_sum", lab_c="", lab_base="")) == ()


def test_a_model_that_is_gone_is_named() -> None:
    with pytest.raises(ConfigError, match="no checkpoint 'gone'"):
        recipe_of(filled("weighted_sum", lab_b="gone"), MODELS, SD1)


def test_models_are_added_by_a_part_of_their_names() -> None:
    titles = ["anime v1", "Anime v2", "photo v2"]
    values = filled("ties", lab_models=["anime v1"], lab_base="photo v2")
    assert with_matching("v2 ANIME", titles, values) == (["anime v1", "Anime v2"], 1)
    # the base is no model of its own change
    with pytest.raises(ConfigError, match="no other model"):
        with_matching("photo", titles, values)
    with pytest.raises(ConfigError, match="no text"):
        with_matching("  ", titles, values)


# --- parameters -------------------------------------------------------------------------------


def test_a_value_out_of_its_range_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"k of TIES is 1\.5\. It must be from 0 to 1"):
        recipe_of(filled("ties", lab_ties_k=1.5), MODELS, SD1)
    with pytest.raises(ConfigError, match='"k" is empty'):
        recipe_of(filled("ties", lab_ties_k=None), MODELS, SD1)
    with pytest.raises(ConfigError, match="whole number"):
        recipe_of(filled("dare", lab_dare_seed=1.5), MODELS, SD1)


def test_shares_are_one_number_for_each_model() -> None:
    shares = "lab_average_shares"
    recipe = recipe_of(filled("average", **{shares: "1, 2.5,0"}), MODELS, SD1)
    assert recipe.parameters == {"shares": {"m001": 1.0, "m002": 2.5, "m003": 0.0}}
    for text, told in {
        "1, 2": "has 2 numbers, but 3 models",
        "1, x, 2": "not a list of numbers",
        "0, 0, 0": "all shares of average are 0",
        "1, -1, 1": "must be from 0 to 1000",
    }.items():
        with pytest.raises(ConfigError, match=told):
            recipe_of(filled("average", **{shares: text}), MODELS, SD1)


def test_blocks_that_are_not_set_keep_the_value_of_all() -> None:
    values = filled(
        "weighted_sum", lab_weighted_sum_weight=0.25, lab_values='{"weight": {"IN03": 1}}'
    )
    recipe = recipe_of(values, MODELS, SD1)
    assert recipe.weights == dict.fromkeys(BLOCKS, 0.25) | {"IN03": 1.0}
    assert recipe.parameters == {}
    ties = recipe_of(filled("ties", lab_values='{"k": {"M00": 0.5}}'), MODELS, SD1)
    assert ties.weights == {}
    assert ties.parameters["k"] == dict.fromkeys(BLOCKS, 0.2) | {"M00": 0.5}
    assert ties.parameters["scale"] == 1.0


def test_values_of_another_method_or_family_play_no_part() -> None:
    text = '{"k": {"M00": 0.5}, "weight": {"J07": 0.1}}'
    recipe = recipe_of(filled("weighted_sum", lab_values=text), MODELS, SD1)
    assert (recipe.weights, recipe.parameters) == ({}, {"weight": 0.5})


def test_values_are_set_and_cleared_by_block_and_by_group() -> None:
    parameter = lab_blocks.named_parameter(catalogue.get("ties"), "Scale")
    one = lab_blocks.put({}, parameter, ["All of IN"], 0.5, SD1)
    assert set(one["scale"]) == set(SD1.groups["IN"])
    two = lab_blocks.put(one, parameter, ["IN00", "M00"], 2.0, SD1)
    assert two["scale"]["IN00"] == two["scale"]["M00"] == 2.0
    assert two["scale"]["IN01"] == 0.5
    three = lab_blocks.put(two, parameter, ["All of IN"], None, SD1)
    assert three == {"scale": {"M00": 2.0}}
    for picked, value, told in (([], 1.0, "no block"), (["M00"], 9.0, "from -2 to 4")):
        with pytest.raises(ConfigError, match=told):
            lab_blocks.put({}, parameter, picked, value, SD1)
    with pytest.raises(ConfigError, match="no parameter 'Weight'"):
        lab_blocks.named_parameter(catalogue.get("ties"), "Weight")
    assert by_block({"lab_values": values_text(three | {"k": {}})}) == three


def test_the_table_has_every_block_and_tells_which_values_are_its_own() -> None:
    ties = catalogue.get("ties")
    drawn = lab_blocks.table(ties, {"k": 0.2, "scale": None}, {"k": {"M00": 0.75}}, SD1)
    assert drawn.count("<tr>") == len(BLOCKS) + 1
    assert "<b>0.75</b>" in drawn
    assert drawn.count("not a number") == len(BLOCKS)


# --- recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.names())
def test_a_recipe_fills_the_form_that_gives_it_again(name: str) -> None:
    method = catalogue.get(name)
    wise = lab_blocks.block_wise(method)
    own = {p.name: {"IN02": between(p, 0.41), "OUT": between(p, 0.45)} for p in wise}
    values = filled(name, lab_values=msgspec.json.encode(own).decode())
    if name == "average":
        values["lab_average_shares"] = "1, 2, 3.25"
    recipe = recipe_of(values, MODELS, SD1)
    loaded = values_of(recipe, MODELS, SD1)
    assert loaded.notes == ()
    again = recipe_of(defaults(LAB_FIELDS) | loaded.values, MODELS, SD1)
    assert again == recipe


def test_blocks_that_a_recipe_does_not_name_are_those_of_the_first_model() -> None:
    refs = {role: ModelRef(name=role, path=f"/models/{role}.safetensors") for role in "ab"}
    recipe = Recipe(architecture="sd1", method="slerp", models=refs, weights={"IN00": 0.5})
    loaded = values_of(recipe, MODELS, SD1)
    assert loaded.values["lab_slerp_weight"] == 0.0
    again = recipe_of(defaults(LAB_FIELDS) | loaded.values, MODELS, SD1)
    assert settled(again, catalogue.get("slerp")) == settled(recipe, catalogue.get("slerp"))


def test_a_recipe_without_weights_is_the_first_model() -> None:
    refs = {role: ModelRef(name=role, path=f"/models/{role}.safetensors") for role in "ab"}
    recipe = Recipe(architecture="sd1", method="weighted_sum", models=refs)
    loaded = values_of(recipe, MODELS, SD1)
    again = recipe_of(defaults(LAB_FIELDS) | loaded.values, MODELS, SD1)
    assert again.parameters == {"weight": 0.0}


def test_the_number_type_of_the_file_is_the_recipes() -> None:
    refs = {role: ModelRef(name=role) for role in "ab"}
    recipe = Recipe(architecture="sd1", method="slerp", models=refs, dtype="bf16")
    assert values_of(recipe, MODELS, SD1).values["lab_dtype"] == "bf16"


def test_a_recipe_without_paths_finds_models_by_name_and_remembers_their_contents() -> None:
    refs = {"a": ModelRef(name="a", sha256="f" * 64), "b": ModelRef(name="elsewhere")}
    recipe = Recipe(architecture="sd1", method="weighted_sum", models=refs, precision="fp64")
    loaded = values_of(recipe, MODELS, SD1)
    assert loaded.values["lab_a"] == title("a")
    assert loaded.values["lab_b"] == ""
    assert loaded.notes == ("elsewhere is not offered here: choose the model of the role b.",)
    values = defaults(LAB_FIELDS) | loaded.values | {"lab_b": title("b")}
    again = recipe_of(values, MODELS, SD1)
    # another file of that name is refused when it is merged
    assert again.models["a"].sha256 == "f" * 64
    assert again.models["b"].sha256 == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "tiez"}, "unknown merge method: 'tiez'"),
        ({"method": "ties"}, "the recipe has"),
        ({"parameters": {"weight": 7.0}}, "from -1 to 2"),
        ({"parameters": {"wait": 1.0}}, "weight"),
        ({"weights": {"IN99": 1.0}}, "IN99"),
    ],
)
def test_a_wrong_recipe_changes_nothing_and_says_why(
    changes: Mapping[str, object], told: str
) -> None:
    refs = {role: ModelRef(name=role) for role in "ab"}
    recipe = Recipe(architecture="sd1", method="weighted_sum", models=refs)
    with pytest.raises(ConfigError, match=told):
        values_of(msgspec.structs.replace(recipe, **changes), MODELS, SD1)
