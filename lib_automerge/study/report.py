"""The report of a run: one HTML page that needs nothing else, for the morning after.

Every view is computed from the journal and the manifest, at any state of the run. The page loads
nothing from anywhere, works without scripts, and shows missing images as such.
"""

from __future__ import annotations

import base64
import hashlib

import lib_automerge
from lib_automerge.domain import architectures
from lib_automerge.domain.events import Stage
from lib_automerge.domain.insights import Insights
from lib_automerge.domain.keylists import DATA
from lib_automerge.study import sections, tables
from lib_automerge.study.charts import Interval, interval_chart
from lib_automerge.study.choices import as_share, decided, share_text
from lib_automerge.study.configuration import configuration
from lib_automerge.study.findings import LABELS, Findings, findings, label_of
from lib_automerge.study.formats import clock, duration, number, percent, plural, signed, size
from lib_automerge.study.headline import Headline, headline, interval_text
from lib_automerge.study.history_chart import CLASSES
from lib_automerge.study.judges import UNIT, judges, named_rewards
from lib_automerge.study.lessons import lessons
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.store import RunFolder


def render(folder: RunFolder, insights: Insights | None = None) -> str:
    """The report of a run as it stands, as one HTML document.

    Args:
        folder: of the run.
        insights: what it taught, if that is known; the report says nothing of it otherwise.

    Raises:
        StorageError: the manifest or the journal cannot be read.
    """
    found = findings(folder.path, folder.manifest(), folder.events())
    top = headline(found)
    parts = [
        ("images", "Images", "Same prompt, same seed", sections.images(found)),
        ("rewards", "Rewards", "What each reward says", judges(found)),
        ("history", "Search", "How the search went", sections.history(found)),
        ("blocks", "Blocks", "What the merge takes from whom", sections.blocks(found)),
        ("learned", "Learned", "What the search learned", lessons(found, insights)),
        ("payloads", "Payloads", "Score by payload", tables.payload_table(found)),
        ("candidates", "Candidates", "The best candidates", sections.candidate_tables(found)),
        ("recipe", "Recipe", "The recipe", sections.recipe(folder.recipe, found)),
        ("time", "Time", "Where the time went", tables.time_section(found)),
        ("warnings", "Warnings", "Warnings", tables.warning_list(found)),
        ("configuration", "Configuration", "Configuration", configuration(found)),
    ]
    parts = [part for part in parts if part[3]]
    body = element(
        "body",
        element("a", "Skip to the results", href=f"#{parts[0][0]}", class_="skip"),
        element(
            "main",
            _hero(found, top),
            _navigation([(ident, name) for ident, name, _, _ in parts]),
            *(_section(ident, title, content) for ident, _, title, content in parts),
        ),
        _footer(found),
        element("script", Markup(_script())),
    )
    page = element("html", _head(found, top), body, lang="en")
    return f"<!doctype html>\n{page}\n"


def _script() -> str:
    return (DATA / "report.js").read_text(encoding="utf-8")


def _head(found: Findings, top: Headline) -> Markup:
    allowed = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{allowed}'"
    )
    style = (DATA / "report.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="description", content=top.sentence),
        element("title", f"{found.name}: {top.badge} - Automerge"),
        element("style", Markup(style)),
    )


def _navigation(links: list[tuple[str, str]]) -> Markup:
    return element(
        "nav",
        *(element("a", name, href=f"#{ident}") for ident, name in links),
        aria_label="Parts of this report",
    )


def _section(ident: str, title: str, content: Markup) -> Markup:
    return element(
        "section",
        element("h2", title, id=f"{ident}-heading"),
        content,
        id=ident,
        aria_labelledby=f"{ident}-heading",
    )


def _hero(found: Findings, top: Headline) -> Markup:
    mark = {"gain": "★", "none": "=", "open": "\N{HORIZONTAL ELLIPSIS}"}[top.kind]
    words = [
        element(
            "p",
            element("span", mark, aria_hidden="true", class_="symbol"),
            top.badge,
            class_="badge",
        ),
        element("h1", top.sentence),
        element("p", top.explanation, class_="lead"),
    ]
    if top.notice is not None:
        words.append(
            element(
                "div",
                element("p", top.notice),
                element("pre", top.command or "", tabindex="0"),
                class_=f"notice {found.state.status.value}",
                role="note",
            )
        )
    models = element("b", " × ".join(ref.name for _, ref in sorted(found.manifest.models.items())))
    return element(
        "header",
        element("p", "Automerge report · ", models, f" · {found.name}", class_="eyebrow"),
        element(
            "div",
            element("div", *words, class_="words"),
            intervals(found),
            class_="verdict",
        ),
        scoreboard(found),
        tables.facts(run_facts(found)),
        class_=f"hero {top.kind}",
    )


