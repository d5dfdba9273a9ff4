"""From an image to the pixels that a model sees.

Every function takes an image of any mode and size and returns (3, side, side) fp32 numbers,
normalised as the model wants them. Other modes become RGB (`as_rgb`) before the image is resized,
so that palettes are not interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_automerge.reward.rgb import as_rgb

Framing = Callable[[Image.Image, int], Tensor]

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_SD = (0.26862954, 0.26130258, 0.27577711)
_SIGLIP_MEAN = _SIGLIP_SD = (0.5, 0.5, 0.5)

_STRIP = 16
"""An image whose longer side is more than this many times its shorter one is a strip."""


def crop(image: Image.Image, side: int) -> Tensor:
    """Scale the shorter side to `side` and cut out the centre, normalised for CLIP and BLIP.

    As torchvision's Resize(side, bicubic), CenterCrop(side), ToTensor and Normalize do it: the
    longer side is rounded down, and half a pixel to the even number.
    """
    scaled = _scaled_to_short_side(image, side)
    return _cut(scaled, round((scaled.width - side) / 2), round((scaled.height - side) / 2), side)


def crop_down(image: Image.Image, side: int) -> Tensor:
    """As `crop`, but half a pixel is rounded down, as transformers' `CLIPImageProcessor` does."""
    scaled = _scaled_to_short_side(image, side)
    return _cut(scaled, (scaled.width - side) // 2, (scaled.height - side) // 2, side)


def pad(image: Image.Image, side: int) -> Tensor:
    """Scale the longer side to `side` and put black around, normalised for CLIP.

    As open_clip's image_transform(side, resize_longest_max=True) does it, with which HPSv2 was
    trained: the shorter side is rounded, nothing is cut off. A side that would vanish is 1.
    """
    rgb = as_rgb(image)
    scale = side / max(rgb.size)
    width, height = (max(1, round(length * scale)) for length in rgb.size)
    scaled = _resized(rgb, width, height)
    square = Image.new("RGB", (side, side))
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return _normalised(square, _CLIP_MEAN, _CLIP_SD)


def squeeze(image: Image.Image, side: int) -> Tensor:
    """Scale both sides to `side`, whatever the proportions, normalised for SigLIP."""
    square = _resized(as_rgb(image), side, side)
    return _normalised(square, _SIGLIP_MEAN, _SIGLIP_SD)


def _scaled_to_short_side(image: Image.Image, side: int) -> Image.Image:
    rgb = _middle(as_rgb(image))
    if rgb.width <= rgb.height:
        return _resized(rgb, side, int(side * rgb.height / rgb.width))
    return _resized(rgb, int(side * rgb.width / rgb.height), side)


def _middle(rgb: Image.Image) -> Image.Image:
    """Of a strip only the middle: scaled as a whole, one of 1x8192 would take 2 GB."""
    longest = _STRIP * min(rgb.size)
    if max(rgb.size) <= longest:
        return rgb
    left, top = (max(0, (length - longest) // 2) for length in rgb.size)
    return rgb.crop((left, top, rgb.width - left, rgb.height - top))


def _resized(rgb: Image.Image, width: int, height: int) -> Image.Image:
    return rgb.resize((width, height), Image.Resampling.BICUBIC)


def _cut(rgb: Image.Image, left: int, top: int, side: int) -> Tensor:
    return _normalised(rgb.crop((left, top, left + side, top + side)), _CLIP_MEAN, _CLIP_SD)


def _normalised(rgb: Image.Image, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    pixels = torch.from_numpy(np.array(rgb, dtype=np.uint8)).permute(2, 0, 1).contiguous()
    scaled = pixels.to(torch.float32).div(255)
    return (scaled - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(sd).view(3, 1, 1)
