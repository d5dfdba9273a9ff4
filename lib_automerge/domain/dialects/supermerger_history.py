"""SuperMerger's `mergehistory.csv`: a row for every merge, with the settings that it was made with.

    "ID","time","name","weights alpha","weights beta","model A","model B","model C","alpha","beta",
    "mode","use MBW","plus lora","custum name","save setting","use ID"

Rows have more columns than the header names, and from "plus lora" on others. Models are named by
the first digits of their SHA-256, or by A1111's old hash. In place of the weights that were chosen,
a row holds them with 0 for what was excluded, whole blocks or not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.dialects import supermerger, supermerger_keys, supermerger_text, tables
from lib_automerge.domain.dialects.sketch import (
    LEGACY_DIGITS,
    Everywhere,
    Hint,
    Listed,
    Sketch,
    Spread,
    model_name,
)
from lib_automerge.errors import ConfigError

_HEADER = ("ID", "time", "name", "weights alpha")
_FIELDS = 2_500_000
"""Characters of a field: rows of some merges are longer than Python reads unasked."""
_SHOWN = 5

_COLUMNS = (
    "id", "time", "name", "alphas", "betas", "a", "b", "c", "alpha", "beta", "mode", "blocks",
    "called", "saved", "infotext", "elements", "calculation", "seed", "adjust", "option",
    "choosing", "chosen blocks", "chosen elements",
)  # fmt: skip
"""What the columns of a row hold; old rows have fewer."""


def is_history(text: str) -> bool:
    """Tell whether the first line is the header of such a table."""
    first = text.partition("\n")[0]
    names = tuple(name.strip('" \r') for name in first.split(",", len(_HEADER)))
    return names[: len(_HEADER)] == _HEADER


def read(text: str, order: str | None = None, number: int | None = None) -> Sketch:
    """Read one merge.

    Args:
        text: of the whole file, or of its header and one row.
        order: of SDXL's list, where it must be told.
        number: the ID of the merge; None if there is only one.

    Raises:
        ConfigError: there is none, or none with this ID; there are several and none was chosen; or
            the merge is one that no recipe of ours is.
    """
    rows = _rows(text)
    if not rows:
        raise ConfigError("the history holds no merge. Give a mergehistory.csv with rows.")
    if number is None and len(rows) > 1:
        last = "; ".join(f"{row['id']} is {row['name'][:60]}" for row in rows[-_SHOWN:])
        raise ConfigError(
            f"the history holds {len(rows)} merges. Say which with --number and its ID; the last "
            f"are: {last}."
        )
    chosen = rows if number is None else [row for row in rows if row["id"] == str(number)]
    if len(chosen) != 1:
        raise ConfigError(
            f"{len(chosen)} merges of the history have the ID {number}; there are {rows[0]['id']} "
            f"to {rows[-1]['id']}. Choose another, or give the header and one row."
        )
    return _sketch(chosen[0], order)


def _rows(text: str) -> list[dict[str, str]]:
    limit = csv.field_size_limit(_FIELDS)
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))[1:]
    except csv.Error as error:
        raise ConfigError(
            f"the history is damaged: {error}. Give its header and one row."
        ) from error
    finally:
        csv.field_size_limit(limit)
    empty = dict.fromkeys(_COLUMNS, "")
    return [{**empty, **dict(zip(_COLUMNS, line, strict=False))} for line in lines if any(line)]


def _sketch(row: dict[str, str], order: str | None) -> Sketch:
    calculation = row["calculation"] or supermerger.NORMAL
    method, roles = supermerger.method_of(row["mode"], calculation)
    names = supermerger_text.names(row["name"])
    choice = supermerger_keys.choice_of(
        row["choosing"], [*_words(row["chosen blocks"]), *row["chosen elements"].split(",")]
    )
    alpha = _spread(row, "alpha", order)
    beta = _spread(row, "beta", order) if supermerger.takes_beta(method) else None
    if choice is not None and isinstance(alpha, Listed):
        _check_kept(choice.names, alpha)
    sketch = supermerger.sketch_of(
        f"SuperMerger's history, merge {row['id']}",
        method,
        {role: _model(row[role], names.get(role, ""), role) for role in roles},
        (alpha, beta),
        supermerger_keys.rules_of(row["elements"], calculation),
        choice,
    )
    saved = _words(row["saved"])
    half = ("it was saved as half precision: add --dtype fp16 to merge",) if "fp16" in saved else ()
    return msgspec.structs.replace(sketch, notes=half, unsaid=_unsaid(row, saved))


def _spread(row: dict[str, str], which: str, order: str | None) -> Spread:
    if row["blocks"] == "True":
        return supermerger.listed(row[f"{which}s"], order)
    return Everywhere(tables.number(row[which]))


def _check_kept(names: Sequence[str], listed: Listed) -> None:
    """Raise ConfigError if the row's list is not the one that was merged."""
    whole = set(weights.blocks_of(listed.order))
    if listed.order in supermerger.XL_ORDERS:
        whole -= {"OUT01"}  # it means a part of OUT00 as well
    spoiled = [
        name for name in names if name not in whole or listed.order == supermerger_keys.PARTS
    ]
    if spoiled:
        raise ConfigError(
            f"where less than whole blocks is included or excluded, here {spoiled[0]!r}, "
            "SuperMerger's history keeps other weights than were merged. Give the metadata of the "
            "checkpoint."
        )


def _model(digits: str, name: str, role: str) -> Hint:
    if not digits and not name:
        raise ConfigError(f"the history does not say which model {role.upper()} was.")
    old = len(digits) <= LEGACY_DIGITS
    return Hint(
        name=model_name(name),
        sha256="" if old else digits.lower(),
        legacy_hash=digits.lower() if old else "",
    )


def _unsaid(row: dict[str, str], saved: Sequence[str]) -> tuple[str, ...]:
    told = []
    if row["adjust"].rstrip(",0"):
        told.append(f"that the first and last layers were adjusted by {row['adjust']}")
    if "Reset CLIP ids" in saved:
        told.append("that position ids were repaired")
    return tuple(told)


def _words(listed: str) -> list[str]:
    """The words of a list as Python writes it: `['fp16', 'prune']`."""
    words = listed.translate(str.maketrans("", "", "[]'\""))
    return [word.strip() for word in words.split(",") if word.strip()]
