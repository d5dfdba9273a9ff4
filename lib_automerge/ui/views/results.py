"""What came out of a run: the verdict, the pictures, the best merges, and what to do with them."""

from __future__ import annotations

from lib_automerge.app.desk import Opened
from lib_automerge.app.standing import RESUMABLE
from lib_automerge.domain.insights import Insights
from lib_automerge.domain.run import Status
from lib_automerge.study import sections, tables
from lib_automerge.study.configuration import configuration
from lib_automerge.study.findings import Findings
from lib_automerge.study.headline import headline
from lib_automerge.study.judges import judges
from lib_automerge.study.lessons import lessons
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.report import intervals, run_facts, scoreboard
from lib_automerge.ui.views.gallery import comparison
from lib_automerge.ui.views.keep import copy_weights, save_form
from lib_automerge.ui.views.leaderboard import leaderboard
from lib_automerge.ui.views.parts import address, button, fold, later, link, tag

SYMBOLS = {"gain": "★", "none": "=", "open": "\N{HORIZONTAL ELLIPSIS}"}


def no_results() -> Markup:
    """What stands in Results before the first run."""
    return element(
        "div",
        element("h3", "No results yet"),
        element("p", "When a run has scored its first images, its results are here."),
        class_="automerge-empty",
    )


def results(opened: Opened, found: Findings) -> Markup:
    """Draw the results of a run, at whatever state it is."""
    run = opened.id
    parts = [_hero(opened, found)]
    if found.state.evaluations:
        parts += [
            element("div", scoreboard(found)),
            _part("Pictures", comparison(found, run)),
            _part("What each reward says", judges(found)),
            _part("Keep the best", _keep(opened, found)),
            _part("Best evaluations", leaderboard(found, run)),
            *_charts(found),
            fold("payloads", "Score by prompt", tables.payload_table(found))
            if found.scored
            else EMPTY,
            fold("importance", "Which blocks mattered, and what to try", later("importance", run)),
        ]
    parts.append(
        fold(
            "details",
            "Details: time, configuration, versions, files",
            _downloads(run),
            tables.facts(run_facts(found)),
            tables.finalist_table(found),
            tables.time_section(found),
            tables.warning_list(found),
            configuration(found),
        )
    )
    return element("div", *parts, class_="automerge-results", data_shown=run)


def _charts(found: Findings) -> list[Markup]:
    """What was searched is in sight where it is more than a weight for each block."""
    history = [element("h4", "How the search went"), sections.history(found)]
    blocks = sections.blocks(found)
    if found.manifest.config.search.parameters:
        return [_part("The merge that was found", blocks), fold("charts", "Charts", *history)]
    return [
        fold(
            "charts",
            "Charts",
            *history,
            element("h4", "What the merge takes from whom"),
            blocks,
        )
    ]


def _hero(opened: Opened, found: Findings) -> Markup:
    said = headline(found)
    models = " × ".join(ref.name for _, ref in sorted(found.manifest.models.items()))
    words = [
        element(
            "p",
            element("b", opened.name),
            f" · {models} " + (f"· {opened.id} " if opened.id != opened.name else ""),
            tag("still running") if opened.live else EMPTY,
            class_="hint",
        ),
        element(
            "p",
            element("span", SYMBOLS[said.kind], aria_hidden="true"),
            f" {said.badge}",
            class_="automerge-badge",
        ),
        element("h2", said.sentence),
        element("p", said.explanation, class_="automerge-lead"),
        _notice(opened, found),
    ]
    return element(
        "header",
        element("div", *words, class_="automerge-words"),
        intervals(found),
        class_=f"automerge-hero {said.kind}",
    )


def _notice(opened: Opened, found: Findings) -> Markup:
    state = found.state
    if opened.live or opened.status not in RESUMABLE:
        return EMPTY
    sentence = {
        Status.FAILED: f"The run failed: {state.failure}",
        Status.PAUSED: f"The run is paused. {state.pause_reason}".strip(),
        Status.STOPPED: "The run was stopped.",
    }.get(state.status, "The program ended while the run went on.")
    kind = "automerge-notice failed" if state.status is Status.FAILED else "automerge-notice"
    return element(
        "div",
        element("p", f"{sentence} Everything scored is kept."),
        button("Resume", "resume", opened.id, primary=True),
        class_=kind,
        role="note",
    )


def taught(found: Findings, insights: Insights | None) -> Markup:
    """Draw what the run taught about its blocks."""
    if insights is None:
        words = "Known when the run has ended and at least five merges have a score."
        return element("p", words, class_="hint")
    return lessons(found, insights)


def _part(title: str, content: Markup) -> Markup:
    if not content:
        return EMPTY
    return element("section", element("h3", title), content)


def _keep(opened: Opened, found: Findings) -> Markup:
    merge = found.contest.merge
    if merge is None:
        return EMPTY
    run = opened.id
    return join(
        [
            save_form(opened, found),
            element(
                "div",
                button(
                    "Use as start of a new run",
                    "duplicate",
                    run,
                    data_evaluation=str(merge.number),
                    hint="Fills the form with this run's settings and begins at these weights",
                ),
                link("Download recipe", address("runs", run, "recipe"), download=True),
                link("Open report", address("runs", run, "report")),
                class_="automerge-row",
            ),
            fold("weights", "Copy weights, in the order of your tool", copy_weights(found)),
        ]
    )


def _downloads(run: str) -> Markup:
    return element(
        "div",
        link("Scores as CSV", address("runs", run, "csv"), download=True),
        link("Journal", address("runs", run, "journal"), download=True),
        link("Log", address("runs", run, "log"), download=True),
        link(
            "Export everything",
            address("runs", run, "export"),
            download=True,
            hint="A zip of the run's folder, without checkpoints",
        ),
        class_="automerge-row",
    )
