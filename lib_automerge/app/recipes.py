"""Recipes in and out: from a file, a checkpoint or a pasted text, in any dialect, to any other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.detection import detect
from lib_automerge.domain.dialects import catalogue, metadata, tables
from lib_automerge.domain.dialects.catalogue import Reading
from lib_automerge.domain.dialects.sketch import Hint, Sketch, decided, method_of, recipe_of
from lib_automerge.domain.dialects.supermerger_keys import PerKey, UnsaidError
from lib_automerge.domain.recipe import Recipe, policies, primary, recipe_json
from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge import lookup
from lib_automerge.merge.containers import container, read_safetensors_header
from lib_automerge.merge.lab.catalogue import METHODS
from lib_automerge.merge.readers import read_header
from lib_automerge.reward import digests
from lib_automerge.study.formats import listed, size

MAX_BYTES = 64 << 20
"""No text that holds a recipe is larger; a table of scores has some kB."""

DIGESTS = "model-digests.json"
"""The file with the SHA-256 of models that were read, in the folder of the user's data."""

YAML = "yaml"
FORMATS = {YAML: "a recipe of Automerge as YAML", **catalogue.formats()}
"""Every format that can be written, with what it is."""
OWN = (YAML, "json")
"""Formats that say a recipe as it is."""

_YAML_RECIPE = re.compile(r"^(kind|method|models)\s*:", re.MULTILINE)


class Source(msgspec.Struct, frozen=True):
    """What was read, and the architecture of the checkpoint that held it."""

    reading: Reading
    architecture: str | None = None


class Converted(msgspec.Struct, frozen=True):
    """A text in another format.

    Attributes:
        dialect: what was read, in words.
        text: exactly what belongs in a file.
        notes: sentences about what was read, found, or given up.
    """

    dialect: str
    text: str
    notes: tuple[str, ...]


