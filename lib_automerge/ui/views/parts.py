"""The pieces that all views are made of: buttons, addresses, folds and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

from lib_automerge.domain.events import Scored
from lib_automerge.study.formats import duration
from lib_automerge.study.markup import EMPTY, Markup, element

ROOT = "./automerge/v1"
"""Of the routes, relative to the page, so that a WebUI under a sub-path works."""


def address(*parts: str | int, **query: str | int | None) -> str:
    """The address of a route."""
    path = "/".join(quote(str(part), safe="") for part in parts)
    asked = {name: value for name, value in query.items() if value is not None}
    return f"{ROOT}/{path}" + (f"?{urlencode(asked)}" if asked else "")


def image_address(run: str, scored: Scored, kind: str) -> str:
    """The address of an image; `kind` is "images" (the file) or "thumbs"."""
    return address("runs", run, kind, scored.evaluation, scored.stage.value, scored.job)


def button(
    label: str,
    action: str,
    run: str | None = None,
    *,
    primary: bool = False,
    confirm: str | None = None,
    hint: str | None = None,
    **more: str | float | bool | None,
) -> Markup:
    """A button that the page's script carries out.

    Args:
        label: one verb.
        action: what the script does.
        run: whose id goes with it.
        primary: whether it is the one that most people want here.
        confirm: a question to answer first; only for what cannot be taken back.
        hint: more words, shown by the pointer.
        more: further attributes.
    """
    return element(
        "button",
        label,
        type="button",
        class_="automerge-button automerge-primary" if primary else "automerge-button",
        data_action=action,
        data_run=run,
        data_confirm=confirm,
        title=hint,
        **more,
    )


def link(label: str, href: str, *, download: bool = False, hint: str | None = None) -> Markup:
    """A link that looks like a button: a file to keep, or a page of its own."""
    return element(
        "a",
        label,
        class_="automerge-button",
        href=href,
        download=download,
        target=None if download else "_blank",
        rel=None if download else "noopener",
        title=hint,
    )


def fold(key: str, title: str, *content: str, opened: bool = False) -> Markup:
    """A part that is folded at first; `key` lets the script remember that it was opened."""
    return element(
        "details",
        element("summary", title),
        *content,
        class_="automerge-fold",
        data_key=key,
        open=opened,
    )


def later(view: str, run: str) -> Markup:
    """A place that the script fills with a view when it can be seen."""
    return element(
        "div",
        element("p", "Loading…", class_="hint"),
        data_automerge_view=view,
        data_run=run,
    )


def clock_time(seconds: float, now: float) -> Markup:
    """When so many seconds are over, as a time of the day; the script shows it in its own zone."""
    end = datetime.fromtimestamp(now) + timedelta(seconds=seconds)
    text = end.strftime("%H:%M") if seconds < 86_400 else end.strftime("%Y-%m-%d %H:%M")
    return element(
        "time",
        text,
        data_in=f"{seconds:.0f}",
        title=f"in {duration(seconds)}",
    )


def tag(words: str, kind: str = "") -> Markup:
    """A few words set apart from the text around them."""
    return element("span", words, class_=f"tag {kind}".strip()) if words else EMPTY
