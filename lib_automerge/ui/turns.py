"""The form's requests, sent one after the other.

Gradio sends a request for every event, with the values that the fields then have, and takes the
answers as they come: one about older values can come last and stay. Gradio 3 even drops events. So
an event only asks for a turn. Our script presses a hidden button when it is due: when the answer
before it is in the page. What then is sent are the values of that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lib_automerge.ui.components import HIDDEN, PREFIX, button, listen, scripted

# Without our script every event is answered at once, as well as Gradio can.
_FORM = (
    "(window.automergeForm || {"
    "ask: (id) => document.getElementById(id).click(), "
    "done: (id, then) => then && document.getElementById(then).click()})"
)

KEEP = "keep"
REDRAW = "redraw"
"""Turns that come after all others; of the two of a form only `KEEP` if both are due.

`automerge.js` knows them by how the ids of their buttons end.
"""


class Turns:
    """Makes hidden buttons, where it is called, and has them pressed one after the other.

    Args:
        prefix: how their names begin, if the page has another form.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._count = 0

    def make(
        self,
        work: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        name: str = "",
        then: str = "",
    ) -> str:
        """Make a turn.

        Args:
            work: takes the inputs' values and returns those of the outputs.
            inputs: components.
            outputs: components.
            name: its name; empty: the next of a row.
            then: the name of the turn to ask for when it is over; empty: none.

        Returns:
            Its name.
        """
        if not name:
            self._count += 1
            name = f"{self._prefix}turn_{self._count}"
        pressed = listen(
            button(name, name, elem_classes=[HIDDEN]).click, work, inputs, outputs, latest=True
        )
        after = PREFIX + then if then else ""
        scripted(pressed.then, f'{_FORM}.done("{PREFIX}{name}", "{after}")')
        return name

    @staticmethod
    def ask(event: Any, name: str, *, latest: bool) -> None:
        """On this event of a component, ask for a turn.

        Args:
            event: the component's listener.
            name: of the turn.
            latest: also while that turn is being answered.
        """
        again = "true" if latest else "false"
        scripted(event, f'{_FORM}.ask("{PREFIX}{name}", {again})')
