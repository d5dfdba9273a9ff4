from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.rebasin.assignment import Costs, agreement, solve, worth
from lib_automerge.merge.rebasin.matching import Progress, State, distance, match
from lib_automerge.merge.rebasin.orders import Layout, Order, is_valid, shuffled, unchanged
from lib_automerge.merge.rebasin.symmetries import Symmetry, Touch, symmetries
from lib_automerge.merge.rebasin.tensors import Permuted, Tensors, shared_symmetries, whole
from tests.merge.rebasin.models import InMemory
from tests.tiny_pipelines import tiny_pipeline_state, tiny_shapes

FIRST_LAYERS = ("input_blocks.1.", "input_blocks.2.", "time_embed", "output_blocks.11.")


def _moved(model: Tensors, seed: int, architecture: str = "sd1") -> Permuted:
    found = shared_symmetries(architecture, model, model)
    return Permuted(model, Layout(found), shuffled(found, seed))


def _touched(found: tuple[Symmetry, ...]) -> list[str]:
    return sorted({key for symmetry in found for key in symmetry.keys})


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    """A few layers of a narrow SD1 UNet: every kind of symmetry, and quickly matched."""
    state = tiny_pipeline_state("sd1")
    return {key: value for key, value in state.items() if any(n in key for n in FIRST_LAYERS)}


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
def test_a_shuffled_checkpoint_is_found_back_exactly(architecture: str) -> None:
    """Both layouts of text encoders: SD1's is split, SD2's is joint, SDXL has one of each."""
    shapes = tiny_shapes(architecture)
    kept = {key for key in shapes if "first_stage" not in key and "embedding" not in key}
    state = tiny_pipeline_state(architecture)
    a = InMemory({key: state[key] for key in kept})
    b = _moved(a, 1, architecture)
    found = match(a, b, shared_symmetries(architecture, a, b))
    assert found.converged
    assert found.complete
    assert found.moved == len(found.symmetries) == {"sd1": 92, "sd2": 92, "sdxl": 249}[architecture]
    back = found.permuted(b)
    assert not [key for key in kept if not torch.equal(whole(back, key), state[key])]
    keys = _touched(found.symmetries)
    before = distance(a, b, keys)
    assert found.gain == pytest.approx(before**2 / 2, rel=1e-4)