def intervals(found: Findings) -> Markup:
    """The verdict's differences from the baselines with their intervals, drawn."""
    verdict = found.state.verdict
    if verdict is None or not verdict.comparisons:
        return EMPTY
    intervals = []
    for comparison in verdict.comparisons:
        better = comparison.baseline is verdict.better_parent
        name = f"over {LABELS[comparison.baseline]}" + (", better parent" if better else "")
        choices = comparison.choices
        shown = signed(comparison.difference, found.decimals)
        intervals.append(
            Interval(
                name=name,
                value=comparison.difference,
                low=comparison.low,
                high=comparison.high,
                shown=shown if choices is None else f"{choices.winner} of {decided(choices)}",
                range=interval_text(comparison, found.decimals)
                if choices is None
                else share_text(comparison),
                sure=comparison.significant,
            )
        )
    title = f"Gain of evaluation {verdict.winner} with 95 % intervals"
    chosen = verdict.comparisons[0].choices is not None
    if chosen:
        title = f"Preference for evaluation {verdict.winner} with 95 % intervals"
    doubt = "" if all(i.sure for i in intervals) else "; hollow: not significant"
    return element(
        "figure",
        element("figcaption", title + doubt),
        interval_chart("intervals", title, intervals, 440.0, as_share if chosen else None),
        class_="intervals",
    )


def scoreboard(found: Findings) -> Markup:
    """A tile with the mean score of every entrant."""
    contest = found.contest
    top = max(contest.means.values(), default=None)
    tiles = []
    for entrant in contest.entrants:
        mean = contest.means[entrant.number]
        tags = ["★ highest"] if mean == top else []
        tags += ["better parent"] if entrant == contest.better_parent else []
        kind = CLASSES.get(entrant.origin, "best")
        tiles.append(
            element(
                "li",
                element("span", label_of(entrant), class_="role"),
                element("span", found.model_of(entrant), class_="model"),
                element("span", _score(found, mean), class_="score"),
                element("span", ", ".join(tags), class_="tags"),
                class_=f"tile {kind} top" if mean == top else f"tile {kind}",
            )
        )
    if not tiles:
        return EMPTY
    where = "verdict" if contest.stage is Stage.VERDICT else "search"
    if contest.chosen:
        caption = (
            "Share of your blind choices: each baseline's against the merge, the merge's of all"
        )
    elif found.by_person:
        caption = "How much you like them, by your answers: 0 is an average candidate"
    elif found.manifest.config.reward.ensemble is None:
        caption = f"Mean {named_rewards(found)} score on the images of the {where}"
    else:
        caption = f"Mean score on the images of the {where}, in {UNIT}"
    return join(
        [
            element("p", caption, class_="caption", id="scores"),
            element("ul", *tiles, class_="tiles", aria_labelledby="scores"),
        ]
    )


def _score(found: Findings, mean: float) -> str:
    return percent(mean) if found.contest.chosen else number(mean, found.decimals)


def run_facts(found: Findings) -> list[tuple[str, str]]:
    """Names and values that sum a run up."""
    state, config = found.state, found.manifest.config
    rejected = len([e for e in state.history if e.rejected is not None])
    count = f"{len(state.history):,} of {config.search.evaluations:,}"
    count += f", {rejected} rejected" if rejected else ""
    scored = sum(len(images) for images in state.scores.values())
    images = "Images made" if found.by_person else "Images scored"
    entries = [("Evaluations", count), (images, f"{scored:,}")]
    if found.seconds:
        entries.append(("Time at work", duration(found.seconds)))
    if found.ended is not None:
        entries.append(("Finished" if state.finished else "Last entry", clock(found.ended)))
    if state.search_ended is not None:
        entries.append(("Search ended", state.search_ended.reason))
        if state.search_ended.outlook:
            entries.append(("Going on", state.search_ended.outlook))
    if state.calibrated is not None:
        entries.append(("Chance", state.calibrated.sentence))
    entries.append(("Architecture", architectures.get(found.manifest.architecture).label))
    if found.memory_bytes:
        entries.append(("Peak memory", size(found.memory_bytes)))
    if state.saved is not None:
        entries.append(("Saved as", state.saved.file))
    elif state.verdict is not None:
        entries.append(("Checkpoint", "not saved"))
    if state.warnings:
        entries.append(("Warnings", plural(len(set(state.warnings)), "warning")))
    return entries


def _footer(found: Findings) -> Markup:
    made = f"Automerge {lib_automerge.__version__}."
    if found.state.started is not None:
        made += f" Run {found.state.started.config[:12]}."
    verdict = found.state.verdict
    said = f"In the words of verdict.json: {verdict.sentence}" if verdict is not None else ""
    return element("footer", element("p", said), element("p", made))
