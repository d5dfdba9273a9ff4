"""Waiting in a queue that only knows how to wait for ever, and leaving it when asked."""

from __future__ import annotations

from threading import Event, Lock, Thread
from typing import Protocol

from lib_automerge.generate.base import StopFlag

PATIENCE_S = 0.1
"""How often a waiting run looks whether it was stopped."""


class QueueLock(Protocol):
    """A lock that may be released by another thread than the one that took it."""

    def acquire(self) -> object:
        """Wait for it."""
        ...

    def release(self) -> object:
        """Let the next one in."""
        ...


def take(lock: QueueLock, stop: StopFlag) -> bool:
    """Wait for the lock in its own order; false, and the lock not taken, if `stop` came first.

    Asking again and again without waiting would lose against everybody who waits properly, so a
    helper thread waits. If the wait is given up, the helper returns the lock as soon as it gets it.
    """
    taken, agreement = Event(), Lock()
    given_up = False

    def wait() -> None:
        lock.acquire()
        with agreement:
            if not given_up:
                taken.set()
                return
        lock.release()

    Thread(target=wait, name="automerge queue", daemon=True).start()
    while not taken.wait(PATIENCE_S):
        if stop():
            with agreement:
                given_up = not taken.is_set()
            return not given_up
    return True
