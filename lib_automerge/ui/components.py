"""Plain Gradio components from fields, and events that work alike in every Gradio in use.

Only what 3.41.2, 4.40.0 and the current release have in common is used here and above.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lib_automerge.ui.fields import Field, Kind

PREFIX = "automerge_"

HIDDEN = "automerge-hidden"
"""Class of what only scripts use: it is in the page, and style.css does not show it."""


BESIDE = "automerge-beside"
"""Class of a row of a sentence with a small button at its end."""


def kept_out(component: Any) -> Any:
    """The component, never written to or read from the WebUI's ui-config.json."""
    component.do_not_save_to_config = True
    return component


def control(field: Field, choices: Sequence[str] = (), **options: Any) -> Any:
    """The component of a field; `choices` are the names that the host offers."""
    common: dict[str, Any] = {
        "label": field.label,
        "value": field.empty,
        "elem_id": PREFIX + field.name,
        "interactive": True,
        **options,
    }
    if field.info:
        common.setdefault("info", field.info)
    kind = field.kind
    if kind in (Kind.TEXT, Kind.OPTIONAL):
        # an empty number field is 0 in Gradio 3
        made = gr.Textbox(lines=1, max_lines=1, placeholder=field.placeholder, **common)
    elif kind is Kind.LINES:
        common.setdefault("lines", 2)
        made = gr.Textbox(max_lines=12, placeholder=field.placeholder, **common)
    elif kind in (Kind.NUMBER, Kind.WHOLE):
        made = gr.Number(precision=0 if kind is Kind.WHOLE else None, **common)
    elif kind is Kind.CHECK:
        made = gr.Checkbox(**common)
    elif kind is Kind.RADIO:
        made = gr.Radio(choices=list(field.choices), **common)
    elif kind is Kind.CHOICE:
        made = gr.Dropdown(choices=list(field.choices), **common)
    elif kind is Kind.TICKS:
        made = gr.CheckboxGroup(choices=list(field.choices), **common)
    elif kind is Kind.NAMES:
        made = gr.Dropdown(choices=list(choices), multiselect=True, **common)
    else:
        # Names change while the page is open, and Gradio refuses what it did not list itself.
        common["value"] = common["value"] or None
        made = gr.Dropdown(choices=list(choices), allow_custom_value=True, **common)
    return kept_out(made)


def button(name: str, text: str, **options: Any) -> Any:
    """A button; `name` is the end of its id."""
    return kept_out(gr.Button(text, elem_id=PREFIX + name, **options))


def html(name: str, value: str = "", **options: Any) -> Any:
    """A piece of HTML; `name` is the end of its id."""
    return kept_out(gr.HTML(value, elem_id=PREFIX + name, **options))


def edited(component: Any) -> list[Any]:
    """The listeners for what a user, and nobody else, does to a component.

    Text counts when it is left or entered: `input` misses in Gradio 6 what is pasted or deleted,
    and `change` comes for our own updates too, at times with old values of the other components.
    """
    if isinstance(component, gr.Textbox):
        return [component.blur, component.submit]
    return [component.input]


def listen(
    event: Any,
    work: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    latest: bool = False,
) -> Any:
    """Call `work` on an event of a component, outside the queue and without a spinner.

    Args:
        event: the component's listener, `button.click`.
        work: takes the inputs' values and returns those of the outputs.
        inputs: components.
        outputs: components.
        latest: an event that comes while `work` is busy is worked on afterwards instead of being
            dropped. Gradio 3 drops it all the same.
    """
    options: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    if latest and "trigger_mode" in inspect.signature(event).parameters:
        options["trigger_mode"] = "always_last"
    return event(fn=work, inputs=list(inputs), outputs=list(outputs), **options)


def scripted(event: Any, script: str) -> Any:
    """Run a JavaScript function without arguments in the page on an event; no request is sent."""
    word = "_js" if gr.__version__.startswith("3.") else "js"
    # Gradio 3 wants the values of all outputs, also if there are none
    code = f"() => {{ {script}; return []; }}"
    return event(fn=None, inputs=[], outputs=[], queue=False, **{word: code})
