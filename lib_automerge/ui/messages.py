"""What the form tells: checks, forecasts, messages. Pure functions to HTML."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from datetime import datetime, timedelta

from lib_automerge.app.checks import Check, Level, Preflight
from lib_automerge.app.estimate import Forecast
from lib_automerge.domain.config import RunConfig
from lib_automerge.errors import AutomergeError
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.search import proposers
from lib_automerge.search.stopping import EARLIEST
from lib_automerge.study.formats import listed, plural
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui.search_fields import OPTIMIZER_HELP

WORDS = {Level.OK: "ok", Level.WARNING: "warning", Level.ERROR: "to do"}
MARKS = {Level.OK: "\N{CHECK MARK}", Level.WARNING: "!", Level.ERROR: "\N{MULTIPLICATION SIGN}"}
OPEN = (Level.ERROR, Level.WARNING)

FORM_WORDS = {
    "search.evaluations": "Evaluations",
    "search.hours": "Hours",
    "search.images": "Images",
    "search.patience": "Evaluations without a better one",
    "search.early_reject": "Give up on poor candidates early",
    "search.calibration": "Seed sets to measure the noise",
    "search.seeds_per_payload": "Seeds per prompt",
    "search.seed": "Seed of the run",
    "search.parameters": "Parameters of the method",
    "verdict.finalists": "Finalists",
    "verdict.finalist_seeds": "Seeds for finalists",
    "verdict.seeds": "Seeds for the verdict",
}
"""Names of the configuration in sentences -> what the form calls them."""

METHOD_SENTENCES = {
    "weighted_sum": "A x (1 - w) + B x w in every block: 0 is all A, 1 is all B.",
    "add_difference": "A + w x (B - C) in every block: 0 is all A, 1 adds all that B learned "
    "since C.",
}
"""What a merge method computes, by its name."""


def checks(found: Preflight, told: Markup = EMPTY) -> Markup:
    """The findings, what must be done first on top, and a sentence that follows them."""
    open_ones = [c for level in OPEN for c in found.checks if c.level is level]
    passed = [check for check in found.checks if check.level is Level.OK]
    parts = [_list(open_ones)] if open_ones else []
    if passed:
        subjects = ", ".join(dict.fromkeys(check.subject for check in passed))
        summary = f"{plural(len(passed), 'check')} passed: {subjects}"
        parts.append(element("details", element("summary", summary), _list(passed)))
    return element("div", *parts, told, class_="automerge-checks")


def not_yet(text: str) -> Markup:
    """The checks of a form that does not describe a run yet: what is missing."""
    return checks(Preflight(checks=(Check(Level.ERROR, "Form", text),), architecture=None))


def forecast(expected: Forecast, config: RunConfig, now: datetime) -> Markup:
    """How much a run does, how long that takes, and when it is over.

    Args:
        expected: what the limits of the run allow.
        config: the run.
        now: with the zone of the user's clock.
    """
    limit = "" if config.search.images is None else f" within {config.search.images:,} images"
    amount = (
        f"Up to {plural(expected.evaluations, 'evaluation')}{limit}, "
        f"{plural(expected.images, 'image')} in all with the proof"
    )
    if expected.seconds is not None:
        end = now + timedelta(seconds=expected.seconds)
        time = f"about {rough(expected.seconds)}, done around {clock(end, now)} at the latest"
    elif config.search.hours is not None:
        time = f"at most {config.search.hours:g} h of search; more is known after the first one"
    else:
        time = "the time is known after the first one"
    told = " ".join(filter(None, [f"{amount}: {time}.", _earlier(config)]))
    return element("p", told, class_="automerge-forecast")


def _earlier(config: RunConfig) -> str:
    """When a search ends before its limits; empty if it does not."""
    search = config.search
    reasons = []
    by_model = search.evaluations > EARLIEST
    if by_model and search.stop == "regret":
        reasons.append(f"little is left to gain (from evaluation {EARLIEST} on)")
    if by_model and search.stop == "improvement":
        reasons.append(f"the next candidate promises little (from evaluation {EARLIEST} on)")
    if search.patience is not None:
        reasons.append(f"{plural(search.patience, 'candidate')} in a row brought no better one")
    if search.target is not None:
        reasons.append(f"the best reaches {search.target:g}")
    return f"It ends earlier when {' or when '.join(reasons)}." if reasons else ""


def rough(seconds: float) -> str:
    """A duration as precise as a forecast can be: "40 s", "25 min", "6 h 10 min"."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    minutes = round(minutes, -1)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def clock(time: datetime, now: datetime) -> str:
    """A time of the day, with the day if it is not today: "06:40 tomorrow"."""
    days = (time.date() - now.date()).days
    day = {0: "", 1: " tomorrow"}.get(days, f" on {time:%Y-%m-%d}")
    return f"{time:%H:%M}{day}"


def method_sentence(method: LabMethod) -> Markup:
    """What a merge method computes, and which models it takes."""
    told = METHOD_SENTENCES.get(method.name)
    if told is not None:
        return element("p", told, class_="automerge-help")
    takes = f"{method.label}: takes {method.takes}."
    if method.based:
        takes += " A is the base; B and the others are merged."
    elif not method.roles:
        takes += " A, B and the others are merged."
    return element("p", takes, " ", element("code", method.formula), class_="automerge-help")


def optimizer_help(name: str) -> Markup:
    """When an optimizer is the right one, and what it lacks here."""
    told = OPTIMIZER_HELP.get(name, "")
    absent = proposers.missing(name) if name in proposers.names() else ()
    if absent:
        told += (
            f" Not installed here: {listed(absent)}. Run pip install {' '.join(absent)} in this "
            "Python environment, and start it again."
        )
    return element("p", told, class_="automerge-help")


def done(text: str) -> Markup:
    """A message that something worked."""
    return element("p", text, class_="automerge-note", role="status")


def left_out(models: Sequence[str]) -> Markup:
    """That models of the form as it was left are not among its models now."""
    verb = "was" if len(models) == 1 else "were"
    told = (
        f"{listed(models)} {verb} left out of the models: there is no such checkpoint any longer."
    )
    return element("p", told, class_="automerge-error", role="alert")


def trouble(error: Exception) -> Markup:
    """An error as a sentence; one that nobody expected comes with its trace, folded."""
    if isinstance(error, AutomergeError):
        return element("p", sentence(str(error)), class_="automerge-error", role="alert")
    trace = "".join(traceback.format_exception(error))
    return element(
        "div",
        element("p", f"Something unexpected went wrong: {type(error).__name__}. Nothing was lost."),
        element("details", element("summary", "Details"), element("pre", trace)),
        class_="automerge-error",
        role="alert",
    )


def sentence(text: str) -> str:
    """An error's text with a capital at its beginning, unless that is a name."""
    first = text.split(" ", 1)[0].rstrip(",:")
    return text[:1].upper() + text[1:] if first.isalpha() else text


def _list(found: Sequence[Check]) -> Markup:
    return element("ul", *map(_check, found))


def _check(check: Check) -> Markup:
    mark = element("span", MARKS[check.level], class_="automerge-mark", aria_hidden="true")
    text = check.text
    for name, label in FORM_WORDS.items():
        text = re.sub(rf"\b{re.escape(name)}\b", f'"{label}"', text)
    return element(
        "li",
        mark,
        element("span", element("b", check.subject), f" ({WORDS[check.level]}): {sentence(text)}"),
        class_=f"automerge-check automerge-check-{check.level.value}",
    )
