from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_automerge.domain import judging
from lib_automerge.domain.aggregation import error_of_mean
from lib_automerge.domain.ensemble import Ensemble, Member, check
from lib_automerge.domain.guards import GUARDS
from lib_automerge.domain.judging import WORST, Judgement, judge, value_of, won_against
from lib_automerge.domain.reward_presets import FLOORS, PRESETS, preset
from lib_automerge.domain.scale import Judged, Scale, extended, scale_of
from lib_automerge.errors import ConfigError

PAYLOADS = tuple(f"p{n:02d}" for n in range(1, 9))
EVEN = dict.fromkeys(PAYLOADS, 1.0)
THREE = ("image_reward", "hpsv2", "pickscore")
UNITS = {"image_reward": (0.2, 1.0), "hpsv2": (0.28, 0.01), "pickscore": (21.0, 0.8)}
"""Reward -> where its scores lie, and by how much they differ between seeds."""
NO_FLOORS: dict[str, float] = {}


def ensemble_of(*rewards: str, **changes: object) -> Ensemble:
    return msgspec.structs.replace(
        Ensemble(members=tuple(Member(reward=name) for name in rewards)), **changes
    )


ROBUST = ensemble_of(*THREE)


def images_of(
    evaluation: int,
    quality: Mapping[str, float],
    payloads: tuple[str, ...] = PAYLOADS,
    seeds: int = 4,
    noise: float = 1.0,
) -> Iterator[Judged]:
    """Images whose rewards agree on chance (the seed) and lie `quality` sd above the parents."""
    for payload in payloads:
        for seed in range(seeds):
            chance = random.Random(f"{payload} {seed}")
            luck = noise * chance.gauss(0, 1)
            yield Judged(
                evaluation=evaluation,
                payload=payload,
                seed=seed,
                raw={
                    reward: UNITS.get(reward, (0.0, 1.0))[0]
                    + UNITS.get(reward, (0.0, 1.0))[1]
                    * (luck + 0.3 * noise * chance.gauss(0, 1) + quality.get(reward, 0.0))
                    for reward in (*THREE, "laion_v2")
                },
            )


PARENTS = [*images_of(1, {}), *images_of(2, dict.fromkeys((*THREE, "laion_v2"), 0.1))]
SCALE = scale_of(PARENTS, NO_FLOORS, dict.fromkeys(PAYLOADS, 0.4))


def judged(quality: Mapping[str, float], ensemble: Ensemble = ROBUST) -> Judgement:
    return judge(list(images_of(7, quality)), ensemble, SCALE, EVEN)


def plain_mean(quality: Mapping[str, float], rewards: tuple[str, ...] = THREE) -> float:
    """What tools compute today: the mean of all rewards in units of the parents' spread."""
    result = judged(quality, ensemble_of(*rewards))
    return statistics.fmean(result.z.values())


def one_image(raw: Mapping[str, float], **changes: object) -> Judged:
    return msgspec.structs.replace(
        Judged(evaluation=7, payload="a", seed=0, raw=dict(raw)), **changes
    )


def simple_scale(*rewards: str) -> Scale:
    return Scale(
        centres={reward: {"a": 0.0} for reward in rewards},
        scales=dict.fromkeys(rewards, 1.0),
    )


# --- the scale ---


