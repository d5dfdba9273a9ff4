"""Earlier work that a search can begin with: run folders, recipes, logs of scores.

Hides what a path can be. What a source is worth to a run is decided in `app.warm_start`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from lib_automerge.domain import recipe_text, score_log, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.events import GIVEN
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.errors import AutomergeError, ConfigError
from lib_automerge.study.formats import size
from lib_automerge.study.store import RunFolder, RunManifest

MAX_BYTES = 16 << 20
"""A log of 100,000 rows; whatever is larger is something else, a checkpoint perhaps."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One source of a warm start.

    Attributes:
        name: what to call it in a sentence.
        recipes: weights by block, the best first if they have scores.
        scored: whether they have.
        unusable: how many rows of a log could not be read.
        manifest: of a run folder.
        evaluations: of a run folder: all that is known there, baselines left out.
    """

    name: str
    recipes: tuple[dict[str, float], ...]
    scored: bool = False
    unusable: int = 0
    manifest: RunManifest | None = None
    evaluations: tuple[Evaluation, ...] = ()


def read(entries: Iterable[str], architecture: Architecture) -> tuple[Source, ...]:
    """Read the sources of a warm start; one that is named twice counts once.

    Args:
        entries: paths of run folders, recipes and logs; `ORDER:PATH` for a list that needs one.
        architecture: of the models to merge.

    Raises:
        ConfigError: a source is missing, unreadable, ambiguous, for another architecture, or has
            nothing usable in it; the text names it.
    """
    found: dict[tuple[str | None, Path], Source] = {}
    for entry in entries:
        order, path = located(entry)
        key = (order, path.absolute())
        if key not in found:
            try:
                found[key] = _source(path, order, architecture)
            except AutomergeError as error:
                raise ConfigError(f"warm start from {path}: {error}") from error
    return tuple(found.values())


def located(entry: str) -> tuple[str | None, Path]:
    """The order of weights (None: not given) and the path that an entry names."""
    order, colon, rest = entry.partition(":")
    if colon and rest and order in weights.orders():
        return order, Path(rest)
    return None, Path(entry)


def _source(path: Path, order: str | None, architecture: Architecture) -> Source:
    try:
        if path.is_dir():
            return _run(path, architecture)
        if not path.is_file():
            raise ConfigError("there is no such file or folder. Check the path.")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"the file has {size(path.stat().st_size)}, which no recipe or log has. Give a "
                "run folder, a recipe or a CSV log."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}. Check its permissions.") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise ConfigError("it is not text. Give a run folder, a recipe or a CSV log.") from error
    if not text.strip():
        raise ConfigError("the file is empty. Give a run folder, a recipe or a CSV log.")
    if score_log.is_log(text) or path.suffix.lower() == ".csv":
        return _log(path, text, architecture)
    return _recipes(path, text, order, architecture)


def _run(path: Path, architecture: Architecture) -> Source:
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    if manifest.architecture != architecture.name:
        raise ConfigError(
            f"the run merged models of {manifest.architecture!r}, these are {architecture.name!r}. "
            "Give a run with models of the same kind."
        )
    state = folder.state()
    known = [e for e in state.history if e.origin not in GIVEN and not e.unmade]
    known += [e for e in manifest.observations if e.finished and not e.unmade]
    leader = _leader(state)
    scored = [e for e in known if e.score is not None]
    if not scored:
        raise ConfigError(
            "the run has no scored candidate besides its baselines. Resume it first, or leave it "
            "out."
        )
    scored.sort(key=lambda e: (e.number != leader, -(e.score or 0.0), e.number))
    return Source(
        name=f"the run {manifest.config.name or path.absolute().name}",
        recipes=tuple(e.weights for e in scored),
        scored=True,
        manifest=manifest,
        evaluations=tuple(known),
    )


def _leader(state: RunState) -> int | None:
    """The evaluation that the run itself held for its best."""
    if state.verdict is not None:
        return state.verdict.winner
    return None if state.incumbent is None else state.incumbent.number


def _log(path: Path, text: str, architecture: Architecture) -> Source:
    log = score_log.parse(text, architecture)
    rows = sorted(log.rows, key=lambda row: -row.score)
    return Source(
        name=path.name,
        recipes=tuple(row.weights for row in rows),
        scored=True,
        unusable=log.unusable,
    )


def _recipes(path: Path, text: str, order: str | None, architecture: Architecture) -> Source:
    try:
        recipes = recipe_text.parse(text, architecture, order)
    except recipe_text.AmbiguousOrderError as error:
        raise ConfigError(f"{error} Write it before the path: ORDER:{path}.") from error
    return Source(name=path.name, recipes=recipes)
