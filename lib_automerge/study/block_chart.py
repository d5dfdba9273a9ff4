"""The weights of a merge block by block, in the order of the network, as SVG.

Below or behind every weight stands how far the two models are apart in that block: where they are
equal, its weight changes nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import msgspec

from lib_automerge.study.charts import Scale, line, rectangle, svg, text, ticks
from lib_automerge.study.formats import number, percent
from lib_automerge.study.markup import EMPTY, Markup, element, join

_NUMBERED = re.compile(r"([A-Z]+)(\d\d)")


class Bar(msgspec.Struct, frozen=True):
    """A block with its weight and how far the models are apart in it (0: equal; None: unknown)."""

    name: str
    weight: float
    distance: float | None

    @property
    def idle(self) -> bool:
        """Whether the weight changes nothing because the models are equal here."""
        return self.distance == 0.0


def block_chart(ident: str, bars: Sequence[Bar], *, ends: dict[float, str], width: float) -> Markup:
    """Draw the weights as columns, with the distances of the models as columns hanging below.

    Args:
        ident: unique in the page.
        bars: in the order of the network.
        ends: weight -> what it means, such as {0: "A", 1: "B"}; always on the scale.
        width: in pixels; at least about 30 for a bar.
    """
    low, high = _range(bars, ends)
    y = Scale(low, high, 236.0 if low == 0.0 else 220.0, 26.0)
    names, hanging = 236.0 + 24.0, 236.0 + 76.0
    depth, height = 44.0, 236.0 + 76.0 + 44.0 + 20.0
    step, places = _places(bars, 56.0, width)
    longest = max((bar.distance or 0.0 for bar in bars), default=0.0)
    body = [_scale_lines(y, ends, 56.0, width)]
    for bar, x in zip(bars, places, strict=True):
        body.append(_column(bar, x, step, y))
        body += [
            text(x, names + 12 * row, part, "tick", "middle")
            for row, part in enumerate(_name_lines(bar.name))
        ]
        body.append(_hanging(bar, x, step, hanging, depth, longest))
    body += [
        *_brackets(bars, places, step, names + 9),
        line(56.0, hanging, width, hanging, "axis"),
        text(0, hanging + 14, "A to B", "tick"),
        text(0, hanging + 28, "distance", "tick"),
        text(0, 12, "weight", "tick"),
    ]
    return svg(ident, "Weight of every block", _description(bars), (width, height), *body)


def block_rows(ident: str, bars: Sequence[Bar], *, ends: dict[float, str], width: float) -> Markup:
    """Draw the same as rows, for a narrow screen."""
    row, top = 24.0, 40.0
    x = Scale(*_range(bars, ends), 92.0, width - 58.0)
    height = top + row * len(bars) + 4
    longest = max((bar.distance or 0.0 for bar in bars), default=0.0) or 1.0
    body = [
        text(0, 12, "bar: weight; thin line: distance of A to B", "tick"),
        *(line(x(v), top - 4, x(v), height, "grid") for v in ends),
        *(text(x(v), top - 10, _end(v, word), "tick", "middle") for v, word in ends.items()),
    ]
    for index, bar in enumerate(bars):
        y = top + row * index
        low, high = sorted((x(bar.weight), x(0.0)))
        share = (bar.distance or 0.0) / longest
        body += [
            text(0, y + 13, bar.name, "name"),
            rectangle(low, y + 3, high - low, 10, _weight_class(bar)),
            rectangle(x(0.0), y + 16, share * (x.end - x(0.0)), 3, "distance"),
            text(x(0.0) + 6, y + 13, "equal in A and B", "tick small") if bar.idle else EMPTY,
            text(width, y + 13, number(bar.weight, 2), "value", "end"),
        ]
    return svg(ident, "Weight of every block", _description(bars), (width, height), *body)


def _range(bars: Sequence[Bar], ends: dict[float, str]) -> tuple[float, float]:
    values = [*ends, *(bar.weight for bar in bars), 0.0, 1.0]
    return min(values), max(values)


def _scale_lines(y: Scale, ends: dict[float, str], left: float, width: float) -> Markup:
    parts = []
    for value in ticks(y.low, y.high, 4).values:
        word = ends.get(value)
        parts.append(line(left, y(value), width, y(value), "axis" if value in ends else "grid"))
        parts.append(text(left - 8, y(value) + 4, _end(value, word), "tick", "end"))
    return join(parts)


def _end(value: float, word: str | None) -> str:
    return f"{value:g} = {word}" if word else number(value, 1)


def _column(bar: Bar, x: float, step: float, y: Scale) -> Markup:
    thick = min(step * 0.62, 30.0)
    top, bottom = sorted((y(bar.weight), y(0.0)))
    label = bottom + 13 if bar.weight < 0 else top - 5
    return element(
        "g",
        element("title", _hint(bar)),
        rectangle(x - thick / 2, top, thick, bottom - top, _weight_class(bar)),
        text(x, label, number(bar.weight, 2), "value small", "middle"),
    )


def _hanging(bar: Bar, x: float, step: float, top: float, depth: float, longest: float) -> Markup:
    if bar.distance is None:
        return EMPTY
    if bar.idle:
        return text(x, top + 13, "equal", "tick small", "middle")
    thick = min(step * 0.62, 30.0)
    length = max(bar.distance / longest * depth, 1.0)
    share = percent(bar.distance).replace(" ", "")
    return element(
        "g",
        element("title", _hint(bar)),
        rectangle(x - thick / 2, top, thick, length, "distance"),
        text(x, top + length + 12, share, "tick small", "middle"),
    )


def _places(bars: Sequence[Bar], left: float, width: float) -> tuple[float, list[float]]:
    """The room for one bar, and the middle of each; groups stand a little apart."""
    gap = 14.0
    groups = [_group(bar.name) for bar in bars]
    before = [0, *itertools.accumulate(int(a != b) for a, b in itertools.pairwise(groups))]
    step = (width - left - gap * before[-1]) / len(bars)
    return step, [left + step * (i + 0.5) + gap * count for i, count in enumerate(before)]


def _brackets(bars: Sequence[Bar], places: Sequence[float], step: float, y: float) -> list[Markup]:
    """A line with the common name under the blocks that are only numbered."""
    parts = []
    pairs = zip(bars, places, strict=True)
    for group, members in itertools.groupby(pairs, key=lambda pair: _group(pair[0].name)):
        middles = [x for _, x in members]
        if group:
            start, end = middles[0] - step / 2 + 3, middles[-1] + step / 2 - 3
            parts.append(line(start, y, end, y, "axis"))
            parts.append(text((start + end) / 2, y + 16, group, "name", "middle"))
    return parts


def _group(name: str) -> str:
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else ""


def _name_lines(name: str) -> list[str]:
    match = _NUMBERED.fullmatch(name)
    return [match[2]] if match else name.split("_")


def _weight_class(bar: Bar) -> str:
    return "weight idle" if bar.idle else "weight"


def _hint(bar: Bar) -> str:
    if bar.idle:
        return f"{bar.name}: weight {number(bar.weight, 4)}, without effect: A and B are equal here"
    apart = "" if bar.distance is None else f", A and B are {percent(bar.distance)} apart"
    return f"{bar.name}: weight {number(bar.weight, 4)}{apart}"


def _description(bars: Sequence[Bar]) -> str:
    return "; ".join(_hint(bar) for bar in bars)
