"""Reading the weights of a reward model: tensors only, all of them, or nothing.

A file is read without running code from it, its keys and shapes must be exactly those of the model,
and its tensors become the parameters one by one, so that a file of fp32 weights that stays fp32 on
the CPU costs no memory beyond the file's pages.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.serialization
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import reason
from lib_automerge.reward.files import unreadable

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_INITIALISERS = ("uniform_", "normal_", "fill_", "zero_")


@contextmanager
def without_memory() -> Iterator[None]:
    """Within the block, networks are built of shapes only, to be filled by `fill`.

    Their initial values are not drawn either: on the meta device that loads torch's decompositions,
    which takes longer than all the rest of a load.
    """
    with torch.device("meta"), _Undrawn():
        yield


def read_tensors(path: Path, *, under: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or from a zip archive by `torch.save`.

    Args:
        path: An existing file.
        under: Where an archive that is no bare state dict, but a checkpoint of training, has it.

    Returns:
        Tensors on the CPU, mapped from the file: change neither them nor the file.

    Raises:
        RewardError: The file is damaged, holds more than tensors, or has another format.
    """
    try:
        return _read(path, under)
    except OSError as error:
        raise unreadable(path, error) from error


def _read(path: Path, under: str | None) -> dict[str, Tensor]:
    """As `read_tensors`; raises OSError too."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path, device="cpu")
        except OSError:
            raise
        except Exception as error:
            raise _damaged(path, error) from error
    if not _is_saved_by_torch(path):
        raise RewardError(
            f"not a weights file: {path}. Give a .safetensors file, or a .pt file as torch.save "
            "writes it; if it was downloaded, download it again."
        )
    try:
        # torch.serialization.load, because a WebUI may have put its own check in front of
        # torch.load, which refuses archives by recent torch versions and then returns None.
        # As a string, because torch 2.1 maps no other kind of path.
        content = torch.serialization.load(
            str(path), map_location="cpu", weights_only=True, mmap=True
        )
    except pickle.UnpicklingError as error:
        raise RewardError(
            f"weights file holds more than tensors and could run code: {path}. "
            "It was not loaded; use the published file or a .safetensors copy of it."
        ) from error
    except Exception as error:
        # a pickle with one wrong byte is another program, which can fail in any way
        raise _damaged(path, error) from error
    if under is not None and isinstance(content, dict) and under in content:
        content = content[under]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in content.items()
    ):
        raise RewardError(
            f"weights file is not a plain dictionary of tensors: {path}. Use the published file."
        )
    return content


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    in_fp32: tuple[str, ...] = (),
    unused: tuple[str, ...] = (),
) -> None:
    """Make `tensors` the parameters of a model that was built on the meta device.

    Args:
        model: The structure; its state dict names every key and shape that must be there.
        tensors: What the file holds.
        source: The file, for messages.
        device: Where the parameters go.
        dtype: Their floating-point type.
        in_fp32: Prefixes of keys that become fp32 instead.
        unused: Prefixes of keys that the file may hold and the model does not need.

    Raises:
        RewardError: A key is missing, unexpected, of another shape or no floating-point numbers, or
            the device lacks memory; the model is then unchanged.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected and not key.startswith(unused)]
    for what, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise RewardError(
                f"weights file has another structure: {source}: {what} {keys[0]!r}{more}. "
                "Use the published file of this reward."
            )
    for key, parameter in expected.items():
        if tensors[key].shape != parameter.shape:
            raise RewardError(
                f"weights file has another structure: {source}: {key!r} has shape "
                f"{tuple(tensors[key].shape)} instead of {tuple(parameter.shape)}. "
                "Use the published file of this reward."
            )
        if parameter.is_floating_point() and not _holds_numbers(tensors[key]):
            raise RewardError(
                f"weights file has another precision: {source}: {key!r} is "
                f"{_kind(tensors[key])}. Use the published file of this reward, or a copy in fp32, "
                "fp16 or bf16."
            )
    try:
        placed = {
            key: tensors[key].to(device, torch.float32 if key.startswith(in_fp32) else dtype)
            for key in expected
        }
    except RuntimeError as error:
        raise RewardError(
            f"weights cannot be moved to {device}: {source} ({reason(error)}). "
            "Free some memory, or let the reward use another device (device='cpu')."
        ) from error
    model.load_state_dict(placed, strict=True, assign=True)


class _Undrawn(TorchFunctionMode):
    """Leaves parameters as they are made."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ and "tensor" in named:
            return named["tensor"]
        if getattr(func, "__name__", None) in _INITIALISERS and args:
            return args[0]
        return func(*args, **named)


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether it is what its numbers say: whole numbers and fp8 come with scales that we lack."""
    return tensor.dtype in _PRECISIONS and tensor.layout is torch.strided and not tensor.is_meta


def _kind(tensor: Tensor) -> str:
    """What a tensor is made of, in torch's words: "int8", "float32 sparse_coo", "float32 meta"."""
    words = [str(tensor.dtype).removeprefix("torch.")]
    if tensor.layout is not torch.strided:
        words.append(str(tensor.layout).removeprefix("torch."))
    if tensor.is_meta:
        words.append("meta")
    return " ".join(words)


def _is_saved_by_torch(path: Path) -> bool:
    """Tell a zip archive of tensors from files for which torch.load has other loaders.

    Those (archives from before torch 1.6, TorchScript programs) ignored `weights_only` before torch
    2.6 and could run code (CVE-2025-32434).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False
    return "data.pkl" in members and "constants.pkl" not in members


def _damaged(path: Path, error: Exception) -> RewardError:
    return RewardError(f"weights file cannot be read: {path} ({reason(error)}). Download it again.")
