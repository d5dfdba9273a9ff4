"""The tables of a report: scores by payload, candidates, times, and warnings."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from lib_automerge.domain import architectures
from lib_automerge.domain.events import BASELINES, Stage
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.charts import difference_bar, sparkline
from lib_automerge.study.findings import (
    LABELS,
    Findings,
    PayloadRow,
    candidates,
    finalists,
    label_of,
    times,
)
from lib_automerge.study.formats import (
    duration,
    number,
    percent,
    plural,
    plus_minus,
    shortened,
    signed,
)
from lib_automerge.study.markup import EMPTY, Markup, element, join

TOP = 10
STAGES = {
    Stage.SEARCH: "Search",
    Stage.CALIBRATION: "Calibration",
    Stage.FINALISTS: "Finalists, again",
    Stage.VERDICT: "Verdict",
}
PHASES = {"merge": "merging", "generate": "images", "score": "scoring", "rest": "everything else"}

Row = Sequence[str]


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Row],
    *,
    closing: Iterable[Row] = (),
    texts: int = 1,
) -> Markup:
    """A table that scrolls sideways by itself where it is too wide.

    The first `texts` columns hold text, the others numbers; the first cell names its row. The
    `closing` rows are set apart: sums, or what to compare with.
    """
    kinds = ["text" if i < texts else "num" for i in range(len(headings))]
    cells = zip(headings, kinds, strict=True)
    head = element("tr", *(element("th", h, scope="col", class_=kind) for h, kind in cells))
    bodies = [
        element("tbody", *(_row(row, kinds) for row in part)) for part in (rows, closing) if part
    ]
    content = element("table", element("caption", caption), element("thead", head), *bodies)
    return element("div", content, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _row(row: Row, kinds: Sequence[str]) -> Markup:
    return element(
        "tr",
        element("th", row[0], scope="row", class_="text"),
        *(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names with what they are, one per line."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in pairs),
        class_="facts",
    )


def payload_table(found: Findings) -> Markup:
    """Mean score of every entrant on every payload, and the merge's difference."""
    if not found.scored:
        return EMPTY
    entrants = found.contest.entrants
    known = [row.difference for row in found.rows if row.difference is not None]
    limits = (min([0.0, *known]), max([0.0, *known]))
    headings = ["Payload", "Images", *(label_of(e) for e in entrants)]
    wide = found.contest.merge is not None and found.contest.better_parent is not None
    rows = [
        [
            _payload_cell(row.payload),
            str(row.images),
            *_best_marked([row.means.get(e.number) for e in entrants], found.decimals),
            *([_difference_cell(row, limits, found.decimals)] if wide else []),
        ]
        for row in found.rows
    ]
    means = [found.contest.means.get(e.number) for e in entrants]
    gain = found.contest.gain_over(found.contest.better_parent)
    total = [
        element("strong", "Mean, by the payloads' weights"),
        f"{sum(row.images for row in found.rows):,}",
        *_best_marked(means, found.decimals),
        *([element("strong", signed(gain, found.decimals))] if wide else []),
    ]
    headings += ["Gain over the better parent"] if wide else []
    return table("Mean score of each payload", headings, rows, closing=[total])


def _payload_cell(payload: Payload) -> Markup:
    prompt = element("span", shortened(payload.prompt, 90), class_="prompt", title=payload.prompt)
    return join([element("span", payload.name, class_="id"), prompt])


def _best_marked(values: Sequence[float | None], decimals: int) -> list[Markup]:
    top = max((v for v in values if v is not None), default=math.nan)
    cells = []
    for value in values:
        shown = number(value, decimals)
        if value is not None and value == top and len(values) > 1:
            mark = element("span", "★", class_="star", aria_label="best", role="img")
            cells.append(element("strong", mark, Markup("&nbsp;"), shown))
        else:
            cells.append(element("span", shown))
    return cells


def _difference_cell(row: PayloadRow, limits: tuple[float, float], decimals: int) -> Markup:
    if row.difference is None:
        return element("span", number(None, 0))
    shown = element("span", signed(row.difference, decimals))
    return join([difference_bar(row.difference, *limits), shown])


