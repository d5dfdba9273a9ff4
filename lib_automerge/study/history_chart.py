"""The score of every evaluation, with the baselines' lines and the highest so far, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lib_automerge.domain.events import GIVEN, Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.charts import (
    LINE,
    Scale,
    line,
    padded,
    rectangle,
    spread_out,
    star,
    svg,
    text,
    ticks,
)
from lib_automerge.study.findings import LABELS, given_up
from lib_automerge.study.formats import number, plural, plus_minus
from lib_automerge.study.markup import EMPTY, Markup, compact, element, join

CLASSES = {Origin.MODEL_A: "a", Origin.MODEL_B: "b", Origin.HALF: "half", Origin.MEMBER: "b"}
NARROW = 600.0
"""Below this width, in pixels, labels are short."""


class _Plot(msgspec.Struct, frozen=True):
    """Where things are; `floor` is the lowest score that the scale shows."""

    x: Scale
    y: Scale
    floor: float
    decimals: int
    dot: float
    narrow: bool


def history_chart(
    ident: str,
    evaluations: Sequence[Evaluation],
    *,
    winner: int | None,
    decimals: int,
    size: tuple[float, float],
) -> Markup:
    """Draw the finished evaluations.

    Args:
        ident: unique in the page.
        evaluations: finished ones, by number; rejected ones get a cross at the lower edge.
        winner: the evaluation to mark with a star.
        decimals: of scores.
        size: width and height in pixels; narrow charts have short labels.
    """
    scored = [e for e in evaluations if e.score is not None]
    rejected = [e for e in evaluations if e.rejected is not None]
    records = _records(scored)
    floor = _floor(scored)
    below = len([e for e in scored if (e.score or 0.0) < floor])
    entries = _legend(scored, rejected, winner, below)
    legend, legend_height = _legend_rows(entries, size[0])
    plot = _plot(evaluations, scored, records, decimals, size, legend_height)
    marked = {e.number for e in (*records, *(e for e in scored if e.origin in GIVEN))}
    body = [
        legend,
        _axes(plot, evaluations),
        _baseline_lines(plot, scored),
        _best_line(plot, records),
        *(_whisker(plot, e) for e in scored if e.number in marked or e.number == winner),
        *(_point(plot, e) for e in scored if e.number not in marked and e.number != winner),
        *(_point(plot, e, "record") for e in scored if e.number in marked and e.number != winner),
        *(_cross(plot, e) for e in rejected),
        *(_winner(plot, e) for e in scored if e.number == winner),
        _labels(plot, scored, records),
    ]
    title = "Score of every evaluation"
    return svg(ident, title, _description(scored, rejected, records, decimals), size, *body)


def _records(scored: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that were better than all before them."""
    records: list[Evaluation] = []
    for evaluation in scored:
        if not records or (evaluation.score or 0.0) > (records[-1].score or 0.0):
            records.append(evaluation)
    return records


