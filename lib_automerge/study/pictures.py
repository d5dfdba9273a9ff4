"""The images of a run as data URIs, small enough for a page that carries them all."""

from __future__ import annotations

import base64
import io
from pathlib import Path, PurePosixPath

import msgspec
from PIL import Image

EDGE = 384
"""The longest edge of an embedded image, in pixels."""

LOSSLESS_EDGE = 128
"""Images up to this edge are embedded without loss: they are shown larger than they are."""

JPEG_QUALITY = 86


class Picture(msgspec.Struct, frozen=True):
    """An image as a data URI, with the size of the original in pixels."""

    uri: str
    width: int
    height: int


def picture(root: Path, file: str) -> Picture | None:
    """The image of a run folder, or None if it is missing, damaged or outside of the folder."""
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts:
        return None
    try:
        with Image.open(root / relative) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    width, height = image.size
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= LOSSLESS_EDGE:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind};base64,{data}", width, height)
