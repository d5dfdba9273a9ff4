"""Rewards that users write: every `*.py` in the plug-in folder, once they allow it.

A file is a reward of the file's name. It has one function

    def score(image, prompt): ...           # a Pillow image in RGB, a text; returns a number

or one class of its own with `score(self, images, prompts)`, which returns one number per image;
annotated keywords of its constructor are its options, and it may have `read`, `place`, `warnings`,
`close` and `fingerprint` as `lib_automerge.reward.base.Reward` has them. The first line of the
file's docstring is shown to users. Names that begin with an underscore are left alone: modules for
the plug-ins' own use (`from . import _shared`).

A plug-in is code that runs with all rights of this process. So nothing of it is read before the
user has said that plug-ins may be loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from lib_automerge.errors import AutomergeError, ConfigError, RewardError
from lib_automerge.reward import registry
from lib_automerge.reward.base import Reward, check_lengths, reason
from lib_automerge.reward.files import FOLDER, sha256_of_file
from lib_automerge.reward.rgb import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

PLACE = f"{FOLDER}/plugins"
"""The plug-in folder, below that of the user's data."""

PACKAGE = "automerge_plugins"
"""Of which the files of the folder are modules."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SAME_NUMBERS = ("device", "batch_size")
"""Options that do not change scores, and so are not in the fingerprint."""

_loaded: set[str] = set()


class Plugins(msgspec.Struct, frozen=True):
    """What was loaded: names in the registry, and sentences for the user about what was not."""

    names: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def load(folder: Path, *, allowed: bool) -> Plugins:
    """Register the plug-ins of a folder in place of those that were loaded before.

    A plug-in that does not work is registered too: it is listed as not ready, with the reason.

    Args:
        folder: with the files; need not exist.
        allowed: whether the user has allowed to run them.
    """
    for name in _loaded:
        registry.forget(name)
    _loaded.clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    if not allowed:
        hint = (
            f"plug-ins are not allowed, {len(paths)} were not loaded from {folder}. Allow them "
            "in the settings or with --allow-plugins if you trust them."
        )
        return Plugins(told=(hint,) if paths else ())
    sys.modules[PACKAGE] = package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    told = []
    for path in paths:
        try:
            trouble = _register(path)
        except ConfigError as error:
            trouble = f"plug-in {path.name} was not loaded: {error}"
        else:
            _loaded.add(path.stem)
        told += [trouble] if trouble else []
    return Plugins(tuple(sorted(_loaded)), tuple(told))


class PluginReward:
    """A user's function or object, held to the contract of `Reward`."""

    def __init__(self, name: str, fingerprint: str, path: Path, judge: object) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._path = path
        self._judge: Any = judge

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`; see `lib_automerge.reward.base.Reward.score`."""
        check_lengths(images, prompts)
        if not images:
            return []
        shown = [as_rgb(image) for image in images]
        given = self._guarded(lambda: _listed(self._judge.score(shown, list(prompts))))
        try:
            scores = [float(score) for score in given]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._wrong(f"it gave {str(given)[:100]}: {reason(error)}") from error
        if len(scores) != len(images):
            raise self._wrong(f"it gave {len(scores)} scores for {len(images)} images")
        if not all(math.isfinite(score) for score in scores):
            raise self._wrong(f"it gave no number: {scores}")
        return scores

    def read(self, prompts: Sequence[str]) -> None:
        """Hand on; see `lib_automerge.reward.base.Reward.read`."""
        if hasattr(self._judge, "read_prompts"):
            self._guarded(self._judge.read_prompts, list(prompts))

    def place(self, device: str) -> None:
        """Hand on; see `lib_automerge.reward.base.Reward.place`."""
        if hasattr(self._judge, "place"):
            self._guarded(self._judge.place, device)

    def warnings(self) -> list[str]:
        """The plug-in's; see `lib_automerge.reward.base.Reward.warnings`."""
        if not hasattr(self._judge, "warnings"):
            return []
        said: list[str] = self._guarded(lambda: [str(s) for s in self._judge.warnings() or ()])
        return said

    def close(self) -> None:
        """Hand on; see `lib_automerge.reward.base.Reward.close`."""
        if hasattr(self._judge, "close"):
            self._guarded(self._judge.close)
        self._judge = _Closed(self.name)

    def _guarded(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except AutomergeError:
            raise
        except (Exception, SystemExit) as error:
            raise self._wrong(f"{type(error).__name__}: {reason(error)}") from error

    def _wrong(self, what: str) -> RewardError:
        return RewardError(f"the plug-in {self.name!r} failed: {what}. Correct {self._path}.")


def _listed(scores: Iterable[Any]) -> list[Any]:
    """The scores of a plug-in, all computed.

    Raises:
        TypeError: they are in no order, or none at all.
    """
    if isinstance(scores, Mapping | Set | str | bytes):
        raise TypeError(f"a list of numbers was expected, not {str(scores)[:100]}")
    return list(scores)


class _ByFunction:
    """A function of one image and one prompt as a judge of many."""

    def __init__(self, function: Callable[[Image, str], float]) -> None:
        self._function = function

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        return [self._function(i, p) for i, p in zip(images, prompts, strict=True)]


class _Closed:
    """What is left of a plug-in that was closed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def score(self, _images: Sequence[Image], _prompts: Sequence[str]) -> list[float]:
        raise RewardError(f"reward is closed: {self._name!r}. Create it again to score.")


class _BrokenError(Exception):
    """Why a plug-in cannot be used, as a sentence."""


def _register(path: Path) -> str:
    """Register a plug-in; or, if it does not work, its name with the reason, which is returned.

    Raises:
        ConfigError: its name is taken or is no name.
    """
    name = path.stem
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"not a name for a reward: {name!r}. Use lower-case letters, digits and underscores."
        )
    if name in registry.names():
        raise ConfigError(f"reward name is taken: {name!r}. Rename the file.")
    label, help_ = name.replace("_", " ").capitalize(), f"Your plug-in {path.name}."
    try:
        module = _run(path)
        help_ = _first_line(module) or help_
        judge = _judge(module)
        make = _maker(judge, path, _digest(path))
        registry.register(name, label=label, help=help_, options_of=judge)(make)
    except (AutomergeError, _BrokenError) as error:
        trouble = f"the plug-in {name!r} cannot be used: {error} Correct {path}."

        def refuse() -> None:
            raise RewardError(trouble)

        def make_nothing() -> Reward:
            raise RewardError(trouble)

        registry.register(name, label=label, help=help_, ready=refuse)(make_nothing)
        return trouble
    return ""


def _run(path: Path) -> ModuleType:
    """Run the file.

    Raises:
        _BrokenError: it failed.
    """
    name = f"{PACKAGE}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _BrokenError("it is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # where dataclasses and type hints look for it
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _BrokenError(f"{type(error).__name__}: {reason(error)}.") from error
    return module


def _judge(module: ModuleType) -> Callable[..., object]:
    """What makes the object that scores: the plug-in's class, or a wrapper of its function.

    Raises:
        _BrokenError: it has neither or both, or the function takes something else.
    """
    function: Any = vars(module).get("score")
    classes: list[type[object]] = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and callable(getattr(value, "score", None))
    ]
    found = len(classes) + int(callable(function))
    if found != 1:
        raise _BrokenError(
            f"it has {found} judges. Give it one function score(image, prompt), or one class with "
            "score(self, images, prompts)."
        )
    if classes:
        return classes[0]
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise _BrokenError("score must take an image and a prompt.") from error

    def by_function() -> object:
        return _ByFunction(function)

    return by_function


def _maker(judge: Callable[..., object], path: Path, digest: str) -> Callable[..., Reward]:
    def make(**options: object) -> Reward:
        parts = [path.stem, "plugin", digest[:16]]
        try:
            made = judge(**options)
            own = getattr(made, "fingerprint", None)
        except AutomergeError:
            raise
        except (Exception, SystemExit) as error:
            raise RewardError(
                f"the plug-in {path.stem!r} cannot be made: {type(error).__name__}: "
                f"{reason(error)}. Correct {path}."
            ) from error
        parts += [f"{k}={_told(v)}" for k, v in sorted(options.items()) if k not in _SAME_NUMBERS]
        if own is not None:
            parts.append(str(own))
        return PluginReward(path.stem, ":".join(parts), path, made)

    return make


def _digest(path: Path) -> str:
    """SHA-256 of a plug-in and, if there are any, of the modules that all may use."""
    shared = sorted(path.parent.glob("_*.py"))
    digests = [sha256_of_file(part) for part in (path, *shared)]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if shared else digests[0]


def _told(value: object) -> str:
    """An option in a fingerprint: a file counts by what is in it."""
    if isinstance(value, Path) and value.is_file():
        return sha256_of_file(value)[:16]
    return str(value)


def _first_line(module: ModuleType) -> str:
    lines = (module.__doc__ or "").strip().splitlines()
    return lines[0].strip() if lines else ""
