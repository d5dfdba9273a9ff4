"""Errors that users see.

Every error reads "what happened: value. what to do." and carries its data as attributes, so that a
caller (command line, tab, API) can show one sentence and never a stack trace.

    AutomergeError
      ConfigError       a run configuration, recipe or argument is wrong
      ModelError        a checkpoint cannot be read, is of the wrong kind, or does not match
      GenerationError   images could not be generated
      RewardError       a reward model cannot be loaded or failed to score
      SearchError       the optimizer cannot propose
      StorageError      a run folder, journal or output file cannot be read or written
      HostError         the WebUI (or another host) does not do what was asked of it
      BusyError         another run is in progress
      CancelledError    a merge was cancelled; tells what was kept
      RunFailedError    a run that had begun could not go on; it can be resumed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutomergeError(Exception):
    """Base of every error that is meant for the user; its text is one or two plain sentences."""


class ConfigError(AutomergeError):
    """A configuration, recipe, payload or argument is wrong; names the field and its value."""


class ModelError(AutomergeError):
    """A checkpoint cannot be used; names the file and what to use instead."""


class GenerationError(AutomergeError):
    """Images could not be generated with the current candidate."""


class RewardError(AutomergeError):
    """A reward model could not be found, loaded or applied."""


class SearchError(AutomergeError):
    """The optimizer cannot propose another candidate."""


class StorageError(AutomergeError):
    """A file or folder could not be read or written; nothing existing was overwritten."""


class HostError(AutomergeError):
    """The hosting WebUI does not behave as it must for a run to be trusted."""


class BusyError(AutomergeError):
    """A run is in progress, and only one can be; nothing was changed."""


class CancelledError(AutomergeError):
    """What was asked for was cancelled by its caller; tells what was kept of it."""


class RunFailedError(AutomergeError):
    """A run that had begun could not go on; its journal is safe and it can be resumed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, with the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
    return f"unknown {kind}: {name!r}. {hint}"
