"""Checkpoints in PyTorch's own format, read without running any code from them.

Such files are pickles, which can name any function to be called on loading. Only
`torch.load(weights_only=True)` is used, which builds tensors and containers and nothing else; what
it refuses stays refused. Training checkpoints of PyTorch Lightning name a few harmless classes,
for which inert stand-ins are given.
"""

from __future__ import annotations

import contextlib
import pickle
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_automerge.errors import ModelError

_STAND_INS = (
    "pytorch_lightning.",
    "lightning.",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
"""Names, or starts of names, that training checkpoints hold beside their weights."""


def load(path: Path, *, zipped: bool, data: bool) -> dict[str, Tensor]:
    """Return the tensors of a pickled checkpoint by name.

    Args:
        path: the file.
        zipped: whether it is a zip archive, which can be memory-mapped, or an old plain pickle.
        data: False gives names, shapes and number types only, on PyTorch's `meta` device.

    Raises:
        ModelError: the file is damaged, holds something else, or would run code.
    """
    if path.suffix.lower() == ".safetensors":
        # New versions of torch.load go by the name and would not even look at the content.
        raise ModelError(
            f"{path.name}: it is a pickled checkpoint under a safetensors name. "
            "Rename it to end in .ckpt, or use the safetensors version of this model."
        )
    _refuse_archives(path, zipped)
    device = "cpu" if data else "meta"
    try:
        with _stand_ins(path if zipped else None):
            content = torch.load(  # by a string: before PyTorch 2.4 a Path could not be mapped
                str(path), map_location=device, weights_only=True, mmap=zipped and data
            )
    except pickle.UnpicklingError as error:
        raise _refused(path, zipped) from error
    except Exception as error:  # what a damaged file makes the unpickler raise is not defined
        raise ModelError(
            f"{path.name}: it is damaged or no PyTorch checkpoint. Download it again."
        ) from error
    return _state_dict(path, content)


def _refuse_archives(path: Path, zipped: bool) -> None:
    """Refuse what torch.load would hand to other loaders, which ignore `weights_only`.

    Before PyTorch 2.6 these were a way to run code (CVE-2025-32434).
    """
    if zipped:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:  # damaged names and sizes raise more than BadZipFile
            raise ModelError(
                f"{path.name}: it is damaged or cut off. Download it again."
            ) from error
        program = any(name.endswith("constants.pkl") for name in names)
        if program or not any(name.endswith("data.pkl") for name in names):
            raise ModelError(
                f"{path.name}: it is an archive, but no checkpoint of weights. "
                "Use a checkpoint in safetensors format."
            )
    elif tarfile.is_tarfile(path):
        raise ModelError(
            f"{path.name}: it is a tar archive. Use a checkpoint in safetensors format."
        )


@contextlib.contextmanager
def _stand_ins(path: Path | None) -> Iterator[None]:
    """Let torch.load put inert objects where a training checkpoint names known classes."""
    names = [name for name in _unsafe_globals(path) if name.startswith(_STAND_INS)]
    if not names:
        yield
        return
    with torch.serialization.safe_globals([_stand_in(name) for name in names]):
        yield


def _stand_in(name: str) -> type:
    module, _, qualname = name.rpartition(".")
    return type(qualname, (_Inert,), {"__module__": module, "__qualname__": qualname})


class _Inert:
    """Takes whatever a pickle passes to the object it stands for, and does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __hash__(self) -> int:
        return id(self)


def _unsafe_globals(path: Path | None) -> list[str]:
    """Return the functions and classes that a zipped checkpoint names and torch.load refuses."""
    lister = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if path is None or lister is None:  # old pickle, or PyTorch before 2.5
        return []
    try:
        return sorted(lister(path))
    except Exception:  # a damaged file; loading it says what is wrong
        return []


def _refused(path: Path, zipped: bool) -> ModelError:
    foreign = [n for n in _unsafe_globals(path if zipped else None) if not n.startswith(_STAND_INS)]
    what = f"it would run code: {', '.join(foreign)}" if foreign else "it may run code when loaded"
    return ModelError(
        f"{path.name}: {what}. It was not loaded. Use the safetensors version of this model."
    )


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path.name}: it holds {type(content).__name__}, not a set of named weights. "
            "Use a checkpoint."
        )
    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
