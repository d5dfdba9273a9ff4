"""Where a reward model computes, in which precision, and what to do when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from lib_automerge.errors import ConfigError, RewardError, unknown_name
from lib_automerge.reward.base import reason

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    # torch's CPU allocator on Windows
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def choose_device(name: str | None) -> torch.device:
    """Return the named device; for None the GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the name, or the device is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch built without CUDA raises AssertionError.
        raise ConfigError(
            f"device cannot be used: {name!r} ({reason(error)}). Use 'cpu', or leave it out."
        ) from error
    return device


def choose_dtype(name: str | None, device: torch.device) -> str:
    """Return the name of the weights' precision: for None fp32 on the CPU and fp16 on a GPU.

    Raises:
        ConfigError: The name is not fp32, fp16 or bf16, or it is fp16 on the CPU, where torch
            lacks operations for it.
    """
    if name is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if name not in _DTYPES:
        raise ConfigError(unknown_name("dtype", name, _DTYPES))
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("dtype needs a GPU: 'fp16'. Use 'fp32' or 'bf16' on the CPU.")
    return name


def move(model: nn.Module, now: torch.device, name: str) -> torch.device:
    """Move a model from the device `now` to the one called `name`, and return that.

    Memory that it leaves on a GPU is given back to the driver, so that a generator can have it.

    Raises:
        ConfigError: there is no such device.
        RewardError: it lacks memory; the model is then where it was.
    """
    device = choose_device(name)
    failure = ""
    try:
        model.to(device)
    except RuntimeError as error:
        failure = reason(error)
    # outside the handler: until it ends, the traceback keeps tensors alive
    if failure:
        model.to(now)
    if "cuda" in (now.type, device.type) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if failure:
        raise RewardError(
            f"the reward model cannot be moved to {name}: {failure}. "
            "Free some memory, or let the reward use another device (device='cpu')."
        )
    return device


def check_batch_size(batch_size: int) -> int:
    """Return the batch size if it is possible.

    Raises:
        ConfigError: It is not.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1: {batch_size}. Use 8, or 1.")
    return batch_size


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's type for a name that `choose_dtype` returned."""
    return _DTYPES[name]


def in_batches(
    compute: Callable[[slice], list[Result]], count: int, batch_size: int
) -> tuple[list[Result], int]:
    """Compute for `count` items batch by batch, with half the batch whenever memory runs out.

    Args:
        compute: The results for the items of one slice, in order; called again with a shorter slice
            after it ran out of memory. The last slice may end beyond `count`.
        count: Number of items.
        batch_size: Items per batch to begin with, at least 1.

    Returns:
        One result per item, in order, and the batch size that fitted, to begin with next time.

    Raises:
        RewardError: Not even one item fits into memory, or torch failed otherwise.
    """
    results: list[Result] = []
    while len(results) < count:
        failure = ""
        try:
            results.extend(compute(slice(len(results), len(results) + batch_size)))
        except RuntimeError as error:
            failure = reason(error)
            if not _is_out_of_memory(error):
                raise RewardError(
                    f"the reward model failed: {failure}. "
                    "Try device='cpu'; if that fails too, report it with the log."
                ) from error
        # Outside the handler: until it ends, the traceback keeps the batch's tensors alive.
        if failure:
            batch_size = _halved(batch_size, failure)
    return results, batch_size


def _halved(batch_size: int, failure: str) -> int:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if batch_size == 1:
        raise RewardError(
            f"not enough memory to score one image: {failure}. "
            "Free some memory, or let the reward use another device (device='cpu')."
        )
    smaller = batch_size // 2
    _log.warning("out of memory with %d images at once; going on with %d", batch_size, smaller)
    return smaller


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Recognise CUDA's own error type, and those of cuBLAS, the CPU and Metal by their words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in _OUT_OF_MEMORY
    )
