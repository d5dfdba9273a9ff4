"""Git Re-Basin's weight matching: finds the order of B's channels in which it is nearest to A.

Ainsworth, Hayase, Srinivasa: "Git Re-Basin: Merging Models modulo Permutation Symmetries", arXiv
2209.04836, algorithm 1: one symmetry after the other gets the best order that it can have while the
others stay, until none can be improved. The paper goes through them in random order. So does this,
but for the first time: then it begins where the network's channels are fixed and goes inwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib_automerge.errors import ConfigError
from lib_automerge.merge.rebasin.assignment import DEPTH, TILE, agreement, solve, worth
from lib_automerge.merge.rebasin.orders import Layout, Order, Orders, unchanged
from lib_automerge.merge.rebasin.symmetries import Symmetry
from lib_automerge.merge.rebasin.tensors import Permuted, Tensors, row_ranges, rows

LEAST_GAIN = 1e-7
"""Share of the largest possible inner product by which a new order must be better.

Well above the rounding of the sums, so that the distance never grows, and far below what two
channels in each other's place cost.
"""


class State(msgspec.Struct, frozen=True):
    """How far a matching is; all that is needed to go on.

    Attributes:
        orders: of every symmetry.
        open: symmetries that may be improved: not looked at since a neighbour changed.
        sweep: number of the sweep in progress, from 1.
        position: symmetries of this sweep that are done or skipped.
        gain: how much the inner product of A and pi(B) has grown.
    """

    orders: Mapping[str, tuple[Order, ...]]
    open: frozenset[str]
    sweep: int = 1
    position: int = 0
    gain: float = 0.0


class Matching(msgspec.Struct, frozen=True):
    """The result of a matching.

    Attributes:
        symmetries: what could be permuted.
        orders: of every symmetry, valid.
        complete: whether it came to its end: nothing can be improved, or all sweeps are done.
        converged: whether nothing can be improved.
        gain: how much the inner product of A and pi(B) has grown: half of what the squared
            distance has lost.
    """

    symmetries: tuple[Symmetry, ...]
    orders: Orders
    complete: bool
    converged: bool
    gain: float

    def permuted(self, b: Tensors) -> Permuted:
        """Return pi(B), for the model B that was matched."""
        return Permuted(b, Layout(self.symmetries), self.orders)

    @property
    def moved(self) -> int:
        """Number of symmetries whose channels are not all where they were."""
        return sum(
            any((order != np.arange(len(order))).any() for order in orders)
            for orders in self.orders.values()
        )


class Progress(msgspec.Struct, frozen=True):
    """Where a matching is.

    Attributes:
        sweep: number of the sweep, from 1.
        sweeps: sweeps at most.
        done: symmetries of this sweep that are done or skipped.
        total: symmetries in a sweep.
        name: the one that was done last.
        moved: whether its channels found better places.
        seconds: since the call began, without what came before it.
    """

    sweep: int
    sweeps: int
    done: int
    total: int
    name: str
    moved: bool
    seconds: float


def match(
    a: Tensors,
    b: Tensors,
    symmetries: Sequence[Symmetry],
    *,
    sweeps: int = 10,
    seed: int = 0,
    begin: State | None = None,
    keep: Callable[[State], None] | None = None,
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    threads: int | None = None,
) -> Matching:
    """Return the orders in which B is nearest to A, as far as single symmetries can tell.

    The result depends on the models, `sweeps` and `seed` alone: neither on threads nor on whether
    it was interrupted. (Another build of BLAS can sum in another way, and with it decide which of
    two equally good orders is taken.) The distance to A is never larger than B's own.

    Memory: the costs of one symmetry, 8 bytes times its channels squared (210 MB for 5120), and
    one tensor of each model.

    Args:
        a: model A.
        b: model B.
        symmetries: of B, in layers that A has too: `tensors.shared_symmetries`.
        sweeps: at most so many times through all symmetries, 1 or more.
        seed: of the order of symmetries in each sweep but the first.
        begin: go on from here; None starts with B as it is.
        keep: takes the state after each symmetry that was looked at.
        report: hears of each symmetry that was looked at.
        cancelled: asked before each symmetry; True ends the matching, incomplete.
        threads: for products of matrices; None takes as many as torch does.

    Raises:
        ConfigError: `sweeps` is less than 1, or the seed is negative.
        ModelError: a model has NaN or infinite values.
    """
    if sweeps < 1:
        raise ConfigError(f"the number of sweeps is {sweeps}. Give 1 or more.")
    if seed < 0:
        raise ConfigError(f"the seed is {seed}. Give 0 or more.")
    began = time.monotonic()
    workers = threads or torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        matcher = _Matcher(a, b, symmetries, sweeps, seed, pool)
        state = begin or matcher.start()
        while not matcher.is_over(state) and not cancelled():
            state, step = matcher.step(state)
            if keep is not None:
                keep(state)
            if report is not None:
                report(
                    msgspec.structs.replace(step, sweeps=sweeps, seconds=time.monotonic() - began)
                )
        return Matching(
            symmetries=tuple(symmetries),
            orders=state.orders,
            complete=matcher.is_over(state),
            converged=not state.open,
            gain=state.gain,
        )


def memory_needed(
    symmetries: Sequence[Symmetry], model: Tensors, *, threads: int, each: int
) -> int:
    """Return the bytes that `match` takes at most, besides what the process holds.

    Args:
        symmetries: to order.
        model: one of both, for the shapes.
        threads: for products.
        each: bytes that a number of the largest tensor takes, in A and while B's is put in order.
    """
    return max((_needed_by(symmetry, model, threads, each) for symmetry in symmetries), default=0)


def _needed_by(symmetry: Symmetry, model: Tensors, threads: int, each: int) -> int:
    costs = 8 * symmetry.size**2 * len(symmetry.parts)
    tensors = each * max(math.prod(model.shape(key)) for key in symmetry.keys)
    # of both models: a part of each channel as it was computed, and in float32
    products = symmetry.size * (2 * (8 + 4) * DEPTH + 4 * TILE * threads)
    return costs + tensors + products


def distance(a: Tensors, b: Tensors, keys: Sequence[str]) -> float:
    """Return the L2 distance of two models over these tensors, which both have."""
    total = 0.0
    for key in keys:
        for start, stop in row_ranges(a.shape(key)):
            gap = rows(a, key, start, stop).double() - rows(b, key, start, stop).double()
            total += gap.square_().sum().item()
    return math.sqrt(total)


class _Matcher:
    """One matching: every step takes a state and returns the next."""

    def __init__(
        self,
        a: Tensors,
        b: Tensors,
        symmetries: Sequence[Symmetry],
        sweeps: int,
        seed: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._a = a
        self._b = b
        self._known = {symmetry.name: symmetry for symmetry in symmetries}
        self._layout = Layout(symmetries)
        self._inwards = _inwards(a, symmetries)
        self._neighbours = _neighbours(symmetries)
        self._sweeps = sweeps
        self._seed = seed
        self._pool = pool

    def start(self) -> State:
        """B as it is."""
        return State(
            orders={name: unchanged(symmetry) for name, symmetry in self._known.items()},
            open=frozenset(self._known),
        )

    def is_over(self, state: State) -> bool:
        """Whether nothing can be improved, or the sweeps are used up."""
        return not state.open or state.sweep > self._sweeps

    def step(self, state: State) -> tuple[State, Progress]:
        """Improve the symmetry that is due, and go on to the next one."""
        turns = self._turns(state.sweep)
        name = turns[state.position]
        orders, gain = self._best(state, name)
        still_open = state.open - {name}
        if gain:
            still_open |= self._neighbours[name]
        after = State(
            orders={**state.orders, name: orders},
            open=still_open,
            sweep=state.sweep,
            position=state.position + 1,
            gain=state.gain + gain,
        )
        step = Progress(
            state.sweep, self._sweeps, after.position, len(turns), name, bool(gain), 0.0
        )
        return self._at_next_due(after), step

    def _at_next_due(self, state: State) -> State:
        """Skip the symmetries that nothing has happened to, and begin the next sweep at the end."""
        while not self.is_over(state):
            turns = self._turns(state.sweep)[state.position :]
            due = next((place for place, name in enumerate(turns) if name in state.open), None)
            if due is not None:
                return msgspec.structs.replace(state, position=state.position + due)
            state = msgspec.structs.replace(state, sweep=state.sweep + 1, position=0)
        return state

    def _best(self, state: State, name: str) -> tuple[tuple[Order, ...], float]:
        """Return the best orders of a symmetry and their gain; the present ones and 0 if none."""
        symmetry = self._known[name]
        others = {other: orders for other, orders in state.orders.items() if other != name}
        permuted = Permuted(self._b, self._layout, others)
        found = agreement(self._a, permuted, symmetry, self._pool)
        present = state.orders[name]
        best = solve(symmetry, found.costs)
        gain = worth(found.costs, best) - worth(found.costs, present)
        return (best, gain) if gain > LEAST_GAIN * found.scale else (present, 0.0)

    def _turns(self, sweep: int) -> Sequence[str]:
        """The symmetries in the order of this sweep."""
        if sweep == 1:
            return self._inwards
        names = sorted(self._known)
        rng = np.random.default_rng([self._seed, sweep])
        return [names[index] for index in rng.permutation(len(names))]


def _inwards(a: Tensors, symmetries: Sequence[Symmetry]) -> tuple[str, ...]:
    """The symmetries from the fixed ends of the network inwards.

    A tensor tells nothing about its rows while its columns are in disorder: where ten layers share
    a stream of channels, and all are, their noise hides the signal of the stream's two ends. So
    the next one is always that with the largest share of weights whose other axis is in order.
    """
    keys = {symmetry.name: symmetry.keys for symmetry in symmetries}
    touching = _touching(keys)
    sizes = {key: math.prod(a.shape(key)) for key in touching}
    left, order = set(keys), list[str]()

    def settled(name: str) -> float:
        known = sum(sizes[key] for key in keys[name] if touching[key] & left <= {name})
        return known / sum(sizes[key] for key in keys[name])

    while left:
        order.append(max(sorted(left), key=settled))
        left.remove(order[-1])
    return tuple(order)


def _neighbours(symmetries: Sequence[Symmetry]) -> dict[str, frozenset[str]]:
    """Name -> the other symmetries that touch one of its tensors: what its order bears on."""
    keys = {symmetry.name: symmetry.keys for symmetry in symmetries}
    touching = _touching(keys)
    return {
        name: frozenset().union(*(touching[key] for key in keys[name])) - {name} for name in keys
    }


def _touching(keys: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Key -> the names of the symmetries that touch it, on whichever axis."""
    touching: dict[str, set[str]] = {}
    for name, touched in keys.items():
        for key in touched:
            touching.setdefault(key, set()).add(name)
    return {key: frozenset(names) for key, names in touching.items()}
