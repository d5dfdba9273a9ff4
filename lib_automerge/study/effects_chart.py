"""How much each block moves the score, in the order of the network, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from lib_automerge.domain.insights import Effect
from lib_automerge.study.charts import Scale, line, rectangle, svg, text, ticks
from lib_automerge.study.formats import number
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.study.places import brackets, name_lines, places

TITLE = "Effect of every block on the score"


def effects_chart(ident: str, effects: Sequence[Effect], decimals: int, width: float) -> Markup:
    """Draw the effects as columns with whiskers of one standard error.

    Args:
        ident: unique in the page.
        effects: in the order of the network.
        decimals: of scores.
        width: in pixels; at least about 30 for a block.
    """
    floor, names, best, height = 196.0, 216.0, 270.0, 276.0
    y = Scale(0.0, _top(effects), floor, 22.0)
    left = 20.0 + 7.2 * len(number(_top(effects), decimals))
    step, middles = places([effect.name for effect in effects], left, width)
    marks = ticks(y.low, y.high, 4)
    body = [
        *(line(left, y(v), width, y(v), "axis" if v == 0.0 else "grid") for v in marks.values),
        *(text(left - 8, y(v) + 4, number(v, marks.decimals), "tick", "end") for v in marks.values),
    ]
    for effect, x in zip(effects, middles, strict=True):
        body.append(_column(effect, x, min(step * 0.62, 30.0), y, decimals))
        body += [
            text(x, names + 12 * row, part, "tick", "middle")
            for row, part in enumerate(name_lines(effect.name))
        ]
        body.append(text(x, best, _best(effect), "tick small", "middle"))
    body += [
        *brackets([effect.name for effect in effects], middles, step, names + 9),
        text(0, 10, "score", "tick"),
        text(0, best, "best at", "tick"),
    ]
    return svg(ident, TITLE, _description(effects, decimals), (width, height), *body)


def effects_rows(ident: str, effects: Sequence[Effect], decimals: int, width: float) -> Markup:
    """Draw the same as rows, for a narrow screen."""
    row, top = 24.0, 22.0
    room = 14.0 + 7.6 * len(number(_top(effects), decimals))
    x = Scale(0.0, _top(effects), 92.0, width - room - 44.0)
    height = top + row * len(effects) + 4
    body = [
        text(x.start, 12, "effect on the score", "tick"),
        text(width, 12, "best at", "tick", "end"),
        line(x.start, top, x.start, height, "axis"),
    ]
    for index, effect in enumerate(effects):
        y = top + row * index
        low, high = _ends(effect)
        value = "value" if effect.sure else "tick"
        body += [
            text(0, y + 15, effect.name, "name"),
            rectangle(x.start, y + 5, x(effect.difference) - x.start, 12, _class(effect)),
            _whisker(x(low), y + 11, x(high), y + 11, sure=effect.sure),
            text(width - 44, y + 15, number(effect.difference, decimals), value, "end"),
            text(width, y + 15, _best(effect), "tick", "end"),
        ]
    return svg(ident, TITLE, _description(effects, decimals), (width, height), *body)


def _top(effects: Sequence[Effect]) -> float:
    return max(_ends(effect)[1] for effect in effects) or 1.0


def _ends(effect: Effect) -> tuple[float, float]:
    error = effect.standard_error
    return max(effect.difference - error, 0.0), effect.difference + error


def _column(effect: Effect, x: float, thick: float, y: Scale, decimals: int) -> Markup:
    low, high = _ends(effect)
    top = y(effect.difference)
    shown = EMPTY
    if effect.sure:
        value = number(effect.difference, decimals)
        shown = text(x, y(high) - 6, value, "value small", "middle")
    return element(
        "g",
        element("title", _hint(effect, decimals)),
        rectangle(x - thick / 2, top, thick, y.start - top, _class(effect)),
        _whisker(x, y(low), x, y(high), sure=effect.sure),
        shown,
    )


def _whisker(x1: float, y1: float, x2: float, y2: float, *, sure: bool) -> Markup:
    wide, tall = (3.0, 0.0) if x1 == x2 else (0.0, 3.0)
    kind = "error" if sure else "error unsure"
    return element(
        "g",
        line(x1, y1, x2, y2, kind),
        line(x1 - wide, y1 - tall, x1 + wide, y1 + tall, kind),
        line(x2 - wide, y2 - tall, x2 + wide, y2 + tall, kind),
    )


def _class(effect: Effect) -> str:
    return "weight" if effect.sure else "weight kept"


def _best(effect: Effect) -> str:
    return number(effect.best, 2) if effect.sure else ""


def _hint(effect: Effect, decimals: int) -> str:
    size, error = number(effect.difference, decimals), number(effect.standard_error, decimals)
    known = f"best at {number(effect.best, 2)}" if effect.sure else "not told from chance"
    return f"{effect.name}: {size} ± {error}, {known}"


def _description(effects: Sequence[Effect], decimals: int) -> str:
    return "; ".join(_hint(effect, decimals) for effect in effects)
