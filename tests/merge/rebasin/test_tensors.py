from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin import formulas
from lib_automerge.merge.rebasin.orders import Layout, shuffled
from lib_automerge.merge.rebasin.symmetries import Symmetry, Touch
from lib_automerge.merge.rebasin.tensors import (
    Combined,
    Permuted,
    Stored,
    elements,
    row_ranges,
    rows,
    shared_symmetries,
    whole,
)
from tests.checkpoints import write_tiny
from tests.merge.rebasin.models import InMemory

FF = "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight"


@pytest.fixture
def parents() -> tuple[InMemory, InMemory, InMemory]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (6, 5, 3), "v": (4,), "n": ()}

    def model(name: str) -> InMemory:
        state = {k: torch.randn(s, generator=generator).half() for k, s in shapes.items()}
        return InMemory({**state, "ids": torch.arange(3)}, name)

    return model("a"), model("b"), model("p")


def test_rows_of_a_permuted_model_are_those_of_the_whole(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.safetensors", "sdxl", dtype=torch.bfloat16)
    with open_checkpoint(path) as checkpoint:
        model = Stored(checkpoint)
        found = shared_symmetries("sdxl", model, model)
        orders = shuffled(found, 0)
        permuted = Permuted(model, Layout(found), orders)
        for key in permuted.keys():  # noqa: SIM118
            everything = whole(permuted, key)
            stored = checkpoint.tensor(key)
            assert everything.shape == stored.shape
            assert everything.dtype == stored.dtype
            count = stored.shape[0] if stored.dim() else 1
            middle = (count // 3, max(1, 2 * count // 3))
            piece = rows(permuted, key, *middle)
            assert torch.equal(piece, everything.view(count, *stored.shape[1:])[slice(*middle)])
            size = stored.numel()
            for start, stop in ((0, size), (size // 3, size // 2), (size - 1, size), (2, 2)):
                flat = elements(permuted, key, start, stop)
                assert torch.equal(flat, everything.reshape(-1)[start:stop])


def test_orders_say_which_channel_comes_to_a_place(tmp_path: Path) -> None:
    """Both halves of a GEGLU projection alike, with the stream's order on the columns."""
    path = write_tiny(tmp_path / "model.safetensors", "sd1")
    with open_checkpoint(path) as checkpoint:
        model = Stored(checkpoint)
        found = shared_symmetries("sd1", model, model)
        orders = shuffled(found, 0)
        moved = whole(Permuted(model, Layout(found), orders), FF)
        stored = checkpoint.tensor(FF)
    at = FF.removesuffix("net.0.proj.weight")
    (inner,) = (torch.from_numpy(order).long() for order in orders[f"{at}inner"])
    stream = torch.from_numpy(orders["model.diffusion_model.middle_block.1.stream"][0]).long()
    half = stored.shape[0] // 2
    assert torch.equal(moved[:half], stored[:half][inner][:, stream])
    assert torch.equal(moved[half:], stored[half:][inner][:, stream])


def test_without_orders_nothing_moves() -> None:
    state = {"w": torch.arange(12.0).view(3, 4)}
    symmetry = Symmetry("s", 1, 3, ((Touch("w", 0, 0),),))
    permuted = Permuted(InMemory(state), Layout([symmetry]), {})
    assert torch.equal(whole(permuted, "w"), state["w"])


def test_every_row_is_in_one_range() -> None:
    for shape in ((), (1,), (3, 5), (5000, 700), (2, 3, 1000, 1000)):
        covered = [row for start, stop in row_ranges(shape) for row in range(start, stop)]
        assert covered == list(range(shape[0] if shape else 1))
    assert len(list(row_ranges((5000, 700)))) > 1


def test_formulas_are_those_of_their_papers(
    parents: tuple[InMemory, InMemory, InMemory],
) -> None:
    """Against the nested formulas on whole tensors, in float64."""
    a, b, p = parents

    def of(model: InMemory, key: str) -> Tensor:
        return model.state[key].double()

    for key in ("w", "v", "n"):
        x, y, z = of(a, key), of(b, key), of(p, key)
        exact = {"rtol": 0, "atol": 1e-14}
        torch.testing.assert_close(whole(formulas.amplified(a, b), key), 2 * x - y, **exact)
        for alpha in (0.0, 0.3, 1.0, 1.4):
            mixed = alpha * x + (1 - alpha) * z
            torch.testing.assert_close(whole(formulas.rebasin(a, p, alpha), key), mixed, **exact)
            basin = alpha * (alpha * x + (1 - alpha) * y) + (1 - alpha) * mixed
            found = whole(formulas.basin_sum(a, b, p, alpha), key)
            torch.testing.assert_close(found, basin, **exact)
        # model a, base b, the permuted amplified model p
        back = (x + (y + z) / 2) / 2
        torch.testing.assert_close(whole(formulas.half_way_back(a, b, p), key), back, **exact)


def test_the_ends_of_formulas_are_models_bit_for_bit(
    parents: tuple[InMemory, InMemory, InMemory],
) -> None:
    a, b, p = parents
    a.state["w"][0, 0, 0] = -0.0  # type: ignore[index]
    p.state["w"][1, 1, 1] = torch.inf  # type: ignore[index]
    for merged, model in (
        (formulas.rebasin(a, p, 1.0), a),
        (formulas.rebasin(a, p, 0.0), p),
        (formulas.basin_sum(a, b, p, 1.0), a),
        (formulas.basin_sum(a, b, p, 0.0), p),
    ):
        for key in ("w", "v", "n"):
            found = whole(merged, key).to(model.state[key].dtype)
            assert torch.equal(found.view(torch.int16), model.state[key].view(torch.int16))


def test_half_way_back_is_the_model_if_no_channel_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    model, base = (
        InMemory({"w": torch.randn(50, 20, generator=generator).half()}) for _ in range(2)
    )
    amplified = formulas.amplified(model, base)
    found = whole(formulas.half_way_back(model, base, amplified), "w")
    assert torch.equal(found.half(), model.state["w"])


def test_sums_hold_what_all_models_have(parents: tuple[InMemory, InMemory, InMemory]) -> None:
    a, b, _ = parents
    lesser = InMemory({"w": b.state["w"], "ids": torch.arange(3) + 7})
    total = Combined("sum", (0.5, a), (0.5, lesser))
    assert total.keys() == ("ids", "w")
    assert total.shape("w") == (6, 5, 3)
    assert torch.equal(whole(total, "ids"), torch.arange(3))  # not numbers to add
    assert torch.equal(
        rows(total, "w", 2, 4), 0.5 * a.state["w"][2:4].double() + 0.5 * b.state["w"][2:4].double()
    )
