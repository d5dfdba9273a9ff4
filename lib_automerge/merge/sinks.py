"""Where merged tensors go: one merge path for live parameters, a dictionary and a file."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Sink(Protocol):
    """Takes merged tensors by canonical key."""

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        """A contiguous CPU or GPU tensor of the key's shape and of this dtype to write into, or
        None: then the merged tensor is handed to `put`."""
        ...

    def put(self, key: str, tensor: Tensor) -> None:
        """Take the merged tensor. It may be scratch memory: it must be copied, not kept."""
        ...


class DictSink:
    """Keeps merged tensors in `tensors`, by key."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:  # noqa: ARG002
        """Nothing exists yet to write into."""
        return None

    def put(self, key: str, tensor: Tensor) -> None:
        """Keep a copy."""
        self.tensors[key] = tensor.clone()
