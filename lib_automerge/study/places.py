"""Where blocks stand along a chart, and what their names look like there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from lib_automerge.study.charts import line, text
from lib_automerge.study.markup import Markup

_NUMBERED = re.compile(r"([A-Z]+)(\d\d)")
_GAP = 14.0


def places(names: Sequence[str], left: float, width: float) -> tuple[float, list[float]]:
    """The room for one block, and the middle of each; groups stand a little apart."""
    groups = [_group(name) for name in names]
    before = [0, *itertools.accumulate(int(a != b) for a, b in itertools.pairwise(groups))]
    step = (width - left - _GAP * before[-1]) / len(names)
    return step, [left + step * (i + 0.5) + _GAP * count for i, count in enumerate(before)]


def brackets(names: Sequence[str], middles: Sequence[float], step: float, y: float) -> list[Markup]:
    """A line with the common name under the blocks that are only numbered."""
    parts = []
    pairs = zip(names, middles, strict=True)
    for group, members in itertools.groupby(pairs, key=lambda pair: _group(pair[0])):
        if group:
            found = [x for _, x in members]
            start, end = found[0] - step / 2 + 3, found[-1] + step / 2 - 3
            parts.append(line(start, y, end, y, "axis"))
            parts.append(text((start + end) / 2, y + 16, group, "name", "middle"))
    return parts


def name_lines(name: str) -> list[str]:
    """The name in lines that fit under a column: a numbered block's number, else its words."""
    match = _NUMBERED.fullmatch(name)
    return [match[2]] if match else name.split("_")


def _group(name: str) -> str:
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else ""
