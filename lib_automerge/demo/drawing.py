"""Procedural pictures with captions: what the demo checkpoints and the demo reward learn from.

Every picture shows one subject in one colour before one scene, shaded by distance fields, so that
its edges are smooth and its caption is exactly true. Everything is batched torch arithmetic; the
same generator state gives the same pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 64

SUBJECTS = ("ball", "star", "heart", "moon", "flower", "house")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SCENES = ("night", "meadow", "sunset", "sea")

VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "colour": COLOURS,
    "scene": SCENES,
}

_RGB = torch.tensor(
    [
        (0.90, 0.12, 0.15),
        (1.00, 0.84, 0.10),
        (0.16, 0.68, 0.24),
        (0.13, 0.38, 0.95),
        (0.58, 0.22, 0.78),
        (0.97, 0.97, 0.98),
    ]
)

# Every picture is a print on the same paper. The border is also a fixed point of reference: with 32
# channels LDM's group norms take away each channel's mean, and with it the absolute colours.
_PAPER = (0.97, 0.96, 0.93)

_SCENE_PHRASES = {
    "night": ("at night", "in the night", "under a night sky"),
    "meadow": ("on a meadow", "over a meadow", "in a meadow"),
    "sunset": ("at sunset", "over a sunset", "in the sunset"),
    "sea": ("by the sea", "over the sea", "at the sea"),
}
_OPENINGS = ("a", "a", "one", "a picture of a", "a drawing of a")


@dataclass(frozen=True)
class Attributes:
    """What a batch of pictures shows: three long tensors of equal length N, indices into the
    tuples of `VOCABULARY`.
    """

    subject: Tensor
    colour: Tensor
    scene: Tensor

    def __len__(self) -> int:
        return len(self.subject)

    def named(self, kind: str) -> Tensor:
        """The indices of one kind of attribute: "subject", "colour" or "scene"."""
        return {"subject": self.subject, "colour": self.colour, "scene": self.scene}[kind]


def random_attributes(count: int, generator: torch.Generator) -> Attributes:
    """`count` independent, uniform combinations."""

    def indices(kind: str) -> Tensor:
        return torch.randint(0, len(VOCABULARY[kind]), (count,), generator=generator)

    return Attributes(indices("subject"), indices("colour"), indices("scene"))


def caption(subject: str, colour: str, scene: str, *, opening: str = "a", phrase: int = 0) -> str:
    """The prompt for one picture; an empty word leaves that attribute unnamed.

    Args:
        subject, colour, scene: words of `VOCABULARY`, or "".
        opening: the words before the colour, such as "a drawing of a".
        phrase: which of the three phrases for the scene to use.
    """
    parts = [opening, colour, subject or "thing"]
    if scene:
        parts.append(_SCENE_PHRASES[scene][phrase % 3])
    return " ".join(part for part in parts if part)


def captions(attributes: Attributes, generator: torch.Generator) -> list[str]:
    """One caption for each picture, in varied wording; one in eight leaves an attribute unnamed."""
    count = len(attributes)
    opening = torch.randint(0, len(_OPENINGS), (count,), generator=generator).tolist()
    phrase = torch.randint(0, 3, (count,), generator=generator).tolist()
    omit = torch.randint(0, 24, (count,), generator=generator).tolist()
    texts = []
    for i in range(count):
        words = {kind: VOCABULARY[kind][int(attributes.named(kind)[i])] for kind in VOCABULARY}
        for slot, kind in enumerate(VOCABULARY):
            if omit[i] == slot:
                words[kind] = ""
        texts.append(
            caption(
                words["subject"],
                words["colour"],
                words["scene"],
                opening=_OPENINGS[opening[i]],
                phrase=phrase[i],
            )
        )
    return texts


def named_attributes(prompt: str) -> dict[str, str]:
    """The attributes that a prompt names, kind -> word, the first of each kind."""
    found: dict[str, str] = {}
    for word in re.findall(r"[a-z]+", prompt.lower()):
        for kind, words in VOCABULARY.items():
            if word in words:
                found.setdefault(kind, word)
    return found


def draw(attributes: Attributes, generator: torch.Generator, *, chunk: int = 64) -> Tensor:
    """Draw a batch of pictures.

    Returns:
        Tensor (N, 3, 64, 64) in [-1, 1].
    """
    parts = []
    for start in range(0, len(attributes), chunk):
        piece = slice(start, start + chunk)
        part = Attributes(
            attributes.subject[piece], attributes.colour[piece], attributes.scene[piece]
        )
        parts.append(_draw(part, generator))
    return torch.cat(parts)


def _draw(attributes: Attributes, generator: torch.Generator) -> Tensor:
    count = len(attributes)

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low)[:, None, None]

    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = (grid[None] for grid in torch.meshgrid(axis, axis, indexing="ij"))
    background, ground = _scenes(x, y, uniform)
    pick = torch.arange(count)
    image = background[attributes.scene, pick]
    ground_at = ground[attributes.scene, pick]

    centre_x, centre_y = uniform(-0.16, 0.16), uniform(-0.20, 0.02)
    radius, angle = uniform(0.46, 0.56), uniform(-0.12, 0.12)
    # A house stands upright; everything else may lean a little.
    angle = torch.where(attributes.subject[:, None, None] == SUBJECTS.index("house"), 0.0, angle)
    u0, v0 = (x - centre_x) / radius, (y - centre_y) / radius
    u = angle.cos() * u0 + angle.sin() * v0
    v = -angle.sin() * u0 + angle.cos() * v0
    distance = torch.stack([_DISTANCES[name](u, v) for name in SUBJECTS])[attributes.subject, pick]

    # The shadow lies flat on the ground below the subject, offset away from the light.
    shadow = ((x - centre_x - 0.10) / (radius * 0.95)) ** 2 + ((y - 0.74) / 0.13) ** 2
    image = image * (1 - 0.45 * (torch.exp(-shadow) * ground_at))[:, None]
    rim = _inside(distance - 0.10, radius)
    image = _mix(image, image * 0.45, rim)

    colour = _RGB[attributes.colour][:, :, None, None]
    light = (0.5 - 0.32 * u - 0.42 * v).clamp(0, 1)[:, None]
    depth = (-distance / 0.35).clamp(0, 1)[:, None]
    body = colour * (0.70 + 0.26 * light + 0.14 * depth)
    gloss = torch.exp(-(((u + 0.26) / 0.20) ** 2 + ((v + 0.30) / 0.16) ** 2))[:, None]
    body = body + (1 - body) * 0.55 * gloss
    body = _details(body, u, v, attributes.subject)
    image = _mix(image, body, _inside(distance, radius))
    image = _mix(image, torch.tensor(_PAPER)[None, :, None, None], _border(x, y))
    return (image * 2 - 1).clamp(-1, 1)


def _border(x: Tensor, y: Tensor) -> Tensor:
    """Coverage of the paper border: three pixels wide, with round inner corners."""
    corner_x, corner_y = (x.abs() - 0.80).clamp(min=0), (y.abs() - 0.80).clamp(min=0)
    return torch.sigmoid(((corner_x**2 + corner_y**2).sqrt() - 0.105) * 75)


def _mix(under: Tensor, over: Tensor, alpha: Tensor) -> Tensor:
    return under + (over - under) * alpha[:, None]


def _inside(distance: Tensor, radius: Tensor) -> Tensor:
    """Coverage in [0, 1] of a shape whose signed distance is in units of its radius."""
    return torch.sigmoid(-distance * radius * 75)


def _details(body: Tensor, u: Tensor, v: Tensor, subject: Tensor) -> Tensor:
    """The flower's golden heart; the house's window and door."""
    flower = (subject == SUBJECTS.index("flower"))[:, None, None]
    heart = torch.sigmoid((0.27 - (u * u + v * v).sqrt()) * 30) * flower
    body = _mix(body, torch.tensor([0.98, 0.80, 0.25])[None, :, None, None], heart)
    house = (subject == SUBJECTS.index("house"))[:, None, None]
    roof = torch.sigmoid((-0.06 - v) * 30) * house
    body = _mix(body, body * 0.62, roof)
    door = _box(u - 0.30, v - 0.55, 0.15, 0.28)
    window = _box(u + 0.28, v - 0.36, 0.17, 0.15)
    body = _mix(body, torch.tensor([0.28, 0.17, 0.12])[None, :, None, None], door * house)
    return _mix(body, torch.tensor([1.0, 0.95, 0.70])[None, :, None, None], window * house)


def _box(u: Tensor, v: Tensor, width: float, height: float) -> Tensor:
    return torch.sigmoid(-torch.maximum(u.abs() - width, v.abs() - height) * 30)


def _ball(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt() - 0.95


def _star(u: Tensor, v: Tensor) -> Tensor:
    # Fold the plane into one tenth of the star; there its outline is a straight line from a tip
    # (radius 1.15) to a notch (radius 0.5).
    angle = torch.atan2(u, -v)
    fold = (torch.remainder(angle + math.pi / 5, 2 * math.pi / 5) - math.pi / 5).abs()
    r = (u * u + v * v).sqrt()
    px, py = r * fold.cos(), r * fold.sin()
    notch_x, notch_y = 0.5 * math.cos(math.pi / 5), 0.5 * math.sin(math.pi / 5)
    edge_x, edge_y = notch_x - 1.15, notch_y
    return ((px - 1.15) * edge_y - py * edge_x) / math.hypot(edge_x, edge_y)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    a, b = u.abs(), 0.78 - v
    lobe = ((a - 0.44) ** 2 + (b - 1.12) ** 2).sqrt() - 0.55
    tip = torch.maximum((a * 0.80 - b * 0.60) - 0.05 * b.clamp(0, 1) - 0.02, b - 1.18)
    return torch.minimum(lobe, torch.maximum(tip, a - 0.98))


def _moon(u: Tensor, v: Tensor) -> Tensor:
    disc = (u * u + v * v).sqrt() - 1.0
    bite = ((u - 0.50) ** 2 + (v + 0.12) ** 2).sqrt() - 0.78
    return torch.maximum(disc, -bite)


def _flower(u: Tensor, v: Tensor) -> Tensor:
    angle = torch.atan2(u, -v)
    r = (u * u + v * v).sqrt()
    return (r - 0.72 - 0.30 * torch.cos(5 * angle)) * 0.75


def _house(u: Tensor, v: Tensor) -> Tensor:
    walls = torch.maximum(u.abs() - 0.74, (v - 0.36).abs() - 0.48)
    roof = torch.maximum((u.abs() * 0.66 + (v + 0.98) * -0.75), v + 0.06)
    return torch.minimum(walls, roof)


_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "flower": _flower,
    "house": _house,
}

_STARS = (
    (-0.82, -0.80), (-0.45, -0.62), (0.10, -0.86), (0.55, -0.70), (0.86, -0.42),
    (-0.88, -0.25), (0.80, 0.05), (-0.72, 0.22), (-0.20, -0.92), (0.90, -0.88),
)  # fmt: skip


def _scenes(
    x: Tensor, y: Tensor, uniform: Callable[[float, float], Tensor]
) -> tuple[Tensor, Tensor]:
    """All four scenes: pictures (4, N, 3, H, W) in [0, 1], and their ground (4, N, H, W)."""
    phase, tone = uniform(0, 2 * math.pi), uniform(-0.06, 0.06)
    horizon = uniform(0.44, 0.54)
    hills = horizon + 0.07 * torch.sin(2.2 * x + phase)
    ground = torch.sigmoid((y - hills) * 40)
    flat = torch.sigmoid((y - horizon) * 40)
    down = ((y + 1) / 2).expand_as(ground)

    sky = _gradient(down, (0.03, 0.04, 0.16), (0.26, 0.20, 0.46))
    stars = torch.stack(
        [torch.exp(-((x - sx) ** 2 + (y - sy) ** 2) / 0.0016) for sx, sy in _STARS]
    ).sum(0)
    sky = sky + 0.85 * (stars * (1 - ground)).clamp(0, 1)[:, None]
    night = _mix(sky, _gradient(down, (0.10, 0.14, 0.26), (0.05, 0.07, 0.15)), ground)

    sky = _gradient(down * 1.3, (0.45, 0.74, 0.97), (0.88, 0.95, 0.98))
    meadow = _mix(sky, _gradient(down, (0.75, 0.92, 0.40), (0.22, 0.55, 0.20)), ground)

    sky = _gradient(down * 1.35, (0.40, 0.22, 0.50), (1.00, 0.62, 0.30))
    glow = torch.exp(-((x - 0.62) ** 2 + (y - horizon) ** 2) / 0.10)
    sun = torch.sigmoid((0.20 - ((x - 0.62) ** 2 + (y - horizon) ** 2).sqrt()) * 45)
    sky = _mix(sky, torch.tensor([1.0, 0.80, 0.45])[None, :, None, None], 0.7 * glow)
    sky = _mix(sky, torch.tensor([1.0, 0.94, 0.70])[None, :, None, None], sun)
    sunset = _mix(sky, _gradient(down, (0.45, 0.22, 0.28), (0.20, 0.09, 0.20)), ground)

    sky = _gradient(down * 1.4, (0.62, 0.86, 0.92), (0.97, 0.96, 0.88))
    waves = 0.5 + 0.5 * torch.sin(34 * (y - horizon) / (0.6 + y.clamp(min=0)) + 3 * x + phase)
    water = _gradient(down, (0.20, 0.62, 0.72), (0.05, 0.30, 0.52))
    water = _mix(water, torch.tensor([0.75, 0.93, 0.95])[None, :, None, None], 0.22 * waves)
    sea = _mix(sky, water, flat)

    scenes = torch.stack([night, meadow, sunset, sea]) + tone[:, None]
    return scenes.clamp(0, 1), torch.stack([ground, ground, ground, flat])


def _gradient(position: Tensor, top: Sequence[float], bottom: Sequence[float]) -> Tensor:
    """A vertical gradient (N, 3, H, W); `position` (N, H, W) is 0 at the top and 1 at the end."""
    low = torch.tensor(top)[None, :, None, None]
    high = torch.tensor(bottom)[None, :, None, None]
    return low + (high - low) * position.clamp(0, 1)[:, None]
