"""What a terminal user sees while something goes on: one live line, or lines that stay."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from lib_automerge.app.estimate import planned_images
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import (
    BASELINES,
    AnyEvent,
    Calibrated,
    Evaluated,
    Origin,
    Proposed,
    Rejected,
    Resumed,
    Scored,
    SearchEnded,
    Started,
    Warned,
)
from lib_automerge.domain.run import Activity, RunState, best


class LiveLine:
    """A line that is written again and again on a terminal; elsewhere every line stays.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.live = stream.isatty()
        self._width = 0

    def rewrite(self, text: str) -> None:
        """Show the text in place of the line before, cut to the terminal's width."""
        width = shutil.get_terminal_size().columns - 1
        text = text[:width]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def print(self, text: str) -> None:
        """Write a line that stays."""
        if self.live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the live line."""
        if self.live and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


class Progress:
    """A listener that writes progress to a stream.

    On a terminal one line is rewritten with every image; elsewhere each finished evaluation is a
    line of its own, so that a log stays readable.
    """

    def __init__(self, config: RunConfig, stream: TextIO) -> None:
        self._config = config
        self._line = LiveLine(stream)
        self._began = time.monotonic()
        self._images_before = 0
        self._images = 0

    def __call__(self, event: AnyEvent | Activity, state: RunState) -> None:
        """Show an event."""
        match event:
            case Started() | Resumed():
                self._images_before = sum(len(images) for images in state.scores.values())
                self._began = time.monotonic()
            case Scored():
                self._images += 1
                if self._line.live:
                    self._line.rewrite(self.line(state))
            case Evaluated() | Rejected():
                self._line.rewrite(self.line(state)) if self._line.live else self._line.print(
                    self.line(state)
                )
            case SearchEnded():
                self._line.print(f"Search over: {event.reason}. {event.outlook}".rstrip())
                if len(state.history) > len(BASELINES):
                    self._line.print("Proving the result on images that the search never saw ...")
            case Calibrated():
                self._line.print(event.sentence)
            case Warned():
                self._line.print(f"Warning: {event.message}")
            case Proposed() | _:
                pass

    def line(self, state: RunState) -> str:
        """Evaluation, best against the better parent, and when it will be over."""
        done = len(state.history)
        total = self._config.search.evaluations
        proving = state.search_ended is not None
        head = "verdict" if proving else f"evaluation {min(done + 1, total)}/{total}"
        parts = [head]
        incumbent = state.incumbent
        if incumbent is not None and incumbent.score is not None:
            parts.append(f"best {incumbent.score:.4f} (no. {incumbent.number})")
            parents = [state.baseline(origin) for origin in (Origin.MODEL_A, Origin.MODEL_B)]
            better = best(parent for parent in parents if parent is not None)
            if done >= len(BASELINES) and better is not None and better.score is not None:
                gain = incumbent.score - better.score
                parts.append(f"{gain:+.4f} on the better parent ({better.origin.value})")
        left = self._seconds_left(state)
        if left is not None:
            clock = time.strftime("%H:%M", time.localtime(time.time() + left))
            parts.append(f"{duration(left)} left, done at {clock}")
        return " | ".join(parts)

    def _seconds_left(self, state: RunState) -> float | None:
        if not self._images:
            return None
        pace = (time.monotonic() - self._began) / self._images
        made = self._images_before + self._images
        return max(0.0, planned_images(self._config, state) - made) * pace

    def close(self) -> None:
        """Leave the live line."""
        self._line.close()


def duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
