"""The job lock: waiters are woken in order, but whoever asks while it is free gets it first."""

import threading
from collections import deque


class FIFOLock:
    def __init__(self):
        self._guard = threading.Condition()
        self._held = False
        self._pending_threads = deque()

    def acquire(self, blocking=True):
        with self._guard:
            if not self._held:
                self._held = True
                return True
            if not blocking:
                return False
            ticket = object()
            self._pending_threads.append(ticket)
            # a woken waiter may find the lock taken again: it is not handed over
            self._guard.wait_for(lambda: not self._held and self._pending_threads[0] is ticket)
            self._pending_threads.popleft()
            self._held = True
            return True

    def release(self):
        with self._guard:
            if not self._held:
                raise RuntimeError("release unlocked lock")
            self._held = False
            self._guard.notify_all()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()
