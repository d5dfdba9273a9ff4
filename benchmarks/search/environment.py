"""The peers' environment: `.venvs/peers`, made from `peers.txt` when it is not there.

It sees the packages of the Python that runs the benchmark behind its own, for torch and msgspec.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = Path(__file__).with_name("peers.txt")
FOLDER = ROOT / ".venvs" / "peers"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def interpreter() -> Path:
    """Return the environment's Python, after making the environment if it is missing or old."""
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = FOLDER / "installed"
    if not stamp.is_file() or stamp.read_bytes() != PINS.read_bytes():
        print(f"Preparing {FOLDER.relative_to(ROOT)} ...", flush=True)
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "-r", PINS]
        subprocess.run(install, check=True)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.check_output([python, "-c", code], text=True).strip()
        Path(packages, "behind.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        stamp.write_bytes(PINS.read_bytes())
    return python


def run_peer(name: str, evaluations: int, folder: Path, wanted: Sequence[tuple[str, int]]) -> None:
    """Run a peer on instances of landscapes, (name, seed) each; the rows go to `folder`."""
    runs = [f"{landscape}:{seed}" for landscape, seed in wanted]
    command = [interpreter(), "-m", "benchmarks.search.peers", name, evaluations, folder, *runs]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, check=True)


def check_python() -> None:
    """End with a sentence where the peers cannot be installed: they are of 2023."""
    if not (3, 10) <= sys.version_info < (3, 12):
        sys.exit("The peers need Python 3.10 or 3.11; run this with one of them.")