def test_an_equal_model_stays_as_it_is(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    found = match(a, a, shared_symmetries("sd1", a, a))
    assert found.converged
    assert found.moved == 0
    assert found.gain == 0


def test_an_order_that_is_only_as_good_is_not_taken(
    small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels that are alike could change places for ever, by the rounding of sums."""
    name = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.inner"
    state = {key: tensor.clone() for key, tensor in small.items()}
    found = symmetries("sd1", {key: tuple(tensor.shape) for key, tensor in state.items()})
    (inner,) = (symmetry for symmetry in found if symmetry.name == name)
    for touch in inner.parts[0]:
        channels = state[touch.key].narrow(touch.axis, touch.start, inner.size)
        channels.select(touch.axis, 1).copy_(channels.select(touch.axis, 0))

    def swapped(symmetry: Symmetry, costs: list[Costs]) -> tuple[Order, ...]:
        orders = solve(symmetry, costs)
        if symmetry == inner:
            orders[0][[0, 1]] = orders[0][[1, 0]]
        return orders

    monkeypatch.setattr("lib_automerge.merge.rebasin.matching.solve", swapped)
    a = InMemory(state)
    assert match(a, a, found).moved == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_never_grows(small: dict[str, Tensor], seed: int) -> None:
    """Not for unrelated models, and after no step."""
    generator = torch.Generator().manual_seed(seed)
    a = InMemory(small)
    b = InMemory({k: t + 0.3 * torch.randn(t.shape, generator=generator) for k, t in small.items()})
    for other in (b, _moved(b, seed)):
        found = shared_symmetries("sd1", a, other)
        keys, steps = _touched(found), list[State]()
        matched = match(a, other, found, seed=seed, keep=steps.append)
        layout = Layout(found)
        distances = [distance(a, other, keys)]
        distances += [distance(a, Permuted(other, layout, s.orders), keys) for s in steps]
        assert all(two <= one for one, two in itertools.pairwise(distances))
        assert matched.gain == pytest.approx((distances[0] ** 2 - distances[-1] ** 2) / 2, abs=1e-3)


def test_related_models_are_brought_together_again(small: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = InMemory(small)
    b = InMemory(
        {
            k: t + 0.3 * t.std(correction=0) * torch.randn(t.shape, generator=generator)
            for k, t in small.items()
        }
    )
    found = shared_symmetries("sd1", a, b)
    keys = _touched(found)
    moved = _moved(b, 7)
    matched = match(a, moved, found)
    assert distance(a, moved, keys) > 3 * distance(a, b, keys)
    assert distance(a, matched.permuted(moved), keys) <= distance(a, b, keys) * (1 + 1e-6)


def test_unrelated_models_come_nearer(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    b = InMemory({k: t for k, t in tiny_pipeline_state("sd1", seed=9).items() if k in small})
    matched = match(a, b, shared_symmetries("sd1", a, b))
    keys = _touched(matched.symmetries)
    assert distance(a, matched.permuted(b), keys) < 0.95 * distance(a, b, keys)
    assert all(is_valid(symmetry, matched.orders[symmetry.name]) for symmetry in matched.symmetries)


def test_threads_and_interruptions_change_nothing(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    b = InMemory({k: t for k, t in tiny_pipeline_state("sd1", seed=9).items() if k in small})
    found = shared_symmetries("sd1", a, b)
    states: list[State] = []
    straight = match(a, b, found, seed=4, keep=states.append, threads=1)
    assert len(states) > len(found) + 3
    for begin in (states[3], states[len(found) - 1], states[len(found) + 2], states[-2]):
        again = match(a, b, found, seed=4, begin=begin, threads=3)
        _assert_same(again.orders, straight.orders)
        assert again.gain == straight.gain
    looked: list[Progress] = []
    stopped = match(a, b, found, report=looked.append, cancelled=lambda: len(looked) >= 5)
    assert not stopped.complete
    assert len(looked) == 5


def _assert_same(one: object, two: object) -> None:
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    assert one.keys() == two.keys()
    for name, orders in one.items():
        assert all(map(np.array_equal, orders, two[name]))


def test_progress_tells_where_it_is(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    b = _moved(a, 2)
    found = shared_symmetries("sd1", a, b)
    steps: list[Progress] = []
    match(a, b, found, sweeps=4, report=steps.append)
    assert all(step.total == len(found) and step.sweeps == 4 for step in steps)
    first = [step for step in steps if step.sweep == 1]
    assert [step.done for step in first] == list(range(1, len(found) + 1))
    assert {step.name for step in first} == {symmetry.name for symmetry in found}
    assert all(step.moved for step in first)
    assert any(step.sweep > 1 for step in steps)


def test_the_first_sweep_goes_from_the_fixed_ends_inwards(small: dict[str, Tensor]) -> None:
    """What lies between two unknown orders comes after one of them; nothing is placed by noise."""
    a = InMemory(small)
    steps: list[Progress] = []
    match(a, a, shared_symmetries("sd1", a, a), report=steps.append)
    order = [step.name for step in steps]
    at = "model.diffusion_model.input_blocks.1.1."
    assert order.index(f"{at}stream") < order.index(f"{at}transformer_blocks.0.attn1.heads")
    assert order.index(f"{at}stream") < order.index(f"{at}transformer_blocks.0.ff.inner")
    embedding = order.index("model.diffusion_model.embedding")
    assert order.index("model.diffusion_model.input_blocks.1.0.inner") < embedding
    # a model in order already is looked at once
    assert len(order) == len(set(order))


def test_sweeps_are_a_limit(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    b = InMemory({k: t for k, t in tiny_pipeline_state("sd1", seed=9).items() if k in small})
    found = shared_symmetries("sd1", a, b)
    steps: list[Progress] = []
    once = match(a, b, found, sweeps=1, report=steps.append)
    assert once.complete
    assert not once.converged
    assert max(step.sweep for step in steps) == 1
    assert match(a, b, found, sweeps=30).converged


def test_bad_arguments_and_broken_models_are_refused(small: dict[str, Tensor]) -> None:
    a = InMemory(small)
    found = shared_symmetries("sd1", a, a)
    with pytest.raises(ConfigError, match="number of sweeps is 0"):
        match(a, a, found, sweeps=0)
    with pytest.raises(ConfigError, match="seed is -1"):
        match(a, a, found, seed=-1)
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    for bad in (math.nan, math.inf):
        tensor = small[key].clone()
        tensor[1, 2, 0, 0] = bad
        broken = InMemory({**small, key: tensor}, "broken")
        with pytest.raises(ModelError, match=r"broken: '.*in_layers\.2\.weight' holds NaN"):
            match(a, broken, found)


def test_layers_that_a_lacks_stay_in_place(small: dict[str, Tensor]) -> None:
    b = InMemory(small)
    layer = "model.diffusion_model.input_blocks.1.0."
    a = InMemory({key: value for key, value in small.items() if not key.startswith(layer)})
    names = {symmetry.name for symmetry in shared_symmetries("sd1", a, b)}
    everything = {
        symmetry.name for symmetry in symmetries("sd1", {k: t.shape for k, t in small.items()})
    }
    assert everything - names == {f"{layer}inner", "model.diffusion_model.embedding"}


def test_costs_are_the_inner_products_of_channels() -> None:
    """Against a direct sum in float64, both axes, ranges, and tensors larger than a piece."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"rows": (6, 50, 9, 9), "columns": (40, 6, 3, 3), "bias": (6,), "halves": (12, 4)}
    a, b = ({k: torch.randn(s, generator=rng).double() for k, s in shapes.items()} for _ in "ab")
    touches = (
        Touch("rows", 0, 0),
        Touch("columns", 1, 0),
        Touch("bias", 0, 0),
        Touch("halves", 0, 0),
        Touch("halves", 0, 6),
    )
    symmetry = Symmetry("s", 1, 6, (touches,))

    def channels(state: dict[str, Tensor]) -> Tensor:
        pieces = [state["rows"], state["columns"].transpose(0, 1), state["bias"]]
        pieces += [state["halves"][:6], state["halves"][6:]]
        return torch.cat([piece.reshape(6, -1) for piece in pieces], 1)

    expected = -(channels(a) @ channels(b).T).numpy()
    with ThreadPoolExecutor(2) as pool:
        found = agreement(InMemory(a), InMemory(b), symmetry, pool)
    np.testing.assert_allclose(found.costs[0], expected, atol=1e-4)
    assert found.scale >= abs(expected).max()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_two_levels_are_solved_exactly(parts: int) -> None:
    """Against all possible orders."""
    rng = np.random.default_rng(parts)
    symmetry = Symmetry("s", 3, 2, ((),) * parts)
    for _ in range(20):
        costs: list[Costs] = [rng.standard_normal((6, 6)) for _ in range(parts)]
        best = -math.inf
        for groups in itertools.permutations(range(3)):
            total = 0.0
            for cost in costs:
                for one, two in enumerate(groups):
                    block = -cost[2 * one : 2 * one + 2, 2 * two : 2 * two + 2]
                    total += max(np.trace(block), np.trace(block[:, ::-1]))
            best = max(best, total)
        orders = solve(symmetry, costs)
        assert is_valid(symmetry, orders)
        assert worth(costs, orders) == pytest.approx(best)
        assert worth(costs, unchanged(symmetry)) <= best
