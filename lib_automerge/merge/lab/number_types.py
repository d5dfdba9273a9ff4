"""Stored numbers to float64 and back, with one rounding.

PyTorch converts float64 to 16 and 8 bits through float32, which rounds twice: 1 + 2^-11 + 2^-40
becomes a tie in float32 and then falls to 1, though it lies above the middle. `narrow` rounds to
odd in between, after which the second rounding is right (Boldo and Melquiond, "Emulation of FMA
and correctly rounded sums", 2008).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.merge.readers import DTYPES

Floats = NDArray[np.float64]
Raw = NDArray[np.uint8]
Singles = NDArray[np.float32]

NUMBER_TYPES = {**DTYPES, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""safetensors number type -> PyTorch's, for everything that the lab reads."""

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Number types that can be merged."""

OUTPUTS = {
    "fp16": "F16",
    "bf16": "BF16",
    "fp32": "F32",
    "fp64": "F64",
    "fp8_e4m3": "F8_E4M3",
    "fp8_e5m2": "F8_E5M2",
}
"""What a user may ask for -> safetensors number type."""

_BELOW_FLOAT32 = np.int64((1 << 29) - 1)
_TINY = 2.0**-126
_BF16_STEP = 2.0**-133
_E4M3_END = 464.0
"""What is above rounds to more than 448, the largest number of F8_E4M3."""


def size_of(number_type: str) -> int:
    """Bytes of one element."""
    return NUMBER_TYPES[number_type].itemsize


def output_type(name: str) -> str:
    """The safetensors number type that a user's name stands for.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in OUTPUTS:
        raise ConfigError(unknown_name("dtype", name, OUTPUTS))
    return OUTPUTS[name]


def widen(raw: Raw, number_type: str, out: Floats, scratch: Tensor) -> None:
    """Convert stored numbers exactly into `out`.

    Args:
        raw: the stored bytes, aligned to the number type.
        number_type: one of `FLOATS`.
        out: float64, one element for each number.
        scratch: float32, at least as long; 16 bits go through it, which is faster.
    """
    stored = torch.from_numpy(raw).view(NUMBER_TYPES[number_type])
    target = torch.from_numpy(out)
    if number_type in ("F64", "F32"):
        target.copy_(stored)
    else:
        target.copy_(scratch[: out.size].copy_(stored))


def single(raw: Raw, number_type: str, out: Singles) -> None:
    """Convert stored numbers of at most 32 bits exactly into float32; see `widen`."""
    torch.from_numpy(out).copy_(torch.from_numpy(raw).view(NUMBER_TYPES[number_type]))


def narrow(values: Floats, number_type: str) -> Raw:
    """Return numbers as they are stored, each rounded once, to the nearest, ties to even.

    Args:
        values: finite float64; what is too large becomes infinite (NaN in F8_E4M3). May be
            overwritten.
        number_type: one of `FLOATS`.

    Returns:
        The bytes; a view of `values` for F64.
    """
    if number_type == "F64":
        return values.view(np.uint8)
    if number_type == "F8_E4M3":
        # versions of PyTorch differ in whether they cut such numbers to the largest one
        values[np.abs(values) > _E4M3_END] = np.nan
    if number_type != "F32":
        _round_to_odd(values, number_type)
    single = torch.from_numpy(values).to(torch.float32)
    stored = single if number_type == "F32" else single.to(NUMBER_TYPES[number_type])
    raw: Raw = stored.view(torch.uint8).numpy()
    return raw


def _round_to_odd(values: Floats, number_type: str) -> None:
    """Cut to the 24 bits of float32; the last one tells if anything was cut off."""
    if number_type == "BF16":
        # float32 has no 24 bits here, but the grid of bfloat16 is even: round onto it at once
        small = np.abs(values) < _TINY
        if small.any():
            values[small] = np.rint(values[small] / _BF16_STEP) * _BF16_STEP
    bits = values.view(np.int64)
    sticky = bits & _BELOW_FLOAT32
    sticky += _BELOW_FLOAT32
    bits |= sticky
    bits &= ~_BELOW_FLOAT32


def overflows(raw: Raw, number_type: str) -> bool:
    """Whether any stored number is NaN or infinite."""
    stored = torch.from_numpy(raw).view(NUMBER_TYPES[number_type])
    if number_type.startswith("F8"):
        stored = stored.to(torch.float32)
    low, high = torch.aminmax(stored)
    return not bool(torch.isfinite(low) and torch.isfinite(high))


def zero_bad(raw: Raw, number_type: str) -> None:
    """Set NaN and infinite numbers to 0, in place."""
    stored = torch.from_numpy(raw).view(NUMBER_TYPES[number_type])
    if number_type.startswith("F8"):
        stored = stored.to(torch.float32)
    raw.reshape(-1, size_of(number_type))[~torch.isfinite(stored).numpy()] = 0
