"""Colours that stand for numbers, as hexadecimal values, for drawings that are files of their own.

A drawing saved as a file has no page around it whose style it could follow, so its colours are
written into it, on white paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

INK, SOFT, LINE, PAPER, WASH = "#15191f", "#59626f", "#c9d0d8", "#ffffff", "#f5f7f8"
"""Text, secondary text, lines, the paper, and the ground of panels."""

_A, _MIDDLE, _B = (63, 111, 181), (243, 241, 236), (169, 96, 44)
_NONE, _SOME, _MUCH = (246, 249, 248), (120, 186, 164), (6, 92, 70)

Colour = tuple[int, int, int]

STYLE = f"""
svg {{ font-family: Inter, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  font-variant-numeric: tabular-nums; background: {PAPER}; }}
text {{ font-size: 12px; fill: {INK}; }}
.title {{ font-size: 17px; font-weight: 650; }}
.soft {{ fill: {SOFT}; }}
.small {{ font-size: 11px; }}
.strong {{ font-weight: 600; }}
.light {{ fill: {PAPER}; }}
.line {{ stroke: {LINE}; stroke-width: 1.2; fill: none; }}
.frame {{ stroke: {LINE}; stroke-width: 1; }}
.dashed {{ stroke: {SOFT}; stroke-width: 1; stroke-dasharray: 3 3; fill: {PAPER}; }}
.paper {{ fill: {PAPER}; }}
.branch {{ stroke: {SOFT}; stroke-width: 1.4; fill: none; }}
.dot {{ fill: #08775a; }}
"""
"""The style sheet of a drawing that stands alone."""


class Shades(msgspec.Struct, frozen=True):
    """A range of numbers and the colours that stand for it; numbers outside get the end's colour.

    Attributes:
        low: the number of the first colour.
        high: that of the last.
        colours: equally far apart from low to high.
    """

    low: float
    high: float
    colours: tuple[Colour, ...]

    def at(self, value: float) -> str:
        """The colour of a number, such as `#3f6fb5`."""
        return _hexadecimal(self._mixed(value))

    def is_dark(self, value: float) -> bool:
        """Whether text on the colour of this number must be light to be read."""
        red, green, blue = self._mixed(value)
        return 0.299 * red + 0.587 * green + 0.114 * blue < 140

    def _mixed(self, value: float) -> Sequence[float]:
        span = self.high - self.low
        share = min(max((value - self.low) / span if span else 0.0, 0.0), 1.0)
        steps = len(self.colours) - 1
        first = min(int(share * steps), steps - 1)
        rest = share * steps - first
        pairs = zip(self.colours[first], self.colours[first + 1], strict=True)
        return [start + (end - start) * rest for start, end in pairs]


def of_weights() -> Shades:
    """From A's colour at weight 0 to B's at 1."""
    return Shades(0.0, 1.0, (_A, _MIDDLE, _B))


def of_sizes(largest: float) -> Shades:
    """From nearly white at 0 to dark at `largest`."""
    return Shades(0.0, largest or 1.0, (_NONE, _SOME, _MUCH))


def _hexadecimal(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in colour)
