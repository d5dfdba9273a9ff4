"""All methods of the merge lab: importing this module registers them."""

from __future__ import annotations

from lib_automerge.merge.lab import (
    differences,
    dropping,
    pairs,
    rebasin,
    robust,
    soup,
    spectral,
    votes,
)
from lib_automerge.merge.lab.methods import METHODS, LabMethod, get, roles_for

__all__ = ["METHODS", "LabMethod", "get", "names", "roles_for"]

_FAMILIES = (pairs, differences, soup, votes, dropping, robust, spectral, rebasin)


def names() -> tuple[str, ...]:
    """The names of all methods, by family: simple ones first."""
    families = [family.__name__ for family in _FAMILIES]
    return tuple(sorted(METHODS, key=lambda name: families.index(METHODS[name].merge.__module__)))
