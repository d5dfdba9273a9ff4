"""Parameters of a merge method as text, as actions and as a table."""

from __future__ import annotations

import pytest

from lib_automerge.domain.config import ParameterRule
from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.ui.parameter_rules import (
    ACTIONS,
    BY_BLOCK,
    FIX,
    RESET,
    SEARCH,
    apply,
    of_search,
    read,
    table,
    text_of,
)

DELLA = catalogue.get("della")
TIES = catalogue.get("ties")
AVERAGE = catalogue.get("average")

CASES: list[tuple[dict[str, ParameterValue], dict[str, ParameterRule]]] = [
    ({}, {}),
    ({"k": 0.0}, {}),
    ({"favour": "small", "seed": 7, "flag": False, "scale": 1e-20}, {}),
    ({}, {"k": ParameterRule()}),
    ({"k": 0.3}, {"k": ParameterRule()}),
    ({"k": 0.0}, {"k": ParameterRule(low=0.0, high=0.0)}),
    ({}, {"k": ParameterRule(low=-0.5, high=0.0, per_block=True)}),
    ({"k": {"IN00": 0.5, "VAE": 0.0}}, {"k": ParameterRule(per_block=True)}),
    ({"shares": {"m001": 2.0}}, {"shares": ParameterRule(high=3.0)}),
    ({"vote": "sum"}, {"favour": ParameterRule(values=("large", "small"))}),
    ({}, {"seed": ParameterRule(values=(0, 1, 20)), "flag": ParameterRule(values=(False, True))}),
]


