"""Checkpoints on disk: their headers, and their weights as views of the memory-mapped file.

A safetensors file is mapped once; tensors are views into the mapping, so that opening costs nothing
and the parents of a merge stay in the page cache. The mapping is private: writing to a view would
not reach the file, but would change what later readers of this Checkpoint see, so callers must not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import msgspec
import torch
from torch import Tensor

from lib_automerge.domain.detection import Detection, Header, TensorInfo, detect
from lib_automerge.errors import ModelError
from lib_automerge.merge import pickles
from lib_automerge.merge.containers import container, read_safetensors_header

DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors number type -> PyTorch's, for every type that a checkpoint may hold."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

SD2_V_THRESHOLD = 0.09
"""Standard deviation of one bias above which an SD2 model predicts v; the rule ComfyUI uses."""
_SD2_V_KEY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"


def read_header(path: Path) -> Header:
    """Return names, shapes, number types and metadata of a model file, without its weights.

    The offsets are those in the file for safetensors; for pickled checkpoints, which have none,
    each tensor counts from 0.

    Raises:
        ModelError: the file cannot be read, is damaged, is no model, or would run code.
    """
    kind = container(path)
    if kind == "safetensors":
        return read_safetensors_header(path)
    return _header_of(pickles.load(path, zipped=kind == "zip", data=False))


def read_file(path: Path) -> tuple[Header, Mapping[str, Tensor] | None]:
    """Return what a model file holds: its header, and its tensors if they are pickled.

    Raises:
        ModelError: see `read_header`.
    """
    kind = container(path)
    if kind == "safetensors":
        return read_safetensors_header(path), None
    tensors = pickles.load(path, zipped=kind == "zip", data=True)
    return _header_of(tensors), tensors


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a model file for reading; close it, or use it as a context manager.

    Raises:
        ModelError: see `read_header`; or the file is not a checkpoint that can be merged.
    """
    header, tensors = read_file(path)
    try:
        detection = detect(header)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    return Checkpoint(path, header, detection, tensors)


class Checkpoint:
    """An open checkpoint; keys are canonical (see `domain.detection`).

    Attributes:
        path: the file.
        name: its name without folder and ending.
        header: what the file holds.
        detection: what kind of model it is.
    """

    def __init__(
        self, path: Path, header: Header, detection: Detection, tensors: Mapping[str, Tensor] | None
    ) -> None:
        """Use `open_checkpoint`; `tensors` are those of a pickled file, None maps the file."""
        self.path = path
        self.name = path.stem
        self.header = header
        self._tensors = tensors
        self._data: torch.UntypedStorage | None = None
        self._begin = min((info.start for info in header.tensors.values()), default=0)
        if tensors is None:
            # Counted from the first weight: headers of any length then keep the weights aligned.
            self._data = _map(path)[self._begin :]
        self.detection = self._with_prediction(detection)

    def keys(self) -> tuple[str, ...]:
        """Return every key of the file by its canonical name, sorted."""
        return self._sorted_keys

    def tensor(self, key: str) -> Tensor:
        """Return the weights of a canonical key, without copying them; do not write to them.

        The tensor stays valid after `close`.

        Raises:
            ModelError: there is no such key, or the checkpoint is closed.
        """
        name = self._name_in_file(key)
        if self._tensors is not None:
            return self._tensors[name].detach()
        info = self.header.tensors[name]
        return self._view(info.start, info.end, DTYPES[info.dtype]).view(info.shape)

    def run(self, keys: Sequence[str]) -> Tensor | None:
        """Return several keys as one flat tensor, without copying, if the file allows it.

        Returns:
            A 1-D view, the keys one after the other; None unless they lie back to back in this
            order, with one number type.

        Raises:
            ModelError: there is no such key, or the checkpoint is closed.
        """
        infos = [self.header.tensors[self._name_in_file(key)] for key in keys]
        if self._tensors is not None or not infos:
            return None
        joined = all(a.end == b.start for a, b in pairwise(infos))
        if not joined or len({info.dtype for info in infos}) > 1:
            return None
        return self._view(infos[0].start, infos[-1].end, DTYPES[infos[0].dtype])

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file in hexadecimal; computed once."""
        return self._sha256

    def close(self) -> None:
        """Let go of the file; the mapping ends when the last tensor of it is gone."""
        self._data = None
        self._tensors = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def _sorted_keys(self) -> tuple[str, ...]:
        return tuple(sorted(self.detection.keys))

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def _name_in_file(self, key: str) -> str:
        name = self.detection.keys.get(key)
        if name is None:
            raise ModelError(
                f"{self.path.name}: it has no weight {key!r}. Use a complete checkpoint."
            )
        return name

    def _view(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """Return bytes of the file as a flat tensor."""
        data = self._data
        if data is None:
            raise ModelError(f"{self.path.name}: it is closed. Open it again.")
        first, offset = divmod(start - self._begin, dtype.itemsize)
        if offset:  # mixed number types can leave a weight off its grid: shift the base instead
            data, first = data[start - self._begin :], 0
        count = (end - start) // dtype.itemsize
        return torch.empty(0, dtype=dtype).set_(data, first, (count,), (1,))

    def _with_prediction(self, detection: Detection) -> Detection:
        """Return the detection with SD2's prediction type, which only the weights tell."""
        self.detection = detection
        if detection.prediction != "unknown" or not detection.standard_size:
            return detection
        spread = self.tensor(_SD2_V_KEY).float().std().item()
        told = "v" if spread > SD2_V_THRESHOLD else "epsilon"
        return msgspec.structs.replace(detection, prediction=told)


def widened(tensor: Tensor) -> Tensor:
    """Return an 8-bit tensor in float16, which holds its values exactly; any other as it is.

    PyTorch has next to no operations for 8-bit numbers. A finite 8-bit float stays finite.
    """
    return tensor.half() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _map(path: Path) -> torch.UntypedStorage:
    size = path.stat().st_size
    try:
        data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{path.name}: it cannot be mapped into memory: {error}. "
            "Free memory or copy the file to a local disk."
        ) from error
    return data.untyped_storage()


def _header_of(tensors: Mapping[str, Tensor]) -> Header:
    return Header(
        {
            name: TensorInfo(
                _NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.").upper()),
                tuple(tensor.shape),
                0,
                tensor.numel() * tensor.element_size(),
            )
            for name, tensor in tensors.items()
        },
        {},
    )