def test_the_scale_by_hand() -> None:
    def image(evaluation: int, payload: str, seed: int, raw: float) -> Judged:
        return Judged(
            evaluation=evaluation,
            payload=payload,
            seed=seed,
            raw={"r": raw},
            looks={"contrast": raw / 10},
        )

    parents = [image(1, "a", 0, 1.0), image(2, "a", 0, 3.0), image(1, "a", 1, 2.0)]
    parents += [image(2, "a", 1, 2.0), image(1, "b", 0, 10.0), image(2, "b", 0, 14.0)]
    scale = scale_of(parents, {"r": 0.1}, {"a": 0.5})
    assert scale.centres == {"r": {"a": 2.0, "b": 12.0}}
    # squares 1 + 1 + 0 + 0 and 4 + 4, over 3 + 1 degrees of freedom
    assert scale.scales["r"] == pytest.approx(math.sqrt(10 / 4))
    # parent 1 lies 0.1 below the payloads' means, (-0.1, 0, -0.2) / 3, the other as far above; what
    # is left is (0, 0.1, -0.1) twice, with 6 - 2 - 2 + 1 degrees of freedom
    chance = 2 * math.sqrt(4 * 0.1**2 / 3)
    assert scale.ranges["contrast"]["a"] == pytest.approx((0.1 - chance, 0.3 + chance))
    assert scale.ranges["contrast"]["b"] == pytest.approx((1.1 - chance, 1.3 + chance))
    assert scale.parents["r"]["a"] == pytest.approx({1: -0.5 / 2.5**0.5, 2: 0.5 / 2.5**0.5})
    assert scale.diversity == {"a": 0.5}
    assert msgspec.json.decode(msgspec.json.encode(scale), type=Scale) == scale


def test_parents_that_agree_are_measured_by_the_floor() -> None:
    same = [one_image({"r": 1.0}, evaluation=n) for n in (1, 2)]
    scale = scale_of(same, {"r": 0.5})
    assert value_of(one_image({"r": 2.0}), ensemble_of("r"), scale).z == {"r": 2.0}
    # without a floor a reward that never changed tells nothing
    assert value_of(one_image({"r": 2.0}), ensemble_of("r"), scale_of(same, {})).z == {"r": 0.0}


def test_broken_images_of_parents_do_not_shift_the_scale() -> None:
    black = one_image({"image_reward": -9.0}, payload="p01", broken=True)
    unknown = one_image(dict.fromkeys((*THREE, "laion_v2"), math.nan), payload="p01")
    assert scale_of([*PARENTS, black, unknown], {}).scales == SCALE.scales
    looks = [{"contrast": math.nan}, {"contrast": 0.2}, {"contrast": math.nan}]
    parents = [one_image({"r": 0.0}, evaluation=n, looks=look) for n, look in enumerate(looks)]
    assert scale_of(parents, {}).ranges == {"contrast": {"a": (0.2, 0.2)}}


def test_parents_without_a_score_are_told() -> None:
    with pytest.raises(ConfigError, match="all are broken"):
        scale_of([one_image({"r": 1.0}, broken=True)], {})
    with pytest.raises(ConfigError, match="no score of 'r' on payload 'b'"):
        scale_of([one_image({"r": 1.0}), one_image({"r": math.nan}, payload="b")], {})
    with pytest.raises(ConfigError, match="no score of 'q' on payload 'a'"):
        value_of(one_image({"q": 1.0}), ensemble_of("q"), simple_scale("r"))
    with pytest.raises(ConfigError, match="'q' did not score 'a', seed 0"):
        value_of(one_image({"r": 1.0}), ensemble_of("q"), simple_scale("q"))


def test_held_out_payloads_have_their_own_centre_and_the_units_of_the_search() -> None:
    hard = dict.fromkeys((*THREE, "laion_v2"), -2.0)
    both = [*images_of(1, hard, ("h1",), noise=0.1), *images_of(2, hard, ("h1",), noise=0.1)]
    scale = extended(SCALE, [*PARENTS, *both], {"h1": 0.2, "p01": 99.0})
    assert scale.scales == SCALE.scales
    assert scale.centres["hpsv2"]["p01"] == SCALE.centres["hpsv2"]["p01"]
    assert scale.diversity["p01"] == 0.4
    as_good = judge(list(images_of(7, hard, ("h1",), noise=0.1)), ROBUST, scale, {"h1": 1.0})
    assert as_good.total == pytest.approx(0.0, abs=0.05)
    better = dict.fromkeys(THREE, -1.0)
    gain = judge(list(images_of(7, better, ("h1",), noise=0.1)), ROBUST, scale, {"h1": 1.0})
    # one sd of the search, not ten of the held-out images' own
    assert gain.total == pytest.approx(1.0, abs=0.2)
    assert extended(SCALE, PARENTS) is SCALE


