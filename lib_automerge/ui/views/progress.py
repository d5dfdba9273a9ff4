"""How far a run is: a bar, the stages, and what happens at this moment."""

from __future__ import annotations

from lib_automerge.app.standing import RunStanding, Standing
from lib_automerge.domain.events import BASELINES, Stage
from lib_automerge.study.formats import duration, percent, plural
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui.views.parts import clock_time

STAGES = ((Stage.SEARCH, "Search"), (Stage.FINALISTS, "Finalists"), (Stage.VERDICT, "Proof"))


def progress(now: Standing, clock: float) -> Markup:
    """Draw the progress of the run in hand; nothing while there is none."""
    if not now.busy:
        return EMPTY
    run = now.run
    if run is None:
        return element(
            "div",
            _bar(None, "checking"),
            element("p", f"{(now.activity or 'checking').capitalize()}…"),
            class_="automerge-progress",
        )
    return element(
        "div",
        _bar(run.share, f"{percent(run.share)} done"),
        # nothing comes after the baselines where only the noise is measured
        _stages(run, done=run.state == "finished") if run.planned > len(BASELINES) else EMPTY,
        element("p", *_doing(now, run), class_="automerge-doing"),
        element("p", *_times(now, run, clock), class_="hint"),
        class_="automerge-progress",
    )


def _bar(share: float | None, words: str) -> Markup:
    width = 100.0 * (share or 0.0)
    return element(
        "div",
        element("div", style=f"width: {width:.1f}%"),
        class_="automerge-bar" if share is not None else "automerge-bar unknown",
        role="progressbar",
        aria_label="Progress of the run",
        aria_valuemin=0,
        aria_valuemax=100,
        aria_valuenow=None if share is None else round(width),
        aria_valuetext=words,
    )


def _stages(run: RunStanding, *, done: bool) -> Markup:
    stage = Stage.SEARCH if run.stage is Stage.CALIBRATION else run.stage
    at = [stage for stage, _ in STAGES].index(stage)
    items = []
    for position, (_, name) in enumerate(STAGES):
        current = position == at and not done
        mark = "✓ " if position < at or done else ""
        items.append(
            element(
                "li",
                mark + name,
                aria_current="step" if current else None,
                class_="done" if mark else None,
            )
        )
    return element("ol", *items, class_="automerge-stages")


def _doing(now: Standing, run: RunStanding) -> list[str]:
    if run.stage is Stage.SEARCH:
        where = f"Evaluation {run.evaluation:,} of {run.planned:,}"
    elif run.stage is Stage.CALIBRATION:
        where = "The 50:50 merge again, on fresh seeds: how exact is a score?"
    elif run.stage is Stage.FINALISTS:
        where = f"Evaluation {run.evaluation:,} again, on fresh seeds"
    else:
        where = f"Evaluation {run.evaluation:,} on images the search never saw"
    if _choosing(now, run):
        return [element("b", "Your blind choices"), " · all images are made"]
    parts: list[str] = [element("b", where)]
    if now.activity:
        parts.append(f" · {now.activity}")
    parts.append(f" · {run.images:,} of {plural(run.images_planned, 'image')}")
    return parts


def _choosing(now: Standing, run: RunStanding) -> bool:
    """Whether only the user's blind choices are left to do."""
    return run.stage is Stage.VERDICT and now.waiting


def _times(now: Standing, run: RunStanding, clock: float) -> list[str]:
    parts: list[str] = [f"{duration(run.elapsed_s)} at work"]
    if _choosing(now, run):
        return [*parts, " · done when you have chosen"]
    left = run.remaining
    if left is None:
        return [*parts, " · measuring the pace"]
    parts += [" · done about ", clock_time(left.seconds, clock)]
    if left.low is not None and left.high is not None and left.high > left.low + 60:
        parts += [
            ", between ",
            clock_time(left.low, clock),
            " and ",
            clock_time(left.high, clock),
        ]
    return parts
