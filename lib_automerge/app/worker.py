"""The run service: one thread that works on one run at a time, whoever is watching.

It belongs to the process, not to a page: pages come and go and read snapshots. What it knows of a
run it could forget at any time; the journal has it all.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from lib_automerge.app.ports import Controls, Listener
from lib_automerge.app.question import QuestionDesk
from lib_automerge.app.service import Service
from lib_automerge.domain.blind import Asked
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import AnyEvent
from lib_automerge.domain.run import Activity, RunState, Status
from lib_automerge.errors import AutomergeError, BusyError, ConfigError, RunFailedError

log = logging.getLogger(__name__)


class Phase(str, enum.Enum):
    """What the worker is about."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    STOPPING = "stopping"
    FINISHING = "finishing"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The worker at one moment.

    `sequence` grows with every change. `folder` is the run in hand or, when idle, the one before;
    `state` is a copy of what is known of it (None before its first event), `activity` what it does
    right now, `question` what it waits to be told. `failure` says why the last run could not start,
    or could not write why it ended.
    """

    sequence: int
    phase: Phase
    folder: Path | None
    state: RunState | None
    activity: Activity | None
    failure: str
    question: Asked | None = None


class Worker:
    """Runs runs in a thread of its own.

    Args:
        service: does the work.
        around: entered for the time of every run, to keep the machine awake, say.
    """

    def __init__(
        self,
        service: Service,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._service = service
        self.around = around
        self._changed = threading.Condition()
        self._sequence = 0
        self._phase = Phase.IDLE
        self._folder: Path | None = None
        self._state: RunState | None = None
        self._activity: Activity | None = None
        self._failure = ""
        self._wishes: set[Phase] = set()
        self._thread: threading.Thread | None = None
        self.questions = QuestionDesk(self._changed, lambda: self._set(self._phase))
        """What the run in hand asks the user."""

    def start(self, config: RunConfig, folder: Path, notes: Sequence[str] = ()) -> None:
        """Begin a new run in this folder; returns at once. See `Service.start`.

        Raises:
            BusyError: a run is in hand.
        """

        def work(controls: Controls, listener: Listener) -> RunState:
            return self._service.start(
                config, folder, controls=controls, listener=listener, notes=notes
            )

        self._begin(folder, work)

    def resume(self, folder: Path) -> None:
        """Take up a run; returns at once.

        Raises:
            BusyError: a run is in hand.
        """

        def work(controls: Controls, listener: Listener) -> RunState:
            return self._service.resume(folder, controls=controls, listener=listener)

        self._begin(folder, work)

    def pause(self) -> None:
        """Give the device back after the evaluation in progress.

        Raises:
            ConfigError: no run is in hand.
        """
        self._wish(Phase.PAUSING)

    def stop(self) -> None:
        """End after the images in the air; see `pause`."""
        self._wish(Phase.STOPPING)

    def finish(self) -> None:
        """End the search after the evaluation in progress and prove the best; see `pause`."""
        self._wish(Phase.FINISHING)

    def snapshot(self) -> Snapshot:
        """The worker now; the state in it is the caller's own."""
        with self._changed:
            return Snapshot(
                sequence=self._sequence,
                phase=self._phase,
                folder=self._folder,
                state=self._state.copy() if self._state else None,
                activity=self._activity,
                failure=self._failure,
                question=self.questions.question,
            )

    def sequence(self) -> int:
        """The sequence number of a snapshot taken now, without the cost of one."""
        return self._sequence

    def busy_with(self) -> Path | None:
        """The folder of the run in hand, if there is one."""
        with self._changed:
            return None if self._phase is Phase.IDLE else self._folder

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no run is in hand; tells whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._phase is Phase.IDLE, timeout_s)

    # --- the thread's side ------------------------------------------------------------------

    def _begin(self, folder: Path, work: Callable[[Controls, Listener], RunState]) -> None:
        with self._changed:
            if self._phase is not Phase.IDLE:
                assert self._folder is not None
                raise BusyError(
                    f"the run {self._folder.name} is in progress. Pause or stop it first."
                )
            self._wishes.clear()
            self._folder = folder
            self._state = None
            self._failure = ""
            self._set(Phase.STARTING)
        controls = Controls(
            stop=lambda: Phase.STOPPING in self._wishes,
            pause=lambda: Phase.PAUSING in self._wishes,
            finish=lambda: Phase.FINISHING in self._wishes,
            ask=self.questions.ask,
        )
        # a daemon, because a closing host must not wait a night for it: the journal is safe
        self._thread = threading.Thread(
            target=self._work, args=(controls, work), name="automerge-run", daemon=True
        )
        self._thread.start()

    def _work(self, controls: Controls, work: Callable[[Controls, Listener], RunState]) -> None:
        failure = ""
        try:
            with self.around():
                work(controls, self._listen)
        except RunFailedError as error:
            # the journal says it, and so do all views of the run, if it could still be written
            told = self._state is not None and self._state.status is Status.FAILED
            failure = "" if told else str(error)
        except KeyboardInterrupt:
            log.info("the run was stopped before it began")
        except AutomergeError as error:
            failure = str(error)
        except BaseException as error:
            # the thread's last resort: nobody else would see it
            log.exception("the run ended with an unexpected error")
            failure = f"{type(error).__name__}: {error}. The details are in the WebUI's console."
        with self._changed:
            self._failure = failure
            self._activity = None
            self._set(Phase.IDLE)

    def _listen(self, event: AnyEvent | Activity, state: RunState) -> None:
        with self._changed:
            if isinstance(event, Activity):
                self._activity = event
            elif self._state is None:
                self._state = state.copy()
            else:
                self._state.add(event)
            self._set(Phase.RUNNING if self._phase is Phase.STARTING else self._phase)

    def _wish(self, phase: Phase) -> None:
        with self._changed:
            if self._phase is Phase.IDLE:
                raise ConfigError("no run is in progress: there is nothing to end. Start one.")
            self._wishes.add(phase)
            # stopping is the stronger wish: it must not look like a pause again
            if self._phase is not Phase.STOPPING:
                self._set(phase)

    def _set(self, phase: Phase) -> None:
        self._phase = phase
        self._sequence += 1
        self._changed.notify_all()
