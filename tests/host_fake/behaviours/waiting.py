"""The job lock and what waits for it."""

from __future__ import annotations

import threading
import time

from .bench import UNET, Bench, behaviour, raises


def _thread(call: object) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


@behaviour
def the_lock_is_not_reentrant(bench: Bench) -> None:
    """Whoever holds the lock does not get it again; another thread may release it; releasing a free
    one raises; there is no time limit to wait with."""
    from modules.call_queue import queue_lock

    assert queue_lock.acquire()
    assert queue_lock.acquire(False) is False
    _thread(queue_lock.release).join(5)
    assert queue_lock.acquire(False)
    queue_lock.release()
    assert isinstance(raises(queue_lock.release), RuntimeError)
    assert isinstance(raises(lambda: queue_lock.acquire(timeout=1)), TypeError)


@behaviour
def the_lock_lists_who_waits(bench: Bench) -> None:
    """`queue_lock._pending_threads` has an entry for each thread that waits."""
    from modules.call_queue import queue_lock

    def wait() -> None:
        with queue_lock:
            pass

    with queue_lock:
        assert len(queue_lock._pending_threads) == 0
        threads = [_thread(wait), _thread(wait)]
        time.sleep(0.2)
        assert len(queue_lock._pending_threads) == 2
    for thread in threads:
        thread.join(5)


@behaviour
def the_lock_is_not_fair(bench: Bench) -> str:
    """A loop that takes the lock again at once passes by a thread that waits for it; a pause lets
    the waiting one in."""
    from modules.call_queue import queue_lock

    got = threading.Event()

    def wait() -> None:
        with queue_lock:
            got.set()

    queue_lock.acquire()
    thread = _thread(wait)
    time.sleep(0.2)
    passed = 0
    for _ in range(5):
        queue_lock.release()
        queue_lock.acquire()
        passed += not got.is_set()
    assert passed >= 1
    queue_lock.release()
    assert got.wait(5)
    thread.join(5)
    return f"passed by {passed} of 5 times"


@behaviour
def the_lock_serves_in_order(bench: Bench) -> None:
    """Threads that wait get the lock in the order in which they came."""
    from modules.call_queue import queue_lock

    order: list[int] = []

    def wait(number: int) -> None:
        with queue_lock:
            order.append(number)

    queue_lock.acquire()
    threads = []
    for number in range(4):
        threads.append(_thread(lambda n=number: wait(n)))
        time.sleep(0.05)
    queue_lock.release()
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3]


@behaviour
def a_change_of_the_checkpoint_waits_for_the_lock(bench: Bench) -> None:
    """Setting `sd_model_checkpoint` in Settings sets the option at once; the model changes when the
    lock is free."""
    from modules.call_queue import queue_lock

    queue_lock.acquire()
    thread = _thread(lambda: bench.shared.opts.set("sd_model_checkpoint", bench.b.title))
    time.sleep(0.3)
    assert bench.shared.opts.sd_model_checkpoint == bench.b.title
    assert bench.model.sd_checkpoint_info is bench.a
    queue_lock.release()
    thread.join(60)
    assert bench.model.sd_checkpoint_info is bench.b


@behaviour
def a_change_of_the_checkpoint_strikes_in_the_next_image(bench: Bench) -> None:
    """While that change waits, a generation of the lock's holder already loads the new model."""
    from modules.call_queue import queue_lock

    queue_lock.acquire()
    thread = _thread(lambda: bench.shared.opts.set("sd_model_checkpoint", bench.b.title))
    time.sleep(0.3)
    bench.generate()
    assert bench.model.sd_checkpoint_info is bench.b
    queue_lock.release()
    thread.join(60)


@behaviour
def a_request_between_two_holds_sees_the_swap(bench: Bench) -> None:
    """A click on Generate waits for the lock, then runs on the weights that it finds."""
    from modules.call_queue import queue_lock, wrap_gradio_gpu_call

    original = bench.image()
    results: list[bytes] = []
    click = wrap_gradio_gpu_call(lambda _: (results.append(bench.image()), [""])[1])
    queue_lock.acquire()
    bench.change(UNET)
    thread = _thread(lambda: click("task(check)"))
    time.sleep(0.3)
    assert not results
    queue_lock.release()
    thread.join(60)
    assert len(results) == 1
    assert results[0] != original


@behaviour
def the_end_of_a_request_clears_everybodys_flags(bench: Bench) -> None:
    """When a request of the UI ends it clears job and flags after it has released the lock."""
    from modules import call_queue

    state = bench.shared.state
    seen: list[tuple[str, bool]] = []
    release = call_queue.queue_lock.release

    def released() -> None:
        release()
        state.job, state.interrupted = "of the next one", True

    call_queue.queue_lock.release = released
    try:
        call_queue.wrap_gradio_gpu_call(lambda _: [""])("task(check)")
        seen.append((state.job, state.interrupted))
    finally:
        del call_queue.queue_lock.release
    assert seen == [("", False)]


@behaviour
def a_request_that_fails_gives_a_text(bench: Bench) -> None:
    """An exception in a request of the UI becomes the text of its last output; the lock is free."""
    from modules.call_queue import queue_lock, wrap_gradio_gpu_call

    def fail(_: object) -> None:
        raise ValueError("the check fails on purpose")

    result = wrap_gradio_gpu_call(fail, extra_outputs=[None, "", ""])("task(check)")
    assert "the check fails on purpose" in result[-1]
    assert queue_lock.acquire(False)
    queue_lock.release()
