"""How good the search is: `python benchmarks/search/run.py` runs what is missing and reports.

Results are kept in `results/`, a line per run, so a second call makes the table only, and an
interrupted one goes on. `--only` names optimizers (`bayes`, `pycma`, ...) or experiments
(`stopping`, `parallel`, `images`, `order`, `verdict`, `demo`, `look`); `--force` runs what is named
again.

`--quick` takes less than five minutes on two cores: three landscapes, two seeds, 60 evaluations,
the cheap peers; it prints the table and changes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
# before NumPy is imported: threads cost more than they save on matrices this small
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

from benchmarks.search import (  # noqa: E402
    environment,
    experiments,
    landscapes,
    networks,
    ours,
    records,
    report,
    tables,
)

EVALUATIONS, LONGEST, SEEDS = 120, 150, 10
PEERS = tuple(name for name in tables.LABELS if name not in tables.OURS)
SLOW = {"optuna-gp": 3}
"""Seeds of the peers that take minutes for a run."""

EXPERIMENTS = ("stopping", "parallel", "images", "order", "verdict", "demo", "look")
QUICK = networks.CACHE / "quick"
QUICK_LANDSCAPES = ("smooth", "additive-noisy", "domains")
QUICK_PEERS = ("hyperactive-bayes", "hill-climbing", "optuna-tpe", "pycma", "random-search")
QUICK_EVALUATIONS, QUICK_SEEDS = 60, 2


def missing(name: str, names: Sequence[str], seeds: int, folder: Path) -> list[tuple[str, int]]:
    """Return the (landscape, seed) that an optimizer has not run."""
    done = records.read(name, folder)
    return [(n, seed) for seed in range(seeds) for n in names if (n, seed) not in done]


def run_optimizer(
    name: str, names: Sequence[str], seeds: int, evaluations: int, folder: Path
) -> None:
    """Run what is missing of one optimizer."""
    wanted = missing(name, names, min(seeds, SLOW.get(name, seeds)), folder)
    if not wanted:
        return
    if name in PEERS:
        environment.check_python()
        environment.run_peer(name, evaluations, folder, wanted)
        return
    for landscape, seed in wanted:
        longest = LONGEST if name == "bayes" and evaluations == EVALUATIONS else evaluations
        experiments.play(name, landscape, seed, longest, folder)


def run_experiment(name: str, seeds: int) -> None:
    """Run what is missing of one experiment."""
    folder = records.FOLDER
    if name == "stopping":
        experiments.run_stopping(folder, seeds)
    elif name == "parallel":
        experiments.run_parallel(folder, seeds)
    elif name == "images":
        experiments.run_images(folder, seeds)
    elif name == "order":
        experiments.run_order(folder)
    elif name == "verdict":
        experiments.run_verdict(folder)
    elif name == "demo":
        experiments.run_demo(folder)
    else:
        experiments.run_look(folder)


def forget(name: str) -> None:
    """Remove the results of an optimizer or experiment."""
    (records.FOLDER / f"{name}.jsonl").unlink(missing_ok=True)
    ours.forget(name)


def quick() -> None:
    """A small table, of nothing that is kept."""
    shutil.rmtree(QUICK, ignore_errors=True)
    ours.HISTORIES = QUICK / "histories"
    for name in ("bayes", *QUICK_PEERS):
        run_optimizer(name, QUICK_LANDSCAPES, QUICK_SEEDS, QUICK_EVALUATIONS, QUICK)
    counts = (20, 40, QUICK_EVALUATIONS)
    print("\n" + tables.regret_table(tables.Results(QUICK), counts))


def main() -> None:
    """Run the command."""
    known = (*tables.LABELS, *EXPERIMENTS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small table in under 5 minutes")
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each landscape (default 10)")
    parser.add_argument("--force", action="store_true", help="run again what is there")
    arguments = parser.parse_args()
    if arguments.quick:
        quick()
        return
    for name in arguments.only:
        if arguments.force:
            forget(name)
        if name in EXPERIMENTS:
            run_experiment(name, arguments.seeds)
        else:
            names = landscapes.names()
            run_optimizer(name, names, arguments.seeds, EVALUATIONS, records.FOLDER)
    report.write()
    print(f"Written: {report.RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