# --- one image ---


RAW = st.floats(-50, 50)


@given(
    st.lists(st.tuples(RAW, RAW, RAW), min_size=4, max_size=8),
    st.sampled_from(THREE),
    st.floats(0.01, 100),
    st.floats(-100, 100),
)
def test_units_and_offset_of_a_reward_do_not_matter(
    rows: list[tuple[float, float, float]], reward: str, factor: float, shift: float
) -> None:
    images = [
        one_image(dict(zip(THREE, row)), evaluation=number % 3)
        for number, row in enumerate(rows, start=1)
    ]
    parents, candidate = images[:-1], images[-1]
    # an sd far below the size of the numbers is lost in rounding
    floors = dict.fromkeys(THREE, 0.1)
    other_floors = floors | {reward: factor * 0.1}

    def moved(image: Judged) -> Judged:
        raw = image.raw | {reward: factor * image.raw[reward] + shift}
        return msgspec.structs.replace(image, raw=raw)

    value = value_of(candidate, ROBUST, scale_of(parents, floors))
    again = value_of(moved(candidate), ROBUST, scale_of(map(moved, parents), other_floors))
    assert again.value == pytest.approx(value.value, abs=1e-6)


SCORES = st.floats(-30, 30)


@given(st.lists(SCORES, min_size=1, max_size=6), st.data())
def test_a_better_score_never_lowers_the_value_of_an_image(
    scores: list[float], data: st.DataObject
) -> None:
    names = [f"r{n}" for n in range(len(scores))]
    roles = st.sampled_from(["score", "score", "cap", "referee"])
    ensemble = Ensemble(
        members=tuple(
            Member(
                reward=name,
                weight=data.draw(st.floats(0.05, 20)),
                role="score" if name == "r0" else data.draw(roles),
            )
            for name in names
        )
    )
    better = [score + data.draw(st.floats(0, 5)) for score in scores]
    low, high = (
        value_of(one_image(dict(zip(names, some))), ensemble, simple_scale(*names)).value
        for some in (scores, better)
    )
    assert high >= low - 1e-9
    assert low >= WORST


def test_far_from_the_parents_better_is_still_better() -> None:
    def value(*z: float) -> float:
        names = [f"r{n}" for n in range(len(z))]
        image = one_image(dict(zip(names, z)))
        return value_of(image, ensemble_of(*names), simple_scale(*names)).value

    assert (value(4.0), value(-4.0)) == (4.0, -4.0)
    assert value(7.0) == pytest.approx(4 + math.log(4))
    assert value(-7.0, -7.0) == pytest.approx(-4 - math.log(4))
    assert 4.0 < value(30.0) < value(31.0) < 8.0
    assert value(-1e9) == WORST
    # one reward alone does not come further than 4 above the middle one
    assert value(0.0, 0.0, 4.0) == value(0.0, 0.0, 99.0) < 0.2
    assert value(0.0, 4.0) == value(0.0, 99.0)
    assert value(-9.0, 0.0, 4.0) == value(-9.0, 0.0, 99.0) > value(-9.0, 0.0, 0.0)
    assert value(30.0, 30.0, 34.0) == value(30.0, 30.0, 99.0) > 7.0


@given(
    st.lists(SCORES, min_size=3, max_size=3),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(0, 2),
    st.lists(SCORES, min_size=3, max_size=3),
)
def test_nan_never_wins(
    scores: list[float], broken: float, position: int, others: list[float]
) -> None:
    scale = simple_scale(*THREE)
    scores[position] = broken
    bad = value_of(one_image(dict(zip(THREE, scores))), ROBUST, scale)
    black = value_of(one_image(dict(zip(THREE, others)), broken=True), ROBUST, scale)
    fine = value_of(one_image(dict(zip(THREE, others))), ROBUST, scale)
    assert bad.broken
    assert black.broken
    assert bad.value == black.value == WORST <= fine.value
    total = judge([one_image(dict(zip(THREE, scores)))], ROBUST, scale, {"a": 1.0}).total
    assert total == WORST


