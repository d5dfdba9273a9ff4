"""All runs in a table, with what can be done with each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from lib_automerge.app.standing import RESUMABLE
from lib_automerge.study.choices import as_share
from lib_automerge.study.findings import Findings
from lib_automerge.study.formats import duration, number, percent, shortened, signed, size
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.views.parts import address, button, link


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the table; `found` is None and `problem` says why if it is damaged.

    `size` is in bytes; None while the run is in hand.
    """

    id: str
    name: str
    state: str
    found: Findings | None
    size: int | None
    problem: str = ""


HEADINGS = (
    ("Name", "text"),
    ("Models", "text"),
    ("State", "text"),
    ("Evaluations", "num"),
    ("Best", "num"),
    ("Over better parent", "num"),
    ("Started", "num"),
    ("At work", "num"),
    ("Size", "num"),
    ("", "text"),
)


def runs(rows: Sequence[Row]) -> Markup:
    """Draw the table."""
    if not rows:
        return element(
            "div",
            element("h3", "No runs yet"),
            element("p", "Every run that you start is kept here until you delete it."),
            class_="automerge-empty",
        )
    head = element(
        "tr", *(element("th", words, scope="col", class_=kind) for words, kind in HEADINGS)
    )
    table = element(
        "table",
        element("caption", "All runs, the newest first"),
        element("thead", head),
        element("tbody", *(_row(row) for row in rows)),
        class_="automerge-runs-table",
    )
    search = element(
        "label",
        element("span", "Filter"),
        element(
            "input",
            type="search",
            placeholder="name, model or state",
            data_filter="runs",
            autocomplete="off",
        ),
        class_="automerge-field",
    )
    return join(
        [
            element("div", search, class_="automerge-row"),
            element("div", table, class_="scroll", role="region", tabindex="0", aria_label="Runs"),
        ]
    )


def _row(row: Row) -> Markup:
    name = element(
        "th",
        element("span", row.name, class_="automerge-name"),
        element("span", row.id, class_="id") if row.id != row.name else EMPTY,
        scope="row",
        class_="text",
    )
    found = row.found
    words = [row.name, row.id, row.state]
    if found is None:
        problem = element("td", f"damaged: {row.problem}", colspan=6, class_="text")
        cells = [problem, _cell(""), _cell(size(row.size or 0))]
        return element("tr", name, *cells, _actions(row), data_search=" ".join(words))
    models = [ref.name for _, ref in sorted(found.manifest.models.items())]
    state = found.state
    chosen = bool(found.contest.chosen)
    gain = found.contest.gain_over(found.contest.better_parent)
    verdict = state.verdict
    proved = verdict is not None and verdict.gain
    started = state.started.time if state.started is not None else None
    cells = [
        element("td", shortened(" × ".join(models), 60), class_="text", title=" × ".join(models)),
        element("td", _state(row), class_="text state"),
        _cell(
            f"{len(state.history):,} of {found.manifest.config.search.evaluations:,}",
            "evaluations",
        ),
        _cell(_best(found), "best"),
        element(
            "td",
            element("span", "★ ", title="significant") if proved else EMPTY,
            as_share(gain) if chosen and gain is not None else signed(gain, found.decimals),
            class_="num",
            title="share of your blind choices" if chosen else None,
            data_label="over better parent",
        ),
        _cell("" if started is None else _moment(started), "started"),
        _cell(duration(found.seconds) if found.seconds else "", "at work"),
        _cell("in progress" if row.size is None else size(row.size), "size"),
    ]
    words += models
    return element("tr", name, *cells, _actions(row), data_search=" ".join(words).casefold())


def _best(found: Findings) -> str:
    merge = found.contest.merge
    mean = None if merge is None else found.contest.means[merge.number]
    if found.contest.chosen and mean is not None:
        return percent(mean)
    return number(mean, found.decimals)


def _cell(text: str, label: str | None = None) -> Markup:
    # on a phone, where columns have no heads, the style sheet puts the label before the text
    return element("td", text, class_="num", data_label=label)


def _state(row: Row) -> Markup:
    return join(
        [
            element("span", class_=f"automerge-dot is-{row.state.replace(' ', '-')}"),
            f" {row.state}",
        ]
    )


def _moment(seconds: float) -> Markup:
    text = datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    return element("time", text, data_at=f"{seconds:.0f}")


def _actions(row: Row) -> Markup:
    actions = []
    if row.found is not None:
        actions.append(button("Open", "open", row.id))
        if row.state in RESUMABLE:
            actions.append(button("Resume", "resume", row.id))
        actions.append(
            button("Duplicate", "duplicate", row.id, hint="Fills the form with its settings")
        )
    actions.append(button("Rename", "rename", row.id, data_name=row.name))
    actions.append(link("Export", address("runs", row.id, "export"), download=True))
    if row.size is not None:
        question = f"Move the run {row.name} to the trash? Its folder moves to runs/trash."
        actions.append(button("Delete", "delete", row.id, confirm=question))
    return element("td", element("span", *actions, class_="automerge-row"), class_="text")
