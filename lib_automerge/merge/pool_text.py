"""What was found about a pool of models, as text for a terminal and as data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from lib_automerge.merge.pool import Apart, Matrix, Pool

WIDEST = 10
"""Models whose distances are listed pair by pair; of larger pools the nearest and farthest are."""


COLUMN = 12
"""Characters of a column: room for the longest number, 1.2345e-100, and one between."""


def pool_data(found: Pool) -> dict[str, object]:
    """Return everything as JSON types; undefined cosines are null."""

    def plain(parts: Mapping[str, Apart]) -> dict[str, object]:
        return {
            name: {
                "parameters": part.parameters,
                "l2": part.l2.tolist(),
                "cosine": [[_number(v) for v in row] for row in part.cosine.tolist()],
            }
            for name, part in parts.items()
        }

    return {
        "files": [str(path) for path in found.files],
        "architecture": found.architecture,
        "base": str(found.files[0]) if found.based else None,
        "components": plain(found.components),
        "blocks": plain(found.blocks),
        "left_out": list(found.left_out),
    }


def format_pool(found: Pool) -> str:
    """Return the distances as text: the denoiser pair by pair, the rest in sums."""
    lines = [f"{number:>4}  {path}" for number, path in enumerate(found.files, 1)]
    if found.based:
        lines[0] += "  (base)"
    name, main = next(iter(found.components.items()))
    lines += ["", *_matrix(f"{name}: L2 distance", main.l2, "{:.5g}")]
    relative = "of the differences from the base" if found.based else "of the weights"
    lines += ["", *_matrix(f"{name}: cosine {relative}", main.cosine, "{:.4f}")]
    lines += ["", *_parts("component", found.components), "", *_parts("block", found.blocks)]
    if found.left_out:
        lines += ["", f"{len(found.left_out)} weights that some file lacks or holds in another"]
        lines[-1] += f" shape are left out, first {found.left_out[0]!r}."
    return "\n".join(lines)


def _matrix(title: str, values: Matrix, form: str) -> list[str]:
    count = len(values)
    if count > WIDEST:
        return [title, *_extremes(values, form)]
    head = " " * 6 + "".join(f"{f'[{n}]':>{COLUMN}}" for n in range(1, count + 1))
    rows = (
        f"{f'[{n}]':>6}" + "".join(f"{_shown(value, form):>{COLUMN}}" for value in row)
        for n, row in enumerate(values.tolist(), 1)
    )
    return [title, head, *rows]


def _extremes(values: Matrix, form: str) -> list[str]:
    pairs = _pairs(values)
    told = [f"  {len(pairs)} pairs, the lowest and the highest:"]
    shown = [*pairs[:WIDEST], *pairs[max(len(pairs) - WIDEST, WIDEST) :]]
    return told + [f"  {_shown(value, form):>{COLUMN}}  [{i}] [{j}]" for value, i, j in shown]


def _pairs(values: Matrix) -> list[tuple[float, int, int]]:
    """(value, row, column) counted from 1, lowest first, without undefined ones."""
    upper = itertools.combinations(range(len(values)), 2)
    found = ((float(values[i, j]), i + 1, j + 1) for i, j in upper)
    return sorted(pair for pair in found if math.isfinite(pair[0]))


def _parts(title: str, parts: Mapping[str, Apart]) -> list[str]:
    lines = [f"  {title:<24}{'parameters':>15}{'mean L2':>12}{'nearest':>22}{'farthest':>22}"]
    for name, part in parts.items():
        pairs = _pairs(part.l2)
        mean = sum(value for value, *_ in pairs) / len(pairs)
        ends = "".join(f"{_pair(pairs[at]):>22}" for at in (0, -1))
        lines.append(f"  {name:<24}{part.parameters:>15,}{mean:>12.5g}{ends}")
    return lines


def _pair(pair: Sequence[float]) -> str:
    return f"{pair[0]:.5g} [{pair[1]}] [{pair[2]}]"


def _shown(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "-"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
