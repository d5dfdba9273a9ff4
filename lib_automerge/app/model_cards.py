"""What a form needs to know of checkpoints: read from their headers, once for every file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lib_automerge.errors import AutomergeError
from lib_automerge.merge.containers import container
from lib_automerge.merge.readers import open_checkpoint


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint.

    Attributes:
        architecture: its name; None if the file cannot be read as a model.
        size: bytes of the file.
        safe: whether it is a safetensors file, which can be read in parts.
        problem: why it cannot be read; empty if it can.
    """

    architecture: str | None = None
    size: int = 0
    safe: bool = False
    problem: str = ""


class ModelCards:
    """Cards of files, made again when a file has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int], Card]] = {}

    def card(self, path: str) -> Card:
        """The card of the file; one that cannot be read has a problem."""
        try:
            found = Path(path).stat()
        except OSError as error:
            return Card(problem=f"{Path(path).name}: {error.strerror}. Refresh the list.")
        stamp = (found.st_mtime_ns, found.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, _read(Path(path), found.st_size))
            self._known[path] = known
        return known[1]


def _read(path: Path, size: int) -> Card:
    try:
        safe = container(path) == "safetensors"
        with open_checkpoint(path) as checkpoint:
            return Card(architecture=checkpoint.detection.architecture, size=size, safe=safe)
    except OSError as error:
        return Card(size=size, problem=f"{path.name}: {error.strerror}. Check the file.")
    except AutomergeError as error:
        return Card(size=size, problem=str(error))
