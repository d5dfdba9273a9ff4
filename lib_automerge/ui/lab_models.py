"""Which of the offered models a recipe means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain.dialects.sketch import Hint, model_name
from lib_automerge.errors import AutomergeError
from lib_automerge.merge import lookup

Known = Callable[[ModelChoice], str]
"""The SHA-256 of an offered model; empty if it is not known. Reads no file."""


def offered(
    hint: Hint, models: Sequence[ModelChoice], known: Known
) -> tuple[ModelChoice | None, str]:
    """The offered model that a recipe names, and a sentence if that is not certain.

    A known SHA-256 decides; then the path, A1111's old hash, the name. A model with another SHA-256
    than the recipe's is never the one.

    Args:
        hint: how the recipe names it.
        models: what is offered.
        known: their SHA-256.
    """
    others = set()
    for model in models:
        digest = known(model)
        if hint.sha256 and digest:
            if digest.startswith(hint.sha256):
                return model, ""
            others.add(model.path)
    possible = [model for model in models if model.path not in others]
    for model in possible:
        if hint.path and model.path == hint.path:
            return model, ""
    if hint.legacy_hash and not hint.sha256:
        alike = [model for model in possible if _legacy(model) == hint.legacy_hash]
        if len(alike) == 1:
            return alike[0], f"{alike[0].title} was found by its old hash alone."
    named = [model for model in possible if hint.name and _name(model) == hint.name]
    if len(named) == 1:
        return named[0], "" if hint.sha256 else f"{named[0].title} was found by its name alone."
    if len(named) > 1:
        return None, f"{len(named)} models are called {hint.name}."
    if any(_name(model) == hint.name for model in models if model.path in others):
        return None, f"The {hint.name} here has another content."
    return None, ""


def _name(model: ModelChoice) -> str:
    return model_name(Path(model.path).name)


def _legacy(model: ModelChoice) -> str:
    try:
        return lookup.legacy_hash(Path(model.path))
    except AutomergeError:
        # a file that cannot be read is not found here, and said when it is chosen
        return ""