def read_path(
    path: Path,
    order: str | None = None,
    architecture: str | None = None,
    number: int | None = None,
) -> Source:
    """Read a recipe, or the metadata of a checkpoint.

    Args:
        path: of the file.
        order: of its list, where it must be told.
        architecture: a name, if it is known.
        number: of a merge in a history of several.

    Raises:
        StorageError: the file cannot be read.
        ModelError: it is a damaged checkpoint.
        ConfigError: it holds no recipe that can be read.
    """
    if path.suffix.lower() in lookup.ENDINGS:
        return _checkpoint(path, order)
    try:
        length = path.stat().st_size
        if length > MAX_BYTES:
            raise ConfigError(
                f"{path.name} has {size(length)}, which no recipe has. Give a recipe, a table of "
                "scores or a checkpoint."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not text. Give a recipe or a checkpoint.") from error
    return read_text(text, order, architecture, number)


def read_text(
    text: str,
    order: str | None = None,
    architecture: str | None = None,
    number: int | None = None,
) -> Source:
    """Read a pasted text in any dialect; see `read_path`.

    Raises:
        ConfigError: see `catalogue.read`.
    """
    if not text.lstrip().startswith("{") and _YAML_RECIPE.search(text):
        text = msgspec.json.encode(_yaml(text)).decode()
    return Source(catalogue.read(text, order, architecture, number))


def recipe(
    source: Source,
    *,
    architecture: str | None = None,
    models: Sequence[Path] = (),
    lossy: bool = False,
    data: Path | None = None,
    told: Callable[[str], None] = lambda _sentence: None,
) -> tuple[Recipe, tuple[str, ...]]:
    """The whole recipe of a source, and sentences about how it came about.

    Args:
        source: of `read_path` or `read_text`.
        architecture: if the text does not say it.
        models: folders in which its models are looked for; without any, paths stay as they are.
        lossy: give up what a recipe here cannot say.
        data: folder of the user's data, where the digests of models are kept; None keeps none.
        told: is called before a file is read in whole.

    Raises:
        ConfigError: it is no whole recipe, or says what a recipe here cannot.
        ModelError: a model is not in the folders, or several files could be it.
    """
    first = source.reading.found[0]
    if isinstance(first, Sketch):
        method_of(first)
    hints = first.models if isinstance(first, Sketch) else metadata.hints(first)
    found = _found(hints, models, data, told) if models else lookup.Found({}, ())
    if isinstance(first, Recipe):
        whole = msgspec.structs.replace(first, models={**first.models, **found.models})
        return whole, found.notes
    if found.models and source.architecture is None:
        source = msgspec.structs.replace(
            source, architecture=_kind(found.models[primary(found.models)].path)
        )
    kind = decided(first, architecture, source.architecture)
    first, left_out = _by_block(first, kind, lossy=lossy)
    notes = (*first.notes, *_given_up(first, lossy=lossy), *left_out, *found.notes)
    return recipe_of(first, kind, found.models), notes


def convert(
    source: Source,
    target: str,
    *,
    architecture: str | None = None,
    models: Sequence[Path] = (),
    lossy: bool = False,
    name: str = "",
    data: Path | None = None,
    told: Callable[[str], None] = lambda _sentence: None,
) -> Converted:
    """Write what was read in another format.

    Args:
        source: of `read_path` or `read_text`.
        target: a name of `FORMATS`.
        architecture: if the text does not say it.
        models: folders in which its models are looked for.
        lossy: also if the other format cannot say all of it.
        name: of a preset.
        data: see `recipe`.
        told: is called before a file is read in whole.

    Raises:
        ConfigError: the format is unknown or cannot hold it; see also `recipe`.
        ModelError: see `recipe`.
    """
    if target != YAML:
        catalogue.check_format(target)
    dialect = source.reading.dialect
    if target == YAML or target in catalogue.RECIPES:
        whole, notes = recipe(
            source, architecture=architecture, models=models, lossy=lossy, data=data, told=told
        )
        whole = whole if target in OWN else with_weights(whole)
        notes += _check_lost(catalogue.lost_of(whole, target), target, lossy=lossy)
        if target not in (YAML, "json"):
            notes += _check_policies(whole, target, lossy=lossy)
        text = _as_yaml(whole) if target == YAML else catalogue.write(whole, target)
        return Converted(dialect, text, notes)
    if target in catalogue.TABLES:
        rows = source.reading.rows
        changed: tuple[str, ...] = ()
        for row in rows:
            lost = catalogue.lost(row.weights, target, None)
            changed = changed or _check_lost(lost, target, lossy=lossy)
        return Converted(dialect, catalogue.write_rows(rows, target), changed)
    lines, notes = [], ()
    for sketch in map(_weighted, source.reading.found):
        kind_of = _optional(sketch, architecture, source.architecture)
        if isinstance(sketch, Sketch):
            sketch, left_out = _by_block(sketch, kind_of, lossy=lossy)
            notes += left_out
        given = sketch.weights(kind_of) if isinstance(sketch, Sketch) else sketch.weights
        notes += _check_lost(catalogue.lost(given, target, kind_of), target, lossy=lossy)
        named = name or (sketch.name if isinstance(sketch, Sketch) else "")
        lines.append(catalogue.write_weights(given, target, kind_of, named))
    told_too = (n for s in source.reading.found if isinstance(s, Sketch) for n in s.notes)
    return Converted(dialect, "\n".join(lines) + "\n", tuple(dict.fromkeys((*told_too, *notes))))


def with_weights(whole: Recipe) -> Recipe:
    """The recipe with its weights by block, also if it gives them as a parameter of its method.

    Other tools know weights of blocks alone, and a recipe without weights is model A to them.
    """
    method = METHODS.get(whole.method)
    if method is None or method.weight is None or method.weight not in whole.parameters:
        return whole
    kind = architectures.get(whole.architecture)
    parameter = next(one for one in method.parameters if one.name == method.weight)
    unnamed = parameter.default if parameter.unnamed is None else parameter.unnamed
    others = {name: value for name, value in whole.parameters.items() if name != method.weight}
    weights = tables.by_block(whole.parameters[method.weight], kind, float(unnamed))
    return msgspec.structs.replace(whole, weights=weights, parameters=others)


def _weighted(found: Sketch | Recipe) -> Sketch | Recipe:
    """What a list of weights can be written of.

    Raises:
        ConfigError: the method has no weights by block.
    """
    if isinstance(found, Sketch):
        return found
    method = METHODS.get(found.method)
    if method is not None and method.weight is None:
        raise ConfigError(
            f"{method.label} has no weights by block, and a list holds nothing else. Convert it to "
            "a format that holds whole recipes."
        )
    return with_weights(found)


def _checkpoint(path: Path, order: str | None) -> Source:
    if container(path) != "safetensors":
        raise ConfigError(
            f"{path.name} is a pickled checkpoint, which holds no metadata. Give the recipe that "
            "it was made with."
        )
    header = read_safetensors_header(path)
    try:
        kind = detect(header).architecture
    except ModelError:
        kind = None
    try:
        return Source(catalogue.read_metadata(header.metadata, order), kind)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def _found(
    hints: Mapping[str, Hint],
    models: Sequence[Path],
    data: Path | None,
    told: Callable[[str], None],
) -> lookup.Found:
    """Find the models; what was read of them in an earlier search is not read again."""
    if data is not None:
        with suppress(OSError):
            data.mkdir(parents=True, exist_ok=True)
    with digests.kept_in(None if data is None else data / DIGESTS):
        return lookup.find(hints, models, told=told, kept=digests.of)


def _kind(path: str) -> str:
    return detect(read_header(Path(path))).architecture


def _optional(found: Sketch | Recipe, told: str | None, held: str | None) -> Architecture | None:
    """The architecture where it is known; a list alone can do without."""
    if isinstance(found, Recipe):
        return architectures.get(found.architecture)
    if told is None and held is None and len(found.architectures) != 1:
        return None
    return decided(found, told, held)


def _by_block(
    sketch: Sketch, architecture: Architecture | None, *, lossy: bool
) -> tuple[Sketch, tuple[str, ...]]:
    """The sketch without weights below the block, if they must and may be given up."""
    left_out: list[str] = []

    def whole(spread: Any) -> Any:
        if not isinstance(spread, PerKey):
            return spread
        try:
            spread.by_block(architecture)
        except UnsaidError as error:
            if not lossy:
                raise ConfigError(f"{error}. Leave that out with --lossy.") from error
            left_out.append(f"{error}: left out")
            return spread.base
        return spread

    parameters = {name: whole(value) for name, value in sketch.parameters.items()}
    found = msgspec.structs.replace(sketch, spread=whole(sketch.spread), parameters=parameters)
    return found, tuple(dict.fromkeys(left_out))


def _given_up(sketch: Sketch, *, lossy: bool) -> tuple[str, ...]:
    if not sketch.unsaid:
        return ()
    also = f"{sketch.dialect} also says {'; '.join(sketch.unsaid)}"
    if not lossy:
        raise ConfigError(f"{also}: no recipe here can. Leave that out with --lossy.")
    return (f"{also}: left out",)


def _check_lost(lost: dict[str, float], target: str, *, lossy: bool) -> tuple[str, ...]:
    if not lost:
        return ()
    pairs = listed([f"{block} {value:g}" for block, value in lost.items()])
    what = f"{target} has no place of its own for {pairs}"
    if not lossy:
        raise ConfigError(
            f"{what}: who reads it would merge with other weights. Choose another format, or give "
            "them up with --lossy."
        )
    return (f"{what}: given up",)


def _check_policies(whole: Recipe, target: str, *, lossy: bool) -> tuple[str, ...]:
    told = [f"{name} {value}" for name, value in policies(whole).items()]
    if not told:
        return ()
    what = f"{target} cannot say {listed(told)}"
    if not lossy:
        raise ConfigError(f"{what}. Use json or yaml, or leave that out with --lossy.")
    return (f"{what}: left out",)


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the recipe is not valid YAML: {' '.join(str(error).split())}. Correct it."
        ) from error


def _as_yaml(whole: Recipe) -> str:
    fields = msgspec.json.decode(recipe_json(whole))
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
