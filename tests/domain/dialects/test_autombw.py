from __future__ import annotations

import json

import pytest

from lib_automerge.domain import architectures, score_log, weights
from lib_automerge.domain.dialects import autombw, catalogue
from lib_automerge.domain.dialects.sketch import Sketch, recipe_of
from lib_automerge.errors import ConfigError
from tests import score_logs
from tests.domain.dialects import published

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")


def sketch(text: str, order: str | None = None) -> Sketch:
    (found,) = catalogue.read(text, order).found
    assert isinstance(found, Sketch)
    return found


def test_the_published_recipe_15b_is_read_right_and_written_as_it_was() -> None:
    found = sketch(published.AUTOMBW_15B)
    recipe = recipe_of(found, SD1)
    assert recipe.method == "weighted_sum"
    assert recipe.models["a"].name == "08b-AstolfoMix-_13a_14a"
    assert recipe.models["b"].name == "09b-AstolfoMix-_15a_16a"
    # in the order that AutoMBW searches in, 13 is OUT and 26 is TIME_EMBED
    nat = weights.to_list(recipe.weights, "nat")
    assert (nat[13], nat[26]) == (1.0, 0.0)
    assert (recipe.weights["OUT"], recipe.weights["TIME_EMBED"]) == (1.0, 0.0)
    assert (recipe.weights["OUT00"], recipe.weights["OUT11"]) == (0.9, 0.6)
    assert catalogue.write(recipe, "autombw") == published.AUTOMBW_15B


def test_another_order_can_be_told() -> None:
    slider = sketch(published.AUTOMBW_15B, "slider").weights(SD1)
    assert (slider["OUT"], slider["TIME_EMBED"]) == (0.0, 1.0)


def test_the_published_metadata_tell_their_order() -> None:
    found = sketch(json.dumps(published.AUTOMBW_METADATA))
    assert found.provenance == {"output": "03b-verify"}
    given = found.weights(SD1)
    assert (given["OUT"], given["TIME_EMBED"]) == (0.9, 0.2)
    inner = dict(published.AUTOMBW_METADATA["__metadata__"]["sd_mbwrt_receipe"])
    assert sketch(json.dumps(inner)) == found
    inner["mbwrt_weights_seq"] = "[*sl_INPUT, *sl_MID, *sl_OUTPUT, sl_TIME_EMBED, sl_OUT]"
    assert sketch(json.dumps(inner)).weights(SD1)["OUT"] == 0.2
    inner["mbwrt_weights_seq"] = "[*sl_OUTPUT, *sl_INPUT]"
    with pytest.raises(ConfigError, match=r"unknown order .*--from: recipe, slider"):
        sketch(json.dumps(inner))


def test_full_paths_of_the_first_versions_become_names() -> None:
    text = published.AUTOMBW_15B.replace("modelA=", "modelA=C:\\models\\")
    text = text.replace("modelO=15b-AstolfoMix-08b09b\n", "")
    found = sketch(text)
    assert found.models["a"].name == "08b-AstolfoMix-_13a_14a"
    assert found.models["a"].path.startswith("C:\\models\\")
    assert not found.provenance


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("modelB=09b-AstolfoMix-_15a_16a.safetensors\n", "", "names no modelB"),
        (",1.0,0.0\n", ",1.0\n", "has 27 numbers, the list has 26"),
        (",1.0,0.0\n", ",1.0,zero\n", "not a number: 'zero'"),
        (",1.0,0.0\n", ",1.0,nan\n", "must be a finite number"),
    ],
)
def test_damage_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sketch(published.AUTOMBW_15B.replace(old, new))


def test_repaired_position_ids_are_unsaid() -> None:
    assert sketch(published.AUTOMBW_15B).unsaid == ()
    fixed = sketch(published.AUTOMBW_15B.replace("Keep Original", "Fix"))
    assert "position ids were repaired" in fixed.unsaid[0]


def test_a_log_goes_to_names_and_back() -> None:
    log = score_logs.synthetic_log(12)
    reading = catalogue.read(log)
    assert len(reading.rows) == 12
    assert reading.rows[0].weights["OUT"] == 0.6
    named = catalogue.write_rows(reading.rows, "csv")
    again = catalogue.read(named)
    assert again.rows == reading.rows
    back = catalogue.write_rows(again.rows, "autombw-csv")
    assert back.splitlines()[0] == score_logs.HEADER
    assert score_log.parse(back, SD1).rows == reading.rows
    best = max(reading.rows, key=lambda row: row.score)
    (found,) = reading.found
    assert isinstance(found, Sketch)
    assert found.weights(SD1) == best.weights


def test_a_named_table_of_sdxl_is_known_by_its_blocks() -> None:
    text = "score,weight IN00,weight LABEL_EMB\n0.5,0.1,0.2\n"
    reading = catalogue.read(text)
    assert reading.rows[0].weights == {"IN00": 0.1, "LABEL_EMB": 0.2}
    with pytest.raises(ConfigError, match="LABEL_EMB"):
        catalogue.read(text, None, "sd1")


def test_other_methods_cannot_be_written() -> None:
    recipe = recipe_of(sketch(published.AUTOMBW_15B), SD1)
    three = {**recipe.models, "c": recipe.models["a"]}
    with pytest.raises(ConfigError, match="weighted sums of two models"):
        autombw.write(type(recipe)(architecture="sd1", method="weighted_sum", models=three))
