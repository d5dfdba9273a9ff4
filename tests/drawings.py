"""Drawings that stand for generated images: the same prompt and seed give the same scene."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PROMPTS = (
    "a red ball on a meadow",
    "a yellow star at night",
    "a blue heart by the sea",
    "a green moon at sunset",
    "a purple flower on a meadow",
    "a white house at night",
    "a yellow ball by the sea",
    "a red star at sunset",
    "a green heart on a meadow",
    "a blue moon at night",
    "a white flower by the sea",
    "a purple house at sunset",
)

_COLOURS = {
    "red": (224, 48, 52),
    "yellow": (250, 208, 40),
    "green": (52, 168, 83),
    "blue": (50, 105, 226),
    "purple": (146, 68, 190),
    "white": (246, 246, 248),
}
_SCENES = {
    "night": ((14, 18, 52), (46, 52, 98)),
    "meadow": ((150, 208, 240), (92, 168, 76)),
    "sunset": ((88, 60, 130), (250, 140, 70)),
    "sea": ((170, 216, 240), (24, 92, 152)),
}


def draw(prompt: str, seed: int, size: int, quality: float) -> Image.Image:
    """A drawing of a prompt of `PROMPTS`; low quality blurs it and adds noise."""
    words = set(prompt.split())
    colour = next((c for word, c in _COLOURS.items() if word in words), (128, 128, 128))
    above, below = next((s for word, s in _SCENES.items() if word in words), ((200,) * 3,) * 2)
    random = np.random.default_rng(seed)
    large = 4 * size
    image = Image.new("RGB", (large, large), above)
    pen = ImageDraw.Draw(image)
    horizon = large * random.uniform(0.55, 0.72)
    pen.rectangle((0, horizon, large, large), fill=below)
    centre = np.array([random.uniform(0.38, 0.62), random.uniform(0.42, 0.56)]) * large
    radius = random.uniform(0.2, 0.3) * large
    outline = [
        (centre[0] + radius * r * math.cos(t), centre[1] + radius * r * math.sin(t))
        for t, r in _outline(words)
    ]
    pen.polygon(outline, fill=colour)
    if "moon" in words:
        shift = radius * 0.45
        low, high = centre - radius * 0.9 + (shift, -shift / 2), centre + radius * 0.9 + (shift, 0)
        pen.ellipse((*low, *high), fill=above)
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    lack = max(0.45 - quality, 0.0)
    image = image.filter(ImageFilter.GaussianBlur(lack * size / 20))
    pixels = np.asarray(image, dtype=np.float64) + random.normal(0, 60 * lack, (size, size, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _outline(words: set[str]) -> list[tuple[float, float]]:
    """The subject's corners as angles and distances from its centre, of which 1 is typical."""
    if "star" in words:
        return [(math.pi * (k / 5 - 0.5), 0.55 if k % 2 else 1.25) for k in range(10)]
    if "house" in words:
        return [(-1.571, 1.3), (-0.35, 1.0), (0.785, 1.2), (2.356, 1.2), (3.491, 1.0)]
    petals = 0.35 if "flower" in words else 0.0
    turns = [2 * math.pi * k / 48 for k in range(48)]
    return [(turn, 1.0 - petals + petals * (1 + math.cos(5 * turn)) / 1.4) for turn in turns]
