"""Writing a checkpoint while the page does something else: large models take minutes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from lib_automerge.errors import AutomergeError, BusyError

log = logging.getLogger(__name__)


class Saver:
    """Writes one checkpoint at a time in a thread of its own."""

    def __init__(self) -> None:
        self.sequence = 0
        self._lock = threading.Lock()
        self._run = ""
        self._state = "idle"
        self._sentence = ""

    def status(self) -> dict[str, str]:
        """`state` is idle, saving, saved or failed; the sentence says what of which run."""
        with self._lock:
            return {"run": self._run, "state": self._state, "sentence": self._sentence}

    def begin(self, run: str, save: Callable[[], Path]) -> None:
        """Save in the background; returns at once.

        Raises:
            BusyError: another checkpoint is being written.
        """
        with self._lock:
            if self._state == "saving":
                raise BusyError(f"{self._sentence} Wait until it is written.")
            self._run = run
            self._set("saving", f"A checkpoint of the run {run} is being written.")
        # a daemon: a closing host must not wait for it, and half a file never has the final name
        threading.Thread(
            target=self._work, args=(save,), name="automerge-save", daemon=True
        ).start()

    def _work(self, save: Callable[[], Path]) -> None:
        try:
            path = save()
        except AutomergeError as error:
            state, sentence = "failed", f"The checkpoint was not saved: {error}"
        except Exception as error:
            # the thread's last resort: nobody else would see it
            log.exception("a checkpoint could not be saved")
            state = "failed"
            sentence = f"The checkpoint was not saved: {type(error).__name__}: {error}."
        else:
            state, sentence = "saved", f"Saved as {path.name}, in {path.parent}."
        with self._lock:
            self._set(state, sentence)

    def _set(self, state: str, sentence: str) -> None:
        self._state = state
        self._sentence = sentence
        self.sequence += 1
