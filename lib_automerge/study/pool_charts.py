"""A pool of models as SVG files: as a tree of relatives, as a map, and as a table of distances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lib_automerge.study.charts import Scale, padded, svg, ticks
from lib_automerge.study.formats import percent, two_digits
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.study.pool_geometry import Matrix, places, tree
from lib_automerge.study.shades import STYLE, of_sizes

WIDTH, LEFT, TOP = 940.0, 32.0, 92.0
LETTER = 6.4
"""Room for one character of a label, in pixels."""

NAMED = 12
"""Models that a map names beside their dots; of more it tells numbers, with a list below."""

LONGEST = 40
"""Characters of a name that a drawing shows."""


def tree_chart(ident: str, title: str, names: Sequence[str], distances: Matrix) -> Markup:
    """Draw who is near whom: models that meet far left are close relatives.

    Args:
        ident: unique where the drawing is shown.
        title: what is compared.
        names: of the models.
        distances: of all pairs.
    """
    found = tree(distances)
    row = 24.0
    shown = [_shortened(name) for name in names]
    room = max(map(len, shown)) * LETTER + 20
    bottom = TOP + row * len(names)
    top = max(joint.height for joint in found.joints) or 1.0
    x = Scale(0.0, top, LEFT + room, WIDTH - LEFT)
    spots: dict[int, tuple[float, float]] = {}
    body = []
    for index, leaf in enumerate(found.leaves):
        y = TOP + row * (index + 0.5)
        spots[leaf] = (x(0.0), y)
        body.append(_text(x(0.0) - 10, y + 4, shown[leaf], "", "end", hint=names[leaf]))
    for number, joint in enumerate(found.joints):
        (left, low), (right, high) = spots[joint.left], spots[joint.right]
        at = x(joint.height)
        body.append(
            element(
                "g",
                element("title", f"{two_digits(joint.height)} apart on average"),
                _path(f"M{left:.1f} {low:.1f} H{at:.1f} V{high:.1f} H{right:.1f}", "branch"),
            )
        )
        spots[len(names) + number] = (at, (low + high) / 2)
    marks = ticks(0.0, top, 6)
    for value in marks.values:
        body.insert(0, _line(x(value), TOP - 4, x(value), bottom + 4, "line"))
        told = f"{value:.{marks.decimals}f}" if 1e-6 <= top < 1e9 else two_digits(value)
        body.append(_text(x(value), bottom + 20, told, "small", "middle"))
    words = "mean L2 distance of the models on both sides"
    body.append(_text(WIDTH - LEFT, bottom + 38, words, "small soft", "end"))
    return _drawing(ident, title, "Tree by average linkage", bottom + 56, body)


def map_chart(
    ident: str, title: str, names: Sequence[str], distances: Matrix, *, base: bool = False
) -> Markup:
    """Draw the models as points whose distances are as true as a plane allows.

    Args:
        ident: unique where the drawing is shown.
        title: what is compared.
        names: of the models.
        distances: of all pairs.
        base: whether the first model is the one that the others come from.
    """
    found = places(distances)
    height, columns = 620.0, 3
    wide, tall = WIDTH - 2 * LEFT - 60, height - TOP - 70
    (x_low, x_high), (y_low, y_high) = (padded(found.points[:, axis], 0.02) for axis in (0, 1))
    unit = min(wide / (x_high - x_low), tall / (y_high - y_low))
    centre = ((x_low + x_high) / 2, (y_low + y_high) / 2)
    dots = [
        (WIDTH / 2 + (x - centre[0]) * unit, TOP + tall / 2 - (y - centre[1]) * unit)
        for x, y in found.points.tolist()
    ]
    numbered = len(names) > NAMED
    words = [str(n) if numbered else _shortened(name) for n, name in enumerate(names, 1)]
    labels = _labels(dots, words, height - 62)
    body = []
    for number, ((x, y), (at, text, end)) in enumerate(zip(dots, labels, strict=True)):
        mark = (
            element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="dot")
            if base and number == 0
            else element("circle", cx=x, cy=y, r=4.5, class_="dot")
        )
        lead = _line(x, y, *end, "line") if end else EMPTY
        body.append(
            element("g", element("title", names[number]), lead, mark, _text(*at, text, "small"))
        )
    reach = _round_below((wide / 4) / unit)
    y = height - 34
    body += [
        _line(LEFT, y, LEFT + reach * unit, y, "branch"),
        _text(LEFT, y - 8, f"L2 distance {two_digits(reach)}", "small"),
        _text(WIDTH - LEFT, y + 4, _told(found.kept, base), "small soft", "end"),
    ]
    if numbered:
        rows = math.ceil(len(names) / columns)
        for index, name in enumerate(names):
            column, row = divmod(index, rows)
            x, y = LEFT + column * (WIDTH - 2 * LEFT) / columns, height + 12 + 17 * row
            body.append(_text(x + 18, y, str(index + 1), "small strong", "end"))
            body.append(_text(x + 24, y, _shortened(name), "small", hint=name))
        height += 17 * rows + 14
    return _drawing(ident, title, "Map of all distances", height, body)


def matrix_chart(ident: str, title: str, names: Sequence[str], distances: Matrix) -> Markup:
    """Draw the distance of every pair as a table of colours, relatives side by side."""
    order = tree(distances).leaves
    shown = [_shortened(names[model]) for model in order]
    room = max(map(len, shown)) * LETTER + 14
    side = min((WIDTH - 2 * LEFT - room) / len(order), 44.0)
    colours = of_sizes(float(distances.max()))
    body = []
    for row, one in enumerate(order):
        y = TOP + side * row
        body.append(_text(LEFT + room - 8, y + side / 2 + 4, shown[row], "small", "end"))
        for column, other in enumerate(order):
            value = float(distances[one, other])
            x = LEFT + room + side * column
            told = f"{names[one]} and {names[other]}: {two_digits(value)}"
            box = element("rect", x=x, y=y, width=side - 1, height=side - 1, fill=colours.at(value))
            light = "small light" if colours.is_dark(value) else "small"
            number = (
                _text(x + side / 2, y + side / 2 + 4, two_digits(value), light, "middle")
                if side >= 34
                else EMPTY
            )
            body.append(element("g", element("title", told), box, number))
    bottom = TOP + side * len(order)
    ends = f"white: 0, darkest: {two_digits(colours.high)}"
    body.append(_text(LEFT + room, bottom + 20, f"L2 distance, {ends}", "small soft"))
    return _drawing(ident, title, "Distance of every pair", bottom + 40, body)


def _told(kept: float, base: bool) -> str:
    told = f"the map shows {percent(kept)} of the squared distances"
    return f"square: the base; {told}" if base else told


def _labels(
    dots: Sequence[tuple[float, float]], names: Sequence[str], bottom: float
) -> list[tuple[tuple[float, float], str, tuple[float, float] | None]]:
    """Return where each name begins, so that no two overlap, and where a line to it ends.

    Each takes the first free place around its dot, nearest first, above `bottom`; names further
    down the list give way. A name beside its dot needs no line.
    """
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    found: list[tuple[tuple[float, float], str, tuple[float, float] | None]] = []
    for (x, y), name in zip(dots, names, strict=True):
        wide = len(name) * LETTER
        for radius, angle in _around():
            dx, dy = radius * math.cos(angle), radius * math.sin(angle)
            left = x + dx + (0.0 if dx > 1 else -wide if dx < -1 else -wide / 2)
            base = y + dy + 4
            box = (left, base - 11, left + wide, base + 3)
            inside = left >= LEFT / 2 and box[2] <= WIDTH - LEFT / 2
            inside = inside and box[1] > TOP - 24 and box[3] < bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                nearest = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
                found.append(((left, base), name, nearest if radius > 20 else None))
                break
        else:  # a crowd without any room: the hint of the dot still tells the name
            found.append(((x, y), "", None))
    return found


def _around() -> list[tuple[float, float]]:
    angles = [math.pi * step / 6 for step in (0, 6, 9, 3, 11, 1, 7, 5, 10, 8, 2, 4)]
    return list(itertools.product([10.0, 16.0, 26.0, 40.0, 58.0, 80.0, 110.0], angles))


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _round_below(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above a number."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-9))


def _shortened(name: str) -> str:
    """The name, without its middle if it is long: its end often tells versions apart."""
    if len(name) <= LONGEST:
        return name
    half = (LONGEST - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _drawing(
    ident: str, title: str, subtitle: str, height: float, body: Sequence[Markup]
) -> Markup:
    return svg(
        ident,
        title,
        subtitle,
        (WIDTH, height),
        element("style", Markup(STYLE)),
        element("rect", width=WIDTH, height=height, class_="paper"),
        _text(LEFT, 40.0, title, "title"),
        _text(LEFT, 60.0, subtitle, "soft"),
        *body,
    )


def _text(
    x: float, y: float, content: str, class_: str, anchor: str = "start", hint: str = ""
) -> Markup:
    inner = [element("title", hint)] if hint else []
    return element("text", *inner, content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _path(d: str, class_: str) -> Markup:
    return element("path", d=d, class_=class_)
