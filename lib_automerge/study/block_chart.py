"""The weights of a merge block by block, in the order of the network, as SVG.

Below or behind every weight stands how far the two models are apart in that block: where they are
equal, its weight changes nothing. Weights that the search did not choose are hollow.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.study.charts import Scale, line, rectangle, svg, text, ticks
from lib_automerge.study.formats import number, percent
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.places import brackets, name_lines, places
from lib_automerge.study.searched import Kept


class Bar(msgspec.Struct, frozen=True):
    """A block with its weight, how far the models are apart in it (0: equal; None: unknown), and
    why it was not searched (None: it was).
    """

    name: str
    weight: float
    distance: float | None
    kept: Kept | None = None

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
    blocks = [bar.name for bar in bars]
    step, middles = places(blocks, 56.0, width)
    longest = max((bar.distance or 0.0 for bar in bars), default=0.0)
    body = [_scale_lines(y, ends, 56.0, width)]
    for bar, x in zip(bars, middles, strict=True):
        body.append(_column(bar, x, step, y))
        body += [
            text(x, names + 12 * row, part, "tick", "middle")
            for row, part in enumerate(name_lines(bar.name))
        ]
        body.append(_hanging(bar, x, step, hanging, depth, longest))
    body += [
        *brackets(blocks, middles, step, names + 9),
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
            _row_note(bar, x(0.0) + 6, y + 13),
            text(width, y + 13, number(bar.weight, 2), "value", "end"),
        ]
    return svg(ident, "Weight of every block", _description(bars), (width, height), *body)


def _row_note(bar: Bar, x: float, y: float) -> Markup:
    if bar.idle:
        return text(x, y, "equal in A and B", "tick small")
    return EMPTY if bar.kept is None else text(x, y - 1, bar.kept.phrase, "tick small")


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
    label, away = (bottom + 13, 12) if bar.weight < 0 else (top - 5, -12)
    note = EMPTY
    if bar.kept is not None and not bar.idle:
        note = text(x, label + away, bar.kept.word, "tick small", "middle")
    return element(
        "g",
        element("title", _hint(bar)),
        rectangle(x - thick / 2, top, thick, bottom - top, _weight_class(bar)),
        text(x, label, number(bar.weight, 2), "value small", "middle"),
        note,
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


def _weight_class(bar: Bar) -> str:
    if bar.idle:
        return "weight idle"
    return "weight" if bar.kept is None else "weight kept"


def _hint(bar: Bar) -> str:
    if bar.idle:
        return f"{bar.name}: weight {number(bar.weight, 4)}, without effect: A and B are equal here"
    apart = "" if bar.distance is None else f", A and B are {percent(bar.distance)} apart"
    kept = "" if bar.kept is None else f", {bar.kept.phrase}"
    return f"{bar.name}: weight {number(bar.weight, 4)}{kept}{apart}"


def _description(bars: Sequence[Bar]) -> str:
    return "; ".join(_hint(bar) for bar in bars)
