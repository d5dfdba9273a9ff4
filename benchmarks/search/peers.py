"""The peers' optimizers, set up as they are in the peers' tools, on the landscapes.

Runs in an environment of its own (`environment.py`), as a program:

    python -m benchmarks.search.peers OPTIMIZER EVALUATIONS FOLDER LANDSCAPE:SEED ...

A peer hands over the recipe with the best score it observed. An evaluation is a new recipe: what a
peer answers from its memory costs no images and is not counted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import landscapes, records

Array = NDArray[np.float64]
BLOCKS = landscapes.BLOCKS
DIMENSION = landscapes.DIMENSION
LEVELS = np.round(np.linspace(0.0, 1.0, 11), 1)

# auto-MBW-rt's own lattice has up to 10 million points, of which it looks at 1 million per step;
# with a tenth and 20,000 it does no worse and costs a fraction.
LATTICE, CANDIDATES = 1_000_000, 20_000


class SpentError(Exception):
    """The budget of evaluations is used up."""


class Meter:
    """The landscape as an optimizer sees it; keeps what the run is judged by.

    Attributes:
        regrets: the true regret of the recipe with the best observed score, after every evaluation.
        lowest: the least true regret of any recipe.
        began: CPU seconds of the process at the first evaluation; what came before was imports.
        seconds: CPU seconds spent here, which are not the optimizer's.
    """

    def __init__(self, landscape: landscapes.Landscape, seed: int, evaluations: int) -> None:
        self._landscape, self._evaluations = landscape, evaluations
        self._draw = landscapes.noise_source(landscape, seed)
        self._best = -np.inf
        self.regrets: list[float] = []
        self.lowest = np.inf
        self.began: float | None = None
        self.seconds = 0.0

    def __call__(self, x: Array) -> float:
        """Return the observed score of a recipe, (27,).

        Raises:
            SpentError: it would be one too many.
        """
        if len(self.regrets) == self._evaluations:
            raise SpentError
        began = time.process_time()
        if self.began is None:
            self.began = began
        x = np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0)
        seen = self._landscape.observe(x, self._draw).score
        regret = self._landscape.regret(self._landscape.score(x))
        self.lowest = min(self.lowest, regret)
        if seen > self._best:
            self._best, self._regret = seen, regret
        self.regrets.append(self._regret)
        self.seconds += time.process_time() - began
        return seen


def hyperactive(meter: Meter, seed: int, optimizer: object) -> None:
    """Eleven levels per block; four grid points, four corners and two random points first."""
    from hyperactive import Hyperactive

    def objective(parameters: dict[str, float]) -> float:
        return meter(np.array([parameters[name] for name in BLOCKS]))

    search = Hyperactive(verbosity=False, n_processes=1)
    search.add_search(
        objective,
        {name: LEVELS.tolist() for name in BLOCKS},
        n_iter=3000,
        optimizer=optimizer,
        initialize={"grid": 4, "vertices": 4, "random": 2},
        memory=True,
        random_state=seed,
    )
    search.run()


def hyperactive_bayes(meter: Meter, seed: int) -> None:
    """auto-MBW-rt's "Bayesian" with the lattice made affordable."""
    from hyperactive.optimizers import BayesianOptimizer

    options = {"max_sample_size": LATTICE, "sampling": {"random": CANDIDATES}}
    hyperactive(meter, seed, BayesianOptimizer(xi=0.3, **options))


def hill_climbing(meter: Meter, seed: int) -> None:
    """What auto-MBW-rt's list preselects."""
    from hyperactive.optimizers import HillClimbingOptimizer

    hyperactive(meter, seed, HillClimbingOptimizer(epsilon=0.03, n_neighbours=3))


def hyperopt_tpe(meter: Meter, seed: int) -> None:
    """The Bayesian merger's TPE."""
    from hyperopt import fmin, hp, tpe

    logging.getLogger("hyperopt.fmin").setLevel(logging.CRITICAL)  # the end by SpentError
    fmin(
        lambda parameters: -meter(np.array([parameters[name] for name in BLOCKS])),
        {name: hp.uniform(name, 0.0, 1.0) for name in BLOCKS},
        algo=tpe.suggest,
        max_evals=100_000,
        rstate=np.random.default_rng(seed),
        show_progressbar=False,
    )


