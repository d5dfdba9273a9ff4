"""What the commands do that look at checkpoints and change them: inspect, distance and edit."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.recipe import Recipe, read_recipe
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.merge import inspection
from lib_automerge.merge.findings import Comparison, Inspection
from lib_automerge.merge.pool import Matrix, Pool
from lib_automerge.study import pool_charts, shades
from lib_automerge.study.block_diagram import Diagram, block_diagram
from lib_automerge.study.formats import percent, two_digits
from lib_automerge.study.markup import Markup


def inspect_text(found: Sequence[Inspection], comparison: Comparison | None) -> str:
    """Return what one or several files hold, and how two of them differ, for a terminal."""
    if len(found) == 1:
        return inspection.format_inspection(found[0])
    table = inspection.format_table(found)
    if comparison is None:
        return table
    return f"{table}\n\n{inspection.format_comparison(comparison)}"


def inspect_drawing(
    found: Sequence[Inspection], comparison: Comparison | None, recipe_path: Path | None
) -> Markup:
    """Return the blocks as SVG: a recipe's weights, two models' distances, or one model's sizes.

    Raises:
        ConfigError: there is nothing to show on one diagram, or the recipe is for another family.
    """
    first = found[0]
    architecture = architectures.get(first.architecture)
    if recipe_path is not None:
        recipe = read_recipe(recipe_path)
        if recipe.architecture != first.architecture:
            raise ConfigError(
                f"the recipe is for {recipe.architecture}, {Path(first.file).name} is "
                f"{first.architecture}. Give a file of the recipe's family."
            )
        return block_diagram("blocks", architecture, _of_weights(architecture, recipe, first))
    if comparison is not None and comparison.blocks:
        return block_diagram("blocks", architecture, _of_distances(architecture, comparison, first))
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} files have no common diagram. Give one file, two of one family, or "
            "--recipe FILE with the weights to show."
        )
    return block_diagram("blocks", architecture, _of_sizes(architecture, first))


def _sizes(found: Inspection) -> dict[str, int]:
    return {part.name: part.parameters for part in found.blocks}


def _of_weights(architecture: Architecture, recipe: Recipe, found: Inspection) -> Diagram:
    sizes = _sizes(found)
    names = ", ".join(f"{role.upper()}: {model.name}" for role, model in recipe.models.items())
    return Diagram(
        title=f"Weight of every block, {architecture.label}",
        subtitle=f"{recipe.method}, {names}",
        measure="weight",
        values={block: recipe.weights.get(block, 0.0) for block in sizes},
        sizes=sizes,
        shades=shades.of_weights(),
        ends=("0: A", "1: B"),
        text=lambda value: f"{value:.2f}",
    )


def _of_distances(architecture: Architecture, comparison: Comparison, found: Inspection) -> Diagram:
    values = {b.name: b.distance for b in comparison.blocks if math.isfinite(b.distance)}
    largest = max(values.values(), default=0.0)
    return Diagram(
        title=f"How far two models are apart, {architecture.label}",
        subtitle=f"{Path(comparison.file_a).name} and {Path(comparison.file_b).name}",
        measure="distance, relative to A",
        values=values,
        sizes=_sizes(found),
        shades=shades.of_sizes(largest),
        ends=("0: equal", two_digits(largest)),
        text=lambda value: two_digits(value) if value else "equal",
    )


def _of_sizes(architecture: Architecture, found: Inspection) -> Diagram:
    sizes: Mapping[str, int] = _sizes(found)
    denoiser = sum(sizes.get(block, 0) for block in architecture.parameters) or 1
    values = {b: size / denoiser for b, size in sizes.items() if b in architecture.parameters}
    largest = max(values.values(), default=0.0)
    return Diagram(
        title=f"Blocks of {architecture.label}",
        subtitle=f"{Path(found.file).name}, {denoiser:,} parameters in the {architecture.denoiser}",
        measure="share of the parameters",
        values=values,
        sizes=sizes,
        shades=shades.of_sizes(largest),
        ends=("0", percent(largest)),
        text=percent,
    )


@contextmanager
def drawings_of_pool(folder: Path | None) -> Iterator[dict[Path, Callable[[Pool], Markup]]]:
    """Yield the files to draw in a folder with what draws them; without a folder, none.

    The folder is made at once, so that what is wrong with it is told before files are read for
    minutes, and goes again if an error leaves nothing in it.

    Raises:
        StorageError: one of them exists already, or the folder cannot be made.
    """
    if folder is None:
        yield {}
        return
    drawings: dict[Path, Callable[[Pool], Markup]] = {
        folder / "tree.svg": _tree,
        folder / "map.svg": _map,
        folder / "pairs.svg": _pairs,
    }
    there = next((path for path in drawings if path.exists()), None)
    if there is not None:
        raise StorageError(f"the file exists already: {there}. Choose another folder.")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _make(folder)
        yield drawings
    except BaseException:
        for path in made:
            with suppress(OSError):  # it is not empty, or was never made
                path.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another one."
        ) from error


def _titled(found: Pool) -> tuple[str, str, list[str], Matrix]:
    """A drawing's id and title, and the names and distances of the denoisers."""
    name, main = next(iter(found.components.items()))
    label = architectures.get(found.architecture).label
    names = _distinct(found.files)
    return "pool", f"{len(names)} models of {label}: {name}", names, main.l2


def _distinct(files: Sequence[Path]) -> list[str]:
    """The files' names without endings; with their folders where names are the same."""
    names = [path.stem for path in files]
    return [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, files, strict=True)
    ]


def _tree(found: Pool) -> Markup:
    return pool_charts.tree_chart(*_titled(found))


def _map(found: Pool) -> Markup:
    return pool_charts.map_chart(*_titled(found), base=found.based)


def _pairs(found: Pool) -> Markup:
    return pool_charts.matrix_chart(*_titled(found))


def read_so_far() -> Callable[[int, int], None] | None:
    """Return a line on stderr that tells how much was read; None if no one watches it."""
    if not sys.stderr.isatty():
        return None
    begun = time.monotonic()

    def tell(done: int, total: int) -> None:
        speed = done / max(time.monotonic() - begun, 1e-6)
        text = f"\r{done / total:5.0%} of {total / 1e9:.1f} GB, {speed / 1e6:.0f} MB/s"
        sys.stderr.write(text + ("\n" if done == total else ""))

    return tell


def write_new(path: Path, content: str) -> Path:
    """Write a text file that must not exist yet.

    Raises:
        StorageError: it exists, or it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError as error:
        raise StorageError(
            f"the file exists already: {path}. Choose another name or move it away."
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}. Check the folder and its permissions."
        ) from error
    return path
