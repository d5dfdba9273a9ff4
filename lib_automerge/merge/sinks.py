"""Where merged tensors go: one merge path for live parameters, a dictionary and a file.

Live parameters have their sink beside the backend that owns them.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge.readers import widened


class Sink(Protocol):
    """Takes merged tensors by canonical key."""

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        """A contiguous CPU tensor of the key's shape and of this dtype to write into, or None:
        then the merged tensor is handed to `put`.

        The arithmetic is always done on the CPU, so that a candidate on a GPU and the saved file
        have the same bits.
        """
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


_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
for _name in ("float8_e4m3fn", "float8_e5m2"):
    _NAMES[getattr(torch, _name)] = "F8_E4M3" if _name.endswith("fn") else "F8_E5M2"


class FileLayout:
    """Where everything lies in a safetensors file; depends on its content alone.

    Attributes:
        order: the keys as they lie in the file.
        header: the bytes before the first tensor.
        starts: key -> its first byte in the file.
        size: of the whole file in bytes.

    Args:
        tensors: dtype and shape of every key.
        metadata: string values, as the format demands.
    """

    def __init__(
        self,
        tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]],
        metadata: Mapping[str, str],
    ) -> None:
        self.order = sorted(tensors, key=lambda key: (-tensors[key][0].itemsize, key))
        entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
        offsets: dict[str, int] = {}
        offset = 0
        for key in self.order:
            dtype, shape = tensors[key]
            size = dtype.itemsize * torch.Size(shape).numel()
            entries[key] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            offsets[key] = offset
            offset += size
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.header = struct.pack("<Q", len(text)) + text
        self.starts = {key: len(self.header) + start for key, start in offsets.items()}
        self.size = len(self.header) + offset


def check_output(output: Path) -> None:
    """Raise ConfigError unless a checkpoint to write has the ending of what is written."""
    if output.suffix != ".safetensors":
        raise ConfigError(
            f"the output is called {output.name}, but safetensors is what is written. Give it the "
            "ending .safetensors."
        )


def check_room(path: Path, size: int) -> None:
    """Check that a new file of `size` bytes can be written.

    Raises:
        StorageError: the file exists, there is no such folder, or the disk is too small.
    """
    if path.exists():
        raise StorageError(f"the file exists already: {path}. Choose another name or move it away.")
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}. Create it or choose another one.")
    free = shutil.disk_usage(folder).free
    if free < size:
        raise StorageError(
            f"not enough space in {folder}: {size / 1e9:.2f} GB are needed, "
            f"{free / 1e9:.2f} GB are free. Free some or choose another disk."
        )


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error that a file could not be written."""
    return StorageError(
        f"cannot write {path}: {error.strerror}. Nothing was overwritten; check the "
        "folder's permissions and free space."
    )


class FileSink:
    """Writes a safetensors file whose bytes depend on its content alone.

    The file appears under its name only when every tensor is in it and on disk: until then it has
    a temporary name beside it, which is removed on any error.

    Args:
        path: must not exist.
        tensors: dtype and shape of every key to come.
        metadata: string values, as the format demands.
        copied: keys that are A's as they are, which may hold infinite values.

    Raises:
        StorageError: the file exists, the folder cannot be written, or the disk is too small.
        ModelError: a tensor with NaN or infinite values was put.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]],
        metadata: Mapping[str, str],
        copied: Collection[str] = (),
    ) -> None:
        self.path = path
        self._copied = frozenset(copied)
        self._layout = FileLayout(tensors, metadata)
        self.order = self._layout.order
        self.size = self._layout.size
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._file: BinaryIO | None = None
        self._next = 0

    def __enter__(self) -> FileSink:
        check_room(self.path, self.size)
        try:
            self._file = self._partial.open("wb", buffering=0)
            self._file.write(self._layout.header)
        except OSError as error:
            self._discard()
            raise cannot_write(self.path, error) from error
        return self

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:  # noqa: ARG002
        """Files are written, not mapped: a full disk must be an error, not a crash."""
        return None

    def put(self, key: str, tensor: Tensor) -> None:
        """Append a tensor; they come in the order of `order`."""
        if key != self.order[self._next]:
            raise ValueError(f"{key} came where {self.order[self._next]} was due")
        self._next += 1
        if tensor.is_floating_point() and tensor.numel() and key not in self._copied:
            low, high = torch.aminmax(widened(tensor))
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise ModelError(
                    f"the merge holds NaN or infinite values: first in {key}. A model is damaged "
                    "or a weight far outside 0..1 overflows; inspect the models."
                )
        data = memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        assert self._file is not None
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        assert self._file is not None
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            if self.path.exists():
                raise FileExistsError(0, "it was created by someone else meanwhile")
            self._partial.replace(self.path)
        except OSError as failure:
            self._discard()
            raise cannot_write(self.path, failure) from failure

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._partial.unlink(missing_ok=True)
