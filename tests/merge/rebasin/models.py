"""Models in memory, for tests of Re-Basin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


class InMemory:
    """A dictionary as a model."""

    def __init__(self, state: Mapping[str, Tensor], name: str = "model") -> None:
        self.state = state
        self.name = name

    def keys(self) -> Sequence[str]:
        return tuple(sorted(self.state))

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.state[key].shape)

    def take(self, key: str, rows: Tensor) -> Tensor:
        tensor = self.state[key]
        return (tensor if tensor.dim() else tensor.view(1)).index_select(0, rows)
