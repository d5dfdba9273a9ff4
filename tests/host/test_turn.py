from __future__ import annotations

import time
from threading import Event, Lock, Thread

from lib_automerge.host import turn


def test_a_free_lock_is_taken() -> None:
    lock = Lock()
    assert turn.take(lock, lambda: False)
    assert lock.locked()


def test_it_waits_for_its_turn() -> None:
    lock, taken = Lock(), Event()
    lock.acquire()
    waiting = Thread(target=lambda: turn.take(lock, lambda: False) and taken.set())
    waiting.start()
    assert not taken.wait(0.2)
    lock.release()
    assert taken.wait(5)
    assert lock.locked()


def test_who_gives_up_does_not_keep_the_lock_later() -> None:
    lock = Lock()
    lock.acquire()
    assert not turn.take(lock, lambda: True)
    lock.release()
    for _ in range(100):  # the helper gets it, and gives it back
        time.sleep(0.02)
        if lock.acquire(timeout=1):
            return
    raise AssertionError


def test_a_turn_that_came_while_stopping_is_reported() -> None:
    lock = Lock()
    lock.acquire()

    def stop() -> bool:
        lock.release()
        while not lock.locked():
            time.sleep(0.001)
        time.sleep(0.05)  # the helper has told of it by now
        return True

    assert turn.take(lock, stop)
    assert lock.locked()
