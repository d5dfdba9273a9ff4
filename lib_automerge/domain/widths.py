"""Numbers that a network's layers have but its file does not tell: heads and groups.

Standard models fix them; models of other widths follow the same rules, which are those that
loaders of such files use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

HEAD = 64
"""Channels of one attention head, everywhere but in the UNet of SD1."""

SD1_HEADS = 8

MOST_GROUPS = 32


def heads(width: int) -> int:
    """Return how many heads of 64 channels fit into `width`, made to divide it."""
    count = max(1, width // HEAD)
    while width % count:
        count -= 1
    return count


def unet_heads(architecture: str, width: int) -> int:
    """Return the number of attention heads in a UNet's layer of this width; SD1 has 8 always."""
    return SD1_HEADS if architecture == "sd1" else heads(width)


def norm_groups(widths: Iterable[int]) -> int:
    """Return the groups of all group norms of a network whose levels have these widths.

    They are 32, or the largest power of two that divides all widths if that is less.
    """
    common = math.gcd(*widths)
    return min(MOST_GROUPS, common & -common)
