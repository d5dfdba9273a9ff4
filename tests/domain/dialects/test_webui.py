from __future__ import annotations

import pytest

from lib_automerge.domain import architectures
from lib_automerge.domain.dialects import catalogue, webui
from lib_automerge.domain.dialects.sketch import Sketch, recipe_of
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError
from tests.domain.dialects import published
from tests.domain.dialects.published import A, B, C

SD1 = architectures.get("sd1")


def sketch(**changes: object) -> Sketch:
    (found,) = catalogue.read_metadata(published.webui(**changes)).found
    assert isinstance(found, Sketch)
    return found


def test_one_weight_for_the_whole_model() -> None:
    found = sketch()
    recipe = recipe_of(found, SD1)
    assert recipe.method == "weighted_sum"
    assert recipe.models == {"a": ModelRef("a", A), "b": ModelRef("b", B)}
    assert recipe.weights == dict.fromkeys(SD1.blocks, 0.3)
    assert "--dtype fp16" in found.notes[0]


def test_add_difference() -> None:
    found = sketch(interp_method="Add difference", tertiary_model_hash=C, save_as_half=False)
    assert found.method == "add_difference"
    assert found.models["c"].sha256 == C
    assert not found.notes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"interp_method": "No interpolation"}, "'No interpolation'"),
        ({"multiplier": "half"}, "not a number: 'half'"),
        ({"secondary_model_hash": None}, "leave out the SHA-256"),
        ({"interp_method": None}, "''"),
    ],
)
def test_damage_is_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sketch(**changes)


def test_our_own_fields_for_other_tools_are_enough_for_two_models() -> None:
    text = '{"type":"automerge","interp_method":"METHOD","weights":{"IN00":0.5},'
    text += f'"primary_model_hash":"{A}","secondary_model_hash":"{B}"}}'
    (found,) = catalogue.read(text.replace("METHOD", "weighted_sum")).found
    assert isinstance(found, Sketch)
    assert found.models["b"].sha256 == B
    with pytest.raises(ConfigError, match="does not say enough of a merge by 'ties'"):
        catalogue.read(text.replace("METHOD", "ties"))


@pytest.mark.parametrize(
    "changes",
    [
        {"bake_in_vae": "kl-f8.pt"},
        {"discard_weights": "model_ema"},
        {"is_inpainting": True},
    ],
)
def test_what_it_did_besides_is_unsaid(changes: dict[str, object]) -> None:
    assert len(sketch(**changes).unsaid) == 1
    assert sketch().unsaid == ()


def test_weights_of_blocks_cannot_be_written() -> None:
    models = {"a": ModelRef("a", A), "b": ModelRef("b", B)}
    recipe = Recipe(architecture="sd1", method="weighted_sum", models=models, weights={"IN00": 0.5})
    with pytest.raises(ConfigError, match="one weight for the whole model"):
        webui.write(recipe, SD1)
