"""Events of the form: read all values, do one thing, then show what follows from it.

Every action has the same shape, and what the page shows is drawn by one more turn after the last of
them, so that an action and an edit leave the page in the same state. Every error ends as a sentence
in the message area. What we set ourselves fires no handler, so nothing goes in circles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import gradio as gr
import msgspec

from lib_automerge.errors import AutomergeError
from lib_automerge.study.markup import EMPTY, Markup
from lib_automerge.ui import messages
from lib_automerge.ui.fields import Kind
from lib_automerge.ui.form_fields import FIELDS
from lib_automerge.ui.payload_fields import PAYLOAD_FIELDS
from lib_automerge.ui.setup import Setup, View
from lib_automerge.ui.turns import KEEP, REDRAW, Turns

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
    only_many: Any
    only_weights: Any
    only_parameters: Any
    parameter: Any
    parameter_table: Any
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
            gr.update(interactive=view.ready, value=f"Try {view.trial} evaluations"),
            gr.update(interactive=view.ready),
            view.method,
            gr.update(visible=view.needs_c),
            gr.update(visible=view.needs_many),
            gr.update(visible=view.weighted),
            gr.update(visible=view.parametric),
            gr.update(choices=list(view.parameters)),
            view.parameter_table,
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


class FormWiring:
    """Connects components with a form; adds hidden buttons where it is made and used.

    Args:
        controls: all components that hold values, by name.
        always: names of those that every action reads, and that a draft keeps.
        keep: saves the draft.
        draw: what the components of `shown` show, from the values.
        shown: components that are drawn after every action.
        message: where sentences for the user go.
        offered: pickers in which nothing is chosen while their value is an empty text.
        prefix: of the names of hidden buttons, if the page has another form.
    """

    def __init__(
        self,
        controls: Mapping[str, Any],
        always: Sequence[str],
        *,
        keep: Callable[[dict[str, object]], None],
        draw: Callable[[dict[str, object]], list[Any]],
        shown: Sequence[Any],
        message: Any,
        offered: Collection[str] = OFFERED,
        prefix: str = "",
    ) -> None:
        self.controls = controls
        self._always = tuple(always)
        self._keep = keep
        self._drawn = draw
        self._outputs = [*shown, message]
        self._message = message
        self._offered = offered
        self._turns = Turns(prefix)
        self._names = (prefix + KEEP, prefix + REDRAW)
        self._draw(self._names[0], keep=True)
        self._draw(self._names[1], keep=False)

    def _draw(self, name: str, *, keep: bool) -> None:
        def draw(*held: object) -> list[Any]:
            values = dict(zip(self._always, held, strict=True))
            try:
                if keep:
                    self._keep(values)
                return [*self._drawn(values), gr.update()]
            except Exception as error:
                return [*([gr.update()] * len(self._outputs[:-1])), _told(error)]

        inputs = [self.controls[name] for name in self._always]
        self._turns.make(draw, inputs, self._outputs, name=name)

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
        """On each of these events, do `work`, then save the draft and redraw.

        Args:
            events: listeners of components.
            work: what to do; None only redraws.
            changes: names of the controls that `work` may change.
            reads: names of more controls that it reads than those of the form.
            extra: more components that it reads, by the name under which it gets their values.
            latest: an event that comes while `work` is busy is worked on afterwards instead of
                being dropped.
            keep: whether to save the draft.
            message: where its sentences go; None: beside the start button.
        """
        then = self._names[0] if keep else self._names[1]
        if work is None:
            turn = then
        else:
            names = (*self._always, *reads)
            sources = {name: self.controls[name] for name in names} | dict(extra or {})
            outputs = [*(self.controls[name] for name in changes), message or self._message]

            def handle(*held: object) -> list[Any]:
                values = dict(zip(sources, held, strict=True))
                changed, told = _tried(work, values)
                return [*(self._update(name, changed, values) for name in changes), told]

            turn = self._turns.make(handle, [*sources.values()], outputs, then=then)
        for event in events:
            self._turns.ask(event, turn, latest=latest or work is None)

    def _update(
        self, name: str, changed: Mapping[str, object], before: Mapping[str, object]
    ) -> Any:
        """What to do to a control. What it held is not set again: the user may be editing it."""
        if name not in changed:
            return gr.update()
        new = changed[name]
        value = self._held(name, new.value if isinstance(new, Offer) else new)
        told: dict[str, object] = {}
        if name not in before or self._held(name, before[name]) != value:
            told["value"] = value
        if isinstance(new, Offer):
            told["choices"] = list(new.choices)
        return gr.update(**told)

    def _held(self, name: str, value: object) -> object:
        return value or None if name in self._offered else value


class Wiring(FormWiring):
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
        def draw(values: dict[str, object]) -> list[Any]:
            return shown.updates(setup.view(values, str(values[SELECTED] or "")))

        self.setup = setup
        super().__init__(
            controls,
            (*(field.name for field in FIELDS), SELECTED),
            keep=setup.keep,
            draw=draw,
            shown=shown.components(),
            message=message,
        )


def _tried(work: Work, values: dict[str, object]) -> tuple[dict[str, object], Markup]:
    """The values that `work` changes and its message; none and the reason if it fails."""
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
