"""The tensors of a TorchScript program, without running it.

OpenAI published CLIP as programs (`torch.jit.save`). Loading one with torch runs code that the file
brings along, so nothing of torch reads it here. It is a zip archive: `data.pkl` describes a tree of
objects, `data/0`, `data/1`, ... are the bytes of the tensors in it. A pickle can only use what its
reader gives it; this one is given tensors, dictionaries, lists and empty shells for the program's
classes, and refuses all else. The program's own code is never looked at.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import reason

_DTYPES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Parts of a zip archive's header of a file: its fixed length, and where two lengths in it are.
_HEADER, _NAME_LENGTH, _EXTRA_LENGTH = 30, 26, 28


class _Shell:
    """Stands for an object of the program; holds its attributes and does nothing."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("the state of an object is not a dictionary")
        self.attributes: dict[object, object] = state


def is_program(path: Path) -> bool:
    """Tell whether a file is a TorchScript program."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return {"data.pkl", "constants.pkl"} <= names


def read_program(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a program, named as in its state dict.

    Args:
        path: A file for which `is_program` is true.

    Returns:
        Tensors on the CPU, mapped from the file: change neither them nor the file.

    Raises:
        RewardError: The file is damaged, or holds something else than a module and its tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (description,) = (n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
            folder = description.rpartition("/")[0]
            storages = {
                entry.filename[len(folder) + 6 :]: entry
                for entry in archive.infolist()
                if entry.filename.startswith(f"{folder}/data/")
            }
            with archive.open(description) as file:
                module = _Unpickler(file, path, storages).load()
        return dict(_tensors_of(module, ""))
    except pickle.UnpicklingError as error:
        raise RewardError(
            f"weights file is a program that holds more than tensors: {path} ({reason(error)}). It "
            "was not loaded; use the published file, or a .safetensors file of the same model."
        ) from error
    except Exception as error:
        # A damaged pickle can raise anything.
        raise RewardError(
            f"weights file cannot be read: {path} ({reason(error)}). Download it again."
        ) from error


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: IO[bytes], path: Path, storages: Mapping[str, zipfile.ZipInfo]
    ) -> None:
        super().__init__(file)
        self._path = path
        self._storages = storages

    def find_class(self, module: str, name: str) -> object:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Shell
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known: Mapping[tuple[str, str], Callable[..., object]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            # Lists of one type, with or without a name for that type.
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
            ("torch.jit._pickle", "restore_type_tag"): _without_tag,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: object) -> Tensor:
        if not (isinstance(pid, tuple) and len(pid) == 5 and isinstance(pid[1], torch.dtype)):
            raise pickle.UnpicklingError("it describes a tensor's storage in an unknown way")
        return _mapped(self._path, self._storages[str(pid[2])], pid[1])


def _mapped(path: Path, entry: zipfile.ZipInfo, dtype: torch.dtype) -> Tensor:
    """All numbers of one entry of the archive, as one row; not copied into memory."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its tensors are compressed")
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_HEADER)
    lengths = (header[at] + 256 * header[at + 1] for at in (_NAME_LENGTH, _EXTRA_LENGTH))
    start = entry.header_offset + _HEADER + sum(lengths)
    if entry.file_size == 0:
        return torch.empty(0, dtype=dtype)
    # Mode "c": torch wants memory that it could write to; nothing would reach the file.
    data = np.memmap(path, np.uint8, mode="c", offset=start, shape=(entry.file_size,))
    return torch.from_numpy(data).view(dtype)


def _tensor(
    storage: Tensor, offset: int, shape: Sequence[int], stride: Sequence[int], *_: object
) -> Tensor:
    """A view of a storage; torch checks that it stays inside."""
    if not (isinstance(storage, Tensor) and math.prod(shape) <= storage.numel()):
        raise pickle.UnpicklingError("it describes a tensor larger than its storage")
    return storage.as_strided(tuple(shape), tuple(stride), offset)


def _without_tag(value: object, _tag: object) -> object:
    return value


def _tensors_of(value: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors below an object of the program, with the names that lead to them."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, _Shell):
        for name, child in value.attributes.items():
            yield from _tensors_of(child, f"{prefix}.{name}" if prefix else str(name))
