"""Every method against its formula on whole float64 arrays, written here a second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib_automerge.merge.lab import catalogue, medians
from lib_automerge.merge.lab.draws import RANGE, draws
from tests.lab_merges import PLAIN, Array, merged, merged_array, random_models

SHAPES = {"conv": (7, 5, 3, 3), "linear": (40, 33), "bias": (19,), "scalar": (), "large": (130, 97)}


def mean_where(values: Array, chosen: Array) -> Array:
    count = chosen.sum(axis=0)
    return np.where(count > 0, (values * chosen).sum(axis=0) / np.maximum(count, 1), 0.0)


def top(values: Array, k: float) -> Array:
    """Zero all but the largest; equal ones are kept from the front."""
    flat = values.reshape(-1)
    count = 0 if k == 0 else max(1, int(np.floor(k * flat.size + 0.5)))
    order = np.lexsort((np.arange(flat.size), -np.abs(flat)))
    kept = np.zeros_like(flat)
    kept[order[:count]] = flat[order[:count]]
    return kept.reshape(values.shape)


def uniform(seed: int, model: int, key: str, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    return draws(seed, model, key, 0, size).reshape(shape) / RANGE


def ranks(change: Array) -> Array:
    flat = np.abs(change).reshape(-1)
    order = np.lexsort((np.arange(flat.size), flat))
    found = np.empty(flat.size)
    found[order] = np.arange(1, flat.size + 1)
    return found.reshape(change.shape)


def voted(changes: Array, vote: str) -> Array:
    if vote == "none":
        return changes.mean(axis=0)
    sign = np.sign(changes.sum(axis=0) if vote == "sum" else np.sign(changes).sum(axis=0))
    return mean_where(changes, (np.sign(changes) == sign) & (sign != 0))


def geometric_median(points: Array) -> Array:
    """Weiszfeld's iteration on the points themselves."""
    flat = points.reshape(len(points), -1)
    median = flat.mean(axis=0)
    for _ in range(20_000):
        weights = 1 / np.linalg.norm(flat - median, axis=1)
        after = weights @ flat / weights.sum()
        if np.array_equal(after, median):
            break
        median = after
    return median.reshape(points.shape[1:])


