"""Logs of AutoMBW: a published one, and made-up ones in its format.

`auto_mbw_15b.csv` is the log of AstolfoMix's merge 15b (github.com/6DammK9/
nai-anime-pure-negative-prompt, ch05/autombw/receipes; MIT, Copyright (c) 2022 6DammK9): 96
evaluations, the best being the 89th, 15 blocks that never move after the first point. The made-up
ones are like it, but score recipes about as the fake host does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

PUBLISHED = Path(__file__).with_name("auto_mbw_15b.csv")

HEADER = ",".join([*map(str, range(27)), "score,eval_times,iter_times"])

FIRST = (
    "0.3,0.7,0.9,0.7,1.0,0.1,0.6,0.6,0.0,1.0,0.5,0.9,0.5,0.6,0.8,0.0,0.9,0.5,0.6,0.7,0.5,0.4,0.1,"
    "0.0,0.7,0.9,0.5,0.537409546716329,174590.83615255356,174624.89337921143"
)

EVALUATIONS, BEST_AT, FROZEN = 96, 89, 15

HIDDEN = np.array([0.9] * 12 + [0.2] * 14 + [0.5])
"""The best recipe of the landscape that `tests.fake_host` draws, in AutoMBW's order of columns."""


def synthetic_log(evaluations: int = EVALUATIONS, *, seed: int = 0) -> str:
    """A log whose scores agree roughly with the fake host's landscape, on another scale."""
    rng = np.random.default_rng(seed)
    moving = rng.permutation(27)[FROZEN:]
    base = np.round(rng.integers(0, 11, 27) / 10, 1)
    rows = []
    for _ in range(evaluations - 1):
        point = base.copy()
        point[moving] = rng.integers(0, 11, len(moving)) / 10
        distance = float(np.abs(point[:26] - HIDDEN[:26]).mean())
        rows.append((point.tolist(), 0.8 - 0.5 * distance + float(rng.normal(0, 0.005))))
    best = max(range(len(rows)), key=lambda index: rows[index][1])
    at = min(BEST_AT - 2, len(rows) - 1)
    rows[at], rows[best] = rows[best], rows[at]
    totals = ",174590.83615255356,174624.89337921143"
    lines = [",".join(map(repr, point)) + f",{score!r}{totals}" for point, score in rows]
    return "\n".join([HEADER, FIRST, *lines]) + "\n"
