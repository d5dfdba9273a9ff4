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
EXTRAS = {"demo": "standalone", "test": "standalone,ui,dev", "check": "standalone,ui,dev"}
GRADIO_PINS = ROOT / "tests" / "ui"
"""`gradio-VERSION.txt`: the versions of a WebUI that has an older gradio than `.venv`."""


def python(environment: Path = VENV) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*command: str | Path, folder: Path = ROOT) -> int:
    """Run a program to its end; Ctrl+C is the program's to handle."""
    process = subprocess.Popen([str(part) for part in command], cwd=folder)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def pip(*arguments: str | Path, environment: Path = VENV) -> int:
    """Install into a virtual environment."""
    quiet = ("--quiet", "--disable-pip-version-check")
    return run(python(environment), "-m", "pip", "install", *quiet, *arguments)


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


def gradio_environments() -> list[Path]:
    """Interpreters with each gradio that the tab must work with; made when they are missing.

    Each has a WebUI's packages of its own and sees those of `.venv` behind them, so that PyTorch is
    there once. One that cannot be made is left out with a message; its tests are skipped then.
    """
    found = [python()]
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    for pins in sorted(GRADIO_PINS.glob("gradio-*.txt")):
        environment = ROOT / ".venvs" / pins.stem
        stamp = environment / "installed"
        if not stamp.is_file() or stamp.read_bytes() != pins.read_bytes():
            print(f"Preparing {environment.relative_to(ROOT)} ...", flush=True)
            venv.create(environment, with_pip=True, clear=True)
            if pip("--no-compile", "--requirement", pins, environment=environment):
                print(f"{pins.stem} cannot be installed here: the tab is not tested with it.")
                continue
            paths = [
                subprocess.check_output([interpreter, "-c", code], text=True).strip()
                for interpreter in (python(environment), python())
            ]
            Path(paths[0], "behind.pth").write_text(f"{paths[1]}\n")
            stamp.write_bytes(pins.read_bytes())
        found.append(python(environment))
    return found


def test(arguments: list[str]) -> int:
    """The tests, on all cores, with what those of the tab need."""
    os.environ["AUTOMERGE_GRADIO_ENVS"] = os.pathsep.join(map(str, gradio_environments()))
    # each core has a test of its own to do
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cores = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal")
    return run(python(), "-m", "pytest", *cores, *arguments)


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
        return test(arguments)
    return check()


if __name__ == "__main__":
    sys.exit(main())
