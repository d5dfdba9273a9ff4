"""What is computed in float32, or counted instead of sorted, against float64 and sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib_automerge.merge.lab import counting
from lib_automerge.merge.lab.changes import EXACT, GRID, Changes
from lib_automerge.merge.lab.stack import Reading, Stack
from lib_automerge.merge.lab.votes import Votes
from tests.lab_merges import Array, merged, source, write


def numbers(size: int, spread: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * spread).to(dtype)


def stack_of(
    folder: Path, base: torch.Tensor, models: list[torch.Tensor], memory: int = 1 << 26
) -> Stack:
    paths = [write(folder / f"{n}", {"w": tensor}) for n, tensor in enumerate([base, *models])]
    sources = [source(path) for path in paths]
    return Stack("w", sources, based=True, memory=memory, reading=Reading(chunk=3000))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("spread", [1e-7, 1e-3, 0.3, 30.0])
def test_changes_are_exact_in_either_type(
    dtype: torch.dtype, spread: float, tmp_path: Path
) -> None:
    base, model = (numbers(3000, spread, dtype, seed) for seed in (1, 2))
    changes = Changes(stack_of(tmp_path, base, [model]))(0, 0, 3000)
    exact = (model.double() - base.double()).numpy()
    assert np.array_equal(changes.astype(np.float64), exact)
    assert changes.dtype == (np.float32 if np.abs(exact).max() < EXACT else np.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_changes_of_finer_numbers_are_in_float64(dtype: torch.dtype, tmp_path: Path) -> None:
    base, model = (numbers(3000, 1e-3, dtype, seed) for seed in (1, 2))
    changes = Changes(stack_of(tmp_path, base, [model]))(0, 0, 3000)
    assert changes.dtype == np.float64
    assert np.array_equal(changes, (model.double() - base.double()).numpy())


def test_votes_add_up_exactly_whatever_comes() -> None:
    votes = Votes(2, 300)
    # as singles as long as their sum is exact, then as doubles; both kinds in any order
    added = np.array([0.75 + GRID, -GRID], np.float32)
    for _ in range(3):
        votes.add(added)
    votes.add(np.array([GRID / 3, 1e9]))
    votes.add(added)
    expected = 4 * added.astype(np.float64)
    expected += [GRID / 3, 1e9]
    assert np.array_equal(votes.merged("none", 2) * 300, expected / 300 * 300)
    votes.clear()
    votes.add(added)
    assert np.array_equal(votes.merged("sum", 2), added)


@pytest.mark.parametrize("method", ["ties", "ties_soup", "dare", "tsd"])
def test_one_large_change_alters_no_other_bit(method: str, tmp_path: Path) -> None:
    # one element that all models change far puts a whole chunk into float64
    models = [{"w": numbers(5000, 0.05, torch.float16, seed)} for seed in range(4)]
    given = {"k": 0.5} if method == "ties" else {"p": 0.2} if method in ("dare", "tsd") else {}
    for number, model in enumerate(models):
        model["w"][4999] = 40.0 * (number > 0)
    alone = merged(tmp_path, method, models, given, chunk=4999)["w"]
    together = merged(tmp_path, method, models, given, chunk=5000)["w"]
    assert torch.equal(alone, together)


def ranks_by_sorting(changes: Array) -> Array:
    order = np.lexsort((np.arange(changes.size), np.abs(changes)))
    ranks = np.empty(changes.size, int)
    ranks[order] = np.arange(1, changes.size + 1)
    return ranks


@pytest.mark.parametrize(
    ("kind", "spread"),
    [("normal", 1e-3), ("wide", 8e-3), ("few large", 1e-3), ("equal", 0.0), ("tiny", 1e-7)],
)
def test_counted_ranks_are_those_of_sorting(
    kind: str, spread: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_LEAST", 0)
    size = 40_000
    base, model = (numbers(size, spread, torch.float16, seed) for seed in (1, 2))
    if kind == "few large":
        model[::50] += 0.5
        model[7::5000] += 40.0
    found = counting.counted_ranks(stack_of(tmp_path, base, [base, model]), [1])
    assert found is not None
    expected = ranks_by_sorting((model.double() - base.double()).numpy())
    for start in range(0, size, 7000):
        stop = min(start + 7000, size)
        assert np.array_equal(found[0](start, stop), expected[start:stop])


@pytest.mark.parametrize("why", ["fine numbers", "many large", "little memory", "small"])
def test_ranks_that_are_not_counted(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why != "small":
        monkeypatch.setattr(counting, "_LEAST", 0)
    dtype = torch.bfloat16 if why == "fine numbers" else torch.float16
    spread = 0.3 if why == "many large" else 1e-3
    base, model = (numbers(20_000, spread, dtype, seed) for seed in (1, 2))
    memory = 1 << (20 if why == "little memory" else 26)
    assert counting.counted_ranks(stack_of(tmp_path, base, [model], memory), [0]) is None


@pytest.mark.parametrize("method", ["della", "dgmla"])
def test_counting_or_sorting_gives_the_same_bytes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [{"w": numbers(90_000, 0.003, torch.float16, seed)} for seed in range(4)]
    given = {"p": 0.5, "epsilon": 0.6, "seed": 3}
    asked: list[bool] = []
    counted = counting.counted_ranks

    def watched(*args: object) -> object:
        asked.append(counted(*args) is not None)  # type: ignore[arg-type]
        return counted(*args)  # type: ignore[arg-type]

    for module in ("dropping", "robust"):
        monkeypatch.setattr(f"lib_automerge.merge.lab.{module}.counted_ranks", watched)
    one = merged(tmp_path, method, models, given)["w"]
    assert asked
    assert all(asked)
    monkeypatch.setattr(counting, "_LEAST", 1 << 30)
    two = merged(tmp_path, method, models, given, chunk=4096)["w"]
    assert not asked[-1]
    assert torch.equal(one, two)
