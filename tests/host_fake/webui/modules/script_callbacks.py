"""Events that extensions register for. A callback that raises is reported and forgotten."""

import inspect
from typing import NamedTuple

from modules import errors


class ScriptCallback(NamedTuple):
    script: str
    callback: object
    name: str


callback_map: dict[str, list[ScriptCallback]] = {}


def _register(event, callback, name):
    script = next(f.filename for f in inspect.stack() if f.filename != __file__)
    callback_map.setdefault(event, []).append(
        ScriptCallback(script, callback, name or f"{script}/{event}")
    )


def _fire(event, *args, **kwargs):
    results = []
    for entry in list(callback_map.get(event, [])):
        try:
            results.append(entry.callback(*args, **kwargs))
        except Exception as error:
            errors.display(error, f"callback {event} for {entry.script}")
    return results


def clear_callbacks():
    callback_map.clear()


def remove_callbacks_for_function(callback_func):
    for entries in callback_map.values():
        entries[:] = [entry for entry in entries if entry.callback != callback_func]


def remove_current_script_callbacks():
    script = next(f.filename for f in inspect.stack() if f.filename != __file__)
    for entries in callback_map.values():
        entries[:] = [entry for entry in entries if entry.script != script]


def on_app_started(callback, *, name=None):
    _register("app_started", callback, name)


def app_started_callback(demo, app):
    _fire("app_started", demo, app)


def on_before_reload(callback, *, name=None):
    _register("on_reload", callback, name)


def app_reload_callback():
    _fire("on_reload")


def on_model_loaded(callback, *, name=None):
    _register("model_loaded", callback, name)


def model_loaded_callback(sd_model):
    _fire("model_loaded", sd_model)


def on_ui_tabs(callback, *, name=None):
    _register("ui_tabs", callback, name)


def ui_tabs_callback():
    return [tab for tabs in _fire("ui_tabs") for tab in tabs or []]


def on_ui_settings(callback, *, name=None):
    _register("ui_settings", callback, name)


def ui_settings_callback():
    _fire("ui_settings")


def on_before_ui(callback, *, name=None):
    _register("before_ui", callback, name)


def before_ui_callback():
    _fire("before_ui")


def on_script_unloaded(callback, *, name=None):
    _register("script_unloaded", callback, name)


def script_unloaded_callback():
    _fire("script_unloaded")


def on_after_component(callback, *, name=None):
    _register("after_component", callback, name)


def on_before_component(callback, *, name=None):
    _register("before_component", callback, name)


def on_infotext_pasted(callback, *, name=None):
    _register("infotext_pasted", callback, name)


def on_list_unets(callback, *, name=None):
    _register("list_unets", callback, name)


def list_unets_callback():
    found = []
    _fire("list_unets", found)
    return found