def reference(method: str, models: Sequence[Array], key: str, p: Mapping[str, Any]) -> Array:
    """The formula of a method for one tensor; `models` begins with the base where there is one."""
    a = models[0]
    b = models[1]
    if method in ("weighted_sum", "amplified_difference"):
        w = p.get("weight", p.get("amount"))
        return (1 - w) * a + w * b
    if method == "slerp":
        w, na, nb = p["weight"], np.linalg.norm(a), np.linalg.norm(b)
        cos = float((a * b).sum() / (na * nb))
        if 1 - abs(cos) < 1e-12:
            return (1 - w) * a + w * b
        v = np.arccos(cos)
        arc = (np.sin((1 - w) * v) * a / na + np.sin(w * v) * b / nb) / np.sin(v)
        return ((1 - w) * na + w * nb) * arc
    if method in ("cosine_a", "cosine_b"):
        cos = np.atleast_1d((a * b).sum(axis=0 if a.ndim else None)) / np.atleast_1d(
            np.sqrt((a * a).sum(axis=0 if a.ndim else None))
            * np.sqrt((b * b).sum(axis=0 if a.ndim else None))
        )
        if method == "cosine_b":
            cos = (cos + (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)) / 2
        k = np.clip(cos - p["weight"], 0, 1)
        return (k * a + (1 - k) * b).reshape(a.shape)
    if method == "average":
        shares = [p["shares"].get(f"m{n + 1:03d}", 1.0) for n in range(len(models))]
        return sum(s * m for s, m in zip(shares, models)) / sum(shares)
    if method == "geometric_median":
        return geometric_median(np.stack(models))
    if method in ("add_difference", "train_difference", "sum_twice", "triple_sum"):
        c = models[2]
        if method == "add_difference":
            return a + p["weight"] * (b - c)
        if method == "train_difference":
            both = np.abs(b - a) + np.abs(b - c)
            part = np.divide(np.abs(b - a), both, out=np.zeros_like(both), where=both > 0)
            return a + 1.8 * p["weight"] * (b - c) * part
        if method == "sum_twice":
            return ((1 - p["alpha"]) * a + p["alpha"] * b) * (1 - p["beta"]) + p["beta"] * c
        return (1 - p["alpha"] - p["beta"]) * a + p["alpha"] * b + p["beta"] * c
    changes = np.stack([model - a for model in models[1:]])
    scale = p.get("scale", 1.0)
    if method in ("ties", "ties_soup"):
        trimmed = np.stack([top(change, p["k"]) for change in changes])
        return a + scale * voted(trimmed, "sum" if method == "ties" else "count")
    if method == "model_stock":
        flat = changes.reshape(len(changes), -1)
        unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        n = len(flat)
        cos = np.mean([unit[i] @ unit[j] for i in range(n) for j in range(i)])
        t = n * cos / (1 + (n - 1) * cos) if 1 + (n - 1) * cos > 0 else 0.0
        t = min(max(t, 0.0), 1.0)
        return t * np.mean(models[1:], axis=0) + (1 - t) * a
    if method == "iso":
        change = changes.mean(axis=0)
        if a.ndim > 1:
            flat = change.reshape(a.shape[0], -1)
            u, s, v = np.linalg.svd(flat, full_matrices=False)
            change = (u * (p["z"] * (s - s.mean()) + s.mean()) @ v).reshape(a.shape)
        return a + scale * change
    # the rest drops changes at random
    chance = np.full(changes.shape, p["p"])
    if method in ("della", "dgmla"):
        for n, change in enumerate(changes):
            slope = p["epsilon"] / change.size * (-1 if p["favour"] == "large" else 1)
            chance[n] += slope * (ranks(change) - (change.size + 1) / 2)
    drawn = np.stack([uniform(p["seed"], n, key, a.shape) for n in range(len(changes))])
    dropped = np.where(drawn >= chance, changes, 0.0)
    if method == "dare":
        return a + scale * voted(dropped / (1 - p["p"]), p["vote"])
    if method == "tsd":
        return a + scale * voted(dropped, "count")
    if method == "della":
        return a + scale * voted(dropped / (1 - chance), p["vote"])
    sign = np.sign(np.sign(dropped).sum(axis=0))
    points = np.where(np.sign(dropped) == sign, dropped, 0.0)
    return a + scale * geometric_median(points)


CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("weighted_sum", 2, {"weight": 0.37}),
    ("weighted_sum", 2, {"weight": -0.5}),
    ("amplified_difference", 2, {"amount": 2.5}),
    ("slerp", 2, {"weight": 0.3}),
    ("cosine_a", 2, {"weight": 0.25}),
    ("cosine_b", 2, {"weight": 0.25}),
    ("average", 4, {"shares": {}}),
    ("average", 4, {"shares": {"m001": 0.0, "m003": 2.5}}),
    ("add_difference", 3, {"weight": 0.7}),
    ("train_difference", 3, {"weight": 0.7}),
    ("sum_twice", 3, {"alpha": 0.3, "beta": 0.6}),
    ("triple_sum", 3, {"alpha": 0.3, "beta": 0.6}),
    ("ties", 5, {"k": 0.2, "scale": 0.8}),
    ("ties", 5, {"k": 1.0}),
    ("ties", 3, {"k": 0.07}),
    ("ties_soup", 5, {"k": 1.0}),
    ("ties_soup", 5, {"k": 0.4, "scale": 1.5}),
    ("model_stock", 4, {}),
    ("geometric_median", 4, {"iterations": 5000}),
    ("dare", 4, {"p": 0.6, "vote": "none", "seed": 3}),
    ("dare", 4, {"p": 0.6, "vote": "sum", "seed": 3}),
    ("dare", 4, {"p": 0.6, "vote": "count", "seed": 4}),
    ("tsd", 4, {"p": 0.1, "seed": 3}),
    ("della", 4, {"p": 0.6, "epsilon": 0.4, "favour": "large", "vote": "sum", "seed": 1}),
    ("della", 4, {"p": 0.5, "epsilon": 1.0, "favour": "small", "vote": "none", "seed": 1}),
    ("tgmd", 4, {"p": 0.2, "seed": 5, "iterations": 5000}),
    ("dgmla", 4, {"p": 0.2, "epsilon": 0.2, "favour": "small", "seed": 5, "iterations": 5000}),
    ("iso", 3, {"z": 0.0}),
    ("iso", 3, {"z": 0.8, "scale": 1.2}),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("method", "count", "parameters"), CASES)
