"""What each reward needs and whether it is there: for lists, pickers and the Download button."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.errors import AutomergeError
from lib_automerge.reward import registry
from lib_automerge.reward.files import WeightFile, find


class FileStatus(msgspec.Struct, frozen=True):
    """A file that a reward needs, or would download, and where it was found (None: nowhere)."""

    file: WeightFile
    found: str | None


class RewardStatus(msgspec.Struct, frozen=True):
    """Whether a reward can be made now.

    Attributes:
        name: its name in the registry.
        label: for users.
        help: one sentence: what it judges and what it needs.
        ready: all that it needs is there; nothing was loaded, so a file may still be damaged.
        told: one sentence for users: that it is ready, or what it lacks.
        files: one for each option that takes a published file.
    """

    name: str
    label: str
    help: str
    ready: bool
    told: str
    files: tuple[FileStatus, ...]


def status(
    name: str, options: Mapping[str, object] | None = None, *, folders: Sequence[Path] = ()
) -> RewardStatus:
    """Look for what a reward needs; loads nothing and reads no file.

    Args:
        name: one of `registry.names()`.
        options: those it is to be made with; a file that they name is not looked up.
        folders: models folders.

    Raises:
        ConfigError: no reward has that name.
    """
    info = registry.describe(name)
    given = options or {}
    try:
        told, ready = registry.readiness(name, given, folders=folders), True
    except AutomergeError as error:
        told, ready = str(error), False
    files = []
    for option in info.options:
        alternatives = info.alternatives(option.name)
        if alternatives:
            named = given.get(option.name)
            path = find(alternatives, folders) if named is None else Path(str(named)).expanduser()
            found = str(path) if path is not None and path.is_file() else None
            files.append(FileStatus(alternatives[0], found))
    return RewardStatus(info.name, info.label, info.help, ready, told, tuple(files))


def to_download(
    name: str, folders: Sequence[Path], options: Mapping[str, object] | None = None
) -> list[WeightFile]:
    """The files that a reward lacks if it is made with these options, in the order of them.

    Raises:
        ConfigError: no reward has that name.
    """
    return [
        file.file for file in status(name, options, folders=folders).files if file.found is None
    ]