def test_a_referee_plays_no_part_even_when_it_fails() -> None:
    members = (*ROBUST.members, Member(reward="laion_v2", role="referee"))
    watched = msgspec.structs.replace(ROBUST, members=members)
    high, low = ({"image_reward": 0.5, "laion_v2": sign * 9.0} for sign in (1, -1))
    assert judged(high, watched).total == judged(low, watched).total == judged(high).total
    assert judged(high, watched).z["laion_v2"] > 3 > -3 > judged(low, watched).z["laion_v2"]
    scale = simple_scale(*THREE, "laion_v2")
    failed = one_image(dict.fromkeys(THREE, 0.5) | {"laion_v2": math.nan})
    assert value_of(failed, watched, scale).value == pytest.approx(0.5)


# --- gaming ---


@pytest.mark.parametrize(("quality", "gamed_to"), [(-0.2, 1.3), (-0.5, 2.0), (-0.5, 30.0)])
@pytest.mark.parametrize("gamed", THREE)
def test_a_candidate_that_games_one_reward_fools_the_mean_only(
    gamed: str, quality: float, gamed_to: float
) -> None:
    hacked = dict.fromkeys(THREE, quality) | {gamed: gamed_to}
    # both against the parents, whose quality is 0 and 0.1
    assert plain_mean(hacked) > plain_mean(dict.fromkeys(THREE, 0.1))
    assert judged(hacked).total < judged({}).total


def test_four_rewards_of_which_one_is_gamed() -> None:
    four = (*THREE, "laion_v2")
    hacked = dict.fromkeys(four, -0.2) | {"laion_v2": 1.3}
    assert plain_mean(hacked, four) > 0
    assert judged(hacked, ensemble_of(*four)).total < judged({}, ensemble_of(*four)).total


@pytest.mark.parametrize("gamed", THREE)
def test_a_search_that_games_one_reward_is_not_led_astray(gamed: str) -> None:
    def quality(honest: float, game: float) -> dict[str, float]:
        true = 0.6 * honest - game
        return dict.fromkeys(THREE, true) | {gamed: true + 9.0 * game}

    grid = [(honest / 4, game / 4) for honest in range(5) for game in range(5)]
    assert max(grid, key=lambda at: plain_mean(quality(*at)))[1] >= 0.5
    assert max(grid, key=lambda at: judged(quality(*at)).total) == (1.0, 0.0)


