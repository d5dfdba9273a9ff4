"""The lock around everything that uses the model, and how the UI's own requests take it."""

import functools

from modules import errors, fifo_lock, progress, shared

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func):
    @functools.wraps(func)
    def queued(*args, **kwargs):
        with queue_lock:
            return func(*args, **kwargs)

    return queued


def wrap_gradio_gpu_call(func, extra_outputs=None):
    """A click on Generate: an exception becomes the text of the last output."""

    @functools.wraps(func)
    def clicked(*args, **kwargs):
        task = args[0] if args and str(args[0]).startswith("task(") else None
        if task is not None:
            progress.add_task_to_queue(task)
        try:
            with queue_lock:
                shared.state.begin(job=task)
                progress.start_task(task)
                try:
                    result = func(*args, **kwargs)
                finally:
                    progress.finish_task(task)
                shared.state.end()
            return result
        except Exception as error:
            errors.display(error, "Error completing request")
            return [*(extra_outputs or [None, ""]), f"{type(error).__name__}: {error}"]
        finally:
            # outside the lock, as in the real one: these may be the flags of whoever is next
            shared.state.skipped = False
            shared.state.interrupted = False
            shared.state.stopping_generation = False
            shared.state.job_count = 0
            shared.state.job = ""

    return clicked
