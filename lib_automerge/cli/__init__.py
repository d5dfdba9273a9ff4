"""The command line: `python -m lib_automerge COMMAND`.

Exit codes: 0 done, 2 a user error (one sentence on stderr), 3 a run that had begun stopped early
and can be resumed, 130 interrupted.

Each group of commands is a module that adds them and carries them out; it imports what is heavy
when one of them runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import lib_automerge
from lib_automerge.cli import merging, models, runs, serving
from lib_automerge.cli.parts import DATA, USER_ERROR
from lib_automerge.errors import AutomergeError, CancelledError, RunFailedError
from lib_automerge.run_commands import DONE, INTERRUPTED

STOPPED_EARLY = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a Windows console or pipe may use a code page that lacks a prompt's characters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        if getattr(options, "allow_plugins", False):
            _load_plugins(options)
        return command(options)
    except RunFailedError as error:
        print(f"The run stopped: {error}", file=sys.stderr)
        return STOPPED_EARLY
    except CancelledError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return INTERRUPTED
    except AutomergeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return DONE
    except OSError as error:
        print(f"Error: {error}. Check the path, its permissions and the disk.", file=sys.stderr)
        return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="automerge", description=lib_automerge.__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=lib_automerge.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (runs, merging, models, serving):
        group.add_to(commands)
    return parser


def _load_plugins(options: argparse.Namespace) -> None:
    from lib_automerge.reward import plugins

    folder = getattr(options, "data", DATA) / plugins.PLACE
    for sentence in plugins.load(folder, allowed=True).told:
        print(f"Warning: {sentence}", file=sys.stderr)
