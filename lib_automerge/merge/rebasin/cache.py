"""Keeps matchings on disk, finished ones and those in progress.

A matching is known by the content of the tensors that it reads, so that it is found again whatever
the files are called, and for files that differ in nothing but their image autoencoder. A file is
replaced in one step after every symmetry: whatever stops the process costs one of them at most.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import torch

from lib_automerge.errors import StorageError
from lib_automerge.merge.rebasin.matching import Matching, Progress, State, match
from lib_automerge.merge.rebasin.orders import Order, Orders, is_valid
from lib_automerge.merge.rebasin.symmetries import Symmetry
from lib_automerge.merge.rebasin.tensors import Tensors, row_ranges, rows, shared_symmetries

VERSION = 1
"""Of the symmetries and of the search; another one gives other keys."""

_ABOUT, _ORDERS = "about", "orders"


class _About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says besides the orders."""

    key: str
    open: tuple[str, ...]
    sweep: int
    position: int
    gain: float


class Cache:
    """A folder with one `.npz` file for each pair of models that was matched.

    Args:
        folder: made when something is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return where the matching of this key lies."""
        return self.folder / f"rebasin-{key[:32]}.npz"

    def load(self, key: str, symmetries: Sequence[Symmetry]) -> State | None:
        """Return what is known; None if that is nothing, or the file is damaged.

        Args:
            key: of `matching_key`.
            symmetries: of the models; orders that they do not allow count as damage.
        """
        try:
            with np.load(self.path(key), allow_pickle=False) as file:
                about = msgspec.json.decode(file[_ABOUT].tobytes(), type=_About)
                orders = _split(file[_ORDERS], symmetries)
        except Exception:  # a damaged archive can fail in any way
            return None
        names = frozenset(orders)
        whole = (
            about.key == key
            and names.issuperset(about.open)
            and about.sweep >= 1
            and 0 <= about.position <= len(names)
            and all(is_valid(symmetry, orders[symmetry.name]) for symmetry in symmetries)
        )
        if not whole:
            return None
        return State(
            orders=orders,
            open=frozenset(about.open),
            sweep=about.sweep,
            position=about.position,
            gain=about.gain,
        )

    def save(self, key: str, state: State, symmetries: Sequence[Symmetry]) -> None:
        """Keep a state, in place of the one before.

        Raises:
            StorageError: the folder cannot be written.
        """
        about = _About(
            key=key,
            open=tuple(sorted(state.open)),
            sweep=state.sweep,
            position=state.position,
            gain=state.gain,
        )
        members = {
            _ABOUT: np.frombuffer(msgspec.json.encode(about), dtype=np.uint8),
            _ORDERS: _joined(state.orders, symmetries),
        }
        path = self.path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, **members)  # type: ignore[arg-type]
            partial.replace(path)
        except OSError as error:
            raise StorageError(
                f"cannot keep the matching in {self.folder}: {error.strerror}. "
                "Choose another folder for the cache, or free some space."
            ) from error
        finally:
            with suppress(OSError):  # also after Ctrl+C
                partial.unlink(missing_ok=True)


def matching_key(
    a: Tensors,
    b: Tensors,
    architecture: str,
    symmetries: Sequence[Symmetry],
    *,
    sweeps: int,
    seed: int,
) -> str:
    """Return the SHA-256 of all that decides a matching, in hexadecimal.

    That is: version, architecture, sweeps, seed, and names, number types, shapes and values of all
    tensors that the symmetries touch.
    """
    keys = sorted({key for symmetry in symmetries for key in symmetry.keys})
    parts = [VERSION, architecture, sweeps, seed, _digest(a, keys), _digest(b, keys)]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def cached_match(
    a: Tensors,
    b: Tensors,
    architecture: str,
    *,
    cache: Path | None,
    sweeps: int = 10,
    seed: int = 0,
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    threads: int | None = None,
) -> Matching:
    """Match two models, or take from the cache what is known of their matching and go on.

    Args:
        a: model A.
        b: model B, of the same architecture.
        architecture: its name.
        cache: folder of the cache; None keeps nothing.
        sweeps: see `matching.match`.
        seed: likewise.
        report: likewise.
        cancelled: likewise.
        threads: likewise.

    Raises:
        ConfigError: `sweeps` is less than 1, or the seed is negative.
        ModelError: unknown architecture, or NaN or infinite values.
        StorageError: the cache cannot be written.
    """
    symmetries = shared_symmetries(architecture, a, b)
    begin, keep = None, None
    if cache is not None:
        kept = Cache(cache)
        key = matching_key(a, b, architecture, symmetries, sweeps=sweeps, seed=seed)
        begin = kept.load(key, symmetries)

        def keep(state: State) -> None:
            kept.save(key, state, symmetries)

    return match(
        a,
        b,
        symmetries,
        sweeps=sweeps,
        seed=seed,
        begin=begin,
        keep=keep,
        report=report,
        cancelled=cancelled,
        threads=threads,
    )


def _joined(orders: Orders, symmetries: Sequence[Symmetry]) -> Order:
    """All orders one after the other: hundreds of members would take longer than a symmetry."""
    flat = [order for symmetry in symmetries for order in orders[symmetry.name]]
    return np.concatenate([np.empty(0, dtype=np.int32), *flat])


def _split(joined: Order, symmetries: Sequence[Symmetry]) -> dict[str, tuple[Order, ...]]:
    """Undo `_joined`."""
    orders, start = {}, 0
    for symmetry in symmetries:
        stop = start + symmetry.size * len(symmetry.parts)
        orders[symmetry.name] = tuple(joined[start:stop].reshape(-1, symmetry.size))
        start = stop
    return orders


def _digest(model: Tensors, keys: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for key in keys:
        dtype = rows(model, key, 0, 1).dtype
        digest.update(f"{key} {dtype} {model.shape(key)}\n".encode())
        for start, stop in row_ranges(model.shape(key)):
            piece = rows(model, key, start, stop)
            digest.update(memoryview(piece.view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()
