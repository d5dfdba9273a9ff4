"""Keeping the machine awake while a run goes on: a night's work must not end in standby.

The screen may still switch off. Where the system offers no way to ask for this, nothing happens.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# SetThreadExecutionState, winbase.h
_CONTINUOUS = 0x80000000
_SYSTEM_REQUIRED = 0x00000001


@contextmanager
def keep_awake() -> Iterator[None]:
    """Keep the system from going to sleep on its own while the context is open.

    Must be entered and left in one thread (Windows binds the request to it).
    """
    if sys.platform == "win32":
        with _windows():
            yield
        return
    process = _inhibitor()
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()


@contextmanager
def _windows() -> Iterator[None]:
    import ctypes

    request = ctypes.windll.kernel32.SetThreadExecutionState  # type: ignore[attr-defined]
    if not request(_CONTINUOUS | _SYSTEM_REQUIRED):
        log.warning("Windows did not accept the request to stay awake")
    try:
        yield
    finally:
        request(_CONTINUOUS)


def inhibitor_command() -> list[str] | None:
    """The program that keeps this system awake as long as it runs; None if there is none."""
    # both end by themselves when this process is gone, however it went
    if sys.platform == "darwin":
        return ["caffeinate", "-i", "-w", str(os.getpid())]
    if shutil.which("systemd-inhibit") and shutil.which("tail"):
        return [
            "systemd-inhibit",
            "--what=sleep",
            "--who=Automerge",
            "--why=a run is in progress",
            "tail",
            f"--pid={os.getpid()}",
            "-f",
            os.devnull,
        ]
    return None


def _inhibitor() -> subprocess.Popen[bytes] | None:
    command = inhibitor_command()
    if command is None:
        return None
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("the system cannot be kept awake: %s", error)
        return None
