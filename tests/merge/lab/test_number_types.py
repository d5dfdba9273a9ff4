from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab.number_types import (
    NUMBER_TYPES,
    narrow,
    output_type,
    overflows,
    widen,
)

HALVES = ("F16", "BF16", "F8_E4M3", "F8_E5M2")


def stored(values: np.ndarray, number_type: str) -> np.ndarray:
    raw = narrow(np.array(values, np.float64), number_type)
    return torch.from_numpy(raw.copy()).view(NUMBER_TYPES[number_type]).double().numpy()


def all_finite(number_type: str) -> np.ndarray:
    """Every number that the type has, sorted."""
    dtype = NUMBER_TYPES[number_type]
    width = dtype.itemsize
    bits = np.arange(1 << (8 * width), dtype=np.uint16 if width == 2 else np.uint8)
    values = torch.from_numpy(bits.view(np.uint8).copy()).view(dtype).double().numpy()
    return np.unique(values[np.isfinite(values)])


def nearest_even(value: float, numbers: np.ndarray) -> float:
    """The nearest of all numbers by exact arithmetic; of two the one with the even last bit."""
    place = int(np.searchsorted(numbers, value))
    near = numbers[max(place - 1, 0) : place + 1]
    gaps = [abs(Fraction(float(number)) - Fraction(value)) for number in near]
    if len(near) == 2 and gaps[0] == gaps[1]:
        # neighbours alternate between even and odd, and 0 is even
        zero = int(np.searchsorted(numbers, 0.0))
        return float(near[0] if (place - 1 - zero) % 2 == 0 else near[1])
    return float(near[int(np.argmin(gaps))])


@pytest.mark.parametrize("number_type", HALVES)
def test_every_number_rounds_once(number_type: str) -> None:
    numbers = all_finite(number_type)
    random = np.random.default_rng(0)
    middles = (numbers[1:] + numbers[:-1]) / 2
    some = random.choice(len(middles), min(len(middles), 3000), replace=False)
    exact = middles[some]
    # a hair on either side of the middle, far below what float32 can tell
    above = exact * (1 + 2.0**-50)
    below = exact * (1 - 2.0**-50)
    for values in (exact, above, below):
        expected = [nearest_even(float(value), numbers) for value in values]
        assert np.array_equal(stored(values, number_type), expected)


def test_the_way_through_float32_would_round_twice() -> None:
    value = 1 + 2.0**-11 + 2.0**-40
    assert torch.tensor([value], dtype=torch.float64).half().double().item() == 1.0
    assert stored(np.array([value]), "F16")[0] == 1 + 2.0**-10


@given(st.floats(-7e4, 7e4, allow_nan=False))
@settings(max_examples=300, deadline=None)
def test_fp16_agrees_with_numpy(value: float) -> None:
    with np.errstate(over="ignore"):
        expected = np.array([value]).astype(np.float16).astype(np.float64)
    assert np.array_equal(stored(np.array([value]), "F16"), expected)


@given(st.floats(-(2.0**-120), 2.0**-120))
@settings(max_examples=300, deadline=None)
def test_tiny_bf16_rounds_once(value: float) -> None:
    step = 2.0**-133
    if abs(value) < 2.0**-126:
        assert stored(np.array([value]), "BF16")[0] == np.rint(value / step) * step


@pytest.mark.parametrize("number_type", [*HALVES, "F32", "F64"])
def test_stored_numbers_come_back(number_type: str) -> None:
    numbers = all_finite(number_type) if number_type in HALVES else np.linspace(-3, 3, 1000)
    raw = narrow(numbers.copy(), number_type).copy()
    out = np.empty(len(numbers))
    widen(raw, number_type, out, torch.empty(len(numbers)))
    assert np.array_equal(narrow(out.copy(), number_type), raw)


@pytest.mark.parametrize("number_type", HALVES)
def test_what_is_too_large_is_noticed(number_type: str) -> None:
    assert overflows(narrow(np.array([1e39]), number_type).copy(), number_type)
    assert not overflows(narrow(np.array([-400.0]), number_type).copy(), number_type)


def test_an_unknown_dtype_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'fp16'"):
        output_type("fp15")
