"""Git Re-Basin's weight matching: finds the order of B's channels in which it is nearest to A.

Ainsworth, Hayase, Srinivasa: "Git Re-Basin: Merging Models modulo Permutation Symmetries", arXiv
2209.04836, algorithm 1: one symmetry after the other, in random order, gets the best order that
it can have while the others stay, until none can be improved.
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
from lib_automerge.merge.rebasin.assignment import agreement, solve, worth
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
        unplaced: symmetries that were not looked at yet; the sweeps begin when there is none.
        open: symmetries that may be improved: not looked at since a neighbour changed.
        sweep: number of the sweep in progress, from 1; 0 while some are unplaced.
        position: symmetries of this sweep that are done.
        gain: how much the inner product of A and pi(B) has grown.
    """

    orders: Mapping[str, tuple[Order, ...]]
    unplaced: frozenset[str]
    open: frozenset[str]
    sweep: int = 0
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
        sweep: number of the sweep, from 1; 0 while symmetries are placed for the first time.
        sweeps: sweeps at most.
        done: symmetries of this sweep that are done.
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
        seed: of the order of symmetries in each sweep.
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
        self._names = sorted(self._known)
        self._layout = Layout(symmetries)
        self._keys = {symmetry.name: symmetry.keys for symmetry in symmetries}
        self._touching = _touching(self._keys)
        self._sizes = {key: math.prod(a.shape(key)) for key in self._touching}
        self._sweeps = sweeps
        self._seed = seed
        self._pool = pool

    def start(self) -> State:
        """B as it is."""
        return State(
            orders={name: unchanged(symmetry) for name, symmetry in self._known.items()},
            unplaced=frozenset(self._names),
            open=frozenset(self._names),
        )

    def is_over(self, state: State) -> bool:
        """Whether nothing can be improved, or the sweeps are used up."""
        return not state.unplaced and (not state.open or state.sweep > self._sweeps)

    def step(self, state: State) -> tuple[State, Progress]:
        """Look at one symmetry."""
        total = len(self._names)
        if state.unplaced:
            name = min(state.unplaced, key=lambda name: (-self._settled_share(state, name), name))
            after = self._place(state, name)
            sweep, done = 0, total - len(after.unplaced)
        else:
            name = self._turns(state.sweep)[state.position]
            after = self._improve(state, name)
            sweep, done = state.sweep, state.position + 1
        moved = not all(map(np.array_equal, after.orders[name], state.orders[name]))
        return after, Progress(sweep, self._sweeps, done, total, name, moved, 0.0)

    def _place(self, state: State, name: str) -> State:
        """Order a symmetry by the tensors whose other axis has its order already.

        The others hold, until theirs is found, nothing but noise: where ten layers share a stream
        of channels, more of it than signal. So channels are placed from the fixed ends of the
        network inwards, before the sweeps look at everything.
        """
        orders, _ = self._best(state, name, without=self._unsettled(state, name))
        state = msgspec.structs.replace(
            state, orders={**state.orders, name: orders}, unplaced=state.unplaced - {name}
        )
        return state if state.unplaced else self._judged(state)

    def _judged(self, placed: State) -> State:
        """Keep what was placed if B is nearer to A with it; begin with B as it is otherwise."""
        keys = sorted(self._touching)
        before = distance(self._a, self._b, keys)
        after = distance(self._a, Permuted(self._b, self._layout, placed.orders), keys)
        gain = (before**2 - after**2) / 2
        orders = placed.orders if gain > 0 else self.start().orders
        return msgspec.structs.replace(placed, orders=orders, sweep=1, gain=max(gain, 0.0))

    def _improve(self, state: State, name: str) -> State:
        """Order a symmetry by all its tensors; go on to the next that is due."""
        orders, gain = self._best(state, name)
        still_open = state.open - {name}
        if gain:
            touched = (self._touching[key] for key in self._keys[name])
            still_open |= frozenset().union(*touched) - {name}
        state = msgspec.structs.replace(
            state,
            orders={**state.orders, name: orders},
            open=still_open,
            gain=state.gain + gain,
            position=state.position + 1,
        )
        return self._at_next_due(state)

    def _at_next_due(self, state: State) -> State:
        """Skip the symmetries that nothing has happened to, and begin the next sweep at the end."""
        while not self.is_over(state):
            turns = self._turns(state.sweep)[state.position :]
            due = next((place for place, name in enumerate(turns) if name in state.open), None)
            if due is not None:
                return msgspec.structs.replace(state, position=state.position + due)
            state = msgspec.structs.replace(state, sweep=state.sweep + 1, position=0)
        return state

    def _best(
        self, state: State, name: str, without: frozenset[str] = frozenset()
    ) -> tuple[tuple[Order, ...], float]:
        """Return the best orders of a symmetry and their gain; the present ones and 0 if none."""
        symmetry = self._known[name]
        others = {other: orders for other, orders in state.orders.items() if other != name}
        permuted = Permuted(self._b, self._layout, others)
        found = agreement(self._a, permuted, symmetry, self._pool, without)
        present = state.orders[name]
        best = solve(symmetry, found.costs)
        gain = worth(found.costs, best) - worth(found.costs, present)
        return (best, gain) if gain > LEAST_GAIN * found.scale else (present, 0.0)

    def _unsettled(self, state: State, name: str) -> frozenset[str]:
        """The tensors of a symmetry whose other axis waits for its order."""
        return frozenset(
            key for key in self._keys[name] if (self._touching[key] - {name}) & state.unplaced
        )

    def _settled_share(self, state: State, name: str) -> float:
        """How much of a symmetry's weights is settled, from 0 to 1."""
        unsettled = self._unsettled(state, name)
        settled = sum(self._sizes[key] for key in self._keys[name] if key not in unsettled)
        return settled / sum(self._sizes[key] for key in self._keys[name])

    def _turns(self, sweep: int) -> list[str]:
        """The symmetries in the random order of this sweep."""
        rng = np.random.default_rng([self._seed, sweep])
        return [self._names[index] for index in rng.permutation(len(self._names))]


def _touching(keys: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Key -> the names of the symmetries that touch it, on whichever axis."""
    touching: dict[str, set[str]] = {}
    for name, touched in keys.items():
        for key in touched:
            touching.setdefault(key, set()).add(name)
    return {key: frozenset(names) for key, names in touching.items()}
