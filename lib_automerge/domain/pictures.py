"""What identifies a picture, whatever file it is in."""

from __future__ import annotations

import hashlib
from typing import Protocol


class Picture(Protocol):
    """What is needed of an image; Pillow's have it."""

    @property
    def mode(self) -> str:
        """How pixels are written: "RGB", "L", ..."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    def tobytes(self) -> bytes:
        """The pixels; of a palette image without its palette."""
        ...


def pixel_digest(image: Picture) -> str:
    """Identifies an image by its size and pixels: 32 hexadecimal digits."""
    content = repr((image.mode, image.size)).encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:32]
