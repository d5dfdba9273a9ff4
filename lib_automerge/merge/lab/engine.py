"""Runs a method over all tensors of its models: in parallel, in bounded memory, into a file.

What is written depends on the models and the parameters alone: not on threads, memory or chunks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.errors import CancelledError, ConfigError, ModelError
from lib_automerge.merge.lab import stack as stacks
from lib_automerge.merge.lab.budget import DEFAULT, Budget, left_of
from lib_automerge.merge.lab.job import Job, Listener, Progress, Task
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.number_types import (
    FLOATS,
    Floats,
    Raw,
    narrow,
    overflows,
    size_of,
    zero_bad,
)
from lib_automerge.merge.lab.output import Writing
from lib_automerge.merge.lab.sources import Source
from lib_automerge.merge.lab.stack import Bad, Reading, Stack, damaged
from lib_automerge.merge.lab.sums import BLOCK

WRITTEN_AT_ONCE = 1 << 22
"""Bytes that are gathered before they are written."""

_CHUNKS, _CHUNK = 1 << 22, 1 << 15
"""Elements of all models together that are combined at once, unless one model has fewer."""

_PER_THREAD = 32 << 20
_SMALL = 1 << 20
_PIECES = 12
"""Chunks of float64 that a thread works with at once."""

_SQUARES = 10
"""Matrices of models x models that a thread works with at once, and those that wait to be added."""

Result = TypeVar("Result")


def run(
    job: Job,
    output: Writing,
    *,
    memory: int = DEFAULT,
    threads: int = 1,
    chunk: int = stacks.CHUNK,
    progress: Listener = lambda _progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Bad, ...]:
    """Merge into an open output.

    Args:
        job: what to merge.
        output: where to; keys that it holds already are skipped.
        memory: cap for the whole process, in bytes.
        threads: how many tensors are merged at once.
        chunk: elements combined at once, or fewer if there are many models.
        progress: told of every step, by any thread, one at a time.
        cancelled: asked all the time.

    Returns:
        What was taken as 0, if the job allows it.

    Raises:
        CancelledError: `cancelled` said so.
        ConfigError: the memory is too small, or there are no threads or no chunks.
        ModelError: a model cannot be read, has changed, holds NaN or infinite numbers, or the
            result would.
        StorageError: the output cannot be written.
    """
    for name, number in (("threads", threads), ("chunk", chunk)):
        if number < 1:
            raise ConfigError(f"{name} is {number}. Give 1 or more.")
    with threadpool_limits(limits=1, user_api="blas"):
        merge = _Merge(job, output, memory, threads, chunk, progress, cancelled)
        try:
            merge.run()
        finally:
            merge.stop()
    for source in job.sources:
        source.check_unchanged()
    return merge.bad()


class _Merge:
    """One merge: its memory, its threads and how far it is."""

    def __init__(
        self,
        job: Job,
        output: Writing,
        memory: int,
        threads: int,
        chunk: int,
        progress: Listener,
        cancelled: Callable[[], bool],
    ) -> None:
        self._job = job
        self._method = job.method
        self._output = output
        self._threads = threads
        self._sources = job.sources
        models = max((len(task.members) for task in job.tasks), default=1)
        chunk = min(chunk, max(_CHUNKS // models, _CHUNK))
        points = 16 * BLOCK * models + 8 * _SQUARES * models * models
        own = _PER_THREAD + 8 * _PIECES * max(chunk - stacks.CHUNK, 0)
        least = max((self._least(task, chunk) for task in job.tasks), default=0)
        self._budget = Budget(left_of(memory, threads * (own + points), least))
        self._stopped = threading.Event()
        self._cancelled = cancelled
        self._reading = Reading(
            chunk=chunk,
            zero_bad=job.zero_bad,
            cancelled=self._is_cancelled,
            found_bad=self._note_bad,
        )
        self._bad: dict[tuple[str, str], Bad] = {}
        self._begun = time.monotonic()
        self._listener = progress
        self._lock = threading.Lock()
        self._done = self._skipped = 0
        self._total = 0

    def run(self) -> None:
        """Survey all tensors if the method asks for it, then merge them."""
        tasks = sorted(self._job.tasks, key=self._place)
        merged = [task for task in tasks if task.copied is None]
        survey = self._method.whole
        whole: Floats | None = None
        self._total = sum(map(self._cost, tasks))
        finished = [task for task in tasks if task.key in self._output.finished]
        self._done = self._skipped = sum(map(self._cost, finished))
        if survey is not None and self._job.settings.at(None).get("scope") == "model":
            self._total += sum(map(self._read_cost, merged))
            whole = self._survey(merged, 0)
            origin = survey.origin(whole)
            if origin:
                self._total += sum(map(self._read_cost, merged))
                whole = self._survey(merged, origin)
        more = {} if whole is None else {"whole": whole}
        left = [task for task in tasks if task.key not in self._output.finished]
        for _ in self._each(lambda task: self._merge(task, more), left):
            pass

    def stop(self) -> None:
        """Let threads that still work give up."""
        self._stopped.set()

    def bad(self) -> tuple[Bad, ...]:
        """What was taken as 0."""
        return tuple(self._bad[place] for place in sorted(self._bad))

    def _survey(self, tasks: Sequence[Task], origin: int) -> Floats:
        survey = self._method.whole
        assert survey is not None
        total: Floats | None = None

        def look(task: Task) -> Floats:
            with self._stack(task) as stack:
                found = survey.survey(stack, origin)
            self._advance(self._read_cost(task))
            return found

        for found in self._each(look, tasks):
            total = found if total is None else total + found
        return np.zeros((1, 1)) if total is None else total

    def _merge(self, task: Task, more: dict[str, Any]) -> None:
        source = self._copied(task)
        if source is not None:
            self._copy(task, source)
        else:
            values = self._job.settings.at(task.block)
            with self._stack(task) as stack:
                self._write(task, self._method.merge(stack, **values, **more))
        self._output.finish(task.key)
        self._advance(0)

    def _copied(self, task: Task) -> int | None:
        """The source that is the result; None if the tensor must be merged."""
        if task.copied is not None:
            return task.copied
        values = self._job.settings.at(task.block)
        role = self._method.identity(values, len(task.members) - self._method.based)
        return None if role is None else task.members[self._job.roles.index(role)]

    def _least(self, task: Task, chunk: int) -> int:
        """Bytes that a tensor cannot do without: a piece of every model, and the method's needs."""
        if self._copied(task) is not None:
            return _SMALL
        entries = [self._sources[index].entries[task.key] for index in task.members]
        size = int(np.prod(entries[0].shape, dtype=np.int64))
        piece = min(max(chunk, BLOCK), size) * sum(size_of(entry.number_type) for entry in entries)
        needs = self._method.needs(entries[0].shape, len(entries) - self._method.based)
        return 2 * piece + needs + _SMALL

    def _copy(self, task: Task, index: int) -> None:
        """Copy a tensor of one model, bit for bit but for its number type and what is damaged."""
        source = self._sources[index]
        entry = source.entries[task.key]
        if entry.number_type != task.number_type:
            stack = Stack(task.key, [source], based=False, memory=_SMALL, reading=self._reading)
            pieces = ((a, stack.value(0, a, b)) for a, b in stack.chunks())
            self._write(task, pieces)
            return
        width = size_of(entry.number_type)
        size = int(np.prod(entry.shape, dtype=np.int64))
        buffer = np.empty(min(WRITTEN_AT_ONCE, size * width), np.uint8)
        cost = self._cost(task)
        for start in range(0, size, WRITTEN_AT_ONCE // width):
            stop = min(start + WRITTEN_AT_ONCE // width, size)
            if self._is_cancelled():
                raise CancelledError("the merge was cancelled. Start it again to have it.")
            raw = buffer[: (stop - start) * width]
            source.read(task.key, start, stop, raw)
            if _is_trained(task) and overflows(raw, task.number_type):
                if not self._job.zero_bad:
                    raise damaged(source.name, task.key)
                zero_bad(raw, task.number_type)
                self._note_bad(Bad(source.name, task.key))
            self._output.write(task.key, start * width, raw)
            self._advance(cost * stop // size - cost * start // size)

    def _write(self, task: Task, pieces: Iterable[tuple[int, Floats]]) -> None:
        """Round pieces to the stored type and write them, many at a time."""
        width = size_of(task.number_type)
        size = int(np.prod(self._entry_shape(task), dtype=np.int64))
        cost = self._cost(task)
        gathered: list[Raw] = []
        begin = end = 0
        for start, values in pieces:
            assert start * width == end
            gathered.append(narrow(values, task.number_type).copy())
            end += values.size * width
            if end - begin >= WRITTEN_AT_ONCE:
                self._put(task, begin, np.concatenate(gathered))
                gathered, begin = [], end
            self._advance(cost * (start + values.size) // size - cost * start // size)
        if gathered:
            self._put(task, begin, np.concatenate(gathered))
        assert end == size * width

    def _put(self, task: Task, offset: int, raw: Raw) -> None:
        if _is_trained(task) and overflows(raw, task.number_type):
            raise ModelError(
                f"the merge holds NaN or infinite values: first in {task.key}. A model is damaged, "
                f"or parameters far out overflow {task.number_type}; inspect the models, or store "
                "the result as fp32."
            )
        self._output.write(task.key, offset, raw)

    def _stack(self, task: Task) -> _Lent:
        sources = [self._sources[index] for index in task.members]
        return _Lent(self._method, self._budget, task.key, sources, self._reading)

    def _each(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield what a function makes of every task, in order; a few are worked on at once."""
        with ThreadPoolExecutor(self._threads) as pool:
            running: deque[Future[Result]] = deque()
            try:
                for task in tasks:
                    if len(running) > 2 * self._threads:
                        yield running.popleft().result()
                    running.append(pool.submit(function, task))
                while running:
                    yield running.popleft().result()
            except BaseException:
                self.stop()
                for future in running:
                    future.cancel()
                raise

    def _is_cancelled(self) -> bool:
        return self._stopped.is_set() or self._cancelled()

    def _note_bad(self, bad: Bad) -> None:
        self._bad[bad.model, bad.key] = bad

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            seconds = time.monotonic() - self._begun
            self._listener(Progress(self._done, self._total, seconds, self._skipped))

    def _place(self, task: Task) -> tuple[int, int]:
        """Where a tensor lies in the first of its files: they are read from front to end."""
        index = task.members[0] if task.copied is None else task.copied
        return index, self._sources[index].entries[task.key].start

    def _entry_shape(self, task: Task) -> tuple[int, ...]:
        return self._job.source_of(task).entries[task.key].shape

    def _read_cost(self, task: Task) -> int:
        members = task.members if task.copied is None else (task.copied,)
        types = (self._sources[index].entries[task.key].number_type for index in members)
        size = int(np.prod(self._entry_shape(task), dtype=np.int64))
        return size * sum(map(size_of, types))

    def _cost(self, task: Task) -> int:
        size = int(np.prod(self._entry_shape(task), dtype=np.int64))
        return self._read_cost(task) + size * size_of(task.number_type)


def _is_trained(task: Task) -> bool:
    return task.block is not None and task.number_type in FLOATS


class _Lent:
    """A stack with memory of the budget, for as long as the context is open."""

    def __init__(
        self,
        method: LabMethod,
        budget: Budget,
        key: str,
        sources: Sequence[Source],
        reading: Reading,
    ) -> None:
        entries = [source.entries[key] for source in sources]
        size = int(np.prod(entries[0].shape, dtype=np.int64))
        at_once = size if method.rereads else min(size, stacks.SPAN)
        raw = at_once * sum(size_of(entry.number_type) for entry in entries)
        needed = entries[0].shape, len(sources) - method.based
        needs = method.needs(*needed)
        self._lent = budget.lent(2 * raw + needs + method.appetite(*needed) + _SMALL)
        self._make = partial(
            Stack,
            key,
            sources,
            based=method.based,
            needs=needs,
            rereads=method.rereads,
            reading=reading,
        )

    def __enter__(self) -> Stack:
        return self._make(memory=self._lent.__enter__())

    def __exit__(self, *error: Any) -> None:
        self._lent.__exit__(*error)
