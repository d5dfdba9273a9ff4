"""The blocks of a model as the network has them, as an SVG file: a number for each as its colour.

A UNet is drawn as encoder, middle and decoder with the connections between them; a transformer as
rows of layers. Embeddings and last layers stand where the data pass them; text encoders and VAE
stand apart. Every number is also written, and the strip under a block says how many parameters it
has, beside the largest block of the denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from lib_automerge.domain.architectures import Architecture
from lib_automerge.study.charts import svg
from lib_automerge.study.formats import MINUS
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.shades import STYLE, WASH, Shades

WIDTH = 940.0
CELL, HEIGHT, GAP = 82.0, 38.0, 6.0
"""Size of a block, and the space between two."""

LEFT, TOP = 32.0, 112.0
ROW = 10
"""Layers of a transformer side by side."""

_LAST = ("OUT", "FINAL_LAYER")


class Diagram(msgspec.Struct, frozen=True, kw_only=True):
    """What a diagram shows.

    Attributes:
        title: what it is.
        subtitle: of which models.
        measure: what the numbers are, for the legend.
        values: block -> number; blocks without one are left blank.
        sizes: block -> parameters; blocks that are not in the model are drawn dashed.
        shades: number -> colour.
        ends: what the lowest and the highest colour mean.
        text: how a number is written.
    """

    title: str
    subtitle: str
    measure: str
    values: Mapping[str, float]
    sizes: Mapping[str, int]
    shades: Shades
    ends: tuple[str, str]
    text: Callable[[float], str]


def block_diagram(ident: str, architecture: Architecture, shown: Diagram) -> Markup:
    """Return the drawing of a model's blocks; `ident` must be unique where it is shown."""
    largest = max((shown.sizes.get(name, 0) for name in architecture.parameters), default=0) or 1

    def cell(name: str, x: float, y: float) -> Markup:
        return _cell(name, x, y, shown, largest)

    if architecture.denoiser == "UNet":
        body, bottom = _unet(architecture, cell)
    else:
        body, bottom = _transformer(architecture, cell)
    apart = (*architecture.text_encoders, *architecture.vae)
    if apart:
        bottom += 34.0
        body.append(_label("text encoders and VAE" if len(apart) > 1 else "VAE", LEFT, bottom))
        body += [cell(name, LEFT + i * (CELL + GAP), bottom + 8) for i, name in enumerate(apart)]
        bottom += 8 + HEIGHT
    heading = (
        _text(LEFT, 40.0, shown.title, "title"),
        _text(LEFT, 60.0, shown.subtitle, "soft"),
        _legend(shown),
    )
    height = bottom + 34.0
    return svg(
        ident,
        shown.title,
        _spoken(shown),
        (WIDTH, height),
        element("style", Markup(STYLE)),
        element("rect", width=WIDTH, height=height, class_="paper"),
        *heading,
        *body,
    )


def _unet(
    architecture: Architecture, cell: Callable[[str, float, float], Markup]
) -> tuple[list[Markup], float]:
    """Encoder down the left side, decoder up the right, each connection on one line."""
    encoder, decoder = architecture.groups["IN"], architecture.groups["OUT"]
    step = HEIGHT + GAP
    left, right = WIDTH / 2 - 210.0, WIDTH / 2 + 210.0 - CELL
    body = [
        _label("encoder", left, TOP - 8),
        _label("decoder", right + CELL, TOP - 8, "end"),
    ]
    first = [name for name in architecture.groups["EXTRA"] if name not in _LAST]
    last = [name for name in architecture.groups["EXTRA"] if name in _LAST]
    middle = WIDTH / 2 - CELL / 2
    for row, name in enumerate(encoder):
        y = TOP + row * step
        body.append(_line(left + CELL + 4, y + HEIGHT / 2, right - 4, y + HEIGHT / 2))
        body += [cell(name, left, y), cell(decoder[len(encoder) - 1 - row], right, y)]
    bottom = TOP + len(encoder) * step
    for start, end in ((left + CELL / 2, middle - 4), (right + CELL / 2, middle + CELL + 4)):
        body.append(
            _path(f"M{start:g} {bottom - GAP + 3:g} V{bottom + HEIGHT / 2:g} H{end:g}", "line")
        )
    body += [cell(name, middle, bottom) for name in architecture.groups["M"]]
    for row, name in enumerate(first):
        y = TOP + row * step
        body += [
            _line(left - 20, y + HEIGHT / 2, left - 4, y + HEIGHT / 2),
            cell(name, left - 20 - CELL, y),
        ]
    for name in last:
        body += [
            _line(right + CELL + 4, TOP + HEIGHT / 2, right + CELL + 20, TOP + HEIGHT / 2),
            cell(name, right + CELL + 20, TOP),
        ]
    return body, bottom + HEIGHT