def test_a_method_equals_its_formula(
    method: str, count: int, parameters: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    median = method in ("geometric_median", "tgmd", "dgmla")
    shapes = {"conv": SHAPES["conv"], "bias": SHAPES["bias"]} if median else SHAPES
    models = random_models(count, shapes, dtype)
    found = merged(tmp_path, method, models, parameters)
    for key in shapes:
        wide = [model[key].double().numpy() for model in models]
        expected = reference(method, wide, key, parameters)
        tolerance = {"rtol": 0, "atol": 1e-9} if median else {"rtol": 1e-9, "atol": 1e-13}
        np.testing.assert_allclose(found[key].numpy(), expected, err_msg=key, **tolerance)


def test_every_method_is_tested_against_a_formula() -> None:
    assert {case[0] for case in CASES} == set(PLAIN)


# the pair of 6DammK9's notes
LATIN = [
    np.array([[-1.0, 2, 3, 4], [4, -3, 2, 1], [3, 4, 1, -2], [2, 1, -4, 3]]),
    np.array([[3.0, 4, 1, -2], [2, 1, -4, 3], [-1, 2, 3, 4], [4, -3, 2, 1]]),
]


@pytest.mark.parametrize(
    ("method", "k", "row"),
    [
        ("ties", 1.0, [3, 3, 2, 4]),
        ("ties_soup", 1.0, [0, 3, 2, 0]),
        # half of 16 is 8: all of 3 and 4, none of 2
        ("ties", 0.5, [3, 4, 3, 4]),
        ("ties_soup", 0.5, [3, 4, 3, 4]),
        # the notes' rows for k = 0.5 come of a tool that keeps 12, all that equal its threshold
        ("ties", 0.75, [3, 3, 3, 4]),
        ("ties_soup", 0.75, [3, 3, 3, 0]),
    ],
)
def test_the_known_pair(method: str, k: float, row: list[float], tmp_path: Path) -> None:
    found = merged_array(tmp_path, method, [np.zeros((4, 4)), *LATIN], {"k": k})
    assert found[0].tolist() == row


def test_ties_votes_by_sums_and_ties_soup_by_counts(tmp_path: Path) -> None:
    # two models say -1 and -1, one says +3: sums elect plus, counts elect minus
    models = [np.zeros(2), np.array([-1.0, 1.0]), np.array([-1.0, -1.0]), np.array([3.0, 0.0])]
    assert merged_array(tmp_path, "ties", models, {"k": 1.0}).tolist() == [3.0, 0.0]
    assert merged_array(tmp_path, "ties_soup", models).tolist() == [-1.0, 0.0]


def test_more_models_vote_than_a_byte_counts(tmp_path: Path) -> None:
    # 300 say +1 and 260 say -2
    models = [np.zeros(2)] + [np.ones(2)] * 300 + [np.full(2, -2.0)] * 260
    assert merged_array(tmp_path, "ties_soup", models).tolist() == [1.0, 1.0]
    assert merged_array(tmp_path, "ties", models, {"k": 1.0}).tolist() == [-2.0, -2.0]


def test_ties_keeps_exactly_the_share_that_was_asked_for(tmp_path: Path) -> None:
    values = np.arange(1.0, 11.0)
    found = merged_array(tmp_path, "ties", [np.zeros(10), values], {"k": 0.2})
    assert np.flatnonzero(found).tolist() == [8, 9]
    halves = merged_array(tmp_path, "ties", [np.zeros(10), values], {"k": 0.5})
    assert np.count_nonzero(halves) == 5


@pytest.mark.parametrize("chunk", [2, 100])
def test_ties_of_equal_changes_keeps_the_first(chunk: int, tmp_path: Path) -> None:
    values = np.array([1.0, -2.0, 2.0, 2.0, 1.0, -2.0, 0.5, 0.0, 0.0, 0.0])
    found = merged_array(tmp_path, "ties", [np.zeros(10), values], {"k": 0.3}, chunk=chunk)
    assert np.flatnonzero(found).tolist() == [1, 2, 3]


def test_ties_tells_changes_apart_that_float32_cannot(tmp_path: Path) -> None:
    values = 1.0 + np.arange(6) * 1e-9
    found = merged_array(tmp_path, "ties", [np.zeros(6), values], {"k": 0.5})
    assert np.flatnonzero(found).tolist() == [3, 4, 5]


def test_dare_keeps_its_share_and_its_mean(tmp_path: Path) -> None:
    size, p = 200_000, 0.9
    change = np.full(size, 2.0)
    found = merged_array(tmp_path, "dare", [np.zeros(size), change], {"p": p, "seed": 7})
    kept = np.count_nonzero(found)
    assert abs(kept - size * (1 - p)) < 4 * np.sqrt(size * p * (1 - p))
    assert np.allclose(found[found != 0], 20.0)


def test_tsd_does_not_rescale(tmp_path: Path) -> None:
    found = merged_array(tmp_path, "tsd", [np.zeros(1000), np.full(1000, 2.0)], {"p": 0.5})
    assert set(np.unique(found)) == {0.0, 2.0}


def test_tsd_that_drops_nothing_is_ties_soup(tmp_path: Path) -> None:
    models = random_models(4, SHAPES, torch.float16)
    tsd = merged(tmp_path, "tsd", models, {"p": 0.0})
    soup = merged(tmp_path, "ties_soup", models)
    assert all(torch.equal(tsd[key], soup[key]) for key in SHAPES)


def test_masks_differ_between_models_tensors_and_seeds(tmp_path: Path) -> None:
    def mask(model: int, key: str, seed: int) -> np.ndarray:
        models = [np.zeros(4096)] + [np.zeros(4096)] * model + [np.ones(4096)]
        found = merged_array(tmp_path, "dare", models, {"p": 0.5, "seed": seed}, key=key)
        return found != 0

    first = mask(0, "w", 0)
    assert np.array_equal(first, mask(0, "w", 0))
    for other in (mask(1, "w", 0), mask(0, "v", 0), mask(0, "w", 1)):
        agreeing = np.count_nonzero(first == other)
        assert abs(agreeing - 2048) < 5 * 32


def test_a_mask_does_not_depend_on_the_shape(tmp_path: Path) -> None:
    flat = merged_array(tmp_path, "tsd", [np.zeros(600), np.ones(600)], {"p": 0.5})
    wide = merged_array(tmp_path, "tsd", [np.zeros((20, 30)), np.ones((20, 30))], {"p": 0.5})
    assert np.array_equal(flat, wide.reshape(-1))


@pytest.mark.parametrize("favour", ["large", "small"])
def test_della_keeps_the_mean_of_small_and_of_large_changes(favour: str, tmp_path: Path) -> None:
    size = 400_000
    change = np.linspace(0.5, 1.5, size)
    found = merged_array(
        tmp_path,
        "della",
        [np.zeros(size), change],
        {"p": 0.7, "epsilon": 0.4, "favour": favour, "vote": "none"},
    )
    for part in (slice(0, size // 10), slice(-size // 10, None)):
        kept = np.count_nonzero(found[part]) / (size // 10)
        assert kept == pytest.approx(
            0.3 + 0.18 * (1 if (part.start == 0) == (favour == "small") else -1), abs=0.01
        )
        assert found[part].mean() / change[part].mean() == pytest.approx(1.0, abs=0.03)


def test_della_without_epsilon_is_dare_with_its_vote(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    models = [np.zeros(5000), *(np.round(random.standard_normal((3, 5000)) * 2) / 2)]
    given = {"p": 0.3, "vote": "sum", "seed": 3}
    dare = merged_array(tmp_path, "dare", models, given)
    assert np.array_equal(dare, merged_array(tmp_path, "della", models, {**given, "epsilon": 0.0}))


def test_della_ranks_equal_changes_by_their_place(tmp_path: Path) -> None:
    change = np.ones(8)
    parameters = {"p": 0.5, "epsilon": 1.0, "vote": "none", "seed": 2}
    found = merged_array(tmp_path, "della", [np.zeros(8), change], parameters)
    chance = 0.5 - (np.arange(1, 9) - 4.5) / 8
    kept = uniform(2, 0, "w", (8,)) >= chance
    assert np.allclose(found, np.where(kept, 1 / (1 - chance), 0))


def stock(changes: Sequence[Sequence[float]], tmp_path: Path, scope: str = "tensor") -> Array:
    base = np.full(len(changes[0]), 5.0)
    models = [base, *(base + np.array(change) for change in changes)]
    return merged_array(tmp_path, "model_stock", models, {"scope": scope}) - base


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_model_stock_at_the_bounds_of_its_cosine(scope: str, tmp_path: Path) -> None:
    half = np.sqrt(3) / 2
    assert np.allclose(
        stock([[1, 0], [0.5, half]], tmp_path, scope), np.array([0.75, half / 2]) * 2 / 3
    )
    assert np.allclose(stock([[2, 0], [0, 3]], tmp_path, scope), 0)
    assert np.allclose(stock([[1, 0], [1, 0], [1, 0]], tmp_path, scope), [1, 0])
    # the paper's formula gives 3 base - 2 mean here, and divides by 0 for opposite changes
    assert np.allclose(stock([[1, 0], [-0.5, half]], tmp_path, scope), 0)
    assert np.allclose(stock([[1, 0], [-1, 0]], tmp_path, scope), 0)
    assert np.allclose(stock([[1, 0], [-0.5, half], [-0.5, -half]], tmp_path, scope), 0)
    assert np.allclose(stock([[0, 0], [0, 0]], tmp_path, scope), 0)


def test_model_stock_takes_all_pairs(tmp_path: Path) -> None:
    # neighbours are at right angles, but the first and the third are the same
    found = stock([[1, 0], [0, 1], [1, 0]], tmp_path)
    t = 3 * (1 / 3) / (1 + 2 * (1 / 3))
    assert np.allclose(found, t * np.array([2 / 3, 1 / 3]))


def test_model_stock_of_the_whole_model_has_one_ratio(tmp_path: Path) -> None:
    models = [
        {"u": torch.zeros(2), "v": torch.zeros(2)},
        {"u": torch.tensor([1.0, 0]), "v": torch.tensor([1.0, 0])},
        {"u": torch.tensor([1.0, 0]), "v": torch.tensor([0, 1.0])},
    ]
    found = merged(tmp_path, "model_stock", models, {"scope": "model"})
    t = 2 * 0.5 / 1.5
    assert np.allclose(found["u"], [t, 0])
    assert np.allclose(found["v"], [t / 2, t / 2])


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_geometric_median_of_points_in_a_line_is_the_middle_one(scope: str, tmp_path: Path) -> None:
    points = [np.array([0.0, 0]), np.array([10.0, 20]), np.array([1.0, 2])]
    found = merged_array(tmp_path, "geometric_median", points, {"scope": scope})
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("far", [0, 4])
def test_an_outlier_hardly_moves_the_geometric_median(far: int, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    points = [random.standard_normal(50) * 0.01 for _ in range(5)]
    calm = merged_array(tmp_path, "geometric_median", points[:far] + points[far + 1 :])
    points[far] = np.full(50, 1e6)
    for scope in ("tensor", "model"):
        parameters = {"scope": scope, "iterations": 5000}
        moved = merged_array(tmp_path, "geometric_median", points, parameters)
        assert np.linalg.norm(moved - calm) < 0.1
        # from the outlier distances would be lost in rounding
        exact = geometric_median(np.stack([*points[:far], *points[far + 1 :], np.full(50, 1e3)]))
        assert np.allclose(moved, exact, atol=1e-4)


def test_the_geometric_median_stops_where_it_is_told_to() -> None:
    points = np.array([[0.0, 0], [1, 0], [0, 1], [5, 7]])
    gram = points @ points.T

    def found(**given: Any) -> Array:
        options = {"iterations": 5000, "tolerance": 0.0, "floor": 1e-12, **given}
        return np.array(medians.geometric_weights(gram, **options)) @ points

    exact = found()
    one, two = found(iterations=1), found(iterations=2)
    # the first step cannot be compared with any before
    assert np.array_equal(found(tolerance=1.0), one)
    assert not np.array_equal(one, two)
    assert 0 < np.linalg.norm(found(tolerance=1e-3) - exact) < 0.1
    # all distances count as one: the mean
    assert np.allclose(found(floor=100.0), points.mean(axis=0))


def test_geometric_median_moves_with_its_points(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    points = [random.standard_normal(20) for _ in range(4)]
    found = merged_array(tmp_path, "geometric_median", points)
    moved = merged_array(tmp_path, "geometric_median", [point + 100.0 for point in points])
    assert np.allclose(moved, found + 100.0, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("method", PLAIN)
def test_equal_models_are_the_result(method: str, count: int, tmp_path: Path) -> None:
    found = catalogue.get(method)
    wanted = len(found.roles) or count + found.based
    model = random_models(1, SHAPES, torch.float16)[0]
    merge = merged(tmp_path, method, [model] * wanted, number_type=None)
    assert all(torch.equal(merge[key], model[key]) for key in SHAPES)


@pytest.mark.parametrize(("method", "parameters"), [
    ("ties", {"k": 1.0}), ("model_stock", {}), ("iso", {"z": 1.0}), ("tsd", {"p": 0.0}),
    ("ties_soup", {}), ("average", {}), ("geometric_median", {}),
    ("dgmla", {"p": 0.0, "epsilon": 0.0}), ("tgmd", {"p": 0.0}), ("dare", {"p": 0.0}),
    ("della", {"p": 0.0, "epsilon": 0.0}),
])  # fmt: skip
def test_one_model_alone_is_the_result(
    method: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    based = catalogue.get(method).based
    models = random_models(2, SHAPES, torch.float64)
    # what base + (model - base) does not give back
    models[0]["bias"] *= 1e9
    merge = merged(tmp_path, method, models if based else models[1:], parameters, number_type=None)
    assert all(torch.equal(merge[key], models[1][key]) for key in SHAPES)


IDENTITIES = [
    ("weighted_sum", {"weight": 0.0}, 0), ("weighted_sum", {"weight": 1.0}, 1),
    ("amplified_difference", {"amount": 0.0}, 0), ("amplified_difference", {"amount": 1.0}, 1),
    ("slerp", {"weight": 0.0}, 0), ("slerp", {"weight": 1.0}, 1),
    ("cosine_a", {"weight": 1.0}, 1), ("cosine_b", {"weight": 1.0}, 1),
    ("add_difference", {"weight": 0.0}, 0), ("train_difference", {"weight": 0.0}, 0),
    ("sum_twice", {"alpha": 0.4, "beta": 1.0}, 2), ("sum_twice", {"alpha": 1.0, "beta": 0.0}, 1),
    ("sum_twice", {"alpha": 0.0, "beta": 0.0}, 0), ("triple_sum", {"alpha": 0.0, "beta": 0.0}, 0),
    ("triple_sum", {"alpha": 1.0, "beta": 0.0}, 1), ("triple_sum", {"alpha": 0.0, "beta": 1.0}, 2),
    ("average", {"shares": {"m001": 0.0, "m003": 0.0}}, 1),
    ("ties", {"k": 0.0}, 0), ("ties", {"scale": 0.0}, 0), ("ties_soup", {"scale": 0.0}, 0),
    ("dare", {"p": 1.0}, 0), ("tsd", {"p": 1.0}, 0), ("della", {"scale": 0.0}, 0),
    ("della", {"p": 1.0, "epsilon": 0.0}, 0), ("tgmd", {"p": 1.0}, 0),
    ("dgmla", {"p": 1.0, "epsilon": 0.0}, 0), ("iso", {"scale": 0.0}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("method", "parameters", "which"), IDENTITIES)
def test_an_identity_is_copied_bit_for_bit(
    method: str, parameters: dict[str, Any], which: int, tmp_path: Path
) -> None:
    models = random_models(len(catalogue.get(method).roles) or 3, SHAPES, torch.float32)
    # a number that no arithmetic would give back
    for model in models:
        model["bias"][0] = -0.0
    merge = merged(tmp_path, method, models, parameters, number_type=None)
    for key in SHAPES:
        assert merge[key].numpy().tobytes() == models[which][key].numpy().tobytes()


def test_slerp_of_parallel_tensors_goes_along_the_line(tmp_path: Path) -> None:
    found = merged_array(tmp_path, "slerp", [np.ones(4), np.full(4, 3.0)], {"weight": 0.25})
    assert np.allclose(found, 1.5)
    opposite = merged_array(tmp_path, "slerp", [np.ones(4), np.full(4, -1.0)], {"weight": 0.25})
    assert np.allclose(opposite, 0.5)
    zero = merged_array(tmp_path, "slerp", [np.zeros(4), np.ones(4)], {"weight": 0.25})
    assert np.allclose(zero, 0.25)


def test_slerp_at_a_right_angle(tmp_path: Path) -> None:
    found = merged_array(tmp_path, "slerp", [np.array([2.0, 0]), np.array([0, 4.0])])
    assert np.allclose(found, 3 * np.sqrt(0.5))


def test_contradictory_votes_leave_the_base(tmp_path: Path) -> None:
    models = [np.full(3, 7.0), np.full(3, 8.0), np.full(3, 6.0)]
    for method, parameters in (("ties", {"k": 1.0}), ("ties_soup", {}), ("tgmd", {"p": 0.0})):
        assert merged_array(tmp_path, method, models, parameters).tolist() == [7.0, 7.0, 7.0]


def test_iso_makes_singular_values_equal(tmp_path: Path) -> None:
    models = random_models(2, {"w": (12, 30)}, torch.float64)
    found = merged(tmp_path, "iso", models, {"z": 0.0})["w"] - models[0]["w"]
    values = np.linalg.svd(found.numpy(), compute_uv=False)
    before = np.linalg.svd((models[1]["w"] - models[0]["w"]).numpy(), compute_uv=False)
    assert np.allclose(values, before.mean())


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 20)])
@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_iso_keeps_the_digits_of_small_singular_values(
    condition: float, shape: tuple[int, int], tmp_path: Path
) -> None:
    random = np.random.default_rng(4)
    left, right = (np.linalg.qr(random.standard_normal((n, 20)))[0] for n in shape)
    values = np.logspace(0, -np.log10(condition), 20)
    found = merged_array(tmp_path, "iso", [np.zeros(shape), (left * values) @ right.T], {"z": 0.0})
    expected = values.mean() * left @ right.T
    assert np.abs(found - expected).max() < 100 * 2.2e-16 * condition


def test_iso_leaves_directions_that_are_not_there(tmp_path: Path) -> None:
    column, row = np.arange(1.0, 6), np.arange(1.0, 9)
    found = merged_array(tmp_path, "iso", [np.zeros((5, 8)), np.outer(column, row)], {"z": 0.0})
    assert np.allclose(found, np.outer(column, row) / 5)
