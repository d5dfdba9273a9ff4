"""Measures of how an image looks, without any weights: for guards, duplicates and diversity.

Each measure is a number that anybody can check; `domain.guards` says what it betrays. All work on
a reduced copy: a 512x512 image takes a few milliseconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_automerge.reward.rgb import as_rgb

if TYPE_CHECKING:
    Array: TypeAlias = NDArray[np.float32]

VERSION = 1
"""Belongs into the key of stored measures; counts every change of a number here."""

_AREA = 512 * 512
"""Structure is measured at about this many pixels: at another size it is another measure."""
_BLOCK = 4
_NEAR_BLACK = 16
_HASH_SIDE = 32
_HASH_WAVES = 8
_SAME_BITS = 6


def looks(image: Image.Image) -> dict[str, float]:
    """Measure an image.

    Args:
        image: of any size, and any mode that `as_rgb` takes.

    Returns:
        The guards of `domain.guards` that one image suffices for, all of them finite:

        saturation: the sum of max - min over the sum of max of the colour channels, 0 to 1.
        colourfulness: Hasler and Suesstrunk, Measuring Colourfulness in Natural Images, 2003, in
            units of the largest channel value; 0 for grey, about 0.4 for garish images.
        contrast, brightness: standard deviation and mean of the luminance, 0 to 1.
        clipped: share of all channel values that are 0 or 255, 0 to 1.
        sharpness: natural logarithm of 1 + the variance of the Laplacian of the luminance (0 to
            255), at about 512x512 pixels.
        fine_detail: share of the luminance's variance within blocks of 4x4 pixels, at about
            512x512 pixels, 0 to 1.
        near_black: share of pixels with a luminance below 16 of 255, 0 to 1.
    """
    colour = as_rgb(image)
    luminance = colour.convert("L")
    counts = np.asarray(luminance.histogram(), dtype=np.float64) / (image.width * image.height)
    levels = np.arange(256) / 255
    brightness = float(counts @ levels)
    channels = np.asarray(colour.histogram(), dtype=np.float64).reshape(3, 256)
    saturation, colourfulness = _colours(colour)
    sharpness, fine_detail = _structure(_reduced(luminance))
    return {
        "saturation": saturation,
        "colourfulness": colourfulness,
        "contrast": math.sqrt(max(0.0, float(counts @ (levels - brightness) ** 2))),
        "brightness": brightness,
        "clipped": float(channels[:, [0, 255]].sum() / channels.sum()),
        "sharpness": sharpness,
        "fine_detail": fine_detail,
        "near_black": float(counts[:_NEAR_BLACK].sum()),
    }


def perceptual_hash(image: Image.Image) -> int:
    """Return 64 bits that are nearly the same for images that look nearly the same.

    The signs of the 8x8 slowest cosine waves of the luminance at 32x32 pixels, against their median
    (pHash: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    small = as_rgb(image).convert("L").resize((_HASH_SIDE,) * 2, Image.Resampling.BOX)
    waves = _WAVES @ np.asarray(small, dtype=np.float64) @ _WAVES.T
    # rounded, so that a flat image has no bits of floating point noise
    strengths = np.round(waves, 6).ravel()
    above = strengths > np.median(strengths[1:])
    return int("".join("1" if bit else "0" for bit in above), 2)


def near_duplicate(first: int, second: int) -> bool:
    """Whether two images with these hashes look nearly the same: at most 6 of 64 bits differ."""
    return (first ^ second).bit_count() <= _SAME_BITS


def embedding(image: Image.Image) -> Array:
    """Return what an image looks like as a vector of length 1, for `diversity` without a model.

    Half of it is where which colour is (8x8 pixels), half where which edges are (4x4 fields, 8
    directions). It tells compositions and palettes apart, not subjects.
    """
    colour = as_rgb(image)
    small = colour.resize((8, 8), Image.Resampling.BOX)
    palette = np.asarray(small, dtype=np.float32).ravel() / 127.5 - 1
    grey = np.asarray(colour.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
    down, right = np.gradient(grey)
    direction = ((np.arctan2(down, right) / np.pi + 1) * 4).astype(np.int64) % 8
    field = np.arange(64) // 16
    place = (field[:, None] * 4 + field[None, :]) * 8 + direction
    edges = np.sqrt(np.bincount(place.ravel(), np.hypot(down, right).ravel(), 128))
    both = np.concatenate([_unit(palette), _unit(edges.astype(np.float32))])
    return _unit(both)


def diversity(embeddings: Array) -> float:
    """Return the mean pairwise cosine distance, 0 (all the same) to 2.

    Compare it only between equal numbers of images, embedded by the same model. One image has
    none: 0.

    Args:
        embeddings: (n, d), of any lengths.
    """
    units = _units(embeddings)
    count = len(units)
    if count < 2:
        return 0.0
    cosines = (float(np.square(units.sum(axis=0)).sum()) - count) / (count * (count - 1))
    return max(0.0, 1.0 - cosines)


def _waves() -> NDArray[np.float64]:
    """The slowest cosine waves, (8, 32)."""
    angles = np.outer(np.arange(_HASH_WAVES), 2 * np.arange(_HASH_SIDE) + 1)
    return np.cos(angles * np.pi / (2 * _HASH_SIDE))


_WAVES = _waves()


def _reduced(image: Image.Image) -> Image.Image:
    """The image at about 512x512 pixels at most, by whole factors."""
    factor = round(math.sqrt(image.width * image.height / _AREA))
    return image.reduce(factor) if factor > 1 else image


def _colours(image: Image.Image) -> tuple[float, float]:
    """Saturation and colourfulness of a copy of at most about 256x256 pixels."""
    factor = math.ceil(math.sqrt(image.width * image.height / (_AREA / 4)))
    small = image.reduce(factor) if factor > 1 else image
    red, green, blue = np.moveaxis(np.asarray(small, dtype=np.float32) / 255, 2, 0)
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    total = float(high.sum())
    saturation = float((high - low).sum()) / total if total > 0 else 0.0
    across, along = red - green, (red + green) / 2 - blue
    spread = math.hypot(float(across.std()), float(along.std()))
    distance = math.hypot(float(across.mean()), float(along.mean()))
    return saturation, spread + 0.3 * distance


def _structure(luminance: Image.Image) -> tuple[float, float]:
    """Sharpness and fine detail."""
    values = np.asarray(luminance, dtype=np.float32)
    height, width = values.shape
    sharpness = 0.0
    if min(height, width) >= 3:
        inner = values[1:-1, 1:-1]
        around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
        sharpness = math.log1p(float((around - 4 * inner).var()))
    rows, columns = height // _BLOCK, width // _BLOCK
    if not rows or not columns:
        return sharpness, 0.0
    cut = values[: rows * _BLOCK, : columns * _BLOCK]
    blocks = cut.reshape(rows, _BLOCK, columns, _BLOCK).mean(axis=(1, 3))
    total = float(cut.var())
    # variance is that of the blocks' means plus that within blocks
    fine = 1.0 - float(blocks.var()) / total if total > 1e-3 else 0.0
    return sharpness, min(1.0, max(0.0, fine))


def _unit(vector: Array) -> Array:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def _units(embeddings: Array) -> NDArray[np.float64]:
    rows = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
