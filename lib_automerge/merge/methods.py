"""Merge methods: pure tensor arithmetic and the registry of it.

A method combines one tensor of each model by one weight. The arithmetic is in float32 or better;
who calls it rounds once to the stored dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_automerge.errors import ConfigError, unknown_name

Combine = Callable[[Sequence[Tensor], float, Tensor], None]


@dataclass(frozen=True)
class Method:
    """A way to combine models.

    `combine(tensors, weight, out)` writes the merge of `tensors` (in the order of `roles`, all of
    one shape, dtype and device) into `out`. `identity(weight)` names the role whose tensor is the
    result bit for bit at this weight, or None. `halves` tells that `combine` rounds float16 and
    bfloat16 exactly once, so that no upcast is needed.
    """

    name: str
    label: str
    roles: tuple[str, ...]
    combine: Combine
    identity: Callable[[float], str | None]
    halves: bool = False


def _weighted_sum(tensors: Sequence[Tensor], weight: float, out: Tensor) -> None:
    """`A (1 - w) + B w`: the weighted sum of the field's merge tools, as torch computes lerp.

    torch evaluates lerp of 16-bit tensors in float32 and rounds once, on CPU and GPU alike.
    """
    torch.lerp(tensors[0], tensors[1], weight, out=out)


def _add_difference(tensors: Sequence[Tensor], weight: float, out: Tensor) -> None:
    """`A + w (B - C)` (AUTOMATIC1111's checkpoint merger)."""
    a, b, c = tensors
    torch.sub(b, c, out=out)
    out.mul_(weight).add_(a)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="weighted_sum",
            label="Weighted sum",
            roles=("a", "b"),
            combine=_weighted_sum,
            identity=lambda weight: {0.0: "a", 1.0: "b"}.get(weight),
            halves=True,
        ),
        Method(
            name="add_difference",
            label="Add difference",
            roles=("a", "b", "c"),
            combine=_add_difference,
            identity=lambda weight: "a" if weight == 0.0 else None,
        ),
    )
}


def check_parameters(name: str, parameters: Mapping[str, object]) -> None:
    """Raise ConfigError for a parameter that the method does not have; none has any so far."""
    method = get(name)
    if parameters:
        raise ConfigError(
            f"the method {method.name} takes no parameters: {sorted(parameters)[0]!r}. Remove it."
        )


def get(name: str) -> Method:
    """The method of this name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in METHODS:
        raise ConfigError(unknown_name("merge method", name, METHODS))
    return METHODS[name]
