from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_automerge.domain.architectures import get
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.errors import ConfigError, SearchError
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Space

SD1 = get("sd1")


def of(low: float = 0.0, high: float = 1.0, **rules: BlockRule) -> Space:
    return Space.of(SearchConfig(low=low, high=high, blocks=rules), SD1)


def test_searches_the_denoiser_and_keeps_the_rest_of_model_a() -> None:
    space = of()
    assert space.names == SD1.parameters
    assert space.dimension == 27
    weights = space.weights(np.full(27, 0.5))
    assert tuple(weights) == SD1.blocks
    assert {weights[block] for block in SD1.parameters} == {0.5}
    assert weights["BASE"] == weights["VAE"] == 0.0


def test_ranges_come_from_the_rule_then_from_the_search() -> None:
    space = of(-0.5, 1.5, IN00=BlockRule(low=0.1), OUT=BlockRule(high=2.0))
    bounds = dict(zip(space.names, space.bounds, strict=True))
    assert bounds["IN00"] == (0.1, 1.5)
    assert bounds["OUT"] == (-0.5, 2.0)
    assert bounds["M00"] == (-0.5, 1.5)


def test_fixed_and_tied_blocks_are_not_free() -> None:
    space = of(
        IN00=BlockRule(fixed=-0.25),
        IN01=BlockRule(tied_to="IN02"),
        IN02=BlockRule(tied_to="IN03"),
        IN04=BlockRule(tied_to="IN00"),
    )
    assert not {"IN00", "IN01", "IN02", "IN04"} & set(space.names)
    weights = space.weights(np.linspace(0.0, 1.0, space.dimension))
    assert weights["IN01"] == weights["IN02"] == weights["IN03"]
    assert weights["IN00"] == weights["IN04"] == -0.25


def test_a_rule_opts_text_encoder_and_vae_in() -> None:
    space = of(BASE=BlockRule(), VAE=BlockRule(low=0.0, high=0.2))
    assert space.names[-2:] == ("BASE", "VAE")
    assert space.bounds[-2:] == ((0.0, 1.0), (0.0, 0.2))
    assert of(BASE=BlockRule(fixed=1.0)).weights(np.zeros(27))["BASE"] == 1.0


def test_groups_hold_the_free_parameters_only() -> None:
    space = of(IN00=BlockRule(fixed=0.0))
    assert space.groups["IN"] == tuple(f"IN{n:02d}" for n in range(1, 12))
    assert space.groups["BASE"] == ()


def test_weights_and_vector_are_inverse() -> None:
    space = of(-1.0, 2.0, M00=BlockRule(tied_to="IN00"), BASE=BlockRule())
    vector = space.snap(generator(0, "test").uniform(-1, 2, space.dimension))
    weights = space.weights(vector)
    assert space.vector(weights).tolist() == vector.tolist()
    assert space.contains(weights)


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(ConfigError, match="weight of IN01 is missing"):
        of().vector({"IN00": 0.5})


def test_contains_only_what_a_vector_can_give() -> None:
    space = of(IN00=BlockRule(fixed=0.25), IN01=BlockRule(tied_to="IN02"))
    weights = space.weights(np.full(space.dimension, 0.5))
    assert space.contains(weights)
    assert space.contains({block: w for block, w in weights.items() if block != "VAE"})
    assert not space.contains(weights | {"IN00": 0.26})
    assert not space.contains(weights | {"IN01": 0.6})
    assert not space.contains(weights | {"VAE": 1.0})
    assert not space.contains(weights | {"M00": 1.0001})
    assert not space.contains(weights | {"M99": 0.0})
    assert not space.contains({block: w for block, w in weights.items() if block != "M00"})


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_snapping_rounds_to_four_decimals_within_the_range(values: list[float]) -> None:
    space = Space.box({"a": (0.0, 1.0), "b": (-1.0, 2.0), "c": (0.12345, 1.12345)})
    snapped = space.snap(np.array(values))
    assert np.all((space.low <= snapped) & (snapped <= space.high))
    assert np.all(np.abs(snapped - np.clip(values, space.low, space.high)) <= 0.5001e-4)
    assert space.snap(snapped).tolist() == snapped.tolist()
    for value, edges in zip(snapped.tolist(), space.bounds, strict=True):
        assert value in edges or value == round(value, 4)
        assert str(value) != "-0.0"


