from __future__ import annotations

import numpy as np
import pytest

from benchmarks.search import landscapes, networks

SYNTHETIC = ("smooth", "additive", "levy", "ackley")
DIMENSION = landscapes.DIMENSION


def points(count: int) -> np.ndarray:
    return np.random.default_rng(5).random((count, DIMENSION))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_seed_is_one_instance_and_another_seed_another(name: str) -> None:
    x = points(1)[0]
    first, again, other = (landscapes.create(name, seed) for seed in (3, 3, 4))
    assert first.score(x) == again.score(x)
    assert first.distances == again.distances
    assert first.score(x) != other.score(x)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SYNTHETIC)
def test_neither_random_points_nor_steps_from_it_beat_the_optimum(name: str, seed: int) -> None:
    made = landscapes.create(name, seed)
    assert made.score(made.optimum_at) == made.optimum
    near = np.clip(made.optimum_at + 0.02 * (points(300) - 0.5), 0, 1)
    assert max(made.score(x) for x in (*points(500), *near)) <= made.optimum


@pytest.mark.parametrize("name", SYNTHETIC)
def test_regret_is_zero_at_the_optimum_and_one_at_the_better_parent(name: str) -> None:
    made = landscapes.create(name, 2)
    parents = [made.regret(made.score(np.full(DIMENSION, end))) for end in (0.0, 1.0)]
    assert made.regret(made.score(made.optimum_at)) == 0.0
    assert min(parents) == pytest.approx(1.0)


def test_the_middle_is_not_a_gift() -> None:
    for name in SYNTHETIC:
        middle = [np.full(DIMENSION, 0.5)] * 10
        made = [landscapes.create(name, seed) for seed in range(10)]
        regrets = [one.regret(one.score(x)) for one, x in zip(made, middle, strict=True)]
        assert np.median(regrets) > 0.2


def test_noise_is_a_share_of_the_range_and_the_same_for_all_in_a_run() -> None:
    noisy, plain = landscapes.create("additive-noisy", 0), landscapes.create("additive", 0)
    x = points(1)[0]
    assert noisy.score(x) == plain.score(x)
    assert plain.observe(x, landscapes.noise_source(plain, 0)).score == plain.score(x)
    draw = landscapes.noise_source(noisy, 0)
    seen = np.array([noisy.observe(x, draw).score for _ in range(2000)])
    expected = 0.07 * (noisy.optimum - noisy.better_parent)
    assert seen.std() == pytest.approx(expected, rel=0.1)
    again = landscapes.noise_source(noisy, 0)
    assert [noisy.observe(x, again).score for _ in range(3)] == seen[:3].tolist()


@pytest.fixture
def pair() -> networks.Pair:
    draw = np.random.default_rng(0)
    a, b = (0.2 * draw.normal(size=(2, len(networks.OWNER)))).astype(np.float32)
    images, labels = networks.scored("domains", 0)
    return networks.Pair(a, b, images, labels, np.full(DIMENSION, 0.5))


def test_weight_0_is_model_a_and_1_is_model_b_block_by_block(pair: networks.Pair) -> None:
    swapped = networks.Pair(pair.b, pair.a, pair.images, pair.labels, pair.optimum_at)
    for x in (np.zeros(DIMENSION), np.ones(DIMENSION), np.eye(DIMENSION)[12]):
        assert pair.payloads(x) == pytest.approx(swapped.payloads(1.0 - x), abs=1e-5)
    assert len({round(pair.score(x), 9) for x in np.eye(DIMENSION)}) == DIMENSION


def test_the_score_is_the_mean_of_twelve_payloads(pair: networks.Pair) -> None:
    parts = pair.payloads(points(1)[0])
    assert parts.shape == (12,)
    assert pair.score(points(1)[0]) == parts.mean()
    assert np.all((parts > 0) & (parts < 1))


def test_distances_are_relative_norms_of_each_block(pair: networks.Pair) -> None:
    middle = networks.BLOCKS.index("M00") == networks.OWNER
    gap, size = np.linalg.norm((pair.a - pair.b)[middle]), np.linalg.norm(pair.a[middle])
    assert pair.distances["M00"] == pytest.approx(gap / size, rel=1e-5)


@pytest.mark.parametrize("kind", ["classes", "domains"])
def test_payloads_are_unlike_each_other_and_never_trained_on(kind: str) -> None:
    images, labels = networks.scored(kind, 7)
    trained = {row.tobytes() for row in networks.digits(7)[0]}
    assert images.shape == (144, 64)
    assert not trained & {row.tobytes() for row in images}
    if kind == "classes":
        assert all(len(set(group)) <= 3 for group in labels.reshape(12, 12))
