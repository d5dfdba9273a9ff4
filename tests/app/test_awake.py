from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib_automerge.app import awake


def test_what_keeps_the_machine_awake_runs_as_long_as_the_context(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real(command, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(awake.subprocess, "Popen", start)
    monkeypatch.setattr(
        awake, "inhibitor_command", lambda: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    with awake.keep_awake():
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_a_system_that_offers_nothing_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (None, ["/no/such/program"]):
        monkeypatch.setattr(awake, "inhibitor_command", lambda command=command: command)
        with awake.keep_awake():
            pass


def test_the_inhibitor_ends_with_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(awake.sys, "platform", "linux")
    command = awake.inhibitor_command()
    assert command is not None
    assert command[0] == "systemd-inhibit"
    assert f"--pid={os.getpid()}" in command
    monkeypatch.setattr(awake.sys, "platform", "darwin")
    assert awake.inhibitor_command() == ["caffeinate", "-i", "-w", str(os.getpid())]
