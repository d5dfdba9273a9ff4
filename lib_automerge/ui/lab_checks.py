"""What stands in the way of a merge, found before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lib_automerge.app.checks import Check, Level
from lib_automerge.app.desk import Desk
from lib_automerge.app.lab_orders import Order
from lib_automerge.app.model_cards import ModelCards
from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import BASE, ROLES, primary
from lib_automerge.study.formats import listed, plural, size


class LabChecks:
    """Looks at models, disk and machine; reads headers alone.

    Args:
        desk: whose lab it is about.
        cards: of the models.
    """

    def __init__(self, desk: Desk, cards: ModelCards) -> None:
        self._desk = desk
        self._cards = cards

    def model_problems(self, models: Mapping[str, ModelChoice]) -> list[Check]:
        """Chosen models that cannot be read or do not go together, by role."""
        found = []
        families: dict[str, str] = {}
        for model in dict.fromkeys(models.values()):
            path = Path(model.path)
            card = self._cards.card(model.path)
            if card.problem:
                found.append(Check(Level.ERROR, "Models", card.problem))
            elif not card.safe:
                told = (
                    f"{path.name} is not a safetensors file, and only those can be read in parts. "
                    "Save it as safetensors first."
                )
                found.append(Check(Level.ERROR, "Models", told))
            if card.architecture:
                families.setdefault(card.architecture, path.name)
        if len(families) > 1:
            told = listed(
                f"{name} is {architectures.get(family).label}" for family, name in families.items()
            )
            found.append(Check(Level.ERROR, "Models", f"{told}. Choose models of one family."))
        return found

    def order_problems(self, order: Order, models: Mapping[str, ModelChoice]) -> list[Check]:
        """What is merged, and what is odd about it or in its way."""
        first = self._cards.card(order.recipe.models[primary(order.recipe.models)].path)
        family = architectures.get(order.recipe.architecture).label
        count = plural(len(order.recipe.models), "model")
        fact = f"{count} of {family}; the first has {size(first.size)}."
        return [Check(Level.OK, "Models", fact), *_twice(models), *self._busy()]

    def file_problems(self, order: Order, path: Path) -> list[Check]:
        """What stands in the way of the file itself."""
        found = []
        if self._desk.lab.unfinished(path):
            told = f"an unfinished merge into {path.name} is kept, which saving would replace."
            found.append(Check(Level.WARNING, "File", told))
        first = self._cards.card(order.recipe.models[primary(order.recipe.models)].path).size
        free = shutil.disk_usage(path.parent).free
        # of another number type it may be smaller; the merge itself knows to the byte
        if free < first and order.dtype is None:
            told = (
                f"{path.parent} has {size(free)} free, and the merge about {size(first)}. Make "
                "room there, or choose a smaller precision of the file."
            )
            found.append(Check(Level.ERROR, "Disk", told))
        return found

    def _busy(self) -> list[Check]:
        run = self._desk.worker.busy_with()
        if run is not None:
            told = f"the run {run.name} is in progress. Merge when it is over or paused."
            return [Check(Level.ERROR, "Machine", told)]
        if self._desk.lab.snapshot().working:
            told = "a merge is in progress. Wait for it, or cancel it."
            return [Check(Level.ERROR, "Machine", told)]
        return []


def _twice(models: Mapping[str, ModelChoice]) -> list[Check]:
    """Models that are chosen twice."""
    roles: dict[str, list[str]] = {}
    for role, model in models.items():
        roles.setdefault(model.title, []).append(role)
    return [
        Check(Level.WARNING, "Models", f"{title} is chosen as {listed(map(_role_words, taken))}.")
        for title, taken in roles.items()
        if len(taken) > 1
    ]


def _role_words(role: str) -> str:
    """What the form calls a role."""
    if role in ROLES:
        return f"Model {role.upper()}"
    return "Base" if role == BASE else f"number {int(role[1:])} of Models"
