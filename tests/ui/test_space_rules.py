from __future__ import annotations

import pytest

from lib_automerge.domain import architectures
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.errors import ConfigError
from lib_automerge.search.space import Space
from lib_automerge.ui import space_rules
from lib_automerge.ui.space_rules import FREEZE, RESET, SEARCH, TIE, apply, by_group
from lib_automerge.ui.texts import rules_of, rules_text

SD1 = architectures.get("sd1")


def dimension(rules: dict[str, BlockRule], architecture=SD1) -> int:
    return Space.of(SearchConfig(blocks=rules), architecture).dimension


def test_freezing_a_group_and_a_block():
    rules = apply({}, ["All of OUT", "M00"], FREEZE, SD1, weight=0.25)
    assert len(rules) == 13
    assert rules["M00"] == rules["OUT11"] == BlockRule(fixed=0.25)
    assert dimension(rules) == 27 - 13


def test_tying_makes_one_weight_of_many():
    rules = apply({}, ["IN03", "IN01", "IN02"], TIE, SD1)
    assert rules == {"IN02": BlockRule(tied_to="IN01"), "IN03": BlockRule(tied_to="IN01")}
    assert dimension(rules) == 25


def test_the_leader_keeps_its_range_but_not_its_tie():
    ranged = {"IN01": BlockRule(low=0.2, high=0.4)}
    assert apply(ranged, ["IN01", "IN02"], TIE, SD1)["IN01"] == ranged["IN01"]
    tied = {"IN01": BlockRule(tied_to="IN02")}
    assert "IN01" not in apply(tied, ["IN01", "IN02"], TIE, SD1)


def test_text_encoder_and_vae_can_be_tied_though_they_are_not_searched():
    rules = apply({}, ["BASE", "VAE"], TIE, SD1)
    assert dimension(rules) == 28


def test_searching_opts_in_or_narrows():
    assert apply({}, ["IN00"], SEARCH, SD1) == {}
    assert apply({"IN00": BlockRule(fixed=1.0)}, ["IN00"], SEARCH, SD1) == {}
    assert apply({}, ["VAE"], SEARCH, SD1) == {"VAE": BlockRule()}
    assert apply({}, ["IN00"], SEARCH, SD1, high=0.5) == {"IN00": BlockRule(high=0.5)}


def test_back_to_default_touches_only_what_is_picked():
    rules = {"IN00": BlockRule(fixed=1.0), "IN01": BlockRule(fixed=1.0)}
    assert apply(rules, ["IN00"], RESET, SD1) == {"IN01": BlockRule(fixed=1.0)}


@pytest.mark.parametrize(("name", "count"), [("sd1", 3), ("sd2", 3), ("sdxl", 3)])
def test_one_weight_for_each_third(name, count):
    architecture = architectures.get(name)
    assert dimension(by_group(architecture), architecture) == count


@pytest.mark.parametrize(
    ("picked", "action", "words"),
    [
        ([], FREEZE, "no block is chosen"),
        (["IN00"], TIE, "only IN00 is chosen"),
        (["IN00"], FREEZE, '"Weight" is empty'),
        (["IN99"], RESET, "no block 'IN99'"),
        (["All of NOTHING"], RESET, "no block 'All of NOTHING'"),
    ],
)
def test_what_is_missing_is_said(picked, action, words):
    with pytest.raises(ConfigError, match=words):
        apply({}, picked, action, SD1)


def test_the_picker_offers_groups_and_every_block():
    choices = space_rules.choices(SD1)
    assert choices[:2] == ["All of IN", "All of OUT"]
    assert set(SD1.blocks) <= set(choices)


def test_rules_survive_as_text():
    rules = {"IN00": BlockRule(low=0.1, high=0.3), "VAE": BlockRule(), "M00": BlockRule(fixed=0.0)}
    assert rules_of(rules_text(rules)) == rules
    assert rules_of("") == {}


def test_the_picture_tells_every_block():
    rules = {
        "IN00": BlockRule(low=0.25, high=0.5),
        "IN01": BlockRule(tied_to="IN00"),
        "M00": BlockRule(fixed=0.75),
    }
    html = space_rules.picture(SearchConfig(blocks=rules), SD1)
    assert "25 weights to search in Stable Diffusion 1." in html
    for told in (
        "IN00 is searched from 0.25 to 0.5",
        "IN01 has the weight of IN00",
        "M00 is frozen at 0.75",
        "VAE is kept from model A",
        "OUT11 is searched from 0 to 1",
    ):
        assert f'title="{told}"' in html


def test_a_contradiction_is_told_in_place_of_the_picture():
    rules = {"IN00": BlockRule(tied_to="IN01"), "IN01": BlockRule(tied_to="IN00")}
    assert "tied in a circle" in space_rules.picture(SearchConfig(blocks=rules), SD1)
