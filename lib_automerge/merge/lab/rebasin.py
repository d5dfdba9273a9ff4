"""Methods that first put the channels of a model where they are nearest to another one's.

`merge.rebasin` finds that order; here it is found once for the whole merge, and the model in its
new order is one more source, of which any range can be read. Nothing is mapped or held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_automerge.errors import CancelledError
from lib_automerge.merge.lab.budget import left_of
from lib_automerge.merge.lab.methods import Preparation, register
from lib_automerge.merge.lab.number_types import FLOATS, NUMBER_TYPES, Raw, size_of
from lib_automerge.merge.lab.parameters import Within
from lib_automerge.merge.lab.sources import Entry, Source
from lib_automerge.merge.lab.stack import SPAN, Pieces, Stack
from lib_automerge.merge.readers import widened
from lib_automerge.merge.rebasin.formulas import amplified
from lib_automerge.merge.rebasin.tensors import Tensors, elements, shared_symmetries

if TYPE_CHECKING:
    from lib_automerge.merge.rebasin.matching import Matching, Progress

Places = NDArray[np.int64]

AB = ("a", "b")

Sweeps = Annotated[int, Within(1, 1000, "times through all layers at most, to find the order")]
Seed = Annotated[int, Within(0, 2**53, "of the order in which layers are looked at")]

_AT_ONCE = 4 << 20
"""Bytes up to which a tensor is read in one go for the sake of some rows of it."""

_COPIED = 5 * 8
"""Bytes for a number of a piece that is computed in float64, with all that arises."""

_MATCHING = "matching"

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def rebasin(
    stack: Stack,
    *,
    weight: Annotated[
        float, Within(-1, 2, "share of pi(B): 0 is A, 1 is pi(B)", each="block", unnamed=0.0)
    ] = 0.5,
    sweeps: Sweeps = 10,  # noqa: ARG001 -- of `_with_permuted`
    seed: Seed = 0,  # noqa: ARG001
) -> Pieces:
    """`A (1 - w) + pi(B) w`, computed as `A + w (pi(B) - A)`; 1 is pi(B) bit for bit."""
    for start, stop in stack.chunks():
        moved = stack.value(1, start, stop, "b")
        if weight != 1.0:
            a = stack.value(0, start, stop, "a")
            moved -= a
            moved *= weight
            moved += a
        yield start, moved


def basin_sum(
    stack: Stack,
    *,
    weight: Annotated[
        float,
        Within(0, 1, "0 is A, 1 is pi(B), between them B has a part", each="block", unnamed=0.0),
    ] = 0.5,
    sweeps: Sweeps = 10,  # noqa: ARG001 -- of `_with_permuted`
    seed: Seed = 0,  # noqa: ARG001
) -> Pieces:
    """`(1 - w) (A (1 - w) + B w) + w (A (1 - w) + pi(B) w)`: a sum of sum and Re-Basin.

    Multiplied out: `A + w ((1 - w) (B - A) + w (pi(B) - A))`.
    """
    for start, stop in stack.chunks():
        moved = stack.value(2, start, stop, "pi(b)")
        if weight != 1.0:
            a = stack.value(0, start, stop, "a")
            b = stack.value(1, start, stop, "b")
            b -= a
            b *= 1.0 - weight
            moved -= a
            moved *= weight
            moved += b
            moved *= weight
            moved += a
        yield start, moved


def rebasin_amplified(
    stack: Stack,
    *,
    weight: Annotated[
        float,
        Within(0, 1, "0 is A, 1 the mean of B and pi(2 A - B)", each="block", unnamed=0.0),
    ] = 0.5,
    sweeps: Sweeps = 10,  # noqa: ARG001 -- of `_with_amplified`
    seed: Seed = 0,  # noqa: ARG001
) -> Pieces:
    """`A (1 - w) + w (B + pi(2 A - B)) / 2` with B for A's base.

    If no channel moves this is A, since B and 2 A - B lie on either side of it, equally far.
    """
    for start, stop in stack.chunks():
        a = stack.value(0, start, stop, "a")
        middle = stack.value(1, start, stop, "b")
        middle += stack.value(2, start, stop, "pi(amp)")
        middle *= 0.5
        middle -= a
        middle *= weight
        middle += a
        yield start, middle


def _first(values: Mapping[str, Any], _models: int) -> str | None:
    return "a" if values["weight"] == 0.0 else None


def _only_permuted(sources: Sequence[Source], preparation: Preparation) -> Sequence[Source]:
    """Return A and pi(B)."""
    a, _, permuted = _with_permuted(sources, preparation)
    return a, permuted


def _with_permuted(sources: Sequence[Source], preparation: Preparation) -> Sequence[Source]:
    """Return A, B and pi(B)."""
    a, b = sources
    widest = max(size_of(entry.number_type) for entry in (*a.entries.values(), *b.entries.values()))
    numbers = _Numbers(a, preparation), _Numbers(b, preparation)
    # a number of A, and of B as it is read, in the order of rows, and in that of columns
    found = _matched(*numbers, preparation, each=4 * max(widest, 2))
    return a, b, _Computed(found.permuted(_Stored(b)), b.entries, (b,))


def _with_amplified(sources: Sequence[Source], preparation: Preparation) -> Sequence[Source]:
    """Return A, B and pi(2 A - B), matched with B."""
    a, b = sources
    base = _Numbers(b, preparation)
    ahead = amplified(_Numbers(a, preparation), base)
    entries = {
        key: Entry("F64" if entry.number_type in FLOATS else entry.number_type, entry.shape, 0)
        for key, entry in a.entries.items()
        if key in b.entries and b.entries[key].shape == entry.shape
    }
    # a number of B, and of the sum: twice as stored and three times in float64
    found = _matched(base, ahead, preparation, each=3 * 8 + 3 * 8)
    return a, b, _Computed(found.permuted(ahead), entries, (a, b))


def _matched(a: Tensors, b: Tensors, preparation: Preparation, *, each: int) -> Matching:
    """Find the best order of B's channels, or take up what is known of it.

    Args:
        a: what stays.
        b: what is ordered.
        preparation: of the merge.
        each: bytes that a number of the largest tensor takes, of A and while B's is computed.
    """
    known: Matching | None = preparation.found.get(_MATCHING)
    if known is not None:
        return known
    # SciPy's optimizers take 40 MB and most of a second: only who needs them shall pay
    from lib_automerge.merge.rebasin.cache import cached_match
    from lib_automerge.merge.rebasin.matching import memory_needed

    symmetries = shared_symmetries(preparation.architecture, a, b)
    needed = memory_needed(symmetries, a, threads=preparation.threads, each=each)
    left_of(preparation.memory, 0, needed)
    preparation.step(0, 1, "reading the models")

    def report(step: Progress) -> None:
        preparation.step(
            step.done,
            step.total,
            f"ordering channels, sweep {step.sweep} of at most {step.sweeps}",
        )

    found = cached_match(
        a,
        b,
        preparation.architecture,
        cache=preparation.cache,
        sweeps=preparation.values["sweeps"],
        seed=preparation.values["seed"],
        report=report,
        threads=preparation.threads,
    )
    preparation.found[_MATCHING] = found
    more = "" if found.converged else " More sweeps may find more."
    preparation.tell(
        f"Channels moved in {found.moved} of {len(found.symmetries)} places.{more}"
        if found.moved
        else f"{b.name} lies best as it is: no channel moved, so Re-Basin changes nothing."
    )
    return found


class _Stored:
    """The tensors of a source for `merge.rebasin`, as bits: numbers are only moved."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name

    def keys(self) -> Sequence[str]:
        """See `Tensors`."""
        return tuple(sorted(self._source.entries))

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors`."""
        return self._source.entries[key].shape

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows as integers of the width of the stored numbers; see `Tensors`."""
        shape = self.shape(key)
        width = math.prod(shape[1:])
        size = size_of(self._source.entries[key].number_type)
        raw = self._rows(key, rows.numpy(), width, width * size)
        return torch.from_numpy(raw).view(_BITS[size]).view(len(rows), *shape[1:])

    def _rows(self, key: str, rows: Places, width: int, step: int) -> Raw:
        """Read rows of `width` numbers and `step` bytes."""
        out = np.empty(len(rows) * step, np.uint8)
        if not out.size:
            return out
        first, last = int(rows.min()), int(rows.max()) + 1
        if last - first == len(rows) and (np.diff(rows) == 1).all():
            self._source.read(key, first * width, last * width, out)
        elif (last - first) * step <= max(_AT_ONCE, out.size):
            span = np.empty((last - first) * step, np.uint8)
            self._source.read(key, first * width, last * width, span)
            np.take(span.reshape(-1, step), rows - first, axis=0, out=out.reshape(-1, step))
        else:
            for place, row in enumerate(rows.tolist()):
                part = out[place * step : (place + 1) * step]
                self._source.read(key, row * width, (row + 1) * width, part)
        return out


class _Numbers(_Stored):
    """The tensors of a source, as numbers to compare.

    Raises:
        CancelledError: from `take`, if the merge is cancelled.
    """

    def __init__(self, source: Source, preparation: Preparation) -> None:
        super().__init__(source)
        self._preparation = preparation

    def take(self, key: str, rows: Tensor) -> Tensor:
        """Return rows; 8-bit numbers as float16."""
        if self._preparation.cancelled():
            kept = self._preparation.cache
            raise CancelledError(
                "the merge was cancelled. "
                + (
                    f"What was found of the order of channels is kept in {kept}: the same merge "
                    "goes on there."
                    if kept
                    else "Start it again to have it."
                )
            )
        taken = super().take(key, rows)
        numbers = widened(taken.view(NUMBER_TYPES[self._source.entries[key].number_type]))
        if self._preparation.zero_bad and numbers.is_floating_point():
            numbers.nan_to_num_(0.0, 0.0, 0.0)
        return numbers


class _Computed:
    """A model as a source of a merge, computed where it is read; see `Source`.

    Args:
        tensors: the model; its numbers are as wide as the entries say.
        entries: number types and shapes.
        origins: what it is computed from.
    """

    def __init__(
        self, tensors: Tensors, entries: Mapping[str, Entry], origins: Sequence[Source]
    ) -> None:
        self._tensors = tensors
        self._origins = origins
        self.name = tensors.name
        self.entries = entries

    def read(self, key: str, start: int, stop: int, out: Raw) -> None:
        """See `Source.read`."""
        raw: Raw = elements(self._tensors, key, start, stop).contiguous().view(torch.uint8).numpy()
        out[: raw.size] = raw

    def check_unchanged(self) -> None:
        """See `Source.check_unchanged`."""
        for source in self._origins:
            source.check_unchanged()


def _read_ahead(shape: tuple[int, ...], _models: int) -> int:
    """Bytes that reading pieces of a model in another order takes."""
    return _AT_ONCE + min(math.prod(shape), SPAN) * _COPIED


_register = partial(register, roles=AB, identity=_first, weight="weight", needs=_read_ahead)

_register(
    rebasin,
    label="Git Re-Basin",
    formula="A (1 - w) + pi(B) w, pi: the order of B's channels in which it is nearest to A",
    source="Git Re-Basin, Ainsworth et al. 2022 (2209.04836), algorithm 1",
    before=_only_permuted,
)
_register(
    basin_sum,
    label="Basin sum",
    formula="(1 - w) (A (1 - w) + B w) + w (A (1 - w) + pi(B) w)",
    source="6DammK9's BasinSum with w for its 1 - alpha; Git Re-Basin (2209.04836)",
    before=_with_permuted,
)
_register(
    rebasin_amplified,
    label="Re-Basin of the amplified model",
    formula="A (1 - w) + w (B + pi(2 A - B)) / 2, B: the base of A, pi: the order nearest to B",
    source="6DammK9's 215c (w = 0.5) and 215b (w = 1); Git Re-Basin (2209.04836)",
    before=_with_amplified,
)
