"""The commands that merge files: by a recipe, or straight from a list of models."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from lib_automerge.cli.parts import REBASIN_CACHE
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.merge.edits import Edits
from lib_automerge.merge.files import merge_files
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.budget import DEFAULT, parse_memory
from lib_automerge.merge.lab.files import LabOptions, is_lab
from lib_automerge.merge.lab.job import Progress
from lib_automerge.merge.lab.parameters import Parameter
from lib_automerge.merge.lab.recipes import recipe_for
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.run_commands import stop_flag


class Described(msgspec.Struct, frozen=True):
    """A method as the command `methods` shows it."""

    name: str
    label: str
    formula: str
    source: str
    takes: str
    parameters: tuple[Parameter, ...]


def merge(recipe: Recipe, options: argparse.Namespace) -> None:
    """Carry out a recipe and print the path of the file.

    Raises:
        AutomergeError: as `merge_files`.
    """
    given, line = _given(options), _Line(sys.stderr)
    output, dtype, edits = options.output, options.dtype, edits_of(options)
    if not is_lab(recipe):
        lab = LabOptions(**given) if given else None
        print(merge_files(recipe, output, dtype=dtype, lab=lab, edits=edits, tell=line.tell))
        return
    given.setdefault("cache", REBASIN_CACHE)
    given.setdefault("memory", DEFAULT)
    with stop_flag("Stopping the merge") as stopped:
        lab = LabOptions(**given, progress=line.show, cancelled=stopped, tell=line.tell)
        try:
            print(merge_files(recipe, output, dtype=dtype, lab=lab, edits=edits, tell=line.tell))
        finally:
            line.end()


def soup(options: argparse.Namespace) -> None:
    """Merge the models that the command line names; see `merge`."""
    merge(recipe_of(options.method, options.files, options.base, options.parameters), options)


def recipe_of(
    name: str, files: Sequence[Path], base: Path | None, parameters: Sequence[str]
) -> Recipe:
    """Return the recipe that the words of a command line stand for.

    Raises:
        ConfigError: the method, the number of models or the parameters are wrong.
        ModelError: the first model cannot be opened.
    """
    method = catalogue.get(name)
    catalogue.roles_for(method, len(files))
    if method.based != (base is not None):
        told = "needs --base FILE" if method.based else "takes no --base"
        raise ConfigError(f"{name} {told}: it takes {method.takes}.")
    first = files[0] if base is None else base
    given = dict(map(_parameter, parameters))
    with open_checkpoint(first) as opened:
        architecture = opened.detection.architecture
    refs = [_ref(path) for path in files]
    return recipe_for(
        name, refs, None if base is None else _ref(base), given, architecture=architecture
    )


def _ref(path: Path) -> ModelRef:
    return ModelRef(path.stem, path=str(path.absolute()))


def described(name: str | None) -> tuple[Described, ...]:
    """Return one method of the lab, or all.

    Raises:
        ConfigError: there is none of this name.
    """
    names = catalogue.names() if name is None else (name,)
    return tuple(
        Described(m.name, m.label, m.formula, m.source, m.takes, m.parameters)
        for m in map(catalogue.get, names)
    )


def in_words(method: Described) -> str:
    """Return a method as text for a terminal."""
    lines = [
        f"{method.name}: {method.label}",
        f"  {method.formula}",
        f"  takes   {method.takes}",
        f"  source  {method.source}",
    ]
    for parameter in method.parameters:
        lines.append(f"  {parameter.name:<11} {_values(parameter)}; default {_default(parameter)}")
        lines.append(f"              {parameter.help}")
    return "\n".join(lines)


def _values(parameter: Parameter) -> str:
    if parameter.choices:
        return " | ".join(parameter.choices)
    if parameter.low is None or parameter.high is None:
        return parameter.kind
    by_block = ", for all or by block" if parameter.per_block else ""
    return f"{parameter.kind}, {parameter.low:g} to {parameter.high:g}{by_block}"


def _default(parameter: Parameter) -> str:
    value = parameter.default
    return f"{value:g}" if isinstance(value, float) else str(value)


def edits_of(options: argparse.Namespace) -> Edits:
    """The components to change that a command line names."""
    return Edits(
        drop_ema=options.drop_ema,
        text_encoder=options.text_encoder,
        vae=options.vae,
        fix_positions=options.fix_positions,
    )


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the lab that were given."""
    found: dict[str, Any] = {}
    if options.memory is not None:
        found["memory"] = parse_memory(options.memory)
    if options.threads is not None:
        if options.threads < 1:
            raise ConfigError(f"--threads is {options.threads}. Give 1 or more.")
        found["threads"] = options.threads
    if options.on_mismatch is not None:
        found["on_mismatch"] = options.on_mismatch
    if options.on_nan is not None:
        found["zero_bad"] = options.on_nan == "zero"
    if options.resume is not None:
        found["resume"] = True
    if options.cache is not None:
        found["cache"] = options.cache
    return found


def _parameter(text: str) -> tuple[str, ParameterValue]:
    """Read `NAME=VALUE`: a number, true or false, a word, or `BLOCK:NUMBER,BLOCK:NUMBER`."""
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise ConfigError(f"--set {text!r} cannot be read. Write it as NAME=VALUE, like k=0.2.")
    if ":" not in value:
        return name, _plain(value)
    numbers: dict[str, float] = {}
    for part in value.split(","):
        block, _, number = part.partition(":")
        found = _plain(number)
        if isinstance(found, str | bool) or block in numbers:
            raise ConfigError(
                f"--set {text!r} cannot be read at {part!r}. Write it as "
                "NAME=BLOCK:NUMBER,BLOCK:NUMBER, each block once."
            )
        numbers[block] = found
    return name, numbers


def _plain(value: str) -> float | int | str | bool:
    if value in ("true", "false"):
        return value == "true"
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        return value


class _Line:
    """A line of a terminal that is rewritten; elsewhere only what must be told is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = 0.0
        self._length = 0

    def show(self, progress: Progress) -> None:
        """Show how far a merge is."""
        now = time.monotonic()
        if not self._live or (now - self._shown < 0.2 and progress.done < progress.total):
            return
        self._shown = now
        share = progress.done / progress.total if progress.total else 1.0
        bar = "#" * round(30 * share)
        left = progress.left
        end = "" if left is None else f"  {_duration(left)} left"
        doing = progress.note or f"{progress.rate / 1e6:.0f} MB/s"
        self._rewrite(f"[{bar:<30}] {share:4.0%}  {doing}{end}")

    def tell(self, sentence: str) -> None:
        """Write a sentence on a line of its own."""
        self.end()
        print(f"Note: {sentence}", file=self._stream)

    def end(self) -> None:
        """Leave the line as it is."""
        if self._length:
            print(file=self._stream)
        self._length = 0

    def _rewrite(self, text: str) -> None:
        print("\r" + text.ljust(self._length), end="", file=self._stream, flush=True)
        self._length = len(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
