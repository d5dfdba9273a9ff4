"""The command that writes a model with its channels in the order of another one's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from lib_automerge.merge.rebasin.files import Permutation, permute_file
from lib_automerge.merge.rebasin.matching import Progress
from lib_automerge.run_commands import DONE, INTERRUPTED
from lib_automerge.terminal import LiveLine, duration

STEPS = 10
"""Lines for each sweep where there is no terminal."""


def permute(a: Path, b: Path, output: Path, *, cache: Path, sweeps: int, seed: int) -> int:
    """Write pi(B), showing progress; returns the exit code.

    Ctrl+C ends it at once. What was found by then is in the cache, and the same command goes on.
    """
    view = _View(sys.stdout)
    print("Reading the models ...")
    try:
        made = permute_file(a, b, output, cache=cache, sweeps=sweeps, seed=seed, report=view)
    except KeyboardInterrupt:
        view.close()
        print(f"Stopped; what was found is kept in {cache}. The same command goes on from there.")
        return INTERRUPTED
    view.close()
    print(_outcome(made))
    print(output)
    return DONE


def _outcome(made: Permutation) -> str:
    found = made.matching
    total = len(found.symmetries)
    if not found.moved:
        return (
            f"B's channels lie best as they are in all {total} places: its L2 distance to A stays "
            f"{made.before:.4g}."
        )
    more = "" if found.converged else " More sweeps may find more."
    return (
        f"Channels moved in {found.moved} of {total} places: the L2 distance to A is "
        f"{made.after:.4g}, it was {made.before:.4g}.{more}"
    )


class _View:
    """Shows how far a matching is."""

    def __init__(self, stream: TextIO) -> None:
        self._line = LiveLine(stream)
        self._shown = (-1, -1)

    def __call__(self, step: Progress) -> None:
        tenth = (step.sweep, step.done * STEPS // step.total)
        if self._line.live:
            self._line.rewrite(_text(step))
        elif tenth != self._shown:
            self._line.print(_text(step))
        self._shown = tenth

    def close(self) -> None:
        self._line.close()


def _text(step: Progress) -> str:
    place = step.name.removeprefix("model.diffusion_model.")
    moved = "moved" if step.moved else "stays"
    return (
        f"sweep {step.sweep} of at most {step.sweeps}: {step.done} of {step.total} | "
        f"{duration(step.seconds)} | {place} {moved}"
    )
