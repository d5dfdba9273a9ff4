"""What a user asks of AUTOMATIC1111 by its own buttons. Import it only inside that WebUI.

"Reload UI" presses Interrupt first and says why a moment later, by a command to the server and then
by another page object; the flag stays set. A user's Interrupt is the one after which nothing comes.
"""

from __future__ import annotations

import time
from typing import Any

from modules import shared

from lib_automerge.generate.base import StopFlag
from lib_automerge.host.ports import Ending

RELOAD_NOTICE_S = 2.0
"""How long to wait for the word that an interrupt was a reload."""
RELOAD_S = 180.0
"""How long the user interface may take to come back."""


class Buttons:
    """Interrupt, Skip and Reload UI, as long as one session lasts."""

    def __init__(self) -> None:
        self._demo: Any = None

    def begin(self) -> None:
        """Forget what was pressed before: nothing of ours ran then."""
        self._demo = shared.demo
        self.clear()

    def clear(self) -> None:
        """Reset the flags; who generates without doing so gets no images."""
        state = shared.state
        state.interrupted = state.skipped = state.stopping_generation = False

    def skipped(self) -> bool:
        """Whether the last image was skipped."""
        return bool(shared.state.skipped)

    def asked(self) -> Ending | None:
        """See `host.ports.WebUI`."""
        state = shared.state
        if not (state.interrupted or state.stopping_generation):
            return Ending.RELOADING if self._reloading() else None
        deadline = time.monotonic() + RELOAD_NOTICE_S
        while not self._reloading():
            if time.monotonic() > deadline:
                return Ending.INTERRUPTED
            time.sleep(0.02)
        return Ending.RELOADING

    def wait_for_reload(self, stop: StopFlag) -> None:
        """See `host.ports.WebUI`."""
        deadline = time.monotonic() + RELOAD_S
        while self._reloading() and not stop() and time.monotonic() < deadline:
            if shared.demo is not self._demo and getattr(shared.demo, "is_running", False):
                self._demo = shared.demo
            time.sleep(0.1)
        self._demo = shared.demo
        self.clear()

    def _reloading(self) -> bool:
        if shared.state.server_command == "restart" or shared.demo is not self._demo:
            return True
        server = getattr(self._demo, "server", None)
        return bool(getattr(server, "should_exit", False))
