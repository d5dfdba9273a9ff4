"""The commands that begin a search or go on with one, and what they tell at its end."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.run import RunState, Status
from lib_automerge.terminal import Progress

DONE, INTERRUPTED = 0, 130
"""Exit codes of a run that is over and of one that was stopped."""

STOPPING = "Stopping after the images in the air"


def new_folder(name: str) -> Path:
    """The first free `runs/NAME-001`; only letters, digits and dashes of the name are used."""
    safe = "".join(c if c.isalnum() else "-" for c in name).strip("-")[:60] or "run"
    taken = {path.name for path in Path("runs").glob(f"{safe}-*")}
    number = next(n for n in range(1, len(taken) + 2) if f"{safe}-{n:03d}" not in taken)
    return Path("runs") / f"{safe}-{number:03d}"


def start(config: RunConfig, folder: Path) -> int:
    """Start a run, see it through and tell its outcome; returns the exit code."""
    return end(carried_out(config, folder, sys.stdout), folder)


def carried_out(config: RunConfig, folder: Path, stream: TextIO) -> RunState:
    """Start a run and see it through; what happens is told on the stream."""
    from lib_automerge.app.ports import Controls
    from lib_automerge.host.detect import build_service

    service = build_service()
    progress = Progress(config, stream)
    print(f"Run folder: {folder}", file=stream)
    with stop_flag(STOPPING) as stop:
        try:
            return service.start(config, folder, controls=Controls(stop=stop), listener=progress)
        finally:
            progress.close()


def resume(folder: Path) -> int:
    """Go on with a run, see it through and tell its outcome; returns the exit code."""
    from lib_automerge.app.ports import Controls
    from lib_automerge.host.detect import build_service
    from lib_automerge.study.store import RunFolder

    service = build_service()
    progress = Progress(RunFolder.open(folder).manifest().config, sys.stdout)
    with stop_flag(STOPPING) as stop:
        try:
            state = service.resume(folder, controls=Controls(stop=stop), listener=progress)
        finally:
            progress.close()
    return end(state, folder)


def end(state: RunState, folder: Path) -> int:
    """Tell the outcome of a run and where it lies; returns the exit code."""
    if state.status is Status.STOPPED:
        print(
            f"Stopped; every finished score is kept. Go on with: {command_line('resume', folder)}"
        )
        return INTERRUPTED
    if state.verdict is not None:
        print(state.verdict.sentence)
        if state.scale is not None:
            from lib_automerge.study.judges import UNIT

            print(f"The differences are in {UNIT} of the same prompt.")
    if (folder / "report.html").exists():
        print(f"Report:     {folder / 'report.html'}")
    if state.verdict is None:
        return DONE
    print(f"Recipe:     {folder / 'recipe.json'}")
    if state.saved is not None:
        print(f"Checkpoint: {folder / state.saved.file}")
    else:
        recipe = command_line("merge", folder / "recipe.json")
        print(f"Checkpoint: not saved; write it with: {recipe} -o merged.safetensors")
    return DONE


def command_line(command: str, path: Path) -> str:
    """A command that works when it is copied into the shell that ran this one."""
    parts = [sys.executable, "-m", "lib_automerge", command, str(path)]
    return subprocess.list2cmdline(parts) if sys.platform == "win32" else shlex.join(parts)


@contextmanager
def stop_flag(told: str) -> Iterator[Callable[[], bool]]:
    """A flag that the first Ctrl+C (or SIGTERM) sets; the second one interrupts at once.

    Args:
        told: what to tell at the first one.
    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(f"\n{told}; Ctrl+C again stops at once.", file=sys.stderr, flush=True)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
