from __future__ import annotations

import msgspec
import numpy as np
import pytest

from benchmarks.search import images, ours, payload_order
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.model import Model


def candidate(number: int, weight: float) -> Evaluation:
    vector = np.full(ours.SPACE.dimension, weight)
    return Evaluation(number=number, origin=Origin.DESIGN, weights=ours.SPACE.weights(vector))


def images_of(score: float, draw: np.random.Generator) -> images.Array:
    return score + 0.01 * draw.normal(size=(images.PAYLOADS, images.PLAIN_SEEDS))


def history(draw: np.random.Generator) -> list[Evaluation]:
    """Twelve complete candidates; the best is half way."""
    weights = np.linspace(0.0, 1.0, images.LOOK_FROM)
    return [
        images.scored(
            candidate(number, float(weight)),
            images_of(1.0 - 4.0 * (weight - 0.5) ** 2, draw),
            range(images.PAYLOADS),
        )
        for number, weight in enumerate(weights, 1)
    ]


def of_two_kinds(count: int) -> list[Evaluation]:
    """Candidates of which half of the payloads, the first, show one thing and half another."""
    draw = np.random.default_rng(0)
    known = []
    for number in range(1, count + 1):
        one, other = draw.normal(size=2)
        parts = {f"payload {p}": float(one if p < 6 else other) for p in range(images.PAYLOADS)}
        known.append(
            msgspec.structs.replace(
                candidate(number, 0.5), score=float(one + other) / 2, per_payload=parts
            )
        )
    return known


def test_the_payloads_that_tell_most_together_follow_the_mean_of_all() -> None:
    # only one of each kind follows the mean
    chosen = images.telling(of_two_kinds(12), 2)
    assert sorted(payload < 6 for payload in chosen) == [False, True]


def test_payloads_of_both_kinds_foretell_a_score_sooner_than_those_of_one() -> None:
    found = payload_order.errors(of_two_kinds(40))
    as_given, telling = found["as given"], found["most telling first"]
    assert telling == pytest.approx([0.0] * len(payload_order.COUNTS), abs=0.01)
    # six and fewer are of one kind: its difference from the mean is as large as the scores differ
    assert as_given[:2] == pytest.approx([1.0, 1.0], abs=0.4)
    assert 0.1 < as_given[2] < 0.6


def test_a_hopeless_candidate_is_found_out_sooner_by_the_payloads_that_tell() -> None:
    draw = np.random.default_rng(0)
    known = of_two_kinds(12)
    leader = max(known, key=lambda e: e.score or 0.0)
    table = np.repeat([[leader.per_payload[f"payload {p}"]] for p in range(12)], 2, axis=1)
    table = table + 1e-3 * draw.normal(size=table.shape)
    table[6:] -= 1.0
    policies = ("early reject", "early reject, telling payloads first")
    as_given, telling = (
        images.judged(
            candidate(13, 0.5), images.POLICIES[name], table, known, Model(ours.SPACE)
        ).images
        for name in policies
    )
    assert telling < as_given


@pytest.mark.parametrize("name", ["4 telling payloads first", "one seed first"])
def test_only_likely_leaders_get_all_their_images(name: str) -> None:
    draw = np.random.default_rng(0)
    known, policy = history(draw), images.POLICIES[name]
    model = Model(ours.SPACE)
    poor = images.judged(candidate(13, 0.95), policy, images_of(0.2, draw), known, model)
    good = images.judged(candidate(13, 0.52), policy, images_of(1.4, draw), known, model)
    look = policy.first_look
    assert look is not None
    assert poor.images == look.payloads * look.seeds
    assert (poor.score is None) == (look.payloads < images.PAYLOADS)
    assert good.images == images.PAYLOADS * images.PLAIN_SEEDS
    assert good.score == pytest.approx(1.4, abs=0.01)


def test_a_hopeless_candidate_is_given_up_after_four_payloads() -> None:
    draw = np.random.default_rng(0)
    known, policy = history(draw), images.POLICIES["early reject"]
    poor = images.judged(
        candidate(13, 0.95), policy, images_of(0.2, draw), known, Model(ours.SPACE)
    )
    assert poor.rejected is not None
    assert poor.images == 4 * images.PLAIN_SEEDS
    assert sorted(poor.per_payload) == [f"payload {payload}" for payload in range(4)]


def test_a_policy_that_was_not_run_saves_nothing() -> None:
    plain = images.Spending("plain", "domains-noisy", 0, (24, images.BUDGET), ((1, 0.9), (2, 0.2)))
    soon = msgspec.structs.replace(plain, policy="one seed", images=(24, images.BUDGET // 2))
    assert images.share_of_images([plain, soon], "one seed") == 0.5
    assert images.share_of_images([plain], "one seed") == np.inf
