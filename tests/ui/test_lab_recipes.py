"""Recipes of every dialect, pasted into the lab's form, and its recipe written in every format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import yaml

from lib_automerge.app import recipes
from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe, recipe_json
from lib_automerge.errors import ConfigError
from lib_automerge.merge import lookup
from lib_automerge.merge.lab import catalogue
from lib_automerge.ui import lab_words
from lib_automerge.ui.fields import defaults
from lib_automerge.ui.lab_fields import ASKED, FORMATS, LAB_FIELDS, ORDERS
from lib_automerge.ui.lab_form import Loaded, recipe_of
from lib_automerge.ui.lab_recipes import Around, QuestionError, asked, load, write
from tests.api.bench import NASTY

SD1 = architectures.get("sd1")
BLOCKS = SD1.blocks
SHAS = {name: hashlib.sha256(name.encode()).hexdigest() for name in "abc"}
LIST = ",".join(f"{0.01 * number:.2f}" for number in range(26))


@pytest.fixture
def models(tmp_path: Path) -> tuple[ModelChoice, ...]:
    made = []
    for name in "abc":
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(name.encode() * 0x120000)
        made.append(ModelChoice(f"{name}.st [12ab]", str(path)))
    return tuple(made)


def around(
    models: tuple[ModelChoice, ...], known: str = "abc", family: str = "sd1", **changes: object
) -> Around:
    """What is offered, with the contents of those that are `known`."""
    names = {model.path: name for name, model in zip("abc", models, strict=True)}
    made = Around(
        models=models,
        known=lambda model: SHAS[names[model.path]] if names[model.path] in known else "",
        family=lambda _model: family,
        architecture=None,
    )
    return msgspec.structs.replace(made, **changes)


def filled(method: str = "weighted_sum", **changes: object) -> dict[str, object]:
    return defaults(LAB_FIELDS) | {"lab_method": catalogue.get(method).label} | changes


def recipe(method: str = "weighted_sum", roles: str = "ab", **changes: object) -> Recipe:
    refs = {role: ModelRef(name=role, sha256=SHAS[role]) for role in roles}
    weights = {block: round(0.01 * number, 2) for number, block in enumerate(BLOCKS)}
    made = Recipe(architecture="sd1", method=method, models=refs, weights=weights)
    return msgspec.structs.replace(made, **changes)


def again(loaded: Loaded, models: tuple[ModelChoice, ...]) -> Recipe:
    return recipe_of(filled() | loaded.values, models, SD1)


@pytest.mark.parametrize(
    "target", ["json", "yaml", "supermerger-metadata", "supermerger-text", "autombw", "sd-mecha"]
)
def test_a_recipe_in_every_format_fills_the_form(
    models: tuple[ModelChoice, ...], target: str
) -> None:
    source = recipes.Source(recipes.Reading((recipe(),)), "sd1")
    text = recipes.convert(source, target, lossy=True).text
    loaded = load(text, filled("ties"), around(models))
    assert loaded.values["lab_method"] == "Weighted sum"
    assert (loaded.values["lab_a"], loaded.values["lab_b"]) == ("a.st [12ab]", "b.st [12ab]")
    found = again(loaded, models)
    for block in ("IN05", "M00", "OUT07"):
        assert found.weights[block] == pytest.approx(recipe().weights[block])
    assert any("fp64" in note for note in loaded.notes)


def test_an_infotext_of_a_picture_is_read(models: tuple[ModelChoice, ...]) -> None:
    text = "a cat\nSteps: 20, Seed: 1, Model hash: 1234, Model: a x 0.7 + b x 0.3, Size: 512x512"
    loaded = load(text, filled(), around(models))
    assert again(loaded, models).weights == {}
    assert loaded.values["lab_weighted_sum_weight"] == 0.3
    assert any("found by its name alone" in note for note in loaded.notes)


def test_the_checkpoints_metadata_of_three_models_are_read(models: tuple[ModelChoice, ...]) -> None:
    source = recipes.Source(
        recipes.Reading((recipe("sum_twice", "abc", parameters={"beta": 0.25}),)), "sd1"
    )
    text = recipes.convert(source, "supermerger-metadata", lossy=True).text
    loaded = load(text, filled(), around(models))
    assert loaded.values["lab_method"] == "Sum twice"
    assert loaded.values["lab_c"] == "c.st [12ab]"
    assert loaded.values["lab_sum_twice_beta"] == 0.25


# --- which model is meant ---------------------------------------------------------------------


def test_a_known_content_decides_whatever_the_file_is_called(
    models: tuple[ModelChoice, ...],
) -> None:
    refs = {"a": ModelRef(name="b", sha256=SHAS["c"]), "b": ModelRef(name="b", sha256=SHAS["a"])}
    loaded = load(recipe_json(recipe(models=refs)), filled(), around(models))
    assert (loaded.values["lab_a"], loaded.values["lab_b"]) == ("c.st [12ab]", "a.st [12ab]")


def test_a_file_of_the_name_with_another_content_is_not_taken(
    models: tuple[ModelChoice, ...],
) -> None:
    refs = {"a": ModelRef(name="a", sha256="e" * 64), "b": ModelRef(name="b", sha256=SHAS["b"])}
    loaded = load(recipe_json(recipe(models=refs)), filled(), around(models))
    assert loaded.values["lab_a"] == ""
    assert "The a here has another content." in loaded.notes
    assert any("choose the model of the role a" in note for note in loaded.notes)
    # as long as it is not known, the merge checks it
    unread = load(recipe_json(recipe(models=refs)), filled(), around(models, known=""))
    assert unread.values["lab_a"] == "a.st [12ab]"
    assert again(unread, models).models["a"].sha256 == "e" * 64


def test_the_old_hash_finds_a_file(models: tuple[ModelChoice, ...]) -> None:
    digest = lookup.legacy_hash(Path(models[2].path))
    loaded = load(f"x [{digest}] x 0.5 + b x 0.5", filled(), around(models))
    assert loaded.values["lab_a"] == "c.st [12ab]"
    assert any("c.st [12ab] was found by its old hash alone" in note for note in loaded.notes)


# --- questions --------------------------------------------------------------------------------


def question(text: str, values: Mapping[str, object], where: Around) -> QuestionError:
    with pytest.raises(QuestionError) as caught:
        load(text, values, where)
    told = lab_words.in_form(caught.value)
    assert "--" not in told
    return caught.value


def test_the_order_of_a_list_is_asked_and_the_answer_counts_for_this_text_alone(
    models: tuple[ModelChoice, ...],
) -> None:
    text = f"{LIST},0.26"
    where = around(models, architecture=SD1)
    told = question(text, filled(), where)
    assert told.field == "lab_order"
    orders = ("nat", "slider", "recipe", "readme")
    assert set(told.choices) == {ORDERS.label(name) for name in orders}
    answered = {
        **filled(),
        "lab_order": ORDERS.label("slider"),
        "lab_asked": asked("lab_order", text),
    }
    loaded = load(text, answered, where)
    assert "'slider'" in loaded.notes[0]
    question(text.replace("0.26", "0.27"), answered, where)


def test_a_family_that_the_text_does_not_tell_is_asked(models: tuple[ModelChoice, ...]) -> None:
    text = "gone x 0.7 + lost x 0.3"
    told = question(text, filled(), around(models))
    assert told.field == "lab_family"
    assert SD1.label in told.choices
    answered = {
        **filled(),
        "lab_family": SD1.label,
        "lab_asked": asked("lab_family", text),
    }
    loaded = load(text, answered, around(models))
    assert loaded.values["lab_weighted_sum_weight"] == 0.3
    assert loaded.values["lab_a"] == ""


def test_which_of_several_presets_is_asked(models: tuple[ModelChoice, ...]) -> None:
    text = f"FLAT\t{LIST}\nSTEEP\t{LIST.replace('0.05', '0.95')}"
    where = around(models, architecture=SD1)
    told = question(text, filled(), where)
    assert (told.field, told.choices) == ("lab_which", ("1. FLAT", "2. STEEP"))
    answered = {**filled(), "lab_which": "2. STEEP", "lab_asked": asked("lab_which", text)}
    assert "0.95" in str(load(text, answered, where).values["lab_values"])


def test_what_cannot_be_said_here_is_left_out_only_if_told(models: tuple[ModelChoice, ...]) -> None:
    source = recipes.Source(recipes.Reading((recipe(),)), "sd1")
    fields = msgspec.json.decode(recipes.convert(source, "supermerger-metadata", lossy=True).text)
    inner = msgspec.json.decode(fields["sd_merge_recipe"]) | {"elemental_merge": "IN01:attn1:0.4"}
    fields["sd_merge_recipe"] = msgspec.json.encode(inner).decode()
    text = msgspec.json.encode(fields).decode()
    told = question(text, filled(), around(models))
    assert (told.field, told.choices) == ("lab_lossy", ())
    answered = {**filled(), "lab_lossy": True, "lab_asked": asked("lab_lossy", text)}
    notes = " ".join(load(text, answered, around(models)).notes)
    assert "gave keys of the block IN01 different weights" in notes
    assert "attn1" in notes
    assert "left out" in notes


def test_every_question_has_a_field() -> None:
    assert {field.name for field in ASKED} == {"lab_order", "lab_family", "lab_which", "lab_lossy"}


# --- weights alone, and what is no recipe ------------------------------------------------------


def test_weights_alone_are_for_the_chosen_method(models: tuple[ModelChoice, ...]) -> None:
    where = around(models, architecture=SD1)
    values = filled(lab_a="a.st [12ab]", lab_b="b.st [12ab]")
    loaded = load("IN00: 0.5, OUT11: 1", values, where)
    found = recipe_of(values | loaded.values, models, SD1)
    assert found.weights == dict.fromkeys(BLOCKS, 0.0) | {"IN00": 0.5, "OUT11": 1.0}
    with pytest.raises(ConfigError, match="TIES has no weights by block"):
        load("IN00: 0.5", filled("ties"), where)
    with pytest.raises(ConfigError, match="Choose these first"):
        load("IN00: 0.5", values, around(models))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("  ", "no recipe yet"),
        ('{"models": {}, "method": 3}', "this is not a recipe"),
        ('{"kind": "x", "architecture": "sd1", "method": "slerp", "models": {}}', "not a recipe"),
        ("kind: [automerge-recipe", "not valid YAML"),
        ("{", "not valid JSON"),
        (NASTY, "not a weight"),
        ("a x (1-alpha-beta) + b x alpha + c x beta", "no method here is"),
    ],
)
def test_what_is_no_recipe_says_why(models: tuple[ModelChoice, ...], text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(text, filled(), around(models))


# --- out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", FORMATS.labels)
def test_every_format_is_written_or_refused_in_the_forms_words(label: str) -> None:
    plain = recipe(weights={}, parameters={"weight": 0.25}, precision="fp64")
    for one in (plain, recipe(precision="fp64"), recipe("ties", weights={})):
        told = ""
        try:
            told = write(one, label, "mine", lossy=True).text
        except ConfigError as error:
            told = lab_words.in_form(error)
        assert told.strip()
        assert "--" not in told
    # two models and one weight fit everywhere where SD1 does
    if not label.startswith(("supermerger-xl", "supermerger-flux")):
        assert write(plain, label, "mine", lossy=True).text.count("0.25") >= 1


def test_one_weight_for_all_blocks_is_no_weight_less_in_another_format() -> None:
    # a recipe of the lab may have its weight as a parameter, which other tools do not know
    plain = recipe(weights={}, parameters={"weight": 0.25}, precision="fp64")
    assert write(plain, FORMATS.label("nat"), "", lossy=True).text.count("0.25") == 27
    text = write(plain, FORMATS.label("supermerger-text"), "", lossy=False).text
    assert text == "a x 0.75 + b x 0.25\n"
    own = write(plain, FORMATS.label("yaml"), "", lossy=False).text
    assert yaml.safe_load(own)["parameters"] == {"weight": 0.25}


def test_a_list_is_refused_for_a_method_without_weights() -> None:
    with pytest.raises(ConfigError, match="TIES has no weights by block"):
        write(recipe("ties", weights={}), FORMATS.label("nat"), "", lossy=True)