def _floor(scored: Sequence[Evaluation]) -> float:
    """The lowest score worth a place on the scale: a few ruined merges must not flatten the rest.

    It lies below nine tenths of the scores and below all baselines, by as much as these take up.
    """
    scores = sorted(e.score or 0.0 for e in scored)
    if not scores:
        return -math.inf
    baselines = [e.score or 0.0 for e in scored if e.origin in GIVEN]
    typical = min(scores[len(scores) // 10], *baselines, scores[-1])
    return max(typical - (scores[-1] - typical), scores[0])


def _plot(
    evaluations: Sequence[Evaluation],
    scored: Sequence[Evaluation],
    records: Sequence[Evaluation],
    decimals: int,
    size: tuple[float, float],
    legend_height: float,
) -> _Plot:
    width, height = size
    narrow = width < NARROW
    floor = _floor(scored)
    baselines = [e for e in scored if e.origin in GIVEN]
    shown = [max(e.score or 0.0, floor) for e in scored]
    for evaluation in (*baselines, *records):
        error = evaluation.standard_error or 0.0
        shown += [max((evaluation.score or 0.0) + sign * error, floor) for sign in (-1, 1)]
    low, high = padded(shown)
    widest = max(len(number(v, ticks(low, high, 6).decimals)) for v in (low, high))
    last = max((e.number for e in evaluations), default=1)
    longest = max((len(number(e.score, decimals)) for e in records), default=0)
    longest += len("50:50 ") if narrow else len("Model A ")
    return _Plot(
        x=Scale(0.0, last + 1.0, 10.0 + 7.2 * widest, width - 16.0 - 7.6 * longest),
        y=Scale(low, high, height - 62.0, legend_height + 30.0),
        floor=floor,
        decimals=decimals,
        dot=3.4 if len(scored) <= 200 else 2.6 if len(scored) <= 700 else 1.8,
        narrow=narrow,
    )


def _axes(plot: _Plot, evaluations: Sequence[Evaluation]) -> Markup:
    x, y = plot.x, plot.y
    rows = ticks(y.low, y.high, 6)
    last = max((e.number for e in evaluations), default=1)
    columns = ticks(1, max(last, 2), 5 if plot.narrow else 10, whole=True)
    numbers = sorted({1, *(int(v) for v in columns.values if 1 <= v <= last)})
    if len(numbers) > 1 and x(numbers[1]) - x(1) < 26:
        del numbers[1]
    base = y.start + 22
    parts = [
        text(0, y.end - 12, "score", "tick"),
        *(line(x.start, y(v), x.end, y(v), "grid") for v in rows.values),
        *(
            text(x.start - 6, y(v) + 4, number(v, rows.decimals), "tick", "end")
            for v in rows.values
        ),
        line(x.start, base, x.end, base, "axis"),
        *(line(x(n), base, x(n), base + 4, "axis") for n in numbers),
        *(text(x(n), base + 4 + LINE - 2, f"{n:,}", "tick", "middle") for n in numbers),
        text(x.end, base + 4 + 2 * LINE - 1, "evaluation", "tick", "end"),
    ]
    return element("g", *parts)


def _baseline_lines(plot: _Plot, scored: Sequence[Evaluation]) -> Markup:
    return join(
        line(plot.x.start, _height(plot, e), plot.x.end, _height(plot, e), CLASSES[e.origin])
        for e in scored
        if e.origin in GIVEN
    )


def _best_line(plot: _Plot, records: Sequence[Evaluation]) -> Markup:
    if not records:
        return EMPTY
    steps = [f"M{compact(plot.x(records[0].number))},{compact(_height(plot, records[0]))}"]
    steps += [f"H{compact(plot.x(r.number))}V{compact(_height(plot, r))}" for r in records[1:]]
    steps.append(f"H{compact(plot.x.end)}")
    return element("path", d="".join(steps), class_="best-line")


def _whisker(plot: _Plot, evaluation: Evaluation) -> Markup:
    score, error = evaluation.score or 0.0, evaluation.standard_error
    if not error:
        return EMPTY
    x = plot.x(evaluation.number)
    low = plot.y(max(score - error, plot.y.low))
    high = plot.y(min(score + error, plot.y.high))
    return line(x, low, x, high, f"whisker {_kind(evaluation)}")


def _point(plot: _Plot, evaluation: Evaluation, kind: str = "") -> Markup:
    x, y = plot.x(evaluation.number), _height(plot, evaluation)
    hint = element("title", _hint(evaluation, plot.decimals))
    if (evaluation.score or 0.0) < plot.floor:
        tip = plot.y.start + 12
        corners = f"{compact(x - 4)},{compact(tip - 6)} {compact(x + 4)},{compact(tip - 6)}"
        return element(
            "polygon", hint, points=f"{corners} {compact(x)},{compact(tip)}", class_="low"
        )
    if evaluation.origin in GIVEN:
        edge = 2 * plot.dot + 2
        corner = (x - edge / 2, y - edge / 2)
        return element(
            "rect",
            hint,
            x=corner[0],
            y=corner[1],
            width=edge,
            height=edge,
            class_=f"mark {_kind(evaluation)}",
        )
    return element("circle", hint, cx=x, cy=y, r=plot.dot, class_=f"{_kind(evaluation)} {kind}")


def _cross(plot: _Plot, evaluation: Evaluation) -> Markup:
    early = given_up(evaluation)
    told = evaluation.rejected if early else f"rejected: {evaluation.rejected}"
    hint = element("title", f"evaluation {evaluation.number}, {told}")
    kind = "given-up" if early else "rejected"
    return _diagonals(kind, plot.x(evaluation.number), plot.y.start + 9, hint)


def _winner(plot: _Plot, evaluation: Evaluation) -> Markup:
    x, y = plot.x(evaluation.number), _height(plot, evaluation)
    hint = element("title", _hint(evaluation, plot.decimals))
    return element("g", hint, star(x, y, 10.0, "winner"))


def _labels(plot: _Plot, scored: Sequence[Evaluation], records: Sequence[Evaluation]) -> Markup:
    """Names and scores of the lines, at their right end, moved apart where they would overlap."""
    entries = [
        (_height(plot, e), LABELS[e.origin], e.score, CLASSES[e.origin])
        for e in scored
        if e.origin in GIVEN
    ]
    if records and records[-1].origin not in GIVEN:
        entries.append((_height(plot, records[-1]), "highest", records[-1].score, "best"))
    places = spread_out([y for y, *_ in entries], LINE, plot.y.end, plot.y.start)
    parts = []
    for (y, name, score, kind), place in zip(entries, places, strict=True):
        start = plot.x.end
        label = name.removeprefix("Model ") if plot.narrow else name
        path = f"M{compact(start)},{compact(y)}L{compact(start + 10)},{compact(place)}"
        parts.append(element("path", d=path, class_=f"lead {kind}"))
        parts.append(
            element(
                "text",
                label + " ",
                element("tspan", number(score, plot.decimals), class_="value"),
                x=start + 14,
                y=place + 4,
                class_=f"label {kind}",
            )
        )
    return join(parts)


def _legend(
    scored: Sequence[Evaluation],
    rejected: Sequence[Evaluation],
    winner: int | None,
    below: int,
) -> list[tuple[str, str]]:
    """What the marks mean: (class, words) of those that are in the chart."""
    origins = {e.origin for e in scored}
    entries = []
    if origins & set(GIVEN):
        entries.append(("mark", "baseline"))
    if Origin.DESIGN in origins:
        entries.append(("design", "start design"))
    if Origin.SEARCH in origins:
        entries.append(("search", "search"))
    if len(scored) > 1:
        entries.append(("best-line", "highest so far"))
    if winner is not None:
        entries.append(("winner", f"evaluation {winner}"))
    broken = [e for e in rejected if not given_up(e)]
    if broken:
        entries.append(("rejected", f"{len(broken)} rejected"))
    if len(rejected) > len(broken):
        entries.append(("given-up", f"{len(rejected) - len(broken)} given up"))
    if below:
        entries.append(("low", f"{below} below the scale"))
    return entries


def _legend_rows(entries: Sequence[tuple[str, str]], width: float) -> tuple[Markup, float]:
    """The legend and its height; it wraps where it does not fit."""
    x, y = 0.0, 12.0
    parts: list[Markup] = []
    for kind, words in entries:
        room = 24.0 + 6.9 * len(words) + 14.0
        if x > 0 and x + room > width:
            x, y = 0.0, y + LINE + 4
        parts += [_key(kind, x + 8, y - 4), text(x + 22, y, words, "tick")]
        x += room
    return join(parts), y + 4 if entries else 0.0


def _key(kind: str, x: float, y: float) -> Markup:
    match kind:
        case "mark":
            return rectangle(x - 4, y - 4, 8, 8, "mark half")
        case "best-line":
            return line(x - 9, y, x + 9, y, "best-line")
        case "winner":
            return star(x, y, 8.0, "winner")
        case "rejected" | "given-up":
            return _diagonals(kind, x, y)
        case "low":
            points = f"{compact(x - 4)},{compact(y - 3)} {compact(x + 4)},{compact(y - 3)}"
            return element(
                "polygon", points=f"{points} {compact(x)},{compact(y + 3)}", class_="low"
            )
    return element("circle", cx=x, cy=y, r=4, class_=kind)


def _diagonals(kind: str, x: float, y: float, *hint: Markup) -> Markup:
    path = f"M{compact(x - 3.5)},{compact(y - 3.5)}l7,7m0,-7l-7,7"
    return element("path", *hint, d=path, class_=kind)


def _height(plot: _Plot, evaluation: Evaluation) -> float:
    return plot.y(evaluation.score or 0.0)


def _kind(evaluation: Evaluation) -> str:
    if evaluation.origin in GIVEN:
        return CLASSES[evaluation.origin]
    return "design" if evaluation.origin is Origin.DESIGN else "search"


def _hint(evaluation: Evaluation, decimals: int) -> str:
    score = plus_minus(evaluation.score, evaluation.standard_error, decimals)
    return f"evaluation {evaluation.number} ({evaluation.origin.value}): {score}"


def _description(
    scored: Sequence[Evaluation],
    rejected: Sequence[Evaluation],
    records: Sequence[Evaluation],
    decimals: int,
) -> str:
    parts = [f"{plural(len(scored), 'evaluation')} with a score."]
    parts += [
        f"{LABELS[e.origin]}: {number(e.score, decimals)}." for e in scored if e.origin in GIVEN
    ]
    if records:
        top = records[-1]
        parts.append(f"Best: {number(top.score, decimals)}, evaluation {top.number}.")
    early = len([e for e in rejected if given_up(e)])
    if len(rejected) > early:
        parts.append(f"{len(rejected) - early} rejected.")
    if early:
        parts.append(f"{early} given up early.")
    return " ".join(parts)