def finalist_table(found: Findings) -> Markup:
    """The candidates that were scored again, and which of them went on."""
    entries = finalists(found.state)
    if not entries:
        return EMPTY
    verdict = found.state.verdict
    rows = []
    for entry in entries:
        evaluation = entry.evaluation
        chosen = verdict is not None and verdict.winner == evaluation.number
        fresh = entry.fresh
        rows.append(
            [
                join([f"Evaluation {evaluation.number}", _tag("chosen") if chosen else EMPTY]),
                plus_minus(evaluation.score, evaluation.standard_error, found.decimals),
                "broken image"
                if fresh is None
                else plus_minus(fresh.mean, fresh.standard_error, found.decimals),
                number(entry.pooled, found.decimals),
            ]
        )
    headings = ["Finalist", "Search", "Fresh seeds", "All images"]
    return table("The finalists, scored again on fresh seeds", headings, rows)


def top_table(found: Findings) -> Markup:
    """The best evaluations of the search, and the baselines to compare them with."""
    ranked = candidates(found.state)[:TOP]
    baselines = [e for e in found.state.history if e.origin in BASELINES and e.score is not None]
    scores = [e.score for e in baselines if e.origin is not BASELINES[-1] and e.score is not None]
    parent = max(scores, default=None)
    order = architectures.get(found.manifest.architecture).parameters
    weights = [e.weights.get(block, 0.0) for e in (*ranked, *baselines) for block in order]
    low, high = min([0.0, *weights]), max([1.0, *weights])

    def row(e: Evaluation) -> Row:
        return [
            LABELS.get(e.origin, f"Evaluation {e.number}"),
            e.origin.value if e.origin not in BASELINES else "baseline",
            sparkline([e.weights.get(block, 0.0) for block in order], low, high),
            plus_minus(e.score, e.standard_error, found.decimals),
            signed(None if parent is None else (e.score or 0.0) - parent, found.decimals),
            _seconds(e),
        ]

    headings = ["Evaluation", "From", f"Weights {order[0]} to {order[-1]}", "Score"]
    headings += ["Gain over the better parent", "Time"]
    order_of = "by expected score" if found.state.learned is not None else "by score"
    caption = f"The best evaluations of the search, {order_of}, and the baselines"
    return table(caption, headings, map(row, ranked), closing=map(row, baselines), texts=3)


def _seconds(evaluation: Evaluation) -> str:
    total = evaluation.seconds.get("total")
    return number(None, 0) if total is None else duration(total)


def _tag(words: str) -> Markup:
    return element("span", words, class_="tag")


def time_section(found: Findings) -> Markup:
    """Where the time went: one sentence, one bar, one table."""
    by_stage = times(found.state)
    sums = {phase: math.fsum(part[phase] for part in by_stage.values()) for phase in PHASES}
    total = math.fsum(sums.values())
    if not total:
        return EMPTY
    share = percent(sums["generate"] / total)
    rows = [
        [STAGES[stage], *(duration(part[p]) for p in PHASES), duration(math.fsum(part.values()))]
        for stage, part in by_stage.items()
    ]
    closing = [["All", *(duration(sums[p]) for p in PHASES), duration(total)]]
    timed = [e.seconds["total"] for e in found.state.history if "total" in e.seconds]
    pace = f" The median evaluation took {duration(statistics.median(timed))}." if timed else ""
    headings = ["Stage", *(words.capitalize() for words in PHASES.values()), "Total"]
    return join(
        [
            element(
                "p",
                element("strong", f"{share} of {duration(total)} went into images"),
                f", {percent(sums['merge'] / total)} into merging and "
                f"{percent(sums['score'] / total)} into scoring.{pace}",
            ),
            table("Time by stage and phase", headings, rows, closing=closing),
        ]
    )


def warning_list(found: Findings) -> Markup:
    """Every warning once, with how often it came."""
    counted = Counter(found.state.warnings)
    items = [
        element("li", message, f" ({plural(count, 'time')})" if count > 1 else "")
        for message, count in counted.items()
    ]
    return element("ul", *items, class_="warnings") if items else EMPTY
