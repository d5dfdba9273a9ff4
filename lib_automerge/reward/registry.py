"""Rewards by name: what there is, which options each takes, and how to make one.

A reward is registered as a *factory*, a function whose keyword parameters are the reward's options.
Their annotations and defaults are the single description of those options: `create` checks values
against them and `describe` reports them. A factory imports its model only when it is called, so
that listing rewards loads neither torch nor any weights.

An option for which a `WeightFile` is registered may be left out or be None: the file is then looked
up, and the factory is given the path where it was found.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from lib_automerge.domain.config import ENSEMBLE
from lib_automerge.errors import ConfigError, RewardError, unknown_name
from lib_automerge.reward.base import Reward
from lib_automerge.reward.digests import kept_in
from lib_automerge.reward.files import WeightFile, check, file_of_digests, find, missing

Factory = TypeVar("Factory", bound=Callable[..., Reward])

_KINDS: Mapping[object, str] = {
    Path: "path",
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
}


class Option(msgspec.Struct, frozen=True):
    """One option of a reward.

    Attributes:
        name: Keyword for `create`.
        kind: "path", "text", "true or false", "whole number" or "number".
        required: True if the option has no default.
        nullable: True if None is a value, which then means "let the reward choose".
        default: The default; None as well if `required`.
    """

    name: str
    kind: str
    required: bool
    nullable: bool
    default: object = None


class RewardInfo(msgspec.Struct, frozen=True):
    """What a user needs to know to choose a reward: its label, one sentence of help, options.

    `files` are what its options need, in the order of preference; none if it brings its weights.
    `keep_scores`: equal fingerprints mean equal scores for sure, and the model costs enough for
    scores to be kept on disk.
    """

    name: str
    label: str
    help: str
    options: tuple[Option, ...]
    files: tuple[WeightFile, ...] = ()
    keep_scores: bool = True

    def alternatives(self, option: str) -> tuple[WeightFile, ...]:
        """The files of which the option takes any, the preferred one first."""
        return tuple(file for file in self.files if file.option == option)


class _Entry(msgspec.Struct, frozen=True):
    info: RewardInfo
    factory: Callable[..., Reward]
    ready: Callable[[], None]


_entries: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    label: str,
    help: str,
    files: Sequence[WeightFile] = (),
    keep_scores: bool = True,
    ready: Callable[[], None] = lambda: None,
    options_of: Callable[..., object] | None = None,
) -> Callable[[Factory], Factory]:
    """Make a factory known as `name`.

    Args:
        name: Key for `create` and for run configurations.
        label: Name shown to users.
        help: One sentence: what it judges and what it needs.
        files: What its options need; each names an option annotated Path.
        keep_scores: Whether its scores are kept on disk; see `RewardInfo`.
        ready: Raises ConfigError or RewardError if the reward cannot be made here whatever its
            options; asked by `readiness` and `create`.
        options_of: The function or class whose keywords are the options; None for the factory.

    Returns:
        A decorator that returns the factory unchanged.

    Raises:
        ConfigError: The name is taken, or (when decorating) a parameter cannot be an option.
    """
    if name in _entries or name == ENSEMBLE:
        raise ConfigError(f"reward name is taken: {name!r}. Choose another name.")

    def decorate(factory: Factory) -> Factory:
        info = RewardInfo(
            name=name,
            label=label,
            help=help,
            options=_options_of(name, options_of or factory, files),
            files=tuple(files),
            keep_scores=keep_scores,
        )
        _entries[name] = _Entry(info=info, factory=factory, ready=ready)
        return factory

    return decorate


def forget(name: str) -> None:
    """Take a reward back that was registered. Those that were made of it are not affected."""
    _entries.pop(name, None)


def names() -> list[str]:
    """Return the names of all registered rewards, sorted."""
    return sorted(_entries)


def describe(name: str) -> RewardInfo:
    """Return the label, help and options of the reward `name`.

    Raises:
        ConfigError: No reward has that name.
    """
    return _entry(name).info


def paths(name: str) -> tuple[str, ...]:
    """Return the options of a reward that are files; none for a name that is not known."""
    if name not in _entries:
        return ()
    return tuple(o.name for o in _entries[name].info.options if o.kind == "path")


def create(name: str, /, *, folders: Sequence[Path] = (), **options: object) -> Reward:
    """Make the reward `name` and load its weights.

    Args:
        name: One of `names()`.
        folders: Models folders, in which files that no option names are looked for first.
        **options: Values for the options that `describe(name)` lists. Paths may be strings; a
            leading `~` is expanded.

    Raises:
        ConfigError: No reward has that name, or an option is unknown, missing or of a wrong type.
        RewardError: A file is not there or is not what its name says, or the reward could not be
            loaded.
    """
    entry = _entry(name)
    entry.ready()
    values = _located(entry.info, _values(name, options), folders)
    with kept_in(file_of_digests(folders)):
        for file in entry.info.files:
            path = values[file.option]
            if isinstance(path, Path):
                check(file, path)
        return entry.factory(**values)


def from_text(name: str, texts: Mapping[str, str]) -> dict[str, object]:
    """Read values for the options of a reward as a person writes them: "4", "true", "~/file.pt".

    Raises:
        ConfigError: no reward has that name, or an option is unknown or not written as its kind is.
    """
    known = {option.name: option for option in _entry(name).info.options}
    values: dict[str, object] = {}
    for given, text in texts.items():
        if given not in known:
            raise ConfigError(_unknown_option(name, given, known))
        kind = known[given].kind
        value: object = text
        with contextlib.suppress(ValueError):
            if kind == "whole number":
                value = int(text)
            elif kind == "number":
                value = float(text)
        if kind == "true or false":
            value = {"true": True, "false": False}.get(text.lower(), text)
        values[given] = _checked(name, known[given], value)
    return values


def readiness(name: str, options: Mapping[str, object], *, folders: Sequence[Path] = ()) -> str:
    """Say that a reward can be made with these options; loads nothing.

    Raises:
        ConfigError: as `create`.
        RewardError: a file that it needs does not exist.
    """
    info = _entry(name).info
    _entry(name).ready()
    _located(info, _values(name, options), folders)
    return f"{info.label} is ready."


def _located(
    info: RewardInfo, values: Mapping[str, object], folders: Sequence[Path]
) -> dict[str, object]:
    """The options with every file looked up that they leave open.

    Raises:
        RewardError: a file is not there.
    """
    found = dict(values)
    for option in info.options:
        value = found.get(option.name)
        files = info.alternatives(option.name)
        if value is None and files:
            found[option.name] = find(files, folders)
            if found[option.name] is None:
                raise RewardError(missing(info.label, info.name, files, folders))
        elif isinstance(value, Path) and not (value.is_file() if files else value.exists()):
            get = f"Get {files[0]} from {files[0].address}" if files else "Correct the path"
            raise RewardError(
                f"{info.label} needs its {option.name}: there is no file {value}. {get}, or choose "
                "another file."
            )
    return found


def _values(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """The options, checked and converted; raises as `create`."""
    known = {option.name: option for option in _entry(name).info.options}
    for given in options:
        if given not in known:
            raise ConfigError(_unknown_option(name, given, known))
    for option in known.values():
        if option.required and option.name not in options:
            raise ConfigError(
                f"reward {name!r} needs the option {option.name!r} ({option.kind}): "
                "it was not given. Add it."
            )
    return {given: _checked(name, known[given], value) for given, value in options.items()}


def _entry(name: str) -> _Entry:
    if name not in _entries:
        raise ConfigError(unknown_name("reward", name, _entries))
    return _entries[name]


def _unknown_option(reward: str, given: str, known: Mapping[str, Option]) -> str:
    if not known:
        return f"reward {reward!r} takes no options: {given!r}. Remove it."
    return unknown_name(f"option of reward {reward!r}", given, known)


def _options_of(
    reward: str, function: Callable[..., object], files: Sequence[WeightFile]
) -> tuple[Option, ...]:
    constructor = getattr(function, "__init__") if isinstance(function, type) else function  # noqa: B009
    try:
        hints = get_type_hints(constructor)
    except NameError as error:
        raise ConfigError(
            f"options of reward {reward!r} cannot be read: {error}. Correct the annotation."
        ) from error
    options = {
        parameter.name: _option(reward, parameter, hints.get(parameter.name))
        for parameter in inspect.signature(function).parameters.values()
    }
    for file in files:
        option = options.get(file.option)
        if option is None or option.kind != "path":
            raise ConfigError(
                f"file is of no option of reward {reward!r}: {file.option!r}. "
                "Name one that is annotated Path."
            )
        options[file.option] = Option(file.option, "path", required=False, nullable=True)
    return tuple(options.values())


def _option(reward: str, parameter: inspect.Parameter, hint: object) -> Option:
    is_union = get_origin(hint) in (Union, types.UnionType)
    members = get_args(hint) if is_union else (hint,)
    kinds = [_KINDS.get(member) for member in members if member is not type(None)]
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    kind = kinds[0] if len(kinds) == 1 and parameter.kind in by_keyword else None
    if kind is None or parameter.name == "folders":
        raise ConfigError(
            f"parameter cannot be an option of reward {reward!r}: {parameter}. "
            "Make it a keyword annotated Path, str, bool, int or float, or one of these or None, "
            "and not called folders."
        )
    required = parameter.default is inspect.Parameter.empty
    return Option(
        name=parameter.name,
        kind=kind,
        required=required,
        nullable=type(None) in members,
        default=None if required else parameter.default,
    )


def _checked(reward: str, option: Option, value: object) -> object:
    """Return `value` as the type that the option's kind stands for.

    Raises:
        ConfigError: The value is of another type; only str to Path and int to float are converted.
    """
    if value is None and option.nullable:
        return None
    if option.kind == "path" and isinstance(value, str | Path):
        return Path(value).expanduser()
    if option.kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    accepted = {"text": str, "true or false": bool, "whole number": int}.get(option.kind)
    if accepted is not None and type(value) is accepted:
        return value
    raise ConfigError(
        f"option {option.name!r} of reward {reward!r} must be a {option.kind}: {value!r}. "
        "Correct the value."
    )
