"""The "Automerge" section of the WebUI's settings. Import it only inside that WebUI.

Only what holds for the machine and works at once or says what it needs. No secrets: the WebUI shows
its settings to everybody who may call its API.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from modules import paths, shared

from lib_automerge.host.a1111_webui import SHARE_OPTION
from lib_automerge.reward import plugins
from lib_automerge.reward.plugins import PLACE

SECTION = ("automerge", "Automerge")
DATA_OPTION = "automerge_data"
AWAKE_OPTION = "automerge_awake"
POLL_OPTION = "automerge_poll"
PLUGINS_OPTION = "automerge_plugins"

POLL_S = 2
POLL_RANGE_S = (1, 30)
"""Seconds; the page's script reads the option itself."""

_log = logging.getLogger(__name__)


def register() -> None:
    """Add the section; the callback of `on_ui_settings`."""
    import gradio

    low, high = POLL_RANGE_S
    slider = {"minimum": low, "maximum": high, "step": 1}
    options = {
        DATA_OPTION: shared.OptionInfo("", "Folder for runs, payload sets and wildcards")
        .info(f"empty: {_default_folder()}; what is there is not moved")
        .needs_restart(),
        SHARE_OPTION: shared.OptionInfo(False, "Let other jobs in between evaluations").info(
            "otherwise the WebUI is reserved until the run ends or is paused; each visit costs the "
            "time of restoring your model and merging again"
        ),
        AWAKE_OPTION: shared.OptionInfo(
            True, "Keep the machine awake while a run is in progress"
        ).info("takes effect with the next run"),
        POLL_OPTION: shared.OptionInfo(
            POLL_S, "Seconds between updates of the live view", gradio.Slider, slider
        ),
        PLUGINS_OPTION: shared.OptionInfo(False, "Load the rewards that you wrote yourself")
        .info(
            f"every *.py in {data_folder() / PLACE}; they run with all rights of the WebUI, so put "
            "nothing there that you do not trust"
        )
        .needs_restart(),
    }
    # neither a folder nor what runs is for everybody who may call the WebUI's API to choose
    options[DATA_OPTION].restrict_api = True
    options[PLUGINS_OPTION].restrict_api = True
    for key, option in options.items():
        option.section = SECTION
        shared.opts.add_option(key, option)


def data_folder() -> Path:
    """Where the user wants the runs."""
    chosen = str(_value(DATA_OPTION, "") or "").strip()
    return Path(chosen).expanduser().absolute() if chosen else _default_folder()


def keep_awake() -> bool:
    """Whether the machine must not go to sleep during a run."""
    return bool(_value(AWAKE_OPTION, True))


def load_plugins() -> None:
    """Load the user's own rewards if they are allowed; what does not work is logged.

    To be called before the tab lists the rewards.
    """
    allowed = bool(_value(PLUGINS_OPTION, False))
    for sentence in plugins.load(data_folder() / PLACE, allowed=allowed).told:
        _log.warning("%s", sentence)


def clip_skip() -> int:
    """The WebUI's own setting, which belongs to a prompt taken from txt2img."""
    return int(_value("CLIP_stop_at_last_layers", 1) or 1)


def _value(key: str, default: Any) -> Any:
    """The setting now; the WebUI builds its API before its settings, so there may be none yet."""
    return shared.opts.data.get(key, default)


def _default_folder() -> Path:
    return Path(paths.data_path).absolute() / "automerge"
