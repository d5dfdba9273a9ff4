"""The faster matrix product: the same numbers, and torch's own wherever it may not be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from lib_automerge.reward import linear as module
from lib_automerge.reward.linear import Linear, linear

ONEDNN = module._by_onednn()


@pytest.fixture(autouse=True)
def looked_up_again() -> Iterator[None]:
    module._by_onednn.cache_clear()
    yield
    module._by_onednn.cache_clear()


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What computed, call by call."""
    used: list[str] = []
    by_torch = functional.linear

    def fast(*args: object) -> torch.Tensor:
        used.append("onednn")
        return torch.zeros(0)

    def slow(*args: torch.Tensor) -> torch.Tensor:
        used.append("torch")
        return by_torch(*args)

    monkeypatch.setattr(module, "_by_onednn", lambda: fast)
    monkeypatch.setattr(functional, "linear", slow)
    return used


def operands(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((3, 5, 64), (32, 64), (32,))
    x, weight, bias = (torch.randn(shape, generator=random) for shape in shapes)
    return x, weight, bias


@pytest.mark.skipif(ONEDNN is None, reason="this torch has no oneDNN product")
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("view", ["as it is", "every other token", "one token", "transposed"])
def test_both_products_agree(with_bias: bool, view: str) -> None:
    x, weight, bias = operands()
    if view == "every other token":
        x = x[:, ::2]
    elif view == "one token":
        x = x[:, 0]
    elif view == "transposed":
        weight = weight.t().contiguous().t()
    with torch.inference_mode():
        found = linear(x, weight, bias if with_bias else None)
        expected = functional.linear(x, weight, bias if with_bias else None)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_fp32_on_the_cpu_uses_the_faster_one(products: list[str]) -> None:
    with torch.inference_mode():
        linear(*operands())
    assert products == ["onednn"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_use_torchs_own(products: list[str], dtype: torch.dtype) -> None:
    x, weight, bias = (tensor.to(dtype) for tensor in operands())
    with torch.inference_mode():
        assert linear(x, weight, bias).dtype is dtype
    assert products == ["torch"]


def test_other_devices_use_torchs_own(products: list[str]) -> None:
    x, weight, bias = (tensor.to("meta") for tensor in operands())
    with torch.inference_mode():
        assert linear(x, weight, bias).device.type == "meta"
    assert products == ["torch"]


def test_training_uses_torchs_own(products: list[str]) -> None:
    layer = Linear(64, 32)
    layer(operands()[0]).sum().backward()
    assert products == ["torch"]
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    "operator",
    [
        None,
        lambda *args: (_ for _ in ()).throw(RuntimeError("built without oneDNN")),
        lambda x, weight, *args: torch.zeros(*x.shape[:-1], len(weight)),
    ],
    ids=["missing", "failing", "wrong"],
)
def test_an_operator_that_is_missing_or_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, operator: object
) -> None:
    class Ops:
        class mkldnn:  # noqa: N801 - torch's name
            pass

    if operator is not None:
        setattr(Ops.mkldnn, "_linear_pointwise", operator)  # noqa: B010
    x, weight, bias = operands()
    expected = functional.linear(x, weight, bias)
    with monkeypatch.context() as patched, torch.inference_mode():
        patched.setattr(torch, "ops", Ops)
        assert torch.equal(linear(x, weight, bias), expected)
