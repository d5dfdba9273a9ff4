"""The merge engine: streams the keys of checkpoints through a method into a sink.

Hides dtypes, identities, scratch memory and which keys take part. One code path serves live
parameters, files and dictionaries, and what it computes for a key depends on nothing but the
recipe, so that what was scored is what is saved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.detection import check_mergeable
from lib_automerge.errors import ConfigError, ModelError, unknown_name
from lib_automerge.merge import methods
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import Sink

CHUNK = 1 << 18
"""Elements that are widened at once: three float32 pieces of 1 MB stay in the CPU's cache."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Merger:
    """Merges a fixed set of models by a fixed method, for any weights.

    Args:
        models: open checkpoints by role; must hold every role of the method.
        method: a name of `methods.METHODS`.
        dtype: of the floating point weights ("fp16", "bf16", "fp32"); None keeps A's own. What is
            no weight, such as the table of a noise schedule, is stored as in A.

    Raises:
        ConfigError: unknown method or dtype, or a role without a model.
        ModelError: the models do not fit together.
    """

    def __init__(
        self, models: Mapping[str, Checkpoint], method: str, *, dtype: str | None = None
    ) -> None:
        self._method = methods.get(method)
        missing = [role for role in self._method.roles if role not in models]
        if missing:
            raise ConfigError(
                f"the method {method} needs model {missing[0]!r}; given: {sorted(models)}. "
                f"Name {len(self._method.roles)} models: {', '.join(self._method.roles)}."
            )
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"unknown dtype: {dtype!r}. Use one of: {', '.join(DTYPES)}.")
        self._models = {role: models[role] for role in self._method.roles}
        check_mergeable({role: (m.header, m.detection) for role, m in self._models.items()})
        self.architecture = architectures.get(models["a"].detection.architecture)
        self._dtype = DTYPES[dtype] if dtype else None
        self._shared = set.intersection(*(set(m.keys()) for m in self._models.values()))
        self._blocks = {key: self.architecture.block_of(key) for key in models["a"].keys()}  # noqa: SIM118
        self._scratch: dict[tuple[str, torch.dtype], Tensor] = {}

    def keys(self) -> tuple[str, ...]:
        """Every key of the result, sorted: all of A's."""
        return tuple(sorted(self._blocks))

    def copied(self) -> tuple[str, ...]:
        """The keys that no weight reaches: position indices, schedules, averages of training."""
        return tuple(key for key, block in self._blocks.items() if block is None)

    def dtype_of(self, key: str) -> torch.dtype:
        """The dtype in which the result of a key is stored."""
        stored = self._models["a"].tensor(key).dtype
        # the WebUI computes with a schedule as the file has it: 16 bits would change every image
        weight = stored.is_floating_point and self._blocks[key] is not None
        return self._dtype if self._dtype is not None and weight else stored

    def shape_of(self, key: str) -> tuple[int, ...]:
        """The shape of the result of a key."""
        return tuple(self._models["a"].tensor(key).shape)

    def merge(
        self,
        weights: Mapping[str, float],
        sink: Sink,
        *,
        blocks: Collection[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        """Put the merge of every key into the sink.

        Args:
            weights: block name -> weight; a block without one is A's.
            blocks: only these blocks; None means all, and the keys that are copied from A.
            keys: in this order instead of sorted.

        Raises:
            ConfigError: a weight names an unknown block.
            ModelError: a weight above 0 for a block that the other models do not hold.
        """
        self.check(weights)
        for key in self.keys() if keys is None else keys:
            block = self._blocks[key]
            if blocks is not None and block not in blocks:
                continue
            weight = 0.0 if block is None or key not in self._shared else weights.get(block, 0.0)
            self._merge_key(key, weight, sink)

    def check(self, weights: Mapping[str, float]) -> None:
        """Raise what `merge` would raise for these weights, without merging."""
        known = set(self.architecture.blocks)
        for block in weights:
            if block not in known:
                raise ConfigError(unknown_name("block", block, known))
        held = {self._blocks[key] for key in self._shared}
        for block, weight in weights.items():
            if weight and block not in held and block in self._blocks.values():
                others = " and ".join(m.name for r, m in self._models.items() if r != "a")
                raise ModelError(
                    f"block {block} has weight {weight:g}, but {others} holds no such tensors. "
                    f"Set {block} to 0 or use a full checkpoint."
                )

    def _merge_key(self, key: str, weight: float, sink: Sink) -> None:
        dtype = self.dtype_of(key)
        role = self._method.identity(weight)
        if role is not None or weight == 0.0:
            source = self._models[role or "a"].tensor(key)
            target = sink.target(key, dtype)
            if target is not None:
                target.copy_(source)
            else:
                sink.put(key, source if source.dtype == dtype else source.to(dtype))
            return
        tensors = [model.tensor(key) for model in self._models.values()]
        target = sink.target(key, dtype)
        out = target if target is not None else self._buffer("out", tensors[0].numel(), dtype)
        self._combine(tensors, weight, out.view(-1))
        if target is None:
            sink.put(key, out.view(tensors[0].shape))

    def _combine(self, tensors: Sequence[Tensor], weight: float, out: Tensor) -> None:
        """Combine into the flat `out`, in float32 (float64 for such files), rounding once."""
        flat = [tensor.reshape(-1) for tensor in tensors]
        dtypes = {tensor.dtype for tensor in flat}
        exact = {out.dtype} == dtypes and (
            out.dtype in (torch.float32, torch.float64)
            or (self._method.halves and out.itemsize == 2)  # 8 bits have no arithmetic
        )
        if exact:
            self._method.combine(flat, weight, out)
            return
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        scratch = [self._buffer(f"in{i}", CHUNK, wide) for i in range(len(flat) + 1)]
        for start in range(0, out.numel(), CHUNK):
            stop = min(start + CHUNK, out.numel())
            pieces = [buffer[: stop - start] for buffer in scratch]
            for piece, tensor in zip(pieces, flat, strict=False):
                piece.copy_(tensor[start:stop])
            self._method.combine(pieces[:-1], weight, pieces[-1])
            out[start:stop].copy_(pieces[-1])

    def _buffer(self, name: str, size: int, dtype: torch.dtype) -> Tensor:
        """Reused memory: fresh temporaries cost more in page faults than the arithmetic."""
        held = self._scratch.get((name, dtype))
        if held is None or held.numel() < size:
            held = torch.empty(size, dtype=dtype)
            self._scratch[name, dtype] = held
        return held[:size]
