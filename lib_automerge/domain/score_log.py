"""Tables of scored recipes: the CSV logs of AutoMBW, and the scores that a run exports.

AutoMBW numbers its columns and says nowhere which block each one is: they are in the order that it
searches in (`nat` of `domain.weights`). Ours name the blocks.

    0,1,2, ... ,25,26,score,eval_times,iter_times
    evaluation,origin,score, ... ,weight IN00,weight IN01, ...

`eval_times` and `iter_times` are totals of the whole search in every row; they tell nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.events import BASELINES
from lib_automerge.errors import ConfigError

ORDER = "nat"
"""The order of AutoMBW's columns."""

POSITIONS = 27
NAMED = "weight "
"""How the column of a block begins in a table that names them."""

_SCORE, _ORIGIN = "score", "origin"
_DELIMITERS = (",", ";", "\t")
"""Spreadsheets save CSV with the separator of their language."""

Reader = Callable[[Sequence[str]], dict[str, float]]


class ScoredWeights(msgspec.Struct, frozen=True):
    """One row: the weights of a recipe by block, and its score (higher is better)."""

    weights: dict[str, float]
    score: float


class ScoreLog(msgspec.Struct, frozen=True):
    """The usable rows in the order of the file, and how many are not: torn, or NaN in them."""

    rows: tuple[ScoredWeights, ...]
    unusable: int


def is_log(text: str) -> bool:
    """Tell whether the first line is the header of a table with scores."""
    return _SCORE in _header(text)


def blocks(text: str) -> tuple[str, ...]:
    """The blocks that the columns of a table name; none if they are numbered."""
    return tuple(name.removeprefix(NAMED) for name in _header(text) if _is_named(name))


def parse(text: str, architecture: Architecture) -> ScoreLog:
    """Read a table of scored recipes.

    A parent or a 50:50 merge, where the table tells them, is left out: every run scores its own.

    Args:
        text: with a header line.
        architecture: what the recipes are for; positions of blocks that it lacks are dropped.

    Raises:
        ConfigError: no header with a score, weight columns of another number or of unknown blocks,
            or not one usable row.
    """
    header = _header(text)
    if _SCORE not in header:
        raise ConfigError(
            f"this is no log of scores: its first line has no column {_SCORE!r}. Give a CSV file "
            'of AutoMBW (its folder csv/history), or one saved with "Scores as CSV".'
        )
    read = _reader(header, architecture)
    score = header.index(_SCORE)
    origin = header.index(_ORIGIN) if _ORIGIN in header else None
    baselines = {baseline.value for baseline in BASELINES}
    rows: list[ScoredWeights] = []
    unusable = 0
    for cells in _cells(text)[1:]:
        if not any(cells):
            continue
        try:
            if origin is not None and cells[origin] in baselines:
                continue
            row = ScoredWeights(read(cells), float(cells[score]))
        except (ConfigError, ValueError, IndexError):
            unusable += 1
            continue
        if math.isfinite(row.score):
            rows.append(row)
        else:
            unusable += 1
    if not rows:
        raise ConfigError(
            f"the log has no usable row: {unusable} rows are torn or hold NaN. Give another log."
        )
    return ScoreLog(tuple(rows), unusable)


def _reader(header: Sequence[str], architecture: Architecture) -> Reader:
    """How a row's cells become weights."""
    named = {name.removeprefix(NAMED): at for at, name in enumerate(header) if _is_named(name)}
    if named:
        weights.validate(dict.fromkeys(named, 0.0), architecture)

        def by_name(cells: Sequence[str]) -> dict[str, float]:
            given = {block: float(cells[at]) for block, at in named.items() if cells[at]}
            weights.validate(given, architecture)
            return given

        return by_name
    numbered = [name for name in header if name.isdigit()]
    if sorted(numbered, key=int) != [str(position) for position in range(POSITIONS)]:
        raise ConfigError(
            f"the log has {len(numbered)} numbered columns of weights; AutoMBW writes {POSITIONS}, "
            f"from 0 to {POSITIONS - 1}. Give its CSV as it was written."
        )
    places = [header.index(str(position)) for position in range(POSITIONS)]
    return lambda cells: weights.from_list([float(cells[p]) for p in places], ORDER, architecture)


def _is_named(name: str) -> bool:
    return name.startswith(NAMED)


def _header(text: str) -> list[str]:
    cells = _cells(text)
    return cells[0] if cells else []


def _cells(text: str) -> list[list[str]]:
    """The table's cells without the spaces around them; empty if it is no table."""
    text = text.lstrip("\ufeff\r\n ")
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    lines = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        return [[cell.strip() for cell in line] for line in lines]
    except csv.Error:
        return []
