"""Merges of the lab that stop half-way until a test lets them go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lib_automerge.app import lab
from lib_automerge.app.lab_orders import Order
from lib_automerge.domain.recipe import ModelRef, OnNan, Recipe
from lib_automerge.merge.files import merge_files
from lib_automerge.merge.lab.job import Progress

LONG_S = 30.0


class HalfWay:
    """Holds real merges when a third is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        monkeypatch.setattr(lab, "merge_files", self._merge)

    def _merge(self, recipe: Recipe, path: Path, *, dtype: str | None, lab: Any) -> Path:
        def progress(now: Progress) -> None:
            lab.progress(now)
            if now.done > now.total / 3:
                self.reached.set()
                self._open.wait(LONG_S)

        options = msgspec.structs.replace(lab, progress=progress, threads=1)
        return merge_files(recipe, path, dtype=dtype, lab=options)

    def wait(self) -> None:
        assert self.reached.wait(LONG_S)

    def open(self) -> None:
        self._open.set()


def soup(models: dict[str, str], path: Path, *, on_nan: OnNan = "refuse", **changes: Any) -> Order:
    """A weighted sum of the two models."""
    refs = {role: ModelRef(name=role, path=where) for role, where in models.items()}
    recipe = Recipe(
        architecture="sd1",
        method="weighted_sum",
        models=refs,
        parameters={"weight": 0.25},
        precision="fp64",
        on_nan=on_nan,
    )
    return Order(recipe=recipe, path=path, **changes)
