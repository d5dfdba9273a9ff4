"""Downloads of rewards' files for the tab: one at a time, in a thread of its own."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lib_automerge.errors import AutomergeError, BusyError, ConfigError
from lib_automerge.reward.download import DownloadCancelledError, fetch
from lib_automerge.reward.files import WeightFile
from lib_automerge.reward.status import to_download

_log = logging.getLogger(__name__)


class DownloadPhase(str, enum.Enum):
    """How the latest download stands."""

    NONE = "none"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"


class DownloadSnapshot(msgspec.Struct, frozen=True):
    """The latest download at one moment.

    Attributes:
        phase: how it stands.
        reward: whose files; empty before the first download.
        file: the name of the one in hand.
        have: bytes of that file that are there.
        size: bytes that it will have; 0 while that is not known.
        told: a sentence once it has ended.
        pace: bytes per second since this file was begun here; 0 while that is not known.
    """

    phase: DownloadPhase = DownloadPhase.NONE
    reward: str = ""
    file: str = ""
    have: int = 0
    size: int = 0
    told: str = ""
    pace: float = 0.0

    @property
    def version(self) -> str:
        """Another text whenever something that is shown has changed."""
        return f"{self.phase.value}-{self.reward}-{self.file}-{self.have}-{self.size}"

    @property
    def running(self) -> bool:
        """Whether the thread is at work."""
        return self.phase in (DownloadPhase.RUNNING, DownloadPhase.CANCELLING)


class Downloads:
    """Gets what rewards lack.

    Args:
        folder: the models folder, into which files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._now = DownloadSnapshot()
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun: tuple[float, int] | None = None

    def snapshot(self) -> DownloadSnapshot:
        """The latest download as it stands."""
        with self._lock:
            return self._now

    def start(self, reward: str) -> None:
        """Begin to get every file that a reward lacks.

        Raises:
            BusyError: a download is in progress.
            ConfigError: no reward has that name, or it lacks nothing.
        """
        files = to_download(reward, [self._folder])
        if not files:
            raise ConfigError(f"nothing to download for the reward {reward!r}. Use it.")
        with self._lock:
            if self._now.running:
                raise BusyError(f"{self._now.file} is being downloaded. Wait for it, or cancel it.")
            self._cancelled.clear()
            self._now = DownloadSnapshot(DownloadPhase.RUNNING, reward, files[0].name)
            # a daemon: what there is of a file is kept, so the process may end at any time
            self._thread = threading.Thread(target=self._work, args=(files,), daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """End the download in progress; what there is of the file is kept. Else nothing."""
        with self._lock:
            if self._now.running:
                self._cancelled.set()
                self._now = msgspec.structs.replace(self._now, phase=DownloadPhase.CANCELLING)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until no download is in progress, or the time is over."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _work(self, files: Sequence[WeightFile]) -> None:
        try:
            for file in files:
                self._begun = None
                self._change(file=file.name, have=0, size=0, pace=0.0)
                fetch(file, self._folder, self._progress, self._cancelled.is_set)
        except DownloadCancelledError as error:
            self._change(phase=DownloadPhase.CANCELLED, told=str(error))
        except AutomergeError as error:
            self._change(phase=DownloadPhase.FAILED, told=str(error))
        except Exception as error:
            _log.exception("a download failed unexpectedly")
            told = f"download failed: {type(error).__name__}: {error}. See the log."
            self._change(phase=DownloadPhase.FAILED, told=told)
        else:
            names = " and ".join(file.name for file in files)
            self._change(phase=DownloadPhase.DONE, told=f"Downloaded {names}.")

    def _progress(self, have: int, size: int) -> None:
        now = time.monotonic()
        # what an earlier download left is no part of the pace
        begun, before = self._begun = self._begun or (now, have)
        pace = (have - before) / (now - begun) if now - begun >= 1 else 0.0
        self._change(have=have, size=size, pace=pace)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._now = msgspec.structs.replace(self._now, **changes)