def test_what_all_rewards_like_the_guards_catch() -> None:
    parents = [
        msgspec.structs.replace(image, looks={"saturation": 0.3 + 0.02 * image.evaluation})
        for image in PARENTS
    ]
    scale = scale_of(parents, NO_FLOORS)
    loved = list(images_of(7, dict.fromkeys(THREE, 1.0)))
    garish = [msgspec.structs.replace(image, looks={"saturation": 0.5}) for image in loved]
    fair = [msgspec.structs.replace(image, looks={"saturation": 0.33}) for image in loved]
    parent = judge(parents[: len(parents) // 2], ROBUST, scale, EVEN)
    assert judge(garish, ROBUST, scale, EVEN).total < parent.total
    assert judge(fair, ROBUST, scale, EVEN).total > parent.total + 0.5


def test_an_honest_gain_is_accepted() -> None:
    better = dict.fromkeys(THREE, 0.3)
    ours, parents = judged(better), [judged({}), judged(dict.fromkeys(THREE, 0.1))]
    assert ours.total > max(parent.total for parent in parents) + 0.1
    assert won_against(ours.per_payload, [parent.per_payload for parent in parents]) == (8, 8)


# --- guards ---


def guarded(measure: float, evaluation: int = 7, payload: str = "a") -> Judged:
    return one_image(
        {"r": 0.0}, evaluation=evaluation, payload=payload, looks={"saturation": measure}
    )


def test_a_guard_costs_only_outside_the_widened_range() -> None:
    scale = scale_of([guarded(0.3, 1), guarded(0.5, 2)], {"r": 1.0})
    ensemble = ensemble_of("r", guard_strength=2.0)
    inside = [0.3, 0.4, 0.5, 0.5 + 0.149 * 0.2, 0.3 - 0.149 * 0.2]
    for measure in inside:
        value = value_of(guarded(measure), ensemble, scale)
        assert (value.value, value.outside) == (0.0, {})
    # half a width beyond the widened range, on either side
    for measure in (0.5 + 0.65 * 0.2, 0.3 - 0.65 * 0.2):
        value = value_of(guarded(measure), ensemble, scale)
        assert value.outside == pytest.approx({"saturation": 0.5})
        assert (value.rewards, value.penalty, value.value) == pytest.approx((0.0, 1.0, -1.0))
    assert value_of(guarded(99.0), ensemble, scale).value == WORST
    assert value_of(guarded(math.nan), ensemble, scale).broken
    free = msgspec.structs.replace(ensemble, guards=("contrast",))
    assert value_of(guarded(99.0), free, scale).value == 0.0


def test_parents_that_agree_everywhere_have_a_range_all_the_same() -> None:
    scale = scale_of([guarded(0.3, 1), guarded(0.3, 2)], {"r": 1.0})
    assert value_of(guarded(0.307), ensemble_of("r"), scale).outside == {}
    assert value_of(guarded(0.40), ensemble_of("r"), scale).outside


@pytest.mark.parametrize("apart", [0.0, 5.0])
@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_images_do_not_condemn_what_is_like_the_parents(seeds: int, apart: float) -> None:
    chance = random.Random(seeds)
    at_seed = {(name, seed): chance.gauss(0, 1) for name in PAYLOADS for seed in range(seeds)}

    def images(evaluation: int, shift: float) -> list[Judged]:
        return [
            one_image(
                {"r": 0.0},
                evaluation=evaluation,
                payload=name,
                seed=seed,
                looks={guard.name: shift + common + chance.gauss(0, 1) for guard in GUARDS},
            )
            for (name, seed), common in at_seed.items()
        ]

    scale = scale_of([*images(1, 0.0), *images(2, apart)], {"r": 1.0})

    def penalty(shift: float) -> float:
        found = [value_of(image, ensemble_of("r"), scale) for image in images(7, shift)]
        return statistics.fmean(value.penalty for value in found)

    # with the bare range of two images it would be 1.9
    assert penalty(apart / 2) < 0.2
    assert penalty(apart + 8.0) > 0.4
    assert penalty(-8.0) > 0.4


def test_the_worst_guard_counts_and_all_are_told() -> None:
    def image(evaluation: int, saturation: float, contrast: float) -> Judged:
        looks = {"saturation": saturation, "contrast": contrast}
        return one_image({"r": 0.0}, evaluation=evaluation, looks=looks)

    scale = scale_of([image(1, 0.0, 0.0), image(2, 0.1, 0.1)], {"r": 1.0})
    value = value_of(image(7, 0.215, 0.165), ensemble_of("r"), scale)
    assert value.outside == pytest.approx({"saturation": 1.0, "contrast": 0.5})
    assert value.penalty == pytest.approx(1.0)
    result = judge([image(7, 0.215, 0.1), image(7, 0, 0)], ensemble_of("r"), scale, {"a": 1.0})
    assert result.outside == {"saturation": 0.5}


# --- caps, diversity ---


CAPPED = msgspec.structs.replace(
    ROBUST, members=(*ROBUST.members, Member(reward="laion_v2", weight=0.5, role="cap"))
)


def test_a_cap_counts_only_below_the_parents() -> None:
    free = judged({"image_reward": 0.5})
    above = judged({"image_reward": 0.5, "laion_v2": 3.0}, CAPPED)
    assert (above.total, above.below_caps) == (free.total, ())
    as_good = judged({"image_reward": 0.5, "laion_v2": -0.1}, CAPPED)
    assert (as_good.total, as_good.below_caps) == (free.total, ())
    below = judged({"image_reward": 0.5, "laion_v2": -1.0}, CAPPED)
    assert below.below_caps == ("laion_v2",)
    assert below.cap_penalty == pytest.approx(
        0.5 * (parent_level(1) - 0.15 - below.z["laion_v2"]), abs=1e-9
    )
    assert below.total == pytest.approx(free.total - below.cap_penalty)


def parent_level(number: int) -> float:
    return statistics.fmean(levels[number] for levels in SCALE.parents["laion_v2"].values())


def test_lost_diversity_costs() -> None:
    images = list(images_of(7, dict.fromkeys(THREE, 0.3)))

    def result(diversity: dict[str, float] | None) -> Judgement:
        return judge(images, ROBUST, SCALE, EVEN, diversity)

    unknown = result(None)
    assert unknown.diversity_ratio is None
    assert result(dict.fromkeys(PAYLOADS, 0.6)).total == unknown.total
    half = result(dict.fromkeys(PAYLOADS, 0.2))
    assert half.diversity_ratio == pytest.approx(0.5)
    assert half.total == pytest.approx(unknown.total - 0.5 * 0.5)
    assert result({"p01": 0.0}).diversity_ratio == 0.0
    # of payloads that differ in weight, the mean diversities are compared
    weights = EVEN | {"p01": 7.0}
    one = judge(images, ROBUST, SCALE, weights, dict.fromkeys(PAYLOADS, 0.4) | {"p01": 0.2})
    assert one.diversity_ratio == pytest.approx(0.75)


# --- a candidate ---


def test_payload_weights_are_shares_in_any_unit() -> None:
    images = [one_image({"r": 1.0}), one_image({"r": -1.0}, payload="b")]
    scale = Scale(centres={"r": {"a": 0.0, "b": 0.0}}, scales={"r": 1.0})
    ensemble = ensemble_of("r")
    result = judge(images, ensemble, scale, {"a": 3.0, "b": 1.0, "unused": 5.0})
    # mean 0.5; the worst quarter is exactly b
    assert result.mean == pytest.approx(0.5)
    assert result.worst_quarter == pytest.approx(-1.0)
    assert result.total == pytest.approx(0.7 * 0.5 - 0.3)
    assert result.per_payload == {"a": 1.0, "b": -1.0}
    assert judge(images, ensemble, scale, {"a": 0.3, "b": 0.1}).total == pytest.approx(result.total)
    with pytest.raises(ConfigError, match="weight of payload 'b' is None"):
        judge(images, ensemble, scale, {"a": 1.0})
    with pytest.raises(ConfigError, match="no image"):
        judge([], ensemble, scale, {"a": 1.0})


@settings(max_examples=30)
@given(st.randoms())
def test_the_order_of_images_plays_no_part(random_: random.Random) -> None:
    images = list(images_of(7, {"hpsv2": 1.0}))
    expected = judge(images, ROBUST, SCALE, EVEN)
    random_.shuffle(images)
    again = judge(images, ROBUST, SCALE, EVEN)
    assert again.total == pytest.approx(expected.total)
    assert again.standard_error == pytest.approx(expected.standard_error)


@pytest.mark.parametrize(("payloads", "seeds"), [(8, 2), (2, 6)])
def test_the_standard_error_is_the_spread_over_repetitions(payloads: int, seeds: int) -> None:
    names = PAYLOADS[:payloads]
    scale = Scale(centres={"r": dict.fromkeys(names, 0.0)}, scales={"r": 4.0})
    random_ = random.Random(payloads)
    totals, squares = [], []
    for _ in range(800):
        images = [
            one_image({"r": random_.gauss(0, 4)}, payload=name, seed=seed)
            for name in names
            for seed in range(seeds)
        ]
        result = judge(images, ensemble_of("r"), scale, EVEN)
        totals.append(result.total)
        assert result.standard_error is not None
        squares.append(result.standard_error**2)
    assert math.sqrt(statistics.fmean(squares)) == pytest.approx(statistics.stdev(totals), rel=0.12)


def test_the_error_is_between_payloads_only_if_there_are_five() -> None:
    def error(payloads: int) -> float | None:
        names = PAYLOADS[:payloads]
        scale = Scale(centres={"r": dict.fromkeys(names, 0.0)}, scales={"r": 1.0})
        images = [
            one_image({"r": sign}, payload=name, seed=seed)
            for name in names
            for seed, sign in enumerate((-1.0, 1.0))
        ]
        return judge(images, ensemble_of("r"), scale, EVEN).standard_error

    # all payloads have the mean 0; their images differ
    assert error(5) == pytest.approx(0.0)
    # one payload of four is the worst quarter: it has 0.7 / 4 + 0.3, the others 0.7 / 4
    tilted = [0.475, 0.475] + [0.175] * 6
    assert error(4) == pytest.approx(error_of_mean([-1.0, 1.0] * 4, tilted))


def test_nothing_is_worse_than_broken_images() -> None:
    black = [msgspec.structs.replace(image, broken=True) for image in images_of(7, {}, seeds=1)]
    result = judge(black, CAPPED, SCALE, EVEN, dict.fromkeys(PAYLOADS, 0.0))
    assert result.diversity_penalty > 0
    assert result.total == WORST


def test_a_single_image_has_no_error() -> None:
    result = judge([one_image({"r": 1.0})], ensemble_of("r"), simple_scale("r"), {"a": 1.0})
    assert result.standard_error is None


def test_wins_are_counted_where_all_were_judged() -> None:
    others = [{"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 0.0}]
    assert won_against({"a": 2.0, "b": 0.0, "c": 1.0, "d": 9.0}, others) == (1, 2)


# --- configurations ---


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        (Ensemble(members=()), "no reward is to be maximised: the list is empty"),
        (Ensemble(members=(Member(reward="a", role="cap"),)), "no reward is to be maximised: a"),
        (ensemble_of("a", "a"), "'a' is listed twice"),
        (Ensemble(members=(Member(reward="a", weight=0.0),)), "reward 'a' is 0.0"),
        (Ensemble(members=(Member(reward="a", weight=math.nan),)), "reward 'a' is nan"),
        (ensemble_of("a", guards=("satuation",)), "Did you mean 'saturation'"),
        (ensemble_of("a", guard_strength=-1.0), "guard_strength is -1.0"),
        (ensemble_of("a", diversity_strength=math.nan), "diversity_strength is nan"),
    ],
)
def test_ensembles_that_cannot_judge_are_refused(ensemble: Ensemble, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(ensemble)


def test_presets() -> None:
    for one in PRESETS:
        check(one.ensemble)
        assert {member.reward for member in one.ensemble.members} <= FLOORS.keys()
        assert one.ensemble.guards == tuple(guard.name for guard in GUARDS)
    assert preset("default").ensemble.members == (Member(reward="image_reward"),)
    assert preset("robust").ensemble == ROBUST
    anime = {member.reward for member in preset("anime").ensemble.members}
    assert not anime & {"laion_v1", "laion_v2", "chad"}
    (cap,) = (one for one in preset("photo").ensemble.members if one.role == "cap")
    assert (cap.reward, cap.weight) == ("laion_v2", 0.5)
    with pytest.raises(ConfigError, match="Did you mean 'robust'"):
        preset("robst")


def test_the_borders_are_those_of_the_documentation() -> None:
    assert (judging.WIDENING, judging.LINEAR, WORST) == (0.15, 4.0, -10.0)
