"""Drafts: a form as it was left, kept for the next visit."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from lib_automerge.errors import StorageError

LARGEST = 1 << 20
"""Bytes of a draft."""


class Draft:
    """The values of one form, in a file.

    Args:
        path: of the file; may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def read(self) -> dict[str, object]:
        """The form as it was left; empty if there is none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, object])
        except (OSError, msgspec.MsgspecError):
            # a draft is a comfort, not a record
            return {}

    def save(self, values: dict[str, object]) -> None:
        """Keep the form for the next visit.

        Raises:
            StorageError: it could not be written.
        """
        data = msgspec.json.encode(values)
        if len(data) > LARGEST:
            raise StorageError(
                f"the form holds {len(data):,} bytes. Use fewer prompts, or save them as a set."
            )
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            with self._writing:  # two pages may be open
                self._path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(data)
                partial.replace(self._path)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}.") from error
