"""Automerge as an extension: what the WebUI calls, and when. Everything else is in lib_automerge.

"Reload UI" runs this file again while the package, and a run in it, go on.
"""

from __future__ import annotations

import traceback

from modules import script_callbacks

from lib_automerge.host import requirements
from lib_automerge.ui import trouble

TAB = ("Automerge", "automerge")  # the WebUI puts tab_ before the name

sentence = requirements.describe(requirements.unmet(requirements.read(requirements.LIST)))
details = requirements.last_problem()
if not sentence:
    try:
        from lib_automerge import api
        from lib_automerge.host import a1111_login, a1111_settings, detect, txt2img_form

        a1111_settings.load_plugins()  # before the tab lists the rewards
        from lib_automerge.ui import tab
    except Exception as error:
        sentence = f"Automerge does not work with this version of the WebUI: {error}. Update both."
        details = traceback.format_exc()


def page():
    """The tab, or what is wrong."""
    if sentence:
        return [(trouble.build(sentence, details), *TAB)]
    try:
        return [(tab.build(detect.webui_desk(), host_form=form, bind_paste=bind_paste), *TAB)]
    except Exception as error:
        text = f"Automerge could not build its tab: {error}. Please report this with the details."
        return [(trouble.build(text, traceback.format_exc()), *TAB)]


def bind_paste(button, textbox):
    """Have the WebUI fill its txt2img form from the textbox when the button is pressed."""
    from modules import infotext_utils as paste

    binding = paste.ParamBinding(
        paste_button=button, tabname="txt2img", source_text_component=textbox
    )
    paste.register_paste_params_button(binding)


script_callbacks.on_ui_tabs(page)
if not sentence:
    form = txt2img_form.Txt2imgForm(a1111_settings.clip_skip)
    script_callbacks.on_after_component(form.see)
    script_callbacks.on_ui_settings(a1111_settings.register)
    script_callbacks.on_app_started(
        lambda _demo, app: api.register(app, detect.webui_desk(), a1111_login.guard())
    )
