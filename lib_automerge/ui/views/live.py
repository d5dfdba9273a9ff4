"""The live view of a run: its scores, its pictures, its weights, and what it has to say."""

from __future__ import annotations

from collections import Counter

from lib_automerge.app.desk import Opened
from lib_automerge.domain import architectures
from lib_automerge.domain.events import GIVEN
from lib_automerge.domain.run import Evaluation
from lib_automerge.study import sections
from lib_automerge.study.block_chart import Bar
from lib_automerge.study.charts import sparkline
from lib_automerge.study.findings import LABELS, Findings, candidates, fate
from lib_automerge.study.formats import duration, number, plural, plus_minus, signed
from lib_automerge.study.history_chart import history_chart
from lib_automerge.study.judges import unit_hint
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.searched import searched_names
from lib_automerge.study.tables import table
from lib_automerge.ui.views import judge
from lib_automerge.ui.views.bars import weight_bars
from lib_automerge.ui.views.gallery import pairs
from lib_automerge.ui.views.learned import learned
from lib_automerge.ui.views.parts import fold, later

RECENT = 20
"""How many evaluations the table shows."""

WIDE, NARROW = 620.0, 340.0
"""Widths of charts in pixels; the style sheet shows the one that fits."""


def nothing_yet() -> Markup:
    """What stands in the live column before the first run."""
    return element(
        "div",
        element("h3", "Nothing runs yet"),
        element(
            "p",
            "Choose model B and press Start. Here you will see the score of every merge against "
            "both parents, the pictures side by side, and the weights of the best. You can close "
            "this page: the run goes on, and every browser shows the same.",
        ),
        class_="automerge-empty",
    )


def live(opened: Opened, found: Findings) -> Markup:
    """Draw everything of a run that changes with its evaluations."""
    state = found.state
    if not state.evaluations:
        return element(
            "p", "The first images are on their way: model A comes first.", class_="hint"
        )
    parts = [
        EMPTY if opened.live else element("p", f"The last run: {opened.name}.", class_="hint"),
        judge.place(opened.id) if found.manifest.config.reward.human is not None else EMPTY,
        warnings(found),
        _section("Scores", history(found), "history"),
        _section("Knowledge", learned(found), "learned"),
        _section("Pictures", pairs(found, opened.id), "pictures"),
        _section("Weights", weights(found), "weights"),
        fold("evaluations", f"Last {RECENT} evaluations", recent(found)),
        fold("log", "Log", later("log", opened.id)),
        fold("resources", "Resources", later("resources", opened.id)),
    ]
    return element("div", *parts, class_="automerge-live-body")


def _section(title: str, content: Markup, kind: str) -> Markup:
    if not content:
        return EMPTY
    return element("section", content, aria_label=title, class_=f"automerge-{kind}")


def warnings(found: Findings) -> Markup:
    """Every warning once, newest first."""
    counted = Counter(found.state.warnings)
    if not counted:
        return EMPTY
    items = [
        element("li", message, f" ({plural(count, 'time')})" if count > 1 else "")
        for message, count in reversed(counted.items())
    ]
    shown, rest = items[:2], items[2:]
    more = fold("warnings", f"{plural(len(rest), 'older warning')}", element("ul", *rest))
    return element(
        "div",
        element("strong", f"⚠ {plural(len(counted), 'warning')}"),
        element("ul", *shown),
        more if rest else EMPTY,
        class_="automerge-warnings",
        role="note",
    )


def history(found: Findings) -> Markup:
    """The score of every evaluation with both parents' lines."""
    done = found.state.history
    if not done:
        return EMPTY
    marked = _marked(found)
    charts = [
        element(
            "div",
            history_chart(
                f"automerge-live-history-{kind}",
                done,
                winner=marked,
                decimals=found.decimals,
                size=size,
            ),
            class_=kind,
        )
        for kind, size in (("wide", (WIDE, 300.0)), ("phone", (NARROW, 300.0)))
    ]
    unit = unit_hint(found)
    hint = element("p", unit, class_="hint") if unit else EMPTY
    return join([element("h3", "Score of every evaluation"), hint, *charts])


def _marked(found: Findings) -> int | None:
    """The evaluation with the star: the proved one, before that the model's leader."""
    state = found.state
    if state.verdict is not None:
        return state.verdict.winner if state.verdict.comparisons else None
    if state.learned is None or found.contest.merge is None:
        return None
    return found.contest.merge.number


def weights(found: Findings) -> Markup:
    """The weights of the best merge, block by block."""
    merge = found.contest.merge
    if merge is None:
        return EMPTY
    distances = found.manifest.distances
    blocks = architectures.get(found.manifest.architecture).blocks
    bars = [
        Bar(block, merge.weights.get(block, 0.0), distances.get(block))
        for block in searched(found)
        if block in blocks
    ]
    if not bars:
        return sections.parameters(found, "automerge-live")
    summed = found.manifest.config.method == "weighted_sum"
    ends = {0.0: "A", 1.0: "B"} if summed else {0.0: "A"}
    charts = [
        element("div", weight_bars(f"automerge-weights-{kind}", bars, ends, width), class_=kind)
        for kind, width in (("wide", WIDE), ("phone", NARROW))
    ]
    return join(
        [
            element("h3", f"Weights of evaluation {merge.number}"),
            *charts,
            sections.parameters(found, "automerge-live"),
        ]
    )


def searched(found: Findings) -> list[str]:
    """What the search may change, in order."""
    return searched_names(found.manifest, candidates(found.state))


def recent(found: Findings) -> Markup:
    """The last evaluations as a table, the newest first."""
    done = found.state.history[-RECENT:][::-1]
    order = searched(found)
    values = [e.weights.get(block, 0.0) for e in done for block in order]
    low, high = min([0.0, *values]), max([1.0, *values])
    better = found.contest.better_parent
    parent = better.score if better is not None else None

    def row(e: Evaluation) -> list[str]:
        score = plus_minus(e.score, e.standard_error, found.decimals)
        gain = None if e.score is None or parent is None else e.score - parent
        total = e.seconds.get("total")
        return [
            f"{e.number:,}",
            LABELS.get(e.origin, e.origin.value if e.origin not in GIVEN else "baseline"),
            sparkline([e.weights.get(block, 0.0) for block in order], low, high),
            score if e.rejected is None else element("span", fate(e), title=e.rejected),
            signed(gain, found.decimals),
            number(None, 0) if total is None else duration(total),
        ]

    headings = ["No.", "From", "Weights", "Score", "Over parent", "Time"]
    return table(f"The last {len(done)} evaluations", headings, map(row, done), texts=3)
