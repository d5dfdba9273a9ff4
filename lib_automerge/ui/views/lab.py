"""The merge lab at work: how far a merge is, where it went, and the latest preview."""

from __future__ import annotations

from lib_automerge.app.lab import LabPhase, LabSnapshot, Picture
from lib_automerge.merge.lab import catalogue
from lib_automerge.study.formats import percent, size
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.lab_words import in_form
from lib_automerge.ui.messages import sentence
from lib_automerge.ui.views.parts import address, button, clock_time

VIEW = "lab"

CLASSES = {
    LabPhase.DONE: "automerge-note",
    LabPhase.CANCELLED: "automerge-quiet",
    LabPhase.FAILED: "automerge-error",
}
DISCARD_QUESTION = (
    "Throw away what the cancelled merge has kept? It would begin again from nothing."
)


def lab(now: LabSnapshot, clock: float) -> Markup:
    """Draw the lab's latest merge; `clock` is the time in seconds since the epoch."""
    parts = [_working(now, clock)] if now.working else [_ended(now)]
    parts += [_kept(now), _picture(now.picture)]
    return element("div", *parts, class_="automerge-lab-state")


def _working(now: LabSnapshot, clock: float) -> Markup:
    progress = now.progress
    known = progress is not None and progress.total > 0
    share = progress.done / progress.total if progress is not None and known else 0.0
    generating = now.phase is LabPhase.GENERATING
    words = "Making the image" if generating else "Reading the models"
    told: list[str] = []
    if progress is not None and not generating:
        words = f"{percent(share)} done"
        told = [f"{size(progress.done)} of {size(progress.total)} read and written"]
        if progress.rate > 0:
            told += [f" · {size(progress.rate)}/s"]
        if progress.left is not None:
            told += [" · done about ", clock_time(progress.left, clock)]
    cancelling = now.phase is LabPhase.CANCELLING
    head = "Cancelling" if cancelling else _title(now)
    return element(
        "div",
        element(
            "div",
            element("div", style=f"width: {100 * share:.1f}%"),
            class_="automerge-bar" if known and not generating else "automerge-bar unknown",
            role="progressbar",
            aria_label="Progress of the merge",
            aria_valuemin=0,
            aria_valuemax=100,
            aria_valuenow=round(100 * share) if known and not generating else None,
            aria_valuetext=words,
        ),
        element(
            "div",
            element("p", element("b", head), f" · {words}"),
            EMPTY if cancelling else button("Cancel", "lab-cancel"),
            class_="automerge-lab-line",
        ),
        element("p", *told, class_="hint") if told else EMPTY,
        class_="automerge-progress",
    )


def _title(now: LabSnapshot) -> str:
    return f"Preview of {_label(now.name)}" if now.preview else now.name


def _label(method: str) -> str:
    known = catalogue.METHODS.get(method)
    return known.label if known is not None else method


def _ended(now: LabSnapshot) -> Markup:
    if now.phase is LabPhase.NONE:
        return element(
            "p",
            "A merge is shown here while it is made. It goes on when this page is closed.",
            class_="hint",
        )
    failed = now.phase is LabPhase.FAILED
    told = element(
        "p",
        sentence(in_form(now.told)),
        class_=CLASSES[now.phase],
        role="alert" if failed else "status",
    )
    notes = [element("li", in_form(note)) for note in now.notes]
    return join([told, element("ul", *notes, class_="automerge-lab-notes") if notes else EMPTY])


def _kept(now: LabSnapshot) -> Markup:
    if now.kept is None or now.working:
        return EMPTY
    return element(
        "div",
        element(
            "p",
            f"Of {now.kept_name}, {size(now.kept)} are finished and kept on the disk.",
        ),
        element(
            "div",
            button("Go on", "lab-resume", primary=True),
            button("Throw it away", "lab-discard", confirm=DISCARD_QUESTION),
            class_="automerge-row",
        ),
        class_="automerge-notice",
    )


def _picture(picture: Picture | None) -> Markup:
    if picture is None:
        return EMPTY
    href = address("lab", "pictures", picture.number)
    words = f"{_label(picture.method)}, seed {picture.seed}"
    return element(
        "figure",
        element(
            "a",
            element("img", src=href, alt=f"Preview: {picture.prompt}", loading="lazy"),
            href=href,
            data_action="zoom",
            data_caption=f"{words}: {picture.prompt}",
            class_="automerge-shot",
        ),
        element("figcaption", element("b", words), f": {picture.prompt}"),
        class_="automerge-lab-picture",
    )
