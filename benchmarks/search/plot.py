"""Regret against evaluations as an SVG: a panel for each landscape, no packages needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.search.tables import LABELS, Results

WIDTH, HEIGHT, GAP, COLUMNS = 250, 190, 46, 3
LOWEST, HIGHEST = 1e-3, 1.5
TICKS = (0.001, 0.01, 0.1, 1.0)
COLORS = {
    "bayes": "#c1121f",
    "hyperactive-bayes": "#1d3557",
    "hill-climbing": "#457b9d",
    "hyperopt-tpe": "#2a9d8f",
    "optuna-tpe": "#8ab17d",
    "bayes-opt-ucb": "#e9a23b",
    "optuna-gp": "#7b2cbf",
    "pycma": "#a98467",
    "cobyqa": "#000000",
    "random-search": "#9a9a9a",
}


def draw(results: Results, evaluations: int) -> str:
    """Return the whole picture."""
    landscapes = results.landscapes
    shown = [name for name in COLORS if name in results.optimizers]
    rows = math.ceil((len(landscapes) + 1) / COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, landscape in enumerate(landscapes):
        parts.append(_placed(index, _panel(results, landscape, shown, evaluations)))
    parts.append(_placed(len(landscapes), _legend(shown)))
    return "\n".join([*parts, "</svg>\n"])


def _placed(index: int, content: str) -> str:
    x = GAP + (index % COLUMNS) * (WIDTH + GAP)
    y = GAP + (index // COLUMNS) * (HEIGHT + GAP)
    return f'<g transform="translate({x},{y})">{content}</g>'


def _height(regret: float) -> float:
    clipped = min(max(regret, LOWEST), HIGHEST)
    return HEIGHT * math.log(HIGHEST / clipped) / math.log(HIGHEST / LOWEST)


def _panel(results: Results, landscape: str, shown: Sequence[str], evaluations: int) -> str:
    parts = [f'<text x="0" y="-8" font-weight="bold">{escape(landscape)}</text>']
    for tick in TICKS:
        y = _height(tick)
        parts.append(f'<path d="M0 {y:.1f}H{WIDTH}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="-5" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in range(0, evaluations + 1, 40):
        x = WIDTH * tick / evaluations
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 14}" text-anchor="middle">{tick}</text>')
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>')
    for name in reversed(shown):
        curve = results.curve(name, landscape, evaluations)
        points = " ".join(
            f"{WIDTH * count / evaluations:.1f},{_height(regret):.1f}"
            for count, regret in enumerate(curve, 1)
            if np.isfinite(regret)
        )
        thickness = 2.4 if name == "bayes" else 1.2
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLORS[name]}" '
            f'stroke-width="{thickness}"/>'
        )
    return "".join(parts)


def _legend(shown: Sequence[str]) -> str:
    parts = ['<text x="0" y="-8">regret (log scale) against evaluations</text>']
    for row, name in enumerate(shown):
        y = 10 + 17 * row
        label = escape(LABELS[name].replace("*", ""))
        parts.append(f'<path d="M0 {y}H26" stroke="{COLORS[name]}" stroke-width="2.4"/>')
        parts.append(f'<text x="34" y="{y + 4}">{label}</text>')
    return "".join(parts)
