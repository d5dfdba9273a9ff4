"""The runs of a user: found by id, listed, named, exported and put into the trash.

A run's id is its folder's name. Ids from outside are looked up among the folders that exist and
never become part of a path.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from lib_automerge.domain.run import RunState
from lib_automerge.errors import StorageError
from lib_automerge.study.store import RunFolder, RunManifest, list_runs, nearest

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""No characters that are mistaken for each other when an id is read aloud."""

LEFT_OUT = (".safetensors", ".ckpt", ".lock", ".partial")
"""What an export leaves out: checkpoints are gigabytes, and the recipe makes them again."""

MAX_LABEL = 80


class _Label(msgspec.Struct, frozen=True):
    name: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its files tell: its id, the user's name for it, and what was found in them.

    `manifest` and `state` are None if the run is damaged; `problem` then says how.
    """

    id: str
    name: str
    folder: RunFolder
    manifest: RunManifest | None
    state: RunState | None
    problem: str = ""


class Library:
    """The runs below a folder. Folding a journal is remembered until its files change.

    Args:
        root: holds a folder for each run, and `trash`; made when the first run is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, tuple[tuple[int, int], Entry]] = {}

    def new_folder(self) -> Path:
        """A folder that does not exist yet, named by the day and four random characters."""
        while True:
            mark = "".join(secrets.choice(ALPHABET) for _ in range(4))
            path = self.root / f"{time.strftime('%Y%m%d')}-{mark}"
            if not path.exists():
                return path

    def entries(self, known: Mapping[Path, RunState] | None = None) -> list[Entry]:
        """All runs, the newest first; `known` are states whose journals need not be read again.

        Raises:
            StorageError: the folder that holds the runs cannot be listed.
        """
        states = known or {}
        folders = self._folders()
        for gone in set(self._known).difference(f.path for f in folders):
            self._known.pop(gone, None)
        found = [self._entry(folder, states.get(folder.path)) for folder in folders]
        return sorted(found, key=_begun, reverse=True)

    def stamp(self, but: Path | None = None) -> str:
        """Changes with every run that is added, removed, renamed or written to, except `but`.

        Raises:
            StorageError: the folder that holds the runs cannot be listed.
        """
        stamps = [(f.path.name, f.path != but and f.stamp(), _label(f)) for f in self._folders()]
        return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]

    def find(self, run: str, state: RunState | None = None) -> Entry:
        """The run with this id; with its state given, its journal is not read again.

        Raises:
            StorageError: there is none, or the folder that holds the runs cannot be listed.
        """
        for folder in self._folders():
            if folder.path.name == run:
                return self._entry(folder, state)
        raise StorageError(f"there is no run {run!r}. It may have been moved to the trash.")

    def size(self, entry: Entry) -> int:
        """Bytes on disk; files that vanish meanwhile do not count."""
        total = 0
        for folder, _, names in os.walk(entry.folder.path):
            for name in names:
                with suppress(OSError):
                    total += Path(folder, name).stat().st_size
        return total

    def rename(self, run: str, name: str) -> None:
        """Give a run another name; its id and its files stay.

        Raises:
            StorageError: there is no such run, or the name could not be written.
        """
        entry = self.find(run)
        label = _Label(" ".join(name.split())[:MAX_LABEL])
        entry.folder.write("label.json", msgspec.json.encode(label))
        self._known.pop(entry.folder.path, None)

    def trash(self, run: str) -> Path:
        """Move a run to the trash folder; returns where it lies now.

        Raises:
            StorageError: there is no such run, some process works on it, or it cannot be moved.
        """
        entry = self.find(run)
        if entry.folder.running():
            raise StorageError(f"the run {run} is in progress. Stop it before you delete it.")
        trash = self.root / "trash"
        target = trash / run
        number = 1
        while target.exists():
            number += 1
            target = trash / f"{run}-{number}"
        try:
            trash.mkdir(exist_ok=True)
            entry.folder.path.rename(target)
        except OSError as error:
            raise StorageError(
                f"cannot move {entry.folder.path} to the trash: {error.strerror}. Close programs "
                "that have its files open."
            ) from error
        self._known.pop(entry.folder.path, None)
        return target

    def export(self, run: str, target: Path) -> Path:
        """Write a zip of the run's files, without checkpoints, to `target`; returns it.

        Raises:
            StorageError: there is no such run, or the file cannot be written.
        """
        entry = self.find(run)
        root = entry.folder.path
        try:
            # a zip knows no time before 1980; such files get that year
            with zipfile.ZipFile(
                target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
            ) as archive:
                for path in sorted(root.rglob("*")):
                    if path.is_file() and not path.name.endswith(LEFT_OUT):
                        archive.write(path, Path(run) / path.relative_to(root))
        except OSError as error:
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise StorageError(
                f"cannot write {target}: {error.strerror}. Free some space."
            ) from error
        return target

    def free_space(self) -> int:
        """Free bytes on the disk that holds the runs.

        Raises:
            StorageError: the disk is not there or does not tell.
        """
        place = nearest(self.root)
        try:
            return shutil.disk_usage(place).free
        except OSError as error:
            raise StorageError(
                f"cannot tell how much space is free in {place}: {error.strerror}. Check that "
                "its drive is connected."
            ) from error

    def _folders(self) -> list[RunFolder]:
        try:
            exists = self.root.exists()
        except OSError:
            # listing it tells what is wrong
            exists = True
        return [f for f in list_runs(self.root) if f.path != self.root] if exists else []

    def _entry(self, folder: RunFolder, state: RunState | None) -> Entry:
        if state is not None:
            return _read(folder, state)
        stamp = folder.stamp()
        known = self._known.get(folder.path)
        if known is not None and known[0] == stamp:
            return known[1]
        entry = _read(folder, None)
        # what is wrong with a damaged run may be mended without a trace in its files
        if not entry.problem:
            self._known[folder.path] = (stamp, entry)
        return entry


def _read(folder: RunFolder, state: RunState | None) -> Entry:
    label = _label(folder)
    try:
        manifest, state = folder.manifest(), state or folder.state()
    except StorageError as error:
        name = label or folder.path.name
        return Entry(
            id=folder.path.name,
            name=name,
            folder=folder,
            manifest=None,
            state=None,
            problem=str(error),
        )
    name = label or manifest.config.name or folder.path.name
    return Entry(id=folder.path.name, name=name, folder=folder, manifest=manifest, state=state)


def _begun(entry: Entry) -> tuple[float, str]:
    started = entry.state.started if entry.state is not None else None
    if started is not None:
        return started.time, entry.id
    return entry.folder.created(), entry.id


def _label(folder: RunFolder) -> str:
    try:
        data = (folder.path / "label.json").read_bytes()
        return msgspec.json.decode(data, type=_Label).name
    except (OSError, msgspec.MsgspecError):
        # a name is a comfort: without it the run goes by its configuration's
        return ""
