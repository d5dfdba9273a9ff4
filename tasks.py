"""The project's commands, for a machine that has only Python 3.10 or later.

    python tasks.py demo [arguments]   search the embedded demo pair (see `demo --help`)
    python tasks.py test [arguments]   run the tests (arguments go to pytest)
    python tasks.py check              ruff, mypy and import-linter

Each makes the virtual environment `.venv` here, or reuses it, and installs what it needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
TORCH = "torch==2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = {"demo": "standalone", "test": "standalone,dev", "check": "standalone,dev"}


def python() -> Path:
    """The interpreter of the virtual environment."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*command: str | Path, folder: Path = ROOT) -> int:
    """Run a program to its end; Ctrl+C is the program's to handle."""
    process = subprocess.Popen([str(part) for part in command], cwd=folder)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def pip(*arguments: str) -> int:
    """Install into the virtual environment."""
    quiet = ("--quiet", "--disable-pip-version-check")
    return run(python(), "-m", "pip", "install", *quiet, *arguments)


def install_torch() -> int:
    """Install PyTorch; on Linux without an NVIDIA card, its CPU build, a tenth of the size."""
    if sys.platform.startswith("linux") and not shutil.which("nvidia-smi"):
        cpu_only = ("--index-url", TORCH_CPU_INDEX, "--retries", "0", "--timeout", "15")
        command = [python(), "-m", "pip", "install", "--quiet", *cpu_only, TORCH]
        if subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0:
            return 0
    return pip(TORCH)


def prepare(task: str) -> None:
    """Make `.venv` fit the task; does nothing when it does already."""
    stamp = VENV / f"installed-{task}"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + __file__.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("Preparing .venv (the first time takes a few minutes) ...", flush=True)
    if not any(VENV.glob("installed-*")):
        try:
            # from scratch: an interrupted attempt may have left one without pip
            venv.create(VENV, with_pip=True, clear=True)
        except subprocess.CalledProcessError:
            sys.exit(
                f"The virtual environment {VENV} could not be made: this Python has no ensurepip. "
                "On Debian and Ubuntu: sudo apt install python3-venv. Then run this again."
            )
    if install_torch() or pip("--editable", f".[{EXTRAS[task]}]"):
        sys.exit(
            "The packages could not be installed: see above. Check the internet connection, then "
            "run the same command again."
        )
    stamp.write_text(wanted)


def check() -> int:
    """Static checks; all run, the first failure decides."""
    commands = (
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
        ("-c", "from importlinter.cli import lint_imports_command as lint; lint()"),
    )
    results = [run(python(), *command) for command in commands]
    return next((code for code in results if code), 0)


def main() -> int:
    """Run the task that the command line names."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this file must explain itself on any Python
        sys.exit(f"Python 3.10 or later is needed; this is {sys.version.split()[0]}.")
    task, *arguments = sys.argv[1:] or ["--help"]
    if task not in EXTRAS:
        print((__doc__ or "").strip())
        return 0 if task in ("-h", "--help") else 2
    prepare(task)
    if task == "demo":
        # where the user stands: that is where relative paths and the run folder belong
        return run(python(), "-m", "lib_automerge", "demo", *arguments, folder=Path.cwd())
    if task == "test":
        return run(python(), "-m", "pytest", *arguments)
    return check()


if __name__ == "__main__":
    sys.exit(main())
