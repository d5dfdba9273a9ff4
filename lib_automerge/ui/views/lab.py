"""The merge lab at work: how far a merge is, where it went, and the latest preview."""

from __future__ import annotations

from lib_automerge.app.digests import Reading
from lib_automerge.app.lab import LabPhase, LabSnapshot, Picture
from lib_automerge.app.lab_orders import Kept
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
NOTHING_READ = Reading()
DISCARD_QUESTION = (
    "Throw away what the unfinished merge has kept? It would begin again from nothing."
)


def lab(now: LabSnapshot, clock: float, reading: Reading = NOTHING_READ) -> Markup:
    """Draw the lab's latest merge.

    Args:
        now: the merge.
        clock: the time in seconds since the epoch.
        reading: how far the reading of models for their SHA-256 is.
    """
    parts = [_working(now, clock)] if now.working else [_ended(now)]
    parts += [_read(reading)]
    parts += [] if now.working else [_kept(kept) for kept in now.kept]
    return element("div", *parts, _picture(now.picture), class_="automerge-lab-state")


def _working(now: LabSnapshot, clock: float) -> Markup:
    progress = now.progress
    generating = now.phase is LabPhase.GENERATING
    cancelling = now.phase is LabPhase.CANCELLING
    known = progress is not None and progress.total > 0 and not generating
    share = progress.done / progress.total if progress is not None and known else None
    words = "making the image" if generating else "reading the models for their SHA-256"
    told: list[str] = []
    if progress is not None and not generating:
        words = f"{percent(share or 0.0)} done"
        told = [f"{size(progress.done)} of {size(progress.total)} read and written"]
        if progress.note:
            told = [f"{progress.note[:1].upper()}{progress.note[1:]}"]
        elif progress.rate > 0:
            told += [f" · {size(progress.rate)}/s"]
        if progress.left is not None and not cancelling:
            told += [" · done about ", clock_time(progress.left, clock)]
    head = f"Cancelling {title(now)}" if cancelling else title(now)
    act = EMPTY if cancelling else button("Cancel", "lab-cancel")
    return _bar("Progress of the merge", share, head, words, act, told)


def _bar(
    label: str, share: float | None, head: str, words: str, act: Markup, told: list[str]
) -> Markup:
    """A progress bar with a line below it; an unknown share moves to and fro."""
    percents = None if share is None else round(100 * share)
    return element(
        "div",
        element(
            "div",
            element("div", style=f"width: {100 * (share or 0.0):.1f}%"),
            class_="automerge-bar" if share is not None else "automerge-bar unknown",
            role="progressbar",
            aria_label=label,
            aria_valuemin=0,
            aria_valuemax=100,
            aria_valuenow=percents,
            aria_valuetext=words,
        ),
        element(
            "div", element("p", element("b", head), f" · {words}"), act, class_="automerge-lab-line"
        ),
        element("p", *told, class_="hint") if told else EMPTY,
        class_="automerge-progress",
    )


def _read(reading: Reading) -> Markup:
    """How far the reading of models is, or how it ended."""
    if reading.running:
        share = reading.done / reading.total if reading.total else None
        told = [f"{size(reading.done)} of {size(reading.total)}, for the SHA-256 of the contents"]
        head = "Cancelling" if reading.cancelling else f"Reading {reading.name}"
        act = EMPTY if reading.cancelling else button("Cancel", "lab-read-cancel")
        return _bar("Reading the models", share, head, percent(share or 0.0), act, told)
    if not reading.told:
        return EMPTY
    return element(
        "p",
        sentence(in_form(reading.told)),
        class_="automerge-error" if reading.failed else "automerge-quiet",
        role="alert" if reading.failed else "status",
    )


def title(now: LabSnapshot) -> str:
    """The merge by its file, or a preview by its method."""
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


def _kept(kept: Kept) -> Markup:
    return element(
        "div",
        element(
            "p",
            element("b", kept.name),
            f" is not finished: {size(kept.size)} of it are kept in {kept.folder}.",
        ),
        element(
            "div",
            button("Go on", "lab-resume", primary=True, data_kept=str(kept.number)),
            button(
                "Throw away", "lab-discard", confirm=DISCARD_QUESTION, data_kept=str(kept.number)
            ),
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
