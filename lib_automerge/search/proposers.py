"""Who proposes the next candidate: the interface, the simple proposers, and the registry.

A proposer is a pure function of its configuration, what is known and the number of the evaluation.
It may keep what is expensive to compute, but its answer never depends on what it was asked before:
that is why a resumed run goes on exactly as an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from lib_automerge.domain.run import Evaluation, Origin
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.search.design import SobolSequence
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


def create(name: str, space: Space, *, seed: int) -> Proposer:
    """Return the proposer of this name.

    Raises:
        ConfigError: there is none (with the nearest name).
    """
    if name not in _PROPOSERS:
        raise ConfigError(unknown_name("optimizer", name, _PROPOSERS))
    return _PROPOSERS[name](space, seed)


def names() -> tuple[str, ...]:
    """Return the names of all proposers, the default first."""
    return tuple(_PROPOSERS)


def _bayes(space: Space, seed: int) -> Proposer:
    # Here, because importing bayesian-optimization and scikit-learn takes about a second.
    from lib_automerge.search.bayes import BayesProposer

    return BayesProposer(space, seed=seed)


_PROPOSERS: dict[str, Callable[[Space, int], Proposer]] = {
    "bayes": _bayes,
    "random": lambda space, seed: RandomProposer(space, seed=seed),
    "sobol": lambda space, seed: SobolProposer(space, seed=seed),
}
