"""The merge lab's form as a search: every method, values by block, weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_automerge.app import searched
from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.config import BlockRule, ParameterRule, RunConfig, check_config
from lib_automerge.domain.recipe import Recipe
from lib_automerge.merge.lab import catalogue
from lib_automerge.ui import lab_search
from lib_automerge.ui.fields import clean, defaults
from lib_automerge.ui.form import Place, config_of
from lib_automerge.ui.form_fields import FIELDS
from lib_automerge.ui.lab_fields import LAB_FIELDS, field_name
from lib_automerge.ui.lab_form import chosen, recipe_of

SD1 = architectures.get("sd1")
MODELS = tuple(ModelChoice(name, f"/models/{name}") for name in ("one", "two", "three", "four"))
PLACE = Place(models=MODELS, generator="fake", data=Path("/nowhere"), architecture="sd1")


def lab(method: str, **changes: object) -> dict[str, object]:
    """The lab's form with models for a method; parameters by their names."""
    known = catalogue.get(method)
    fields = {name: field_name(method, name) for name in (p.name for p in known.parameters)}
    return defaults(LAB_FIELDS) | {
        "lab_method": known.label,
        "lab_base": "one",
        "lab_a": "one",
        "lab_b": "two",
        "lab_c": "three",
        "lab_models": ["two", "three", "four"],
        **{fields.get(name, name): value for name, value in changes.items()},
    }


def recipe(values: dict[str, object]) -> Recipe:
    return recipe_of(values, MODELS, SD1)


def search(values: dict[str, object], **left: object) -> RunConfig:
    """The run of the search form after the lab's form was handed over."""
    found = lab_search.search_values(recipe(values), chosen(values))
    before = defaults(FIELDS) | {"payloads": '[{"prompt": "x"}]', "reward": "Demo"} | left
    form = before | found
    assert clean(FIELDS, form) == form
    config = config_of(form, PLACE)
    check_config(config)
    searched.check(config, SD1)
    return config


@pytest.mark.parametrize("method", catalogue.names())
def test_every_method_becomes_a_search_that_begins_with_the_labs_merge(method: str) -> None:
    values = lab(method)
    config = search(values)
    assert config.method == method
    assert list(config.models.values()) == [
        f"/models/{title}" for _, title in sorted(chosen(values).items())
    ]
    space = searched.space(config, SD1)
    (start,) = config.search.start
    first = space.point(start)
    wanted = recipe(values)
    for name, value in wanted.parameters.items():
        if name == catalogue.get(method).weight:
            assert isinstance(value, float)
            in_all = dict.fromkeys(SD1.blocks, 0.0) | {b: first.get(b, 0.0) for b in SD1.blocks}
            # a search rounds to four decimals
            assert in_all == pytest.approx(dict.fromkeys(SD1.blocks, value), abs=1e-4)
        elif name in first:
            rule = config.search.parameters[name]
            begins = rule.values[round(first[name])] if rule.values else first[name]
            assert begins == (value if rule.values else pytest.approx(value, abs=1e-4))
        elif name not in config.search.parameters:
            assert config.parameters[name] == value


def test_what_is_no_range_to_search_stays_as_it_is() -> None:
    config = search(lab("della", seed=7, favour="small", p=0.4))
    assert set(config.search.parameters) == {"p", "epsilon", "scale"}
    assert config.parameters == {
        "p": 0.4,
        "epsilon": 0.2,
        "favour": "small",
        "vote": "sum",
        "scale": 1.0,
        "seed": 7,
    }
    tgmd = search(lab("tgmd"))
    assert set(tgmd.search.parameters) == {"p", "scale"}


def test_choices_are_searched_where_there_is_nothing_else() -> None:
    config = search(lab("geometric_median", scope="model"))
    assert config.search.parameters == {"scope": ParameterRule(values=("model", "tensor"))}
    assert config.parameters == {"iterations": 100, "tolerance": 1e-20, "floor": 1e-6}


def test_values_by_block_are_searched_by_block_from_where_they_are() -> None:
    values = lab("ties", k=0.3, lab_values=json.dumps({"k": {"M00": 0.75}}))
    config = search(values)
    assert config.search.parameters["k"] == ParameterRule(low=0, high=1, per_block=True)
    assert config.search.parameters["scale"] == ParameterRule(low=0, high=2)
    first = searched.space(config, SD1).point({})
    assert (first["k.M00"], first["k.IN00"]) == (0.75, 0.3)
    fixed = config.parameters["k"]
    assert isinstance(fixed, dict)
    assert fixed["VAE"] == 0.3


def test_weights_by_block_become_the_start_and_rules_of_what_is_not_searched() -> None:
    by_block = {"weight": {"M00": 1.5, "IN00": -0.5, "BASE": 0.25, "VAE": 0.0}}
    values = lab("slerp", weight=0.0, lab_values=json.dumps(by_block))
    config = search(values, low=0.4, text_encoder=True, rules='{"IN05": {"fixed": 1}}')
    assert (config.search.low, config.search.high) == (-0.5, 1.5)
    assert config.search.blocks == {"BASE": BlockRule(fixed=0.25)}
    (start,) = config.search.start
    assert (start["M00"], start["IN00"], start["OUT11"]) == (1.5, -0.5, 0.0)


def test_a_weight_beyond_what_can_be_searched_begins_at_the_end() -> None:
    config = search(lab("amplified_difference", amount=5.0))
    assert config.search.high == 2
    assert set(config.search.start[0].values()) == {2.0}


def test_negative_numbers_are_within_their_range() -> None:
    config = search(lab("sum_twice", beta=-0.75))
    assert config.search.parameters["beta"] == ParameterRule(low=-1, high=1)
    assert searched.space(config, SD1).point({})["beta"] == -0.75


def test_shares_begin_with_those_of_the_lab() -> None:
    config = search(lab("average", shares="1, 1, 4"))
    assert config.search.parameters["shares"] == ParameterRule(low=0, high=8)
    first = searched.space(config, SD1).point({})
    assert first == {"shares.m001": 1, "shares.m002": 1, "shares.m003": 4}


def test_models_of_another_method_are_taken_out() -> None:
    left = {"model_c": "four", "more_models": ["three", "four"]}
    assert set(search(lab("slerp"), **left).models) == {"a", "b"}
    two = lab("ties", lab_models=["four"])
    assert search(two, **left).models == {"base": "/models/one", "m001": "/models/four"}


def test_the_rest_of_the_search_stays() -> None:
    left = {"evaluations": 55, "budget": "Custom", "name": "night"}
    config = search(lab("ties"), **left)
    assert (config.search.evaluations, config.name) == (55, "night")
