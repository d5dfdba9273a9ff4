"""Time and memory of Re-Basin at the true size of a UNet.

Two pairs of synthetic float16 UNets with the real keys and shapes are matched: one whose second
model is the first with its channels shuffled and noise added, which must be found back, and one of
two unrelated models, the hardest case for the assignments. The files (1.7 GB each for SD1) are
written to --dir first and kept there for the next run.

    python benchmarks/rebasin.py [--dir DIR] [--architecture sd1] [--threads 1] [--sweeps 3]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from merge_speed import AnonymousMemory

from lib_automerge.domain import architectures
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin.matching import Progress, distance, match
from lib_automerge.merge.rebasin.orders import Layout, shuffled
from lib_automerge.merge.rebasin.tensors import (
    Permuted,
    Stored,
    Tensors,
    shared_symmetries,
    whole,
)
from lib_automerge.merge.sinks import FileSink

NOISE = 0.5
"""Spread of what is added to the shuffled model, in spreads of its weights."""


def write_random(path: Path, architecture: str, seed: int) -> None:
    """A UNet of random weights, each as large as a fresh network's."""
    family = architectures.get(architecture)
    generator = torch.Generator().manual_seed(seed)
    layout = {
        key: (torch.float16, shape)
        for key, shape in family.reference_keys.items()
        if key.startswith(family.unet_prefix)
    }
    with FileSink(path, layout, {}) as sink:
        for key in sink.order:
            shape = layout[key][1]
            sink.put(key, (torch.randn(shape, generator=generator) * _spread(shape)).half())


def write_shuffled(source: Path, path: Path, architecture: str, seed: int) -> None:
    """The UNet with its channels in random order, and noise on every weight."""
    generator = torch.Generator().manual_seed(seed)
    with open_checkpoint(source) as checkpoint:
        model = Stored(checkpoint)
        symmetries = shared_symmetries(architecture, model, model)
        permuted = Permuted(model, Layout(symmetries), shuffled(symmetries, seed))
        layout = {key: (torch.float16, model.shape(key)) for key in model.keys()}  # noqa: SIM118
        with FileSink(path, layout, {}) as sink:
            for key in sink.order:
                tensor = whole(permuted, key).float()
                noise = torch.randn(tensor.shape, generator=generator)
                sink.put(key, (tensor + NOISE * _spread(tensor.shape) * noise).half())


def _spread(shape: Sequence[int]) -> float:
    return 0.1 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5


def measure_files(name: str, path_a: Path, path_b: Path, options: argparse.Namespace) -> None:
    """Match two files."""
    with open_checkpoint(path_a) as a, open_checkpoint(path_b) as b:
        measure(name, Stored(a), Stored(b), options)


def measure_shuffled(path: Path, options: argparse.Namespace) -> None:
    """Match a file with itself in random order."""
    with open_checkpoint(path) as file:
        model = Stored(file)
        symmetries = shared_symmetries(options.architecture, model, model)
        other = Permuted(model, Layout(symmetries), shuffled(symmetries, 1))
        measure("shuffled as it is read, without noise", model, other, options)


def measure(name: str, a: Tensors, b: Tensors, options: argparse.Namespace) -> None:
    """Match a pair and print a row for each sweep."""
    print(f"\n| {name} | symmetries looked at | moved | CPU s | wall s |")
    print("|---|---|---|---|---|")
    counts: dict[int, list[float]] = {}

    def report(step: Progress) -> None:
        row = counts.setdefault(step.sweep, [0, 0, 0.0, 0.0])
        row[0] += 1
        row[1] += step.moved
        row[2:] = [time.process_time(), time.perf_counter()]
        print(f"{step} {row[2] - began[0]:.0f} CPU s", file=sys.stderr, flush=True)

    symmetries = shared_symmetries(options.architecture, a, b)
    keys = sorted({key for symmetry in symmetries for key in symmetry.keys})
    before = distance(a, b, keys)
    cpu, wall = time.process_time(), time.perf_counter()
    began = cpu, wall
    with AnonymousMemory() as memory:
        found = match(
            a, b, symmetries, sweeps=options.sweeps, report=report, threads=options.threads
        )
    for sweep, (looked, moved, cpu_end, wall_end) in counts.items():
        seconds = f"{cpu_end - cpu:.0f} | {wall_end - wall:.0f}"
        print(f"| sweep {sweep} | {looked} | {moved} | {seconds} |")
        cpu, wall = cpu_end, wall_end
    spent = time.process_time() - began[0], time.perf_counter() - began[1]
    print(f"| together | | {found.moved} | {spent[0]:.0f} | {spent[1]:.0f} |")
    after = distance(a, found.permuted(b), keys)
    print(
        f"\nL2 distance {before:.1f} before, {after:.1f} after; "
        f"{'converged' if found.converged else 'not converged'}; "
        f"peak own memory {memory.peak / 1e6:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "automerge-bench")
    parser.add_argument("--architecture", default="sd1", choices=("sd1", "sd2", "sdxl"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--only", choices=("shuffled", "unrelated"))
    parser.add_argument("--one-file", action="store_true")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    a, shuffle, other = (
        options.dir / f"{options.architecture}-unet-{name}.safetensors"
        for name in ("a", "shuffled", "other")
    )
    if not a.exists():
        write_random(a, options.architecture, 0)
    if options.one_file:
        measure_shuffled(a, options)
        return
    if options.only != "unrelated":
        if not shuffle.exists():
            write_shuffled(a, shuffle, options.architecture, 1)
        measure_files("shuffled, with noise", a, shuffle, options)
    if options.only != "shuffled":
        if not other.exists():
            write_random(other, options.architecture, 2)
        measure_files("unrelated", a, other, options)


if __name__ == "__main__":
    main()