def bayes_opt(meter: Meter, seed: int) -> None:
    """The Bayesian merger's default: upper confidence bound with kappa 2.576, five random points.

    Only the inner ascent is exchanged, for one with exact gradients (`exact_gradients.py`).
    """
    from bayes_opt import BayesianOptimization

    from benchmarks.search.exact_gradients import ExactUpperConfidenceBound

    optimizer = BayesianOptimization(
        f=lambda **parameters: meter(np.array([parameters[name] for name in BLOCKS])),
        pbounds=dict.fromkeys(BLOCKS, (0.0, 1.0)),
        acquisition_function=ExactUpperConfidenceBound(kappa=2.576),
        random_state=seed,
        verbose=0,
        allow_duplicate_points=True,
    )
    optimizer.maximize(init_points=5, n_iter=100_000)


def optuna_with(meter: Meter, sampler: object) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        return meter(np.array([trial.suggest_float(name, 0.0, 1.0) for name in BLOCKS]))

    study.optimize(objective, n_trials=100_000)


def optuna_tpe(meter: Meter, seed: int) -> None:
    from optuna.samplers import TPESampler

    optuna_with(meter, TPESampler(multivariate=True, seed=seed))


def optuna_cma(meter: Meter, seed: int) -> None:
    from optuna.samplers import CmaEsSampler

    optuna_with(meter, CmaEsSampler(seed=seed))


def optuna_gp(meter: Meter, seed: int) -> None:
    import torch
    from optuna.samplers import GPSampler

    torch.set_num_threads(1)
    optuna_with(meter, GPSampler(seed=seed))


def pycma(meter: Meter, seed: int) -> None:
    """From the centre, with a step of a quarter of the range and the default population."""
    import cma

    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(np.full(DIMENSION, 0.5), 0.25, options)
    while True:
        points = strategy.ask()
        strategy.tell(points, [-meter(x) for x in points])


def cobyqa(meter: Meter, seed: int) -> None:  # noqa: ARG001 (nothing in it is random)
    """SciPy's, from the centre."""
    from scipy.optimize import minimize

    box = [(0.0, 1.0)] * DIMENSION
    minimize(lambda x: -meter(x), np.full(DIMENSION, 0.5), method="COBYQA", bounds=box)


def random(meter: Meter, seed: int) -> None:
    draw = np.random.default_rng(seed)
    while True:
        meter(draw.random(DIMENSION))


PEERS: dict[str, Callable[[Meter, int], None]] = {
    "hyperactive-bayes": hyperactive_bayes,
    "hill-climbing": hill_climbing,
    "hyperopt-tpe": hyperopt_tpe,
    "bayes-opt-ucb": bayes_opt,
    "optuna-tpe": optuna_tpe,
    "optuna-cma": optuna_cma,
    "optuna-gp": optuna_gp,
    "pycma": pycma,
    "cobyqa": cobyqa,
    "random-search": random,
}


def run(name: str, landscape: landscapes.Landscape, seed: int, evaluations: int) -> records.Row:
    """Run a peer on an instance of a landscape."""
    meter = Meter(landscape, seed, evaluations)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.suppress(SpentError):
            PEERS[name](meter, seed)
    seconds = time.process_time() - (meter.began or 0.0) - meter.seconds
    return records.Row(
        optimizer=name,
        landscape=landscape.name,
        seed=seed,
        evaluations=evaluations,
        steps=records.steps(meter.regrets),
        lowest=round(meter.lowest, 5),
        seconds=round(seconds / len(meter.regrets), 4),
    )


def main() -> None:
    """Run what the command line lists, one after the other."""
    name, evaluations, folder, *wanted = sys.argv[1:]
    for which in wanted:
        landscape, _, seed = which.rpartition(":")
        made = landscapes.create(landscape, int(seed))
        row = run(name, made, int(seed), int(evaluations))
        records.append(row, Path(folder))
        print(
            name, which, f"{row.regret(int(evaluations)):.3f}", f"{row.seconds:.4f} s", flush=True
        )


if __name__ == "__main__":
    main()
