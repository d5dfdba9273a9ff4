"""The results as Markdown: regret per optimizer and landscape, and the evaluations saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search import records

LABELS = {
    "bayes": "**bayes** (default)",
    "hill-climb": "hill-climb (ours)",
    "coordinate": "coordinate (ours)",
    "sobol": "sobol (ours)",
    "hyperactive-bayes": "hyperactive Bayes (auto-MBW-rt)",
    "hill-climbing": "hyperactive hill climbing (its preset)",
    "hyperopt-tpe": "hyperopt TPE",
    "bayes-opt-ucb": "bayesian-optimization UCB",
    "optuna-tpe": "Optuna TPE",
    "optuna-cma": "Optuna CMA-ES",
    "optuna-gp": "Optuna GP",
    "pycma": "pycma",
    "cobyqa": "SciPy COBYQA",
    "random-search": "random",
}
OURS = ("bayes", "hill-climb", "coordinate", "sobol")
GROUPS = {
    "smooth and additive": ("smooth", "additive"),
    "multi-modal": ("levy", "ackley"),
    "real": ("classes", "domains"),
    "noisy": ("smooth-noisy", "additive-noisy", "classes-noisy", "domains-noisy"),
}


class Results:
    """All runs, with regrets corrected for optima that a run has beaten."""

    def __init__(self, folder: Path = records.FOLDER) -> None:
        self._rows = {name: list(records.read(name, folder).values()) for name in LABELS}
        self._corrected = records.optima(row for rows in self._rows.values() for row in rows)

    @property
    def optimizers(self) -> list[str]:
        """Those that have runs."""
        return [name for name in LABELS if self._rows[name]]

    @property
    def landscapes(self) -> list[str]:
        """Those that have runs, in the order of `GROUPS`."""
        present = {row.landscape for rows in self._rows.values() for row in rows}
        return [name for group in GROUPS.values() for name in group if name in present]

    def rows(self, optimizer: str, landscape: str) -> list[records.Row]:
        """The runs of an optimizer on a landscape."""
        return [row for row in self._rows[optimizer] if row.landscape == landscape]

    def all_rows(self, optimizer: str) -> list[records.Row]:
        """The runs of an optimizer."""
        return self._rows[optimizer]

    def regrets(self, optimizer: str, landscape: str, evaluation: int) -> list[float]:
        """The regret of every run after `evaluation`."""
        return [
            self._corrected(row, row.regret(evaluation)) for row in self.rows(optimizer, landscape)
        ]

    def mean(self, optimizer: str, landscape: str, evaluation: int) -> float:
        """The mean regret over the runs; NaN without runs."""
        found = self.regrets(optimizer, landscape, evaluation)
        return float(np.mean(found)) if found else np.nan

    def median(self, optimizer: str, landscapes: Sequence[str], evaluation: int) -> float:
        """The median over landscapes of the mean regret; NaN if the optimizer lacks one."""
        return float(np.median([self.mean(optimizer, name, evaluation) for name in landscapes]))

    def curve(self, optimizer: str, landscape: str, evaluations: int) -> list[float]:
        """The mean regret after every evaluation, from the first."""
        return [self.mean(optimizer, landscape, n) for n in range(1, evaluations + 1)]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float, digits: int = 3) -> str:
    """Return a number, or a dash for NaN."""
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def regret_table(results: Results, evaluations: Sequence[int]) -> str:
    """Return mean regrets, a row per optimizer, a column per landscape."""
    landscapes = results.landscapes
    rows = []
    for name in sorted(
        results.optimizers, key=lambda n: _order(results.median(n, landscapes, evaluations[-1]))
    ):
        cells = [
            "/".join(number(results.mean(name, landscape, n), 2) for n in evaluations[:-1])
            + "/"
            + number(results.mean(name, landscape, evaluations[-1]))
            for landscape in landscapes
        ]
        seeds = [len(results.rows(name, landscape)) for landscape in landscapes]
        counts = str(max(seeds)) if len(set(seeds)) == 1 else f"{min(seeds)}-{max(seeds)}"
        median = number(results.median(name, landscapes, evaluations[-1]))
        seconds = np.mean([row.seconds for row in results.all_rows(name)])
        rows.append([LABELS[name], counts, *cells, median, f"{seconds:.3f}"])
    heads = ["optimizer", "seeds", *landscapes, f"median @{evaluations[-1]}", "CPU s"]
    return markdown(heads, rows)


def _order(value: float) -> float:
    return np.inf if np.isnan(value) else value


def overtaking(results: Results, evaluations: int) -> str:
    """Return after how many evaluations `bayes` is as good as each peer in the end."""
    peers = [name for name in results.optimizers if name not in OURS]
    rows = []
    for peer in peers:
        cells = []
        for group in GROUPS.values():
            found = [overtaken(results, peer, name, evaluations) for name in group]
            cells.append(_count(found, evaluations))
        rows.append([LABELS[peer], *cells])
    return markdown(["to be as good as", *GROUPS], rows)


def _count(found: Sequence[float], evaluations: int) -> str:
    median = np.median(found)
    if np.isnan(median):
        return "-"
    return f"{median:.0f}" if np.isfinite(median) else f"> {evaluations}"


def overtaken(results: Results, peer: str, landscape: str, evaluations: int) -> float:
    """Return the first evaluation after which `bayes` is as good, on the same seeds, as `peer`
    after `evaluations`; infinite if never, NaN without common seeds.
    """
    theirs = {row.seed: row for row in results.rows(peer, landscape)}
    own = {row.seed: row for row in results.rows("bayes", landscape)}
    common = theirs.keys() & own.keys()
    if not common:
        return np.nan
    goal = np.mean([theirs[seed].regret(evaluations) for seed in common])
    for count in range(1, evaluations + 1):
        if np.mean([own[seed].regret(count) for seed in common]) <= goal:
            return float(count)
    return np.inf


def wins(results: Results, peer: str, evaluations: int) -> tuple[int, int]:
    """Return how many paired runs `bayes` ended with less regret than `peer`, and of how many."""
    theirs = {row.key: row for row in results.all_rows(peer)}
    own: Mapping[tuple[str, int], records.Row] = {r.key: r for r in results.all_rows("bayes")}
    common = theirs.keys() & own.keys()
    better = sum(own[key].regret(evaluations) < theirs[key].regret(evaluations) for key in common)
    return better, len(common)
