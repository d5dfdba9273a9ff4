"""Rewards against the package `image-reward` on one CPU, and against themselves; a GPU if any.

    python benchmarks/reward_speed.py [--repeat 2] [--folder DIR]

Weights are random and of the published sizes (3.5 GB are written to a temporary folder). The
package lives in `.venvs/image-reward`, made from `image_reward.txt` when it is not there. Every
side has a process and one thread of its own; the best of `--repeat` counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINS = Path(__file__).with_name("image_reward.txt")
PARTS = Path(__file__).with_name("reward_parts.py")
FOLDER = ROOT / ".venvs" / "image-reward"
THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TARGETS = (
    ("load", "every later load, CPU s", 0.25),
    ("peak GB", "peak memory, GB", 0.6),
    ("image", "an image in a batch of 8, CPU s", 0.8),
)
LONGER = (
    ("load of an unknown file", "the first load of a file, CPU s"),
    ("first", "load and the first image, CPU s"),
    ("imports GB", "memory before loading, GB"),
    ("loaded GB", "memory after loading, GB"),
)

Numbers = dict[str, Any]


def interpreter() -> Path:
    """Return the package's Python, after making its environment if it is missing or old."""
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = FOLDER / "installed"
    if not stamp.is_file() or stamp.read_bytes() != PINS.read_bytes():
        print(f"Preparing {FOLDER.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", PINS]
        subprocess.run(install, check=True)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.check_output([python, "-c", code], text=True).strip()
        Path(packages, "behind.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        stamp.write_bytes(PINS.read_bytes())
    return python


def part(name: str, folder: Path, python: Path | str = sys.executable) -> Numbers:
    """Measure a part in a process of its own."""
    done = subprocess.run(
        [python, PARTS, name, folder],
        cwd=ROOT,
        env=os.environ | THREAD | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: Numbers = json.loads(done.stdout.splitlines()[-1])
    return found


def best(runs: list[Numbers]) -> Numbers:
    """The least of every number, and the scores, which are the same in every run."""
    return {
        name: value if name == "scores" else min(run[name] for run in runs)
        for name, value in runs[0].items()
    }


def against_the_package(folder: Path, repeat: int) -> None:
    python = interpreter()
    ours, package = [], []
    for _ in range(repeat):
        ours.append(part("ours_at_first", folder) | part("ours", folder))
        package.append(part("package", folder, python))
    mine, theirs = best(ours), best(package)
    theirs["load of an unknown file"] = theirs["load"]
    for side in (mine, theirs):
        side["first"] = side["load"] + side["first image"]
    print("\n| ImageReward, 1.79 GB fp32 | package | ours | ratio | asked |")
    print("|---|---|---|---|---|")
    for name, label, target in TARGETS:
        ratio = mine[name] / theirs[name]
        print(f"| {label} | {theirs[name]:.2f} | {mine[name]:.2f} | {ratio:.2f} | {target} |")
    for name, label in LONGER:
        ratio = mine[name] / theirs[name]
        print(f"| {label} | {theirs[name]:.2f} | {mine[name]:.2f} | {ratio:.2f} | |")
    gap = max(abs(a - b) for a, b in zip(mine["scores"], theirs["scores"], strict=True))
    print(f"\nLargest difference of a score: {gap:.1e}.")


def against_themselves(folder: Path) -> None:
    found = part("shared", folder)
    alone = found["CLIPScore alone"] + found["LAION V2 alone"]
    print("\n| CLIP ViT-L/14, 8 images | CPU s |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.3f} |")
    print(f"\nBoth together: {found['both'] / alone:.2f} of the sum of each alone.")
    known = part("kept", folder)
    print(
        f"\nKnown scores, 8 images of 512x512: {known['miss']:.2f} CPU s if they are not in the "
        f"file, {known['hit']:.4f} CPU s if they are ({known['hit'] / known['miss']:.2%})."
    )


def on_a_gpu(folder: Path) -> None:
    found = part("gpu", folder)
    if not found:
        print("\nGPU: no GPU here.")
        return
    speeds = ", ".join(
        f"{name}: {value:.1f}" for name, value in found.items() if name.startswith("batch")
    )
    print(
        f"\nGPU ({found['name']}), fp16, images per second: {speeds}; largest deviation of a "
        f"score from fp32: {found['deviation']:.1e}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the weights there for the next time")
    parser.add_argument("--only", choices=("package", "themselves", "gpu"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "written").is_file():
            part("write", folder)
            (folder / "written").touch()
        if options.only in (None, "package"):
            against_the_package(folder, options.repeat)
        if options.only in (None, "themselves"):
            against_themselves(folder)
        if options.only in (None, "gpu"):
            on_a_gpu(folder)


if __name__ == "__main__":
    main()
