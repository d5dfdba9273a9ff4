"""A dictionary of options of which one thread has its own copy.

A run must see the WebUI's options as they were when it began, while the user goes on changing and
saving them; what the run itself sets (its checkpoint, a payload's overrides) must never get into
the user's `config.json`. So the run's thread gets a private view, and everybody else goes on with
the dictionary itself.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

_ABSENT = object()


class PrivateOptions(dict[str, Any]):
    """A dictionary whose single values one thread can see and set without others noticing.

    Only access by key is private. Iterating, and so saving to a file, shows what all share.

    Args:
        shared: the values that all share; copied.
    """

    def __init__(self, shared: dict[str, Any]) -> None:
        super().__init__(shared)
        self._view: dict[str, Any] = {}
        self._owner: int | None = None

    def enter(self, view: dict[str, Any]) -> None:
        """From now on the calling thread sees a copy of `view`; replaces an earlier view."""
        self._view = dict(view)
        self._owner = get_ident()

    def leave(self) -> None:
        """From now on everybody sees the same; the private view is gone."""
        self._owner = None
        self._view = {}

    def shared(self) -> dict[str, Any]:
        """A copy of what everybody else sees."""
        return dict(self.items())

    def __getitem__(self, key: str) -> Any:
        return self._view[key] if self._private() else super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if self._private():
            self._view[key] = value
        else:
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if self._private():
            del self._view[key]
        else:
            super().__delitem__(key)

    def __contains__(self, key: object) -> bool:
        return key in self._view if self._private() else super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """See `dict.get`."""
        return self._view.get(key, default) if self._private() else super().get(key, default)

    def pop(self, key: str, default: Any = _ABSENT) -> Any:
        """See `dict.pop`."""
        arguments = (key,) if default is _ABSENT else (key, default)
        return self._view.pop(*arguments) if self._private() else super().pop(*arguments)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """See `dict.setdefault`."""
        if self._private():
            return self._view.setdefault(key, default)
        return super().setdefault(key, default)

    def _private(self) -> bool:
        return self._owner is not None and self._owner == get_ident()
