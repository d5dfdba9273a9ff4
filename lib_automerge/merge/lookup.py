"""Finding a recipe's models in folders: by SHA-256, by A1111's old hash, by name.

A SHA-256 decides, wherever the file is and however it is called now. The old hash looks at 64 kB of
a file and a name at nothing, so they must lead to one file alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.domain.dialects.sketch import Hint, model_name
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.errors import ModelError, StorageError

ENDINGS = (".safetensors", ".ckpt", ".pt")

_LEGACY_START, _LEGACY_SIZE = 0x100000, 0x10000
"""What A1111's `model_hash` looked at before it used SHA-256."""
_SHOWN = 5

Kept = Callable[[Path, Callable[[Path], str]], str]
"""Returns the digest of a file, by the function if it is not known."""


class Found(msgspec.Struct, frozen=True):
    """The models, and sentences about those that were found by less than their SHA-256."""

    models: dict[str, ModelRef]
    notes: tuple[str, ...]


def legacy_hash(path: Path) -> str:
    """A1111's hash of earlier days: eight digits.

    Raises:
        StorageError: the file cannot be read.
    """
    return _digest(path, _LEGACY_START, _LEGACY_SIZE)[:8]


def sha256(path: Path, *, progress: Callable[[int], None] = lambda _count: None) -> str:
    """The SHA-256 of a file's content.

    Args:
        path: of the file.
        progress: is called with the number of bytes after each piece; what it raises ends this.

    Raises:
        StorageError: the file cannot be read.
    """
    return _digest(path, 0, None, progress)


def find(
    hints: Mapping[str, Hint],
    folders: Sequence[Path],
    *,
    told: Callable[[str], None] = lambda _sentence: None,
    kept: Kept = lambda path, read: read(path),
) -> Found:
    """Find each model.

    Args:
        hints: role -> how the recipe names the model.
        folders: searched with all below them.
        told: is called before a file is read in whole, which can take long.
        kept: returns the digest of a file, which it may know from an earlier search.

    Returns:
        For every role the name that the recipe gives, the SHA-256 and the path of the file.

    Raises:
        StorageError: a folder or a file cannot be read.
        ModelError: a model is not there, or several files could be it; names them.
    """

    def read(path: Path) -> str:
        told(f"reading {path}")
        return sha256(path)

    search = _Search(_files(folders), lambda path: kept(path, read))
    models: dict[str, ModelRef] = {}
    notes: list[str] = []
    for role, hint in hints.items():
        path, by = search.locate(role, hint)
        models[role] = ModelRef(
            name=hint.name or model_name(path.name), sha256=search.sha256(path), path=str(path)
        )
        if by:
            notes.append(f"model {role!r} was found by its {by} alone: {path}")
    return Found(models, tuple(notes))


class _Search:
    """Files, and what was read of them so far."""

    def __init__(self, files: Sequence[Path], digest: Callable[[Path], str]) -> None:
        self._files = files
        self._digest = digest
        self._digests: dict[Path, str] = {}

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file; read once."""
        if path not in self._digests:
            try:
                self._digests[path] = self._digest(path)
            except OSError as error:
                raise _unreadable(path, error) from error
        return self._digests[path]

    def locate(self, role: str, hint: Hint) -> tuple[Path, str]:
        """The model's file, and by what it was found if not by its SHA-256."""
        named = [path for path in self._files if model_name(path.name) == hint.name]
        if hint.sha256:
            # most often the name is still right, and other files need not be read
            for path in dict.fromkeys([*named, *self._files]):
                if self.sha256(path).startswith(hint.sha256):
                    return path, ""
            raise self._missing(role, hint, f"SHA-256 {hint.sha256[:12]}...", named)
        if hint.legacy_hash:
            matching = [path for path in self._files if legacy_hash(path) == hint.legacy_hash]
            return self._only(role, hint, matching, f"old hash {hint.legacy_hash}"), "old hash"
        return self._only(role, hint, named, f"name {hint.name!r}"), "name"

    def _only(self, role: str, hint: Hint, matching: Sequence[Path], by: str) -> Path:
        if not matching:
            raise self._missing(role, hint, by, ())
        if len({self.sha256(path) for path in matching}) > 1:
            raise ModelError(
                f"{len(matching)} files have the {by} of model {role!r}, with different content: "
                f"{_some(matching)}. Leave only the right one in the folder."
            )
        return matching[0]

    def _missing(self, role: str, hint: Hint, by: str, named: Sequence[Path]) -> ModelError:
        other = f" {named[0].name} is there, but its content is another." if named else ""
        return ModelError(
            f"model {role!r} ({hint.words}) is not in the folders: none of {len(self._files)} "
            f"files has the {by}.{other} Give the folder that holds it with --models."
        )


def _files(folders: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise StorageError(f"there is no folder {folder}. Check --models.")
        paths = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
        found += sorted(path for path in paths if path.is_file())
    return list(dict.fromkeys(found))


def _digest(
    path: Path, start: int, size: int | None, progress: Callable[[int], None] = lambda _count: None
) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = size
            while chunk := file.read(1 << 20 if left is None else min(left, 1 << 20)):
                digest.update(chunk)
                progress(len(chunk))
                left = None if left is None else left - len(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read {path}: {error.strerror}. Check the file.")


def _some(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(str, paths[:_SHOWN])) + more
