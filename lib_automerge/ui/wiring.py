"""Events of the form: read all values, do one thing, show what follows from it.

Every handler has the same shape, so that an action and an edit leave the page in the same state,
and every error ends as a sentence in the message area. What we set ourselves fires no handler, so
nothing goes in circles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import gradio as gr
import msgspec

from lib_automerge.errors import AutomergeError
from lib_automerge.study.markup import EMPTY, Markup
from lib_automerge.ui import messages
from lib_automerge.ui.components import listen
from lib_automerge.ui.fields import Kind
from lib_automerge.ui.form_fields import FIELDS
from lib_automerge.ui.payload_fields import PAYLOAD_FIELDS
from lib_automerge.ui.setup import Setup, View

log = logging.getLogger(__name__)

Work = Callable[[dict[str, object]], Mapping[str, object]]
"""Takes values by name; returns those to change. Under `MESSAGE` it may return a `Markup`."""

MESSAGE = "message"
SELECTED = "payload_selected"

OFFERED = frozenset(
    field.name for field in (*FIELDS, *PAYLOAD_FIELDS) if field.kind is Kind.OFFERED
) | {SELECTED}
"""Pickers in which nothing is chosen while their value is an empty text."""


class Offer(msgspec.Struct, frozen=True):
    """New choices for a picker, and the value that it then has."""

    choices: Sequence[str]
    value: object


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The components that a `View` is drawn on."""

    checks: Any
    start: Any
    trial: Any
    measure: Any
    method: Any
    only_c: Any
    only_custom: Any
    only_waits: Any
    count: Any
    table: Any
    selected: Any
    space: Any
    reward: Any
    only_single: Any
    optimizer: Any
    earlier: Any

    def components(self) -> list[Any]:
        """All of them, in order."""
        return [getattr(self, name) for name in self.__struct_fields__]

    @staticmethod
    def updates(view: View) -> list[Any]:
        """What they show of a view, in the same order."""
        return [
            view.checks,
            gr.update(interactive=view.ready),
            gr.update(interactive=view.ready),
            gr.update(interactive=view.ready),
            view.method,
            gr.update(visible=view.needs_c),
            gr.update(visible=view.custom),
            gr.update(visible=view.waits),
            view.count,
            view.table,
            gr.update(choices=list(view.names)),
            view.space,
            view.reward,
            gr.update(visible=view.single),
            view.optimizer,
            gr.update(choices=list(view.earlier)),
        ]


class Wiring:
    """Connects components with a set-up form.

    Args:
        setup: what the form does.
        controls: all components that hold values, by name.
        shown: what is drawn after every event.
        message: where sentences for the user go.
    """

    def __init__(
        self, setup: Setup, controls: Mapping[str, Any], shown: Shown, message: Any
    ) -> None:
        self.setup = setup
        self.controls = controls
        self._shown = shown
        self._message = message
        self._turn = Lock()
        self._always = (*(field.name for field in FIELDS), SELECTED)

    def on(
        self,
        events: Sequence[Any],
        work: Work | None = None,
        changes: Sequence[str] = (),
        *,
        reads: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        latest: bool = False,
        keep: bool = True,
        message: Any = None,
    ) -> None:
        """On each of these events, do `work`, save the draft and redraw.

        Args:
            events: listeners of components.
            work: what to do; None only redraws.
            changes: names of the controls that `work` may change.
            reads: names of more controls that it reads than those of the form.
            extra: more components that it reads, by the name under which it gets their values.
            latest: see `components.listen`.
            keep: whether to save the draft.
            message: where its sentences go; None: beside the start button.
        """
        names = (*self._always, *reads)
        sources = {name: self.controls[name] for name in names} | dict(extra or {})

        def handle(*held: object) -> list[Any]:
            # one after the other: an answer about older values must not come after a newer one
            with self._turn:
                return answer(dict(zip(sources, held, strict=True)))

        def answer(values: dict[str, object]) -> list[Any]:
            changed, told = _tried(work, values)
            values |= {name: _value(new) for name, new in changed.items()}
            drawn = [gr.update()] * len(self._shown.components())
            try:
                if keep:
                    self.setup.keep(values)
                view = self.setup.view(values, str(values[SELECTED] or ""))
                drawn = self._shown.updates(view)
            except Exception as error:
                told = _told(error)
            return [*(_update(name, changed) for name in changes), *drawn, told]

        outputs = [*(self.controls[name] for name in changes), *self._shown.components()]
        outputs.append(message or self._message)
        for event in events:
            listen(event, handle, [*sources.values()], outputs, latest=latest)


def _tried(work: Work | None, values: dict[str, object]) -> tuple[dict[str, object], Any]:
    """The values that `work` changes and its message; none and the reason if it fails.

    Mere edits leave the message of the action before them in its place.
    """
    if work is None:
        return {}, gr.update()
    try:
        changed = dict(work(dict(values)))
    except Exception as error:
        return {}, _told(error)
    message = changed.pop(MESSAGE, EMPTY)
    return changed, message if isinstance(message, Markup) else messages.done(str(message))


def _told(error: Exception) -> Markup:
    if not isinstance(error, AutomergeError):
        # the last place where somebody can see it: Gradio would only say "Error"
        log.exception("the form could not do what was asked", exc_info=error)
    return messages.trouble(error)


def _value(new: object) -> object:
    return new.value if isinstance(new, Offer) else new


def _update(name: str, changed: Mapping[str, object]) -> Any:
    if name not in changed:
        return gr.update()
    new = changed[name]
    value = _value(new)
    if name in OFFERED:
        value = value or None
    if isinstance(new, Offer):
        return gr.update(choices=list(new.choices), value=value)
    return gr.update(value=value)
