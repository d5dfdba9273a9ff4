"""Who proposes the next candidate: the interface, the simple proposers, and the registry.

A proposer is a pure function of its configuration, what is known and the number of the evaluation.
It may keep what is expensive to compute, but its answer never depends on what it was asked before:
that is why a resumed run goes on exactly as an uninterrupted one would have.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import scipy
from packaging.version import Version

from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.search.design import SobolSequence
from lib_automerge.search.model import Model
from lib_automerge.search.randomness import generator
from lib_automerge.search.space import Key, Space


class Proposal(msgspec.Struct, frozen=True):
    """A candidate's weights, of all blocks, and where they come from."""

    weights: dict[str, float]
    origin: Origin


class Proposer(Protocol):
    """Something that proposes candidates."""

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the candidate of evaluation `number`.

        The answer depends on the arguments and the configuration alone, is within the space, and
        is in neither `history` nor `pending`.

        Args:
            history: the finished evaluations. Those outside the space tell nothing and are
                ignored; rejected ones count as the worst; those with fewer images than the fullest
                are partial and count less.
            pending: evaluations that others are working on.
            number: the evaluation's number, from 1.

        Raises:
            SearchError: every point of the space is taken.
        """


def taken(space: Space, *evaluations: Sequence[Evaluation]) -> frozenset[Key]:
    """Return the points of the space that are evaluated or about to be."""
    return frozenset(
        space.key(space.vector(evaluation.weights))
        for group in evaluations
        for evaluation in group
        if space.contains(evaluation.weights)
    )


class RandomProposer:
    """Proposes uniformly random points."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space, self._seed = space, seed

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return a random candidate; see `Proposer.propose`."""
        rng = generator(self._seed, "random", number)
        drawn = self._space.scaled(rng.random(self._space.dimension))
        vector = self._space.unused(drawn, taken(self._space, history, pending), rng)
        return Proposal(self._space.weights(vector), Origin.SEARCH)


class SobolProposer:
    """Proposes the points of a scrambled Sobol sequence, which fills the space evenly."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space, self._seed = space, seed
        self._sequence = SobolSequence(space.dimension, seed, "sobol")

    def propose(
        self, history: Sequence[Evaluation], pending: Sequence[Evaluation], number: int
    ) -> Proposal:
        """Return the next point of the sequence; see `Proposer.propose`."""
        proposed = sum(e.origin is Origin.SEARCH for e in (*history, *pending))
        drawn = self._space.scaled(self._sequence.point(proposed))
        rng = generator(self._seed, "sobol duplicate", number)
        vector = self._space.unused(drawn, taken(self._space, history, pending), rng)
        return Proposal(self._space.weights(vector), Origin.SEARCH)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposer is told besides its space.

    Attributes:
        seed: of all random choices, 0 or more.
        model: the model of the scores that `bayes` asks; None makes one that knows nothing of how
            far apart the merged models are. The others ask none.
        coarse_first: whether groups of blocks are searched before single ones; `bayes` can.
    """

    seed: int = 0
    model: Model | None = None
    coarse_first: bool = False


class _Optimizer(msgspec.Struct, frozen=True):
    """How a proposer is made, and the packages (import and pip name) that it needs beyond ours."""

    make: Callable[[Space, Settings], Proposer]
    packages: tuple[str, ...] = ()


def create(
    name: str,
    space: Space,
    *,
    seed: int = 0,
    model: Model | None = None,
    coarse_first: bool = False,
) -> Proposer:
    """Return the proposer of this name; the other arguments are those of `Settings`.

    Raises:
        ConfigError: there is none (with the nearest name), a package that it needs is missing (with
            the command that installs it), or it cannot search groups of blocks first.
    """
    if name not in _OPTIMIZERS:
        raise ConfigError(unknown_name("optimizer", name, _OPTIMIZERS))
    if coarse_first and name != DEFAULT:
        raise ConfigError(
            f"coarse first is on with the optimizer {name!r}, which searches single blocks only. "
            f"Turn it off or choose {DEFAULT!r}."
        )
    absent = missing(name)
    if absent:
        raise ConfigError(
            f"the optimizer {name!r} needs a package that is not installed: {', '.join(absent)}. "
            f"Run `pip install {' '.join(absent)}` in this Python environment, or choose "
            f"{DEFAULT!r}, which needs nothing more."
        )
    settings = Settings(seed=seed, model=model, coarse_first=coarse_first)
    try:
        return _OPTIMIZERS[name].make(space, settings)
    except ImportError as error:
        raise ConfigError(
            f"a package of the optimizer {name!r} cannot be loaded: {error}. Repair it, or choose "
            "another optimizer."
        ) from error


def names() -> tuple[str, ...]:
    """Return the names of all proposers, the default first."""
    return tuple(_OPTIMIZERS)


def available() -> tuple[str, ...]:
    """Return the names of the proposers whose packages are installed, the default first."""
    return tuple(name for name in _OPTIMIZERS if not missing(name))


def missing(name: str) -> tuple[str, ...]:
    """Return the packages that a proposer needs and that are not installed."""
    return tuple(p for p in _OPTIMIZERS[name].packages if importlib.util.find_spec(p) is None)


# The modules are imported here, where they are needed: bayesian-optimization and scikit-learn,
# pycma, and Optuna each take a second.


def _bayes(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.bayes import BayesProposer

    return BayesProposer(
        space,
        seed=settings.seed,
        model=settings.model,
        coarse_first=settings.coarse_first,
    )


def _cma(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.evolution import CmaProposer

    return CmaProposer(space, seed=settings.seed)


def _tpe(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.optuna_ import OptunaProposer

    return OptunaProposer("tpe", space, seed=settings.seed)


def _gp(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.optuna_ import OptunaProposer

    return OptunaProposer("gp", space, seed=settings.seed)


def _cobyqa(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.sequential import SequentialProposer, cobyqa

    return SequentialProposer("cobyqa", cobyqa, space, seed=settings.seed)


def _coordinate(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.sequential import SequentialProposer, coordinate

    return SequentialProposer("coordinate", coordinate, space, seed=settings.seed)


def _hill_climb(space: Space, settings: Settings) -> Proposer:
    from lib_automerge.search.hill_climb import HillClimbProposer

    return HillClimbProposer(space, seed=settings.seed)


SCIPY_HAS_COBYQA = Version(scipy.__version__) >= Version("1.14")

DEFAULT = "bayes"
_OPTIMIZERS: dict[str, _Optimizer] = {
    DEFAULT: _Optimizer(_bayes),
    "gp": _Optimizer(_gp, packages=("optuna", "torch")),
    "cobyqa": _Optimizer(_cobyqa, packages=() if SCIPY_HAS_COBYQA else ("cobyqa",)),
    "tpe": _Optimizer(_tpe, packages=("optuna",)),
    "cma": _Optimizer(_cma, packages=("cma",)),
    "hill-climb": _Optimizer(_hill_climb),
    "coordinate": _Optimizer(_coordinate),
    "sobol": _Optimizer(lambda space, settings: SobolProposer(space, seed=settings.seed)),
    "random": _Optimizer(lambda space, settings: RandomProposer(space, seed=settings.seed)),
}
