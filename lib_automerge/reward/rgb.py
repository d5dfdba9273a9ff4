"""The picture that a reward reads: any image in RGB, 8 bits per channel.

Pillow's own conversion drops transparency, and clips grey of more than 8 bits to white. This one
scales such grey, and refuses what has no agreed scale or no colours.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from lib_automerge.errors import RewardError

_HIGHEST = 65_535
_STEP = 257
"""Levels of 16 bits for each level of 8: 65535 / 255."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB; the same pixels for an image that is RGB already.

    Transparency is dropped. Grey of 16 bits is scaled to 8 as the PNG specification has it (round(v
    * 255 / 65535), section 13.12). Pillow's mode "I" holds such grey as well, because that is how
    its older versions read PNG files; unless nothing in it exceeds 255, which is what its own
    conversion of an 8-bit image gives.

    Args:
        image: of any size and mode; it is not modified, but read from its file if it was not yet.

    Raises:
        RewardError: it is empty or damaged, or its mode says nothing about colours: floating-point
            numbers, or whole numbers that need more than 16 bits.
    """
    if not image.width or not image.height:
        raise RewardError(
            f"image is empty: {image.width} x {image.height} pixels. Use one with pixels."
        )
    try:
        if image.mode.startswith("I"):
            return _grey(image).convert("RGB")
        if image.mode == "F":
            raise RewardError(
                "image has no colours: mode 'F', floating-point numbers of no known scale. "
                "Convert it to 8 bits first."
            )
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise RewardError(
            f"image cannot be read as RGB: mode {image.mode!r} ({error}). Convert it to RGB first."
        ) from error


def _grey(image: Image.Image) -> Image.Image:
    """An image of whole numbers in mode "L"."""
    levels = np.asarray(image).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > _HIGHEST:
        raise RewardError(
            f"image has no colours: mode {image.mode!r} with numbers from {low} to {high}, more "
            "than 16 bits of grey. Convert it to 8 bits first."
        )
    if image.mode != "I" or high > 255:
        levels = (levels + _STEP // 2) // _STEP
    return Image.fromarray(levels.astype(np.uint8))