def test_small_ranges_get_more_decimals() -> None:
    assert Space.box({"rate": (1e-6, 1e-4), "x": (0.0, 1.0)}).decimals == 9
    assert Space.box({"x": (0.0, 1000.0)}).decimals == 4


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"IN0": BlockRule(fixed=0.0)}, r"unknown sd1 block: 'IN0'\. Did you mean 'IN\d\d'"),
        ({"IN00": BlockRule(tied_to="OUT9")}, "IN00 is tied to an unknown sd1 block: 'OUT9'"),
        ({"IN00": BlockRule(low=0.8, high=0.2)}, "range of IN00 is reversed"),
        ({"IN00": BlockRule(low=1.5)}, "range of IN00 is reversed"),
        ({"IN00": BlockRule(low=float("nan"))}, "Use finite numbers"),
        ({"IN00": BlockRule(high=2.1)}, "must be within -1 to 2"),
        ({"IN00": BlockRule(fixed=-1.5)}, "IN00 is fixed at -1.5"),
        ({"IN00": BlockRule(fixed=float("nan"))}, "IN00 is fixed at nan"),
        ({"IN00": BlockRule(fixed=0.0, high=0.5)}, "the rules fixed and range at once"),
        ({"IN00": BlockRule(fixed=0.0, tied_to="M00")}, "the rules fixed and tied_to at once"),
        ({"IN00": BlockRule(low=0.1, tied_to="M00")}, "the rules tied_to and range at once"),
        ({"IN00": BlockRule(tied_to="IN00")}, "tied in a circle: IN00 -> IN00"),
        (
            {"IN00": BlockRule(tied_to="IN01"), "IN01": BlockRule(tied_to="IN00")},
            "tied in a circle: IN00 -> IN01 -> IN00",
        ),
        ({"IN00": BlockRule(tied_to="VAE")}, "tied to VAE, which is neither searched nor fixed"),
        (
            {block: BlockRule(fixed=0.5) for block in SD1.parameters},
            "nothing is left to search",
        ),
    ],
)
def test_impossible_rules_are_refused(rules: dict[str, BlockRule], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(**rules)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.5, 0.5), (-1.1, 1.0), (0.0, 2.5)])
def test_an_impossible_range_of_the_search_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="range of search"):
        of(low, high)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "no parameter"),
        ({"x": (1.0, 0.5)}, "range of x is reversed"),
        ({"x": (-1e308, 1e308)}, "range of x cannot be searched"),
        ({"x": (1.0, 1.0 + 1e-15)}, "range of x cannot be searched"),
        ({"x": (1.0, 1.0)}, "1 range without width"),
        ({"x": (0.0, float("inf"))}, "Use finite numbers"),
    ],
)
def test_an_impossible_box_is_refused(bounds: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.box(bounds)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(0, 10**6))
def test_a_taken_point_is_replaced_by_a_free_one(used: int, seed: int) -> None:
    space = Space(names=("x",), bounds=((0.0, 0.05),), blocks={"x": "x"}, decimals=3)
    rng = generator(seed, "test")
    taken: set[tuple[float, ...]] = set()
    for _ in range(used):
        vector = space.unused(np.array([0.02]), taken, rng)
        assert space.key(vector) not in taken
        taken.add(space.key(vector))
    assert len(taken) == used


def test_the_nearest_free_point_is_chosen_in_a_small_space() -> None:
    space = Space(names=("x",), bounds=((0.0, 0.9),), blocks={"x": "x"}, decimals=1)
    taken = {(0.4,), (0.5,), (0.6,)}
    assert space.unused(np.array([0.52]), taken, generator(0, "test")).tolist() == [0.7]
    with pytest.raises(SearchError, match="nothing is left to propose"):
        space.unused(np.array([0.5]), {(i / 10,) for i in range(10)}, generator(0, "test"))


def test_edges_off_the_grid_count_as_points() -> None:
    space = Space(names=("x",), bounds=((0.05, 0.15),), blocks={"x": "x"}, decimals=1)
    taken: set[tuple[float, ...]] = set()
    for _ in range(3):
        taken.add(space.key(space.unused(np.array([0.1]), taken, generator(0, "test"))))
    assert taken == {(0.05,), (0.1,), (0.15,)}


def test_a_point_beside_a_taken_one_is_near_in_a_large_space() -> None:
    space = of()
    vector = np.full(27, 0.5)
    moved = space.unused(vector, {space.key(vector)}, generator(0, "test"))
    assert 0 < np.abs(moved - vector).max() <= 0.0011


def test_a_range_without_width_is_a_fixed_weight() -> None:
    space = of(IN00=BlockRule(low=0.4, high=0.4), M00=BlockRule(tied_to="IN00"))
    assert "IN00" not in space.names
    weights = space.weights(np.full(space.dimension, 0.9))
    assert (weights["IN00"], weights["M00"], weights["IN01"]) == (0.4, 0.4, 0.9)
    box = Space.box({"x": (2.0, 2.0), "y": (0.0, 1.0)})
    assert box.weights(np.array([0.25])) == {"x": 2.0, "y": 0.25}


def test_blocks_in_which_the_models_do_not_differ_are_taken_out() -> None:
    distances = dict.fromkeys(SD1.blocks, 0.1) | {"IN03": 0.0, "OUT05": 0.0}
    space = Space.of(SearchConfig(), SD1, distances)
    assert set(SD1.parameters) - set(space.names) == {"IN03", "OUT05"}
    weights = space.weights(np.full(space.dimension, 0.7))
    assert (weights["IN03"], weights["OUT05"], weights["IN04"]) == (0.0, 0.0, 0.7)
    assert all("IN03" not in members for members in space.groups.values())


def test_a_block_stays_that_others_are_tied_to() -> None:
    rules = {"OUT00": BlockRule(tied_to="IN03")}
    distances = dict.fromkeys(SD1.blocks, 0.1) | {"IN03": 0.0}
    assert "IN03" in Space.of(SearchConfig(blocks=rules), SD1, distances).names
    both = distances | {"OUT00": 0.0}
    assert "IN03" not in Space.of(SearchConfig(blocks=rules), SD1, both).names


def test_equal_models_leave_nothing_to_search() -> None:
    distances = dict.fromkeys(SD1.blocks, 0.0) | {"IN00": 0.2}
    with pytest.raises(ConfigError, match="26 blocks of sd1 are equal in the models"):
        Space.of(SearchConfig(blocks={"IN00": BlockRule(fixed=0.5)}), SD1, distances)
