"""How a model came about: its recipe, with those of its inputs, down to files nobody here made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from lib_automerge.domain.recipe import Recipe, check
from lib_automerge.errors import ConfigError, StorageError


class Lineage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model by content, and what it was made of.

    Attributes:
        name: what it is called.
        sha256: of its file.
        recipe: it was made by; None for a file that was given.
        inputs: role in the recipe -> model.
        path: last known one of a file that was given.
    """

    name: str
    sha256: str
    recipe: Recipe | None = None
    inputs: dict[str, Lineage] = {}
    path: str = ""

    def models(self) -> Iterator[Lineage]:
        """All models of it, each once, inputs before what is made of them."""
        seen: set[str] = set()

        def walk(model: Lineage) -> Iterator[Lineage]:
            for part in model.inputs.values():
                yield from walk(part)
            if model.sha256 not in seen:
                seen.add(model.sha256)
                yield model

        return walk(self)


def lineage_json(lineage: Lineage) -> str:
    """The lineage as indented JSON."""
    content = {"format": 1, "kind": "automerge-lineage", "model": lineage}
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


class _File(msgspec.Struct, frozen=True):
    model: Lineage
    kind: str = ""
    format: int = 1


def read_lineage(path: Path) -> Lineage:
    """Read what `lineage_json` wrote.

    Raises:
        StorageError: the file cannot be read.
        ConfigError: it is something else, or of a newer format.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{path.name} does not tell how a model was made: {error}. Give recipes/whole.json of "
            "a chain."
        ) from error
    if found.kind != "automerge-lineage" or found.format != 1:
        raise ConfigError(
            f"{path.name} is of kind {found.kind!r}, format {found.format}. Give the file "
            "recipes/whole.json of a chain, or update Automerge."
        )
    for model in found.model.models():
        if model.recipe is not None:
            _check_inputs(model, check(model.recipe), path)
    return found.model


def _check_inputs(model: Lineage, recipe: Recipe, path: Path) -> None:
    for role, ref in recipe.models.items():
        part = model.inputs.get(role)
        if part is None or part.sha256 != ref.sha256:
            raise ConfigError(
                f"{path.name}: the input {role!r} of {model.name} is not told. The file is "
                "damaged; write it again with `resume` of the chain."
            )
