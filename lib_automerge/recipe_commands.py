"""What `convert` and `merge` do with recipes in foreign formats."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib_automerge import DATA_FOLDER
from lib_automerge.app import recipes
from lib_automerge.app.recipes import Converted, Source
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import StorageError
from lib_automerge.merge.lookup import ENDINGS

_DATA = Path(DATA_FOLDER)
_FILES = (*ENDINGS, ".json", ".yaml", ".yml", ".mecha", ".txt", ".csv")
"""What ends so is meant as a file, also if there is none."""


def whole(options: argparse.Namespace) -> Recipe:
    """The recipe that `merge` merges; says on stderr what was noted.

    Raises:
        AutomergeError: it cannot be read, or a model cannot be found.
    """
    source = recipes.read_path(options.recipe, options.order, options.architecture, options.number)
    recipe, notes = recipes.recipe(
        source,
        architecture=options.architecture,
        models=options.models,
        lossy=options.lossy,
        data=_DATA,
        told=_say,
    )
    for note in notes:
        _say(f"Note: {note}.")
    return recipe


def convert(options: argparse.Namespace) -> Converted:
    """Convert, and write the file that `--output` names; says on stderr what was read and noted.

    Raises:
        AutomergeError: it cannot be read, found, said or written.
    """
    converted = recipes.convert(
        _source(options),
        options.target,
        architecture=options.architecture,
        models=options.models,
        lossy=options.lossy,
        data=_DATA,
        name=options.name,
        told=_say,
    )
    _say(f"Read: {converted.dialect}.")
    for note in converted.notes:
        _say(f"Note: {note}.")
    if options.output is not None:
        _write(options.output, converted.text)
    return converted


def _source(options: argparse.Namespace) -> Source:
    told = options.order, options.architecture, options.number
    if options.recipe == "-":
        return recipes.read_text(sys.stdin.read(), *told)
    path = Path(options.recipe)
    if _is_file(path) or path.suffix.lower() in _FILES:
        return recipes.read_path(path, *told)
    return recipes.read_text(options.recipe, *told)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long text is no name that a file could have
        return False


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise StorageError(
            f"the file exists already: {path}. Choose another name or move it away."
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}. Choose another folder."
        ) from error


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
