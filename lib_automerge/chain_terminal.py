"""What a terminal user sees while a chain goes on."""

from __future__ import annotations

import time
from typing import TextIO

from lib_automerge.app.chain_record import Watch
from lib_automerge.app.ports import Listener
from lib_automerge.domain.chain_events import (
    AnyChainEvent,
    ChainWarned,
    Decided,
    Made,
    Paired,
    Pictured,
    Ranked,
    StepBegan,
    StepDone,
)
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.config import RunConfig
from lib_automerge.merge.lab.job import Progress as Merging
from lib_automerge.study.formats import plural, plus_minus, size
from lib_automerge.terminal import LiveLine, Progress, duration

_REDRAW_S = 0.2


class ChainProgress(Watch):
    """Writes progress to a stream: a line for every step, and what goes on below it.

    On a terminal the last line is rewritten all the time; elsewhere only lines that stay are
    written.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = LiveLine(stream)
        self._run: Progress | None = None
        self._images = 0
        self._drawn = 0.0

    def event(self, event: AnyChainEvent, state: ChainState) -> None:
        """Show an event."""
        self._end_run()
        match event:
            case StepBegan():
                self._line.print(f"Step {len(state.began)}: {event.step}")
            case Pictured():
                self._images += 1
                if self._line.live:
                    self._line.rewrite(f"  {event.model}: {plural(self._images, 'image')} made")
            case Made():
                self._line.print(f"  made {event.model}: {event.ref.path}")
            case Ranked():
                best = event.standings[0]
                score = plus_minus(best.mean, best.standard_error, 4)
                count = f"{len(event.kept)} of {len(event.standings)} go on"
                self._line.print(f"  ranked: {best.model} is best with {score}; {count}")
            case Paired():
                pairs = plural(len(event.pairs), "pair")
                bye = "" if event.bye is None else f", {event.bye} waits"
                self._line.print(f"  level {event.level}: {pairs}{bye}")
            case Decided():
                self._line.print(f"  {event.sentence}")
            case StepDone() if event.sentence not in {d.sentence for d in state.decided.values()}:
                self._line.print(f"  {event.sentence}")
            case ChainWarned():
                self._line.print(f"Warning: {event.message}")
            case _:
                pass

    def doing(self, what: str) -> None:
        """Show what begins."""
        self._end_run()
        self._images = 0
        if self._line.live:
            self._line.rewrite(f"  {what} ...")

    def run(self, name: str, config: RunConfig) -> Listener:
        """Show the run of a search below its name."""
        self._end_run()
        self._line.print(f"  search {name}")
        self._run = Progress(config, self._stream)
        return self._run

    def merging(self, progress: Merging) -> None:
        """Show how far a merge is."""
        now = time.monotonic()
        if not self._line.live or now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        left = "" if progress.left is None else f", {duration(progress.left)} left"
        done = f"{size(progress.done)} of {size(progress.total)}"
        self._line.rewrite(f"  merging: {done}, {progress.rate / 1e6:.0f} MB/s{left}")

    def close(self) -> None:
        """Leave the live line."""
        self._end_run()
        self._line.close()

    def _end_run(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None
