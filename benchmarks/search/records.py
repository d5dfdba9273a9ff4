"""What a run leaves: one line of JSON in `results/`, a file per optimizer or experiment.

A line holds how the regret of the recipe that the optimizer would hand over changed, so tables and
plots are made from lines, and a run that is there is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
T = TypeVar("T", bound=msgspec.Struct)
FOLDER = Path(__file__).resolve().parent / "results"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an optimizer on an instance of a landscape.

    Attributes:
        optimizer, landscape, seed: which run.
        evaluations: its length.
        steps: (evaluation from 1, regret from there on) of the recipe that would be handed over.
        lowest: the least regret among all recipes evaluated, whether noticed or not.
        seconds: CPU seconds of the optimizer itself per evaluation.
    """

    optimizer: str
    landscape: str
    seed: int
    evaluations: int
    steps: tuple[tuple[int, float], ...]
    lowest: float
    seconds: float

    @property
    def key(self) -> tuple[str, int]:
        """The landscape and the seed."""
        return self.landscape, self.seed

    def regret(self, evaluation: int) -> float:
        """The regret after `evaluation`; before the first step, and without steps, infinite."""
        return next((r for n, r in reversed(self.steps) if n <= evaluation), np.inf)

    def curve(self) -> Array:
        """The regret after every evaluation, (evaluations,)."""
        return np.array([self.regret(n) for n in range(1, self.evaluations + 1)])


def steps(regrets: Iterable[float]) -> tuple[tuple[int, float], ...]:
    """Return the changes of a curve, rounded."""
    found: list[tuple[int, float]] = []
    for number, regret in enumerate(regrets, 1):
        rounded = round(float(regret), 5)
        if not found or found[-1][1] != rounded:
            found.append((number, rounded))
    return tuple(found)


def read(optimizer: str, folder: Path = FOLDER) -> dict[tuple[str, int], Row]:
    """Return the runs of an optimizer; of a run that is there twice, the later."""
    return {row.key: row for row in load(optimizer, Row, folder)}


def append(row: Row, folder: Path = FOLDER) -> None:
    """Add a run to its optimizer's file."""
    save(row.optimizer, row, folder)


def load(name: str, kind: type[T], folder: Path = FOLDER) -> list[T]:
    """Return the lines of a file of results, which may not be there."""
    file = folder / f"{name}.jsonl"
    lines = file.read_bytes().splitlines() if file.is_file() else []
    return [msgspec.json.decode(line, type=kind) for line in lines]


def save(name: str, line: msgspec.Struct, folder: Path = FOLDER) -> None:
    """Add a line to a file of results."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def optima(rows: Iterable[Row]) -> Callable[[Row, float], float]:
    """Return what corrects a row's regret where some run beat the optimum that was known.

    The ascents that look for the optimum of a network's landscape may miss it; the best recipe that
    any run evaluated then takes its place, and regrets are scaled so that the better parent's stays
    1.
    """
    lowest: dict[tuple[str, int], float] = {}
    for row in rows:
        base = (row.landscape.partition("-")[0], row.seed)
        lowest[base] = min(lowest.get(base, 0.0), row.lowest)

    def corrected(row: Row, regret: float) -> float:
        beaten = lowest.get((row.landscape.partition("-")[0], row.seed), 0.0)
        return (regret - beaten) / (1.0 - beaten)

    return corrected


def for_good(curve: Array, goal: float) -> int | None:
    """Return from which position on a curve stays at or below `goal`; None if it ends above."""
    above = np.flatnonzero(curve > goal + 1e-9)
    if not len(above):
        return 0
    return None if above[-1] == len(curve) - 1 else int(above[-1]) + 1