@pytest.mark.parametrize(("fixed", "searched"), CASES)
def test_there_and_back_gives_the_same_rules(
    fixed: dict[str, ParameterValue], searched: dict[str, ParameterRule]
) -> None:
    text = text_of(fixed, searched)
    assert read(text) == (fixed, searched)
    assert text_of(*read(text)) == text
    assert len(text.splitlines()) in (1, 2 + len({*fixed, *searched}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"k": 0.5}', "cannot be read"),
        ('{"k": {"lo": 0.5}}', "unknown field `lo`"),
        ('{"k": {"fixed": [1]}}', "cannot be read"),
        ('{"k": {"fixed": 0.5, "low": 0.1}}', "fix k and search it too"),
        ('{"k": {"fixed": 0.5, "start": 0.1}}', "fix k and search it too"),
    ],
)
def test_wrong_text_says_why(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(text)
    with pytest.raises(ConfigError, match=told):
        table(TIES, text)


def test_no_text_is_nothing() -> None:
    assert read("") == ({}, {})


def test_a_number_is_searched_fixed_and_let_go() -> None:
    text = apply("", DELLA, "p", SEARCH, low=0.1)
    assert read(text) == ({}, {"p": ParameterRule(low=0.1)})
    text = apply(text, DELLA, "epsilon", BY_BLOCK, low=0.0, high=0.5)
    assert read(text)[1]["epsilon"] == ParameterRule(low=0.0, high=0.5, per_block=True)
    text = apply(text, DELLA, "p", FIX, values="0")
    assert read(text) == ({"p": 0.0}, {"epsilon": read(text)[1]["epsilon"]})
    text = apply(text, DELLA, "p", RESET)
    assert set(read(text)[1]) == {"epsilon"}
    assert read(text)[0] == {}
    assert apply(text, DELLA, "epsilon", RESET) == "{}"


def test_a_number_can_be_one_of_several() -> None:
    text = apply("", TIES, "k", SEARCH, values="0.1, 0.2,0.5")
    assert read(text)[1] == {"k": ParameterRule(values=(0.1, 0.2, 0.5))}


def test_choices_and_whole_numbers_are_tried_from_a_list() -> None:
    assert read(apply("", DELLA, "vote", SEARCH))[1]["vote"].values == ("none", "sum", "count")
    assert read(apply("", DELLA, "vote", SEARCH, values="sum, count"))[1]["vote"].values == (
        "sum",
        "count",
    )
    (values,) = (read(apply("", DELLA, "seed", SEARCH, values="1, 2"))[1]["seed"].values,)
    assert [type(value) for value in values] == [int, int]
    assert read(apply("", DELLA, "favour", FIX, values="small"))[0] == {"favour": "small"}
    assert read(apply("", DELLA, "seed", FIX, values="7"))[0] == {"seed": 7}


def test_numbers_of_models_are_searched_or_fixed_for_all() -> None:
    text = apply("", AVERAGE, "shares", SEARCH, high=2)
    assert read(text) == ({}, {"shares": ParameterRule(high=2)})
    assert read(apply(text, AVERAGE, "shares", FIX, values="3"))[0] == {"shares": 3.0}


@pytest.mark.parametrize(
    ("method", "name", "action", "given", "told"),
    [
        ("della", "", SEARCH, {}, "choose a parameter"),
        ("della", "k", SEARCH, {}, "unknown parameter of DELLA: 'k'"),
        ("slerp", "weight", SEARCH, {}, "parameter of Slerp"),
        ("della", "p", "Destroy", {}, "unknown action"),
        ("della", "p", FIX, {}, "enter one value"),
        ("della", "p", FIX, {"values": "0.1, 0.2"}, "enter one value"),
        ("della", "p", FIX, {"values": "1.5"}, "must be from 0 to 1"),
        ("della", "p", FIX, {"values": "nan"}, "must be a number"),
        ("della", "p", FIX, {"values": "much"}, "not 'much'"),
        ("della", "seed", FIX, {"values": "1.5"}, "must be a whole number"),
        ("della", "seed", FIX, {"values": "inf"}, "must be a whole number"),
        ("della", "favour", FIX, {"values": "huge"}, "huge"),
        ("della", "favour", SEARCH, {"values": "huge, small"}, "huge"),
        ("della", "favour", SEARCH, {"values": "small"}, "two or more"),
        ("della", "favour", SEARCH, {"values": "small, small"}, "two or more"),
        ("della", "favour", SEARCH, {"low": 0.1}, "has values to try"),
        ("della", "favour", BY_BLOCK, {}, "whole merge"),
        ("della", "seed", BY_BLOCK, {"values": "1, 2"}, "whole merge"),
        ("della", "seed", SEARCH, {}, "two or more"),
        ("della", "p", SEARCH, {"high": 7}, "cannot be searched from 0 to 7"),
        ("della", "p", SEARCH, {"low": 0.5, "high": 0.1}, "cannot be searched from 0.5 to 0.1"),
        ("della", "p", SEARCH, {"low": 0.5, "high": 0.5}, "cannot be searched"),
        ("della", "p", BY_BLOCK, {"values": "0.1, 0.2"}, "searched in a range"),
        ("average", "shares", SEARCH, {"values": "1, 2"}, "searched in a range"),
        ("average", "shares", FIX, {"values": "-1"}, "must be from 0"),
        ("average", "shares", BY_BLOCK, {}, "whole merge"),
    ],
)
def test_an_action_that_cannot_be_is_refused_in_words(
    method: str, name: str, action: str, given: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        apply("{}", catalogue.get(method), name, action, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", catalogue.names())
def test_every_parameter_of_every_method_has_every_action_or_a_reason(method: str) -> None:
    known = catalogue.get(method)
    for name, parameter in of_search(known).items():
        for action in ACTIONS:
            default = parameter.default
            values = str(default) if action == FIX else ""
            if action == SEARCH and parameter.kind == "whole number":
                values = "1, 2"
            if action == BY_BLOCK and not parameter.per_block:
                with pytest.raises(ConfigError, match="whole merge"):
                    apply("{}", known, name, action)
                continue
            text = apply("{}", known, name, action, values=values)
            fixed, searched = read(text)
            assert fixed == ({name: default} if action == FIX else {})
            assert set(searched) == ({name} if action in (SEARCH, BY_BLOCK) else set())
            assert name in table(known, text)


def test_the_rules_of_another_method_are_told_and_taken_out_with_the_next() -> None:
    text = apply("{}", TIES, "k", SEARCH)
    text = apply(text, TIES, "scale", FIX, values="0.5")
    told = table(DELLA, text)
    assert "k: DELLA has no such parameter" in told
    assert "scale" not in told[told.index("automerge-error") :]
    assert read(apply(text, DELLA, "p", SEARCH)) == ({"scale": 0.5}, {"p": ParameterRule()})
    slerp = table(catalogue.get("slerp"), text)
    assert "scale, k: Slerp has no such parameter" in slerp
    assert "<table" not in slerp


def test_the_table_tells_what_is_done_and_what_else_there_is() -> None:
    text = text_of(
        {"seed": 7, "p": 0.25},
        {
            "p": ParameterRule(low=0.1, high=0.5, per_block=True),
            "favour": ParameterRule(values=("large", "small")),
        },
    )
    told = table(DELLA, text)
    for words in (
        "searched from 0.1 to 0.5, in each block",
        "begins at 0.25",
        "one of large, small",
        "fixed at 7",
        "1, the default",
        "sum, the default",
    ):
        assert words in told
    assert "for each model" in table(AVERAGE, text_of({}, {"shares": ParameterRule(high=1)}))
    by_block = table(TIES, text_of({"k": {"IN00": 0.5}}, {}))
    assert "fixed by block" in by_block
    assert "no other parameters" in table(catalogue.get("slerp"), "{}")


def test_a_fixed_weight_is_told_and_kept() -> None:
    slerp = catalogue.get("sum_twice")
    text = text_of({"alpha": 0.25}, {})
    assert "fixed at 0.25" in table(slerp, text)
    assert read(apply(text, slerp, "beta", SEARCH))[0] == {"alpha": 0.25}
