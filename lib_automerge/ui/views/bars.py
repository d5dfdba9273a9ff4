"""The weights of a merge as narrow columns, for a column of the tab; hover or focus tells them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from lib_automerge.study.block_chart import Bar
from lib_automerge.study.charts import Scale, line, rectangle, svg, text
from lib_automerge.study.formats import number
from lib_automerge.study.markup import Markup, element

LEFT, TOP, FLOOR = 42.0, 10.0, 130.0
GROUP_GAP = 8.0
_NUMBERED = re.compile(r"([A-Z]+)(\d\d)")


def weight_bars(ident: str, bars: Sequence[Bar], ends: dict[float, str], width: float) -> Markup:
    """Draw the weights as columns from 0, in the order of the network.

    Args:
        ident: unique in the page.
        bars: the searched blocks.
        ends: weight -> what it means, such as {0: "A", 1: "B"}; always on the scale.
        width: in pixels.
    """
    values = [*ends, 0.0, *(bar.weight for bar in bars)]
    y = Scale(min(values), max(values), FLOOR, TOP)
    if y.low == y.high:
        y = Scale(y.low, y.low + 1.0, FLOOR, TOP)
    step, places = _places(bars, width)
    thick = step * 0.68
    body: list[str] = []
    for value, word in ends.items():
        body.append(line(LEFT, y(value), width, y(value), "axis" if value == 0 else "grid"))
        body.append(text(LEFT - 6, y(value) + 4, f"{value:g} = {word}", "tick", "end"))
    for bar, x in zip(bars, places, strict=True):
        top, bottom = sorted((y(bar.weight), y(0.0)))
        kind = "weight idle" if bar.idle else "weight"
        hint = f"{bar.name}: {number(bar.weight, 3)}"
        hint += ", without effect: A and B are equal here" if bar.idle else ""
        body.append(
            element(
                "g",
                element("title", hint),
                # the whole column answers the pointer, not only its filled part
                rectangle(x - step / 2, TOP, step, FLOOR - TOP, "hit"),
                rectangle(x - thick / 2, top, thick, max(bottom - top, 1.5), kind),
            )
        )
    body += _names(bars, places, step)
    described = ", ".join(f"{bar.name} {number(bar.weight, 2)}" for bar in bars)
    return svg(ident, "Weights of the best merge", described, (width, FLOOR + 40), *body)


def _group(name: str) -> str:
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else name


def _places(bars: Sequence[Bar], width: float) -> tuple[float, list[float]]:
    groups = [_group(bar.name) for bar in bars]
    gaps = [0, *itertools.accumulate(int(a != b) for a, b in itertools.pairwise(groups))]
    step = (width - LEFT - GROUP_GAP * (gaps[-1] + 1)) / max(len(bars), 1)
    return step, [LEFT + GROUP_GAP * (g + 1) + step * (i + 0.5) for i, g in enumerate(gaps)]


def _names(bars: Sequence[Bar], places: Sequence[float], step: float) -> list[Markup]:
    """The name of each group below it, in two rows where neighbours are too narrow for one."""
    parts = []
    row = 0
    end = 0.0
    pairs = zip(bars, places, strict=True)
    for group, members in itertools.groupby(pairs, key=lambda pair: _group(pair[0].name)):
        middles = [x for _, x in members]
        start, stop = middles[0] - step / 2, middles[-1] + step / 2
        middle, half = (start + stop) / 2, 3.4 * len(group)
        row = 1 - row if middle - half < end + 4 else 0
        if row == 0:
            end = middle + half
        parts.append(line(start + 1, FLOOR + 6, stop - 1, FLOOR + 6, "zero"))
        parts.append(text(middle, FLOOR + 20 + 14 * row, group, "tick", "middle"))
    return parts
