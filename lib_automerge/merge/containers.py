"""Which kind of file a model is, by its first bytes, and the header of a safetensors file.

Nothing here runs code from a file or reads more than its header, so damaged and hostile files are
refused before any work begins.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from lib_automerge.domain.detection import Header, TensorInfo
from lib_automerge.errors import ModelError

Container = Literal["safetensors", "zip", "pickle"]

HEADER_LIMIT = 100_000_000
"""Bytes that a safetensors header may have; the limit of the format's own reader."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per element of every safetensors number type."""

_LENGTH = struct.Struct("<Q")

_OTHER_FILES = (
    (b"GGUF", "it is a quantised GGUF file. Use the fp16 safetensors version of this model."),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the model. Download the model."),
    (b"<", "it is a web page, not a model. Download the model again."),
)


class _Entry(msgspec.Struct, frozen=True):
    """One tensor in the JSON of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def container(path: Path) -> Container:
    """Return how the file is packed: safetensors, a zipped pickle, or an old plain pickle.

    Raises:
        ModelError: there is no such file, it cannot be read, or it is none of these.
    """
    start = _first_bytes(path, 64)
    if not start:
        raise ModelError(f"{path.name}: it is empty. Download it again.")
    # First of all, since the length of a header can spell the signature of any other file.
    if start[8:9] == b"{" and _LENGTH.unpack(start[:8])[0] <= HEADER_LIMIT:
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    for signature, reason in _OTHER_FILES:
        if start.startswith(signature):
            raise ModelError(f"{path.name}: {reason}")
    raise ModelError(
        f"{path.name}: it is neither a safetensors file nor a PyTorch checkpoint. "
        "Choose a model file ending in .safetensors or .ckpt."
    )


def read_safetensors_header(path: Path) -> Header:
    """Return the header of a safetensors file, with byte offsets counted from the file's start.

    Raises:
        ModelError: the header is damaged, or does not describe the file exactly.
    """
    size = path.stat().st_size
    length = _LENGTH.unpack(_first_bytes(path, _LENGTH.size))[0]
    begin = _LENGTH.size + length
    if begin > size:
        raise _truncated(path, begin, size)
    raw = _first_bytes(path, begin)[_LENGTH.size :]
    try:
        fields: dict[str, Any] = msgspec.json.decode(raw)
        metadata = _metadata(fields.pop("__metadata__", None) or {})
        entries = msgspec.convert(fields, dict[str, _Entry])
    except (msgspec.MsgspecError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{path.name}: its header is damaged: {error}. Download it again."
        ) from error
    _check_layout(path, entries, size - begin)
    tensors = {
        key: TensorInfo(
            entry.dtype, entry.shape, begin + entry.data_offsets[0], begin + entry.data_offsets[1]
        )
        for key, entry in entries.items()
    }
    return Header(tensors, metadata)


def _check_layout(path: Path, entries: Mapping[str, _Entry], available: int) -> None:
    """Check that the tensors fill the data exactly: no overlap, no hole, nothing cut off."""
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, end = entry.data_offsets
        if entry.dtype not in BITS:
            raise ModelError(
                f"{path.name}: {key!r} has an unknown number type: {entry.dtype!r}. "
                "Use the fp16, bf16 or fp32 version of this model."
            )
        bits = BITS[entry.dtype]
        for dimension in entry.shape:
            bits *= dimension
        if start != position or min(entry.shape, default=0) < 0 or 8 * (end - start) != bits:
            raise ModelError(
                f"{path.name}: its header is damaged at {key!r}: bytes {start} to {end} for "
                f"{entry.dtype} {list(entry.shape)}. Download it again."
            )
        position = end
    if position > available:
        raise _truncated(path, position, available)
    if position < available:
        raise ModelError(
            f"{path.name}: {available - position} bytes follow the last weight. "
            "The file is damaged; download it again."
        )


def _truncated(path: Path, promised: int, found: int) -> ModelError:
    return ModelError(
        f"{path.name}: it is cut off: {found} of {promised} bytes are there. Download it again."
    )


def _metadata(raw: Mapping[str, object]) -> dict[str, str]:
    """Return the metadata as strings; some tools wrongly store nested objects."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in raw.items()
    }


def _first_bytes(path: Path, count: int) -> bytes:
    if path.is_dir():
        if (path / "model_index.json").exists():
            raise ModelError(
                f"{path.name}: it is a diffusers folder. Use the model's single-file checkpoint."
            )
        raise ModelError(f"{path.name}: it is a folder. Choose a model file in it.")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise ModelError(f"no such file: {path}. Check the path.") from error
    except OSError as error:
        raise ModelError(
            f"{path.name}: it cannot be read: {error.strerror}. Check the file's permissions."
        ) from error
