"""Payload sets: named lists of payloads, one JSON file each, shipped or the user's own.

A set's name is written in its file; the file's name is only derived from it. Sets are looked up by
name among the files that exist, so no name from outside becomes a path.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from lib_automerge.domain.keylists import DATA
from lib_automerge.domain.payload import Payload, named
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.study.holding import replace_file

DEMO = "Demo (64)"
"""The set of the built-in demo's prompts, which are small pictures of 64 pixels."""

MAX_BYTES = 4 << 20
MAX_NAME = 60


class PayloadSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a file: prompts with their settings. `note` says what the set is for."""

    name: str
    payloads: tuple[Payload, ...]
    note: str = ""
    format: int = 1


class PayloadSets:
    """The sets in a folder of the user's, and those that come with Automerge.

    Args:
        folder: the user's; made when the first set is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All names, those that come with Automerge first; the user's own are sorted."""
        own = sorted(self._own(), key=str.casefold)
        return [*_shipped(), *(name for name in own if name not in _shipped())]

    def get(self, name: str) -> PayloadSet:
        """The set with this name.

        Raises:
            ConfigError: there is none, or its file is not a payload set.
        """
        shipped = _shipped().get(name)
        if shipped is not None:
            return shipped
        path = self._own().get(name)
        if path is None:
            raise ConfigError(
                f"there is no payload set {name!r}. Known: {', '.join(self.names())}."
            )
        return read_set(path)

    def save(self, found: PayloadSet) -> Path:
        """Write a set under its name; one of the user's of that name is replaced.

        Raises:
            ConfigError: the name is empty, too long or that of a set that comes with Automerge, or
                a payload is wrong.
            StorageError: the file cannot be written; the old one is still there.
        """
        name = " ".join(found.name.split())
        if not name or len(name) > MAX_NAME:
            raise ConfigError(
                f"the name of the set has {len(name)} characters. Use 1 to {MAX_NAME}."
            )
        if name in _shipped():
            raise ConfigError(
                f"the set {name!r} comes with Automerge. Save yours under another name."
            )
        found = msgspec.structs.replace(found, name=name, payloads=named(found.payloads))
        path = self._own().get(name) or self._free(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror}. Check the folder's permissions and free "
                "space."
            ) from error
        return path

    def delete(self, name: str) -> None:
        """Remove one of the user's sets; its file is kept beside it as `.deleted`.

        Raises:
            ConfigError: the user has no such set.
            StorageError: the file cannot be renamed.
        """
        path = self._own().get(name)
        if path is None:
            raise ConfigError(
                f"you have no payload set {name!r}. Sets that come with Automerge stay."
            )
        try:
            path.replace(path.with_suffix(".deleted"))
        except OSError as error:
            raise StorageError(
                f"cannot rename {path}: {error.strerror}. Close programs that have it open and "
                "check the folder's permissions."
            ) from error

    def _own(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.json")):
            try:
                found[read_set(path).name] = path
            except ConfigError:
                # still offered, so that choosing it tells what is wrong
                found[path.stem] = path
        return found

    def _free(self, name: str) -> Path:
        stem = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "set"
        number = 1
        path = self.folder / f"{stem}.json"
        while path.exists():
            number += 1
            path = self.folder / f"{stem}-{number}.json"
        return path


def read_set(path: Path) -> PayloadSet:
    """Read a payload set, or a bare list of payloads, which is then named after its file.

    Raises:
        ConfigError: it cannot be read or is neither; the text names the field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path.name} is larger than {MAX_BYTES >> 20} MB. Give a file of payloads."
            )
        data = path.read_bytes()
        if data.lstrip().startswith(b"["):
            payloads = msgspec.json.decode(data, type=tuple[Payload, ...])
            return PayloadSet(name=path.stem, payloads=named(payloads))
        found = msgspec.json.decode(data, type=PayloadSet)
        return msgspec.structs.replace(found, payloads=named(found.payloads))
    except OSError as error:
        raise ConfigError(f"cannot read {path.name}: {error.strerror}. Check the file.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path.name} is not a payload set: {error}. Correct it, or remove the file."
        ) from error


@cache
def _shipped() -> dict[str, PayloadSet]:
    files = sorted((DATA / "payload_sets").glob("*.json"))
    found = [msgspec.json.decode(path.read_bytes(), type=PayloadSet) for path in files]
    demo = (DATA / "demo" / "payloads.json").read_bytes()
    payloads = msgspec.json.decode(demo, type=tuple[Payload, ...])
    note = "What the models of the demo can draw; judge it with the demo's reward."
    found.append(PayloadSet(name=DEMO, payloads=payloads, note=note))
    return {one.name: one for one in found}
