"""What an image must not be driven to: measures that a search can inflate to please a reward.

The names are those of the measures in `reward.looks`. None of them is good or bad in itself: an
image counts as suspicious only outside the range of the parents' images of the same prompt.
"""

from __future__ import annotations

import msgspec


class Guard(msgspec.Struct, frozen=True):
    """A measure of an image.

    Attributes:
        name: its key in what `reward.looks` returns.
        label: its name for users.
        explanation: one sentence for users: what it measures, what it betrays.
        narrowest: the smallest width that the parents' range is taken to have, in units of the
            measure: differences that nobody sees.
    """

    name: str
    label: str
    explanation: str
    narrowest: float


GUARDS = (
    Guard(
        "saturation",
        "Saturation",
        "How pure the colours are, from grey (0) to pure (1); glossy, overcooked images have more.",
        0.05,
    ),
    Guard(
        "colourfulness",
        "Colourfulness",
        "How much the colours differ from grey and from each other; garish images have more.",
        0.03,
    ),
    Guard(
        "contrast",
        "Contrast",
        "How much light and dark differ; burnt images have more, foggy ones less.",
        0.03,
    ),
    Guard(
        "brightness",
        "Brightness",
        "How light the image is, from black (0) to white (1).",
        0.05,
    ),
    Guard(
        "clipped",
        "Clipped",
        "The share of colour values at either end of their range; burnt images have more.",
        0.02,
    ),
    Guard(
        "sharpness",
        "Sharpness",
        "How strong edges and fine structure are; oversharpened images have more, blurred less.",
        0.5,
    ),
    Guard(
        "fine_detail",
        "Fine detail",
        "The share of structure finer than four pixels; noisy images have more, smooth ones less.",
        0.03,
    ),
    Guard(
        "near_black",
        "Near black",
        "The share of the image that is almost black.",
        0.05,
    ),
    Guard(
        "duplicate",
        "Duplicate",
        "1 if another seed gave nearly the same image: the model has lost its variety.",
        1.0,
    ),
)
"""All guards, in the order in which they are shown. `sharpness` is a natural logarithm."""

NARROWEST = {guard.name: guard.narrowest for guard in GUARDS}
