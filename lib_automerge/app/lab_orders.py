"""Merges that the lab is asked for, and those of them that are not finished yet.

What a cancelled merge has written stays on the disk until somebody goes on with it or throws it
away. So it is noted before a merge begins, and is known after a restart or a crash too.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import msgspec

from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import AutomergeError, StorageError
from lib_automerge.merge.lab import output
from lib_automerge.merge.lab.budget import DEFAULT

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A merge to make.

    Attributes:
        recipe: of the lab, with the paths of its models.
        path: of the file to write; must not exist.
        dtype: of the file's numbers; None keeps the first model's.
        memory: bytes that the merge may take besides what the process holds already.
    """

    recipe: Recipe
    path: Path
    dtype: str | None = None
    memory: int = DEFAULT


class Kept(msgspec.Struct, frozen=True):
    """What an unfinished merge has on the disk.

    Attributes:
        number: its own, among all that are kept.
        name: of the file that it writes.
        folder: of that file.
        size: bytes that are there.
    """

    number: int
    name: str
    folder: str
    size: int


class _Noted(msgspec.Struct, frozen=True):
    number: int
    order: Order


class Unfinished:
    """The merges that have begun and have not ended, in a file.

    Args:
        path: of the file; may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._noted = {noted.number: noted for noted in self._read()}

    def kept(self, but: Path | None = None) -> tuple[Kept, ...]:
        """What is on the disk of each; one of which nothing is there is forgotten.

        Args:
            but: the file of the merge in progress, which is not over yet.
        """
        with self._lock:
            found = []
            for noted in list(self._noted.values()):
                path = noted.order.path
                if path == but:
                    continue
                held = output.kept(path)
                if held is None:
                    del self._noted[noted.number]
                else:
                    found.append(Kept(noted.number, path.name, str(path.parent), held))
            return tuple(found)

    def order(self, number: int) -> Order | None:
        """The merge of that number, if it is still there."""
        with self._lock:
            noted = self._noted.get(number)
            return None if noted is None else noted.order

    def begin(self, order: Order) -> None:
        """Note a merge before its first byte.

        Raises:
            StorageError: the note cannot be written.
        """
        with self._lock:
            again = [n for n, noted in self._noted.items() if noted.order.path == order.path]
            number = again[0] if again else max(self._noted, default=0) + 1
            self._noted[number] = _Noted(number, order)
            self._write()

    def end(self, path: Path) -> None:
        """Forget the merge into this file, of which nothing is left to go on from."""
        with self._lock:
            self._noted = {n: one for n, one in self._noted.items() if one.order.path != path}
            try:
                self._write()
            except StorageError as error:
                # it is forgotten at the next start, because nothing of it is on the disk
                log.warning("%s", error)

    def _read(self) -> list[_Noted]:
        try:
            found = msgspec.json.decode(
                self._path.read_bytes(), type=list[_Noted], dec_hook=_decoded
            )
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("the list of unfinished merges cannot be read: %s: %s", self._path, error)
            return []
        for noted in found:
            _clear_empty(noted.order.path)
        return found

    def _write(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(list(self._noted.values()), enc_hook=str))
            partial.replace(self._path)
        except OSError as error:
            raise StorageError(
                f"cannot write {self._path}: {error.strerror}. Make room, or check the folder."
            ) from error


def _clear_empty(path: Path) -> None:
    """Delete a file that was begun and has no list of what is in it: nothing of it can be used."""
    if output.kept(path) is None:
        try:
            output.discard(path)
        except AutomergeError as error:
            log.warning("%s", error)


def _decoded(kind: type, value: Any) -> Any:
    return kind(value)
