"""The device is chosen, named and recognised as full."""

from __future__ import annotations

import pytest
import torch

from lib_automerge.generate.devices import choose_device, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_full_memory_is_recognised_on_every_device(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_a_real_allocation_that_cannot_succeed_is_recognised():
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)


def test_the_best_device_is_one_that_exists():
    assert torch.zeros(1, device=choose_device(None)).item() == 0
