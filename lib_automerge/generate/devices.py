"""The torch device that makes the images: choosing, naming, freeing and pinning it down."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib_automerge.errors import ConfigError


def choose_device(name: str | None) -> torch.device:
    """Return the device of this name ("cpu", "cuda", "cuda:1", "mps"), or the best there is.

    Raises:
        ConfigError: there is no such device here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device: {name!r}. Use cpu, cuda, cuda:1 or mps.") from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(f"there is no device {name!r} here. Use cpu, or leave it out.")
    return device


def device_name(device: torch.device) -> str:
    """Return what about the device decides the bits of a result."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    if device.type == "cpu":
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type} {platform.machine()}"


def free_memory(device: torch.device) -> None:
    """Give memory that nothing refers to back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def reproducible(threads: int | None) -> Iterator[None]:
    """Have torch compute the same bits every time; put its settings back afterwards."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    threads_before = torch.get_num_threads()
    try:
        cuda.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
        cudnn.deterministic = True
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
        torch.set_num_threads(threads_before)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory in the process, for good; does nothing elsewhere.

    Every step of a pipeline frees and takes tensors of some megabytes again. By default glibc
    gives them back to the system each time, and the page faults that follow can cost as much as
    the arithmetic (`benchmarks/image_speed.py`).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold, largest = -1, -3, 2**30
    libc.mallopt(trim_threshold, largest)
    libc.mallopt(mmap_threshold, largest)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch may avoid this error, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


def device_memory(device: torch.device) -> tuple[int, int] | None:
    """Used and total bytes of a graphics card's memory, by whomever; None for other devices."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total
