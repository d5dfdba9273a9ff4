"""Charts as SVG strings: intervals against zero, the history of scores, and block weights.

Pure functions of values. Colours come from CSS classes (`data/report.css`), so that one chart fits
light, dark and print; everything that colour says is also said by shape, position or words. A chart
has the pixel size that it is drawn for: ask for a narrow one for a narrow screen instead of
shrinking its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from lib_automerge.study.formats import number
from lib_automerge.study.markup import Markup, compact, element

LINE = 16.0
"""Distance of two lines of text, in pixels."""


class Scale(msgspec.Struct, frozen=True):
    """Maps the values `low`..`high` to the pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Ticks(msgspec.Struct, frozen=True):
    """Round values within a range, and how many decimals they need."""

    values: tuple[float, ...]
    decimals: int


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its interval: `name` says from what, `shown` and `range` are its numbers as
    text, `sure` whether it is significant.
    """

    name: str
    value: float
    low: float
    high: float
    shown: str
    range: str
    sure: bool


def svg(ident: str, title: str, description: str, size: tuple[float, float], *body: str) -> Markup:
    """A drawing with its title and description for those who cannot see it.

    `ident` must be unique in the page.
    """
    width, height = size
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", description, id=f"{ident}-desc"),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        role="img",
        viewBox=f"0 0 {compact(width)} {compact(height)}",
        width=width,
        height=height,
        aria_labelledby=f"{ident}-title {ident}-desc",
    )


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> Ticks:
    """About `count` multiples of 1, 2 or 5 times a power of ten within `low`..`high`."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    if whole:
        step = max(round(step), 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
    return Ticks(tuple(k * step for k in range(first, last + 1)), decimals)


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The range of values with some room at both ends; never empty.

    Values that are all the same get a tenth of their size around them, or 1 around 0.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = (high - low) * share
    if room <= abs(high) * 1e-12:
        room = abs(high) * 0.1 or 1.0
    return low - room, high + room


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to the wanted ones, at least `gap` apart, from low to high."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed: list[float] = []
    for index in order:
        nearest = placed[-1] + gap if placed else low
        placed.append(max(wanted[index], nearest))
    limit = high
    for position in reversed(range(len(placed))):
        placed[position] = min(placed[position], limit)
        limit = placed[position] - gap
    result = [0.0] * len(wanted)
    for index, place in zip(order, placed, strict=True):
        result[index] = place
    return result


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """One line of text; `anchor` is start, middle or end."""
    return element("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle with slightly round corners."""
    radius = min(2.0, width / 2, height / 2)
    return element("rect", x=x, y=y, width=width, height=height, rx=radius, class_=class_)


def star(x: float, y: float, radius: float, class_: str) -> Markup:
    """A five-pointed star around a point."""
    corners = []
    for corner in range(10):
        reach = radius if corner % 2 == 0 else radius * 0.45
        angle = math.pi * (corner / 5 - 0.5)
        corners.append(f"{x + reach * math.cos(angle):.1f},{y + reach * math.sin(angle):.1f}")
    return element("polygon", points=" ".join(corners), class_=class_)


def interval_chart(
    ident: str,
    title: str,
    intervals: Sequence[Interval],
    width: float,
    tick: Callable[[float], str] | None = None,
) -> Markup:
    """Differences from zero with their intervals, one below the other; `tick` writes the axis."""
    row, bottom = 60.0, 30.0
    height = row * len(intervals) + bottom
    low, high = padded([0.0, *(end for i in intervals for end in (i.low, i.high))])
    x = Scale(low, high, 0.0, width)
    marks = ticks(low, high, max(int(width // 90), 2))
    body = [
        text(x(v), height - 12, tick(v) if tick else number(v, marks.decimals), "tick", "middle")
        for v in marks.values
        if 14 < x(v) < width - 14
    ]
    for index, interval in enumerate(intervals):
        body.append(_interval_row(interval, x, row * index))
    spoken = "; ".join(
        f"{i.name}: {i.shown}, 95 % interval {i.range}{'' if i.sure else ', not significant'}"
        for i in intervals
    )
    return svg(ident, title, spoken, (width, height), *body)


def _interval_row(interval: Interval, x: Scale, top: float) -> Markup:
    kind = "sure" if interval.sure else "unsure"
    middle = top + 37
    return element(
        "g",
        text(x.start, top + 15, interval.name, "name"),
        element(
            "text",
            element("tspan", interval.range, class_="tick"),
            element("tspan", interval.shown, class_="value", dx=10),
            x=x.end,
            y=top + 15,
            text_anchor="end",
        ),
        rectangle(x.start, top + 24, x.end - x.start, 26, "strip"),
        rectangle(x(0.0), top + 24, x.end - x(0.0), 26, "better-side"),
        line(x(0.0), top + 24, x(0.0), top + 50, "zero"),
        line(x(interval.low), middle, x(interval.high), middle, f"whisker {kind}"),
        line(x(interval.low), middle - 5, x(interval.low), middle + 5, f"whisker {kind}"),
        line(x(interval.high), middle - 5, x(interval.high), middle + 5, f"whisker {kind}"),
        element("circle", cx=x(interval.value), cy=middle, r=5.5, class_=f"estimate {kind}"),
    )


def sparkline(bars: Sequence[float], low: float, high: float) -> Markup:
    """Weights as tiny bars, for a cell of a table; says nothing to a screen reader."""
    step, height = 4.0, 22.0
    y = Scale(low, high, height, 0.0)
    return element(
        "svg",
        *(
            rectangle(i * step, min(y(w), y(0.0)), step - 1, max(abs(y(w) - y(0.0)), 0.8), "weight")
            for i, w in enumerate(bars)
        ),
        xmlns="http://www.w3.org/2000/svg",
        class_="chart spark",
        viewBox=f"0 0 {compact(step * len(bars))} {compact(height)}",
        width=step * len(bars),
        height=height,
        aria_hidden="true",
    )


def difference_bar(value: float, low: float, high: float) -> Markup:
    """A bar from zero to a value, on a scale from `low` <= 0 to `high` >= 0, for a cell."""
    width, height = 84.0, 12.0
    x = Scale(*padded([low, 0.0, high], 0.0), 1.0, width - 1.0)
    kind = "gain" if value > 0 else "loss"
    return element(
        "svg",
        rectangle(min(x(value), x(0.0)), 1, abs(x(value) - x(0.0)), height - 2, kind),
        line(x(0.0), 0, x(0.0), height, "zero"),
        xmlns="http://www.w3.org/2000/svg",
        class_="chart difference",
        viewBox=f"0 0 {compact(width)} {compact(height)}",
        width=width,
        height=height,
        aria_hidden="true",
    )
