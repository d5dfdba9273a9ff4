"""How the two specialists are made from the base: what each forgets, and in which blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lib_automerge.demo.train_denoiser import Specialist

SLOW = 0.05
"""Share of the learning rate in the blocks that a specialist is meant to leave nearly alone."""


def _learns_on_the_way_down(block: str) -> float:
    return SLOW if block.startswith("OUT") else 1.0


def _learns_on_the_way_up(block: str) -> float:
    return 1.0 if block.startswith("OUT") else SLOW


PLANS = (
    Specialist(
        name="a",
        scrambled=("colour",),
        share=_learns_on_the_way_down,
        strength=1.5,
        rate=2e-3,
        steps=350,
        seed=51,
    ),
    Specialist(
        name="b",
        scrambled=("subject",),
        share=_learns_on_the_way_up,
        strength=1.5,
        rate=2e-3,
        steps=350,
        seed=52,
    ),
)

SPLITS: Mapping[str, Callable[[str], float]] = {
    "OUT* from A, rest from B": lambda block: 0.0 if block.startswith("OUT") else 1.0,
    "OUT* from B, rest from A": lambda block: 1.0 if block.startswith("OUT") else 0.0,
}
"""Merges by hand, block -> weight, that `lib_automerge.demo.evaluate` compares."""
