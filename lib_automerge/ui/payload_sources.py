"""Payloads from files: images that say how they were made, and JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec
from PIL import Image

from lib_automerge.domain import infotext
from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError
from lib_automerge.study.payload_sets import read_set

EXIF_FOLDER = 0x8769
USER_COMMENT = 0x9286

MAX_BYTES = 64 << 20


def path_of(uploaded: object) -> Path | None:
    """The path of what a file component holds: a path, or an object with one, by Gradio version."""
    if isinstance(uploaded, list):
        uploaded = uploaded[0] if uploaded else None
    if uploaded is None:
        return None
    return Path(uploaded if isinstance(uploaded, str) else str(getattr(uploaded, "name", "")))


def read(path: Path) -> tuple[Payload, ...]:
    """The payloads of a file: one from an image's generation parameters, all from JSON.

    Raises:
        ConfigError: it holds none, or they cannot be read.
    """
    if path.suffix.lower() == ".json":
        return read_set(path).payloads
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path.name} is larger than {MAX_BYTES >> 20} MB. Give an image.")
        with Image.open(path) as image:
            text = image.info.get("parameters") or _user_comment(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(
            f"{path.name} is neither an image nor JSON: {error}. Give one of them."
        ) from error
    if not text:
        raise ConfigError(
            f"{path.name} does not say how it was made. Give an image that the WebUI saved."
        )
    payload = infotext.parse(str(text))
    return (msgspec.structs.replace(payload, name=""),)


def _user_comment(image: Image.Image) -> str:
    """The text that the WebUI writes into JPEG and WebP files; empty if there is none."""
    raw = image.getexif().get_ifd(EXIF_FOLDER).get(USER_COMMENT, b"")
    if isinstance(raw, str):
        return raw
    code, text = bytes(raw[:8]), bytes(raw[8:])
    if code.startswith(b"UNICODE"):
        # the byte order is not recorded: the WebUI writes big endian, others little
        order = "utf-16-le" if text[1:2] == b"\0" else "utf-16-be"
        return text.decode(order, "replace")
    return text.decode("utf-8", "replace")