def _transformer(
    architecture: Architecture, cell: Callable[[str, float, float], Markup]
) -> tuple[list[Markup], float]:
    """What comes in at the top, then every kind of layer in rows, what goes out at the bottom."""
    groups = architecture.groups
    layers = architecture.layers
    before = [name for name in groups["EXTRA"] if name not in _LAST]
    sections = [("embeddings", before)]
    beside = [g for g in groups if g not in (*layers, "EXTRA", "BASE", "VAE")]
    sections += [(_kind(group), list(groups[group])) for group in (*beside, *layers)]
    sections.append(("last layer", [name for name in groups["EXTRA"] if name in _LAST]))
    body: list[Markup] = []
    y = TOP
    for number, (title, names) in enumerate(sections):
        if number:
            body.append(_arrow(LEFT + CELL / 2, y - 26.0, y - 9.0))
        body.append(_label(title, LEFT + CELL / 2 + 14 if number else LEFT, y - 8))
        for index, name in enumerate(names):
            row, column = divmod(index, ROW)
            body.append(cell(name, LEFT + column * (CELL + GAP), y + row * (HEIGHT + GAP)))
        y += math.ceil(len(names) / ROW) * (HEIGHT + GAP) - GAP + 36.0
    return body, y - 36.0


_KINDS = {
    "D": "double-stream layers",
    "S": "single-stream layers",
    "JOINT": "joint layers",
    "NR": "refiners of the noise",
    "CR": "refiners of the prompt",
    "LLM": "adapter of the text encoder",
}


def _kind(group: str) -> str:
    return _KINDS.get(group, "layers")


def _cell(name: str, x: float, y: float, shown: Diagram, largest: int) -> Markup:
    """A block: its name, its number, and how large it is."""
    value, size = shown.values.get(name), shown.sizes.get(name)
    hint = name if size is None else f"{name}: {size:,} parameters"
    if value is not None:
        hint += f", {shown.measure} {shown.text(value)}"
    fill = WASH if value is None else shown.shades.at(value)
    light = value is not None and shown.shades.is_dark(value)
    tone = "light" if light else ""
    share = 0.0 if size is None else min(size / largest, 1.0)  # a text encoder can be larger
    class_ = "dashed" if size is None else "frame"
    return element(
        "g",
        element("title", hint),
        element(
            "rect",
            x=x, y=y, width=CELL, height=HEIGHT, rx=5, class_=class_,
            fill=None if size is None else fill,
        ),
        _text(x + CELL / 2, y + 15, _short(name), f"small {tone}", "middle"),
        EMPTY
        if value is None
        else _text(x + CELL / 2, y + 29, shown.text(value), f"strong {tone}", "middle"),
        element(
            "rect",
            x=x + 5, y=y + HEIGHT - 5, width=(CELL - 10) * share, height=2.5, rx=1.2,
            fill="#ffffff" if light else "#59626f", opacity=0.75,
        )
        if share > 0.004
        else EMPTY,
    )  # fmt: skip


_WORDS = {
    "CONTEXT_EMBEDDER": "CONTEXT",
    "REGISTER_TOKENS": "REGISTERS",
    "EXTRA_EMBEDDER": "EXTRA",
    "STYLE_EMBEDDER": "STYLE",
    "TEXT_PADDING": "PADDING",
    "CAP_EMBEDDER": "CAPTION",
    "PAD_TOKENS": "PADDING",
    "DISTILLED_GUIDANCE_LAYER": "GUIDANCE",
}
"""Names too long for a block; the full one is in its hint."""


def _short(name: str) -> str:
    return _WORDS.get(name, name)


def _legend(shown: Diagram) -> Markup:
    """The colours from low to high, at the right of the title."""
    right, wide, y = WIDTH - LEFT, 190.0, 34.0
    left, steps = right - wide, 38
    low, high = shown.shades.low, shown.shades.high
    parts = [
        element(
            "rect",
            x=left + wide * i / steps,
            y=y,
            width=wide / steps + 0.5,
            height=10,
            fill=shown.shades.at(low + (high - low) * (i + 0.5) / steps),
        )
        for i in range(steps)
    ]
    return join(
        [
            _text(left, y - 8, shown.measure, "small soft"),
            *parts,
            _text(left, y + 25, shown.ends[0], "small"),
            _text(right, y + 25, shown.ends[1], "small", "end"),
            _text(right, y + 43, "strip: number of parameters", "small soft", "end"),
        ]
    )


def _spoken(shown: Diagram) -> str:
    told = (f"{name} {shown.text(value)}" for name, value in shown.values.items())
    return f"{shown.measure} by block: {', '.join(told)}"


def _label(words: str, x: float, y: float, anchor: str = "start") -> Markup:
    return _text(x, y, words, "small soft", anchor)


def _text(x: float, y: float, content: str, class_: str, anchor: str = "start") -> Markup:
    shown = MINUS + content[1:] if content.startswith("-") else content
    return element("text", shown, x=x, y=y, class_=class_.strip(), text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="line")


def _path(d: str, class_: str) -> Markup:
    return element("path", d=d, class_=class_)


def _arrow(x: float, top: float, bottom: float) -> Markup:
    head = f"M{x - 4:g} {bottom - 5:g} L{x:g} {bottom:g} L{x + 4:g} {bottom - 5:g}"
    return join([_line(x, top, x, bottom), _path(head, "line")])
