"""Speed and memory of the merge lab.

Every merge runs in a process of its own, which reports CPU seconds, wall seconds (both without
starting Python and importing PyTorch) and its peak memory (resident set, all included). What is
compared runs in turns, several times; the best of each counts.

    python benchmarks/merge_lab.py pair                     # two SD1 UNets against loop and copy
    python benchmarks/merge_lab.py --mecha PYTHON peer      # N = 5, 226 MB, against sd-mecha 1.1.8
    python benchmarks/merge_lab.py many                     # N from 5 to 200, 9 MB
    python benchmarks/merge_lab.py curve                    # every method of many, N from 2 to 40

Files of random weights with SD1's keys and shapes, float16, are written to --dir and kept there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from lib_automerge.domain import architectures
from lib_automerge.merge.containers import read_safetensors_header
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.engine import run
from lib_automerge.merge.lab.job import Job, Task
from lib_automerge.merge.lab.number_types import NUMBER_TYPES
from lib_automerge.merge.lab.output import Output
from lib_automerge.merge.lab.parameters import Settings
from lib_automerge.merge.lab.sources import Entry, FileSource
from lib_automerge.merge.sinks import FileLayout

SD1 = architectures.get("sd1")
UNET = {k: s for k, s in SD1.reference_keys.items() if k.startswith(SD1.unet_prefix)}

PARAMETERS: dict[str, dict[str, Any]] = {
    "weighted_sum": {"weight": 0.37},
    "ties": {"k": 0.2},
    "della": {"p": 0.7, "epsilon": 0.2, "vote": "sum", "seed": 1},
    "dare": {"p": 0.9, "vote": "sum"},
}
MANY = (5, 10, 20, 50, 100, 200)
FEW = (2, 5, 10, 20, 40)
CURVE = ("average", "ties", "dare", "della", "model_stock", "geometric_median")


def some_keys(parameters: int, largest: int) -> dict[str, tuple[int, ...]]:
    """Keys of the UNet with so many parameters, chosen at random, none larger than that."""
    order = [key for key in sorted(UNET) if torch.Size(UNET[key]).numel() <= largest]
    random.Random(0).shuffle(order)
    chosen: dict[str, tuple[int, ...]] = {}
    left = parameters
    for key in order:
        size = torch.Size(UNET[key]).numel()
        if size <= left:
            chosen[key] = UNET[key]
            left -= size
    return chosen


def write(path: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> Path:
    """Write a file: what all seeds share, plus a small change of this seed's own (0 is none)."""
    if path.exists():
        return path
    entries: dict[str, object] = {}
    offset = 0
    for key, shape in sorted(shapes.items()):
        size = 2 * torch.Size(shape).numel()
        entries[key] = {
            "dtype": "F16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for number, start in enumerate(range(0, offset, 1 << 24)):
            count = min(offset - start, 1 << 24) // 2
            shared = torch.Generator().manual_seed(number)
            own = torch.Generator().manual_seed(seed * 100_000 + number)
            values = torch.randn(count, generator=shared).mul_(0.05)
            if seed:
                values += torch.randn(count, generator=own).mul_(0.002)
            file.write(values.half().numpy().tobytes())
    part.rename(path)
    return path


def merge(method: str, output: Path, paths: Sequence[Path], memory: int, threads: int) -> None:
    """Merge without hashing the files first, the base first where there is one."""
    found = catalogue.get(method)
    sources = []
    for path in paths:
        header = read_safetensors_header(path)
        entries = {k: Entry(i.dtype, i.shape, i.start) for k, i in header.tensors.items()}
        sources.append(FileSource(path, entries))
    roles = catalogue.roles_for(found, len(paths) - found.based)
    settings = Settings(
        method, found.parameters, PARAMETERS.get(method, {}), roles=roles[found.based :]
    )
    everything = tuple(range(len(sources)))
    first = sources[0].entries
    tasks = tuple(Task(key, "IN00", entry.number_type, everything) for key, entry in first.items())
    layout = FileLayout(
        {t.key: (NUMBER_TYPES[t.number_type], first[t.key].shape) for t in tasks}, {}
    )
    job = Job(found, settings, tuple(sources), roles, tasks)
    with Output(output, layout, "benchmark") as opened:
        run(job, opened, memory=memory, threads=threads)


def loop(output: Path, paths: Sequence[Path]) -> None:
    """The straight way: map both files, float32, one tensor after the other."""
    with (
        safe_open(paths[0], "pt") as one,
        safe_open(paths[1], "pt") as two,
        output.open("wb") as out,
    ):
        for key in sorted(one.keys()):
            x, y = one.get_tensor(key).float(), two.get_tensor(key).float()
            out.write(((1 - 0.37) * x + 0.37 * y).half().numpy().tobytes())
        out.flush()
        os.fsync(out.fileno())


def copy(output: Path, paths: Sequence[Path]) -> None:
    """Read both files, write as many bytes as a merge does."""
    buffer = bytearray(1 << 22)
    with (
        paths[0].open("rb", buffering=0) as one,
        paths[1].open("rb", buffering=0) as two,
        output.open("wb", buffering=0) as out,
    ):
        while count := one.readinto(buffer):
            out.write(memoryview(buffer)[:count])
            two.readinto(buffer)
        os.fsync(out.fileno())


def forget(paths: Sequence[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def one(options: argparse.Namespace) -> None:
    """Do one thing in this process and report what it cost."""
    torch.set_num_threads(1)
    ways: dict[str, Callable[[], None]] = {
        "loop": lambda: loop(options.output, options.files),
        "copy": lambda: copy(options.output, options.files),
    }
    memory = int(options.memory * 2**30)
    lab = lambda: merge(options.way, options.output, options.files, memory, options.threads)  # noqa: E731
    wall, cpu = time.perf_counter(), time.process_time()
    ways.get(options.way, lab)()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak}))


def measured(
    way: str,
    paths: Sequence[Path],
    folder: Path,
    *,
    memory: float = 2.0,
    threads: int = 1,
    mecha: str = "",
) -> dict[str, float]:
    """Run one way in a process of its own."""
    output = folder / "out.safetensors"
    output.unlink(missing_ok=True)
    here = Path(__file__)
    files = list(map(str, paths))
    if mecha:
        command = [mecha, str(here.with_name("merge_lab_mecha.py")), way, str(output), *files]
    else:
        command = [sys.executable, str(here), "one", way, str(output), *files]
        command += ["--memory", str(memory), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output.unlink(missing_ok=True)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def best(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """The smallest of each number."""
    return {name: min(result[name] for result in results) for name in results[0]}


def pair(options: argparse.Namespace) -> None:
    """A weighted sum of two UNets against the loop and against copying."""
    paths = [write(options.dir / f"unet-{n}.safetensors", UNET, n) for n in (1, 2)]
    ways = {
        "copy the same bytes": ("copy", 1),
        "straight loop (safe_open, fp32)": ("loop", 1),
        "weighted_sum in fp64, 1 thread": ("weighted_sum", 1),
        "weighted_sum in fp64, 2 threads": ("weighted_sum", 2),
    }
    for cold in (False, True):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(options.repeat):
            for name, (way, threads) in ways.items():
                if cold:
                    forget(paths)
                found[name].append(measured(way, paths, options.dir, threads=threads))
        state = "cold" if cold else "in the page cache"
        print(f"\n| two UNets of 1.7 GB, {state} | CPU s | wall s | x copy | x loop | peak MB |")
        print("|---|---|---|---|---|---|")
        results = {name: best(each) for name, each in found.items()}
        copied, looped = list(results.values())[:2]
        for name, result in results.items():
            print(
                f"| {name} | {result['cpu']:.1f} | {result['wall']:.1f} "
                f"| {result['wall'] / copied['wall']:.2f} | {result['wall'] / looped['wall']:.2f} "
                f"| {result['peak'] / 1e6:.0f} |"
            )


def peer(options: argparse.Namespace) -> None:
    """Five models and a base against sd-mecha."""
    shapes = some_keys(113_000_000, 1 << 40)
    paths = [write(options.dir / f"mid-{n}.safetensors", shapes, n) for n in range(6)]
    print(f"\nbase + 5 files of {paths[0].stat().st_size / 1e6:.0f} MB, best of {options.repeat}\n")
    print("| method | lab CPU s | sd-mecha CPU s | x | lab peak GB | sd-mecha peak GB |")
    print("|---|---|---|---|---|---|")
    for method in ("ties", "geometric_median", "della"):
        ours, theirs = [], []
        files = paths if catalogue.get(method).based else paths[1:]
        for _ in range(options.repeat):
            ours.append(measured(method, files, options.dir))
            # its recipes begin with the base, of which a median makes no use
            theirs.append(measured(method, paths, options.dir, mecha=options.mecha))
        lab, mecha = best(ours), best(theirs)
        print(
            f"| {method} | {lab['cpu']:.1f} | {mecha['cpu']:.1f} "
            f"| {lab['cpu'] / mecha['cpu']:.2f} | {lab['peak'] / 1e9:.2f} "
            f"| {mecha['peak'] / 1e9:.2f} |",
            flush=True,
        )


def many(options: argparse.Namespace) -> None:
    """How cost and memory grow with the number of models."""
    shapes = some_keys(4_650_000, 500_000)
    paths = [write(options.dir / f"small-{n}.safetensors", shapes, n) for n in range(201)]
    size = paths[0].stat().st_size / 1e6
    print(f"\nCPU seconds for N files of {size:.1f} MB under --memory {options.memory:g}GiB\n")
    head = " | ".join(f"N={count}" for count in MANY)
    print(f"| method | {head} | x linear | peak MB at {MANY[-1]} |")
    print("|---" * (len(MANY) + 3) + "|")
    for method in CURVE:
        based = catalogue.get(method).based
        results = []
        for count in MANY:
            files = paths[: count + 1] if based else paths[1 : count + 1]
            runs = [
                measured(method, files, options.dir, memory=options.memory)
                for _ in range(options.repeat)
            ]
            results.append(best(runs))
        seconds = " | ".join(f"{result['cpu']:.2f}" for result in results)
        growth = (results[-1]["cpu"] / results[0]["cpu"]) / (MANY[-1] / MANY[0])
        print(f"| {method} | {seconds} | {growth:.2f} | {results[-1]['peak'] / 1e6:.0f} |")
        sys.stdout.flush()


def curve(options: argparse.Namespace) -> None:
    """CPU seconds of every method of many models, with the fitted exponent, and as a drawing."""
    torch.set_num_threads(1)
    shapes = some_keys(4_650_000, 500_000)
    paths = [write(options.dir / f"small-{n}.safetensors", shapes, n) for n in range(FEW[-1] + 1)]
    names = [name for name in catalogue.names() if not catalogue.get(name).roles]
    memory = int(options.memory * 2**30)
    output = options.dir / "out.safetensors"
    lines: dict[str, list[float]] = {}
    print("| method | " + " | ".join(f"N={count}" for count in FEW) + " | exponent |")
    print("|---" * (len(FEW) + 2) + "|")
    for name in names:
        lines[name] = []
        for count in FEW:
            files = paths[: count + 1] if catalogue.get(name).based else paths[1 : count + 1]
            spent = []
            for _ in range(options.repeat):
                output.unlink(missing_ok=True)
                begun = time.process_time()
                merge(name, output, files, memory, 1)
                spent.append(time.process_time() - begun)
            lines[name].append(min(spent))
        exponent = np.polyfit(np.log(FEW), np.log(lines[name]), 1)[0]
        seconds = " | ".join(f"{each:.2f}" for each in lines[name])
        print(f"| {name} | {seconds} | {exponent:.2f} |", flush=True)
    output.unlink(missing_ok=True)
    Path(__file__).with_name("merge_lab_curve.svg").write_text(drawn(lines))


def drawn(lines: dict[str, list[float]]) -> str:
    """Draw CPU seconds over N, both logarithmic."""
    width, height, edge = 720, 460, 60
    least = min(map(min, lines.values()))
    most = max(map(max, lines.values()))

    def x(count: float) -> float:
        return edge + (width - 220) * float(np.log(count / FEW[0]) / np.log(FEW[-1] / FEW[0]))

    def y(seconds: float) -> float:
        share = np.log(seconds / least) / np.log(most / least)
        return height - edge - (height - 2 * edge) * float(share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{edge}" y="30">CPU seconds to merge N files of 9.3 MB (both logarithmic)</text>',
    ]
    parts += [f'<text x="{x(count):.0f}" y="{height - 35}">{count}</text>' for count in FEW]
    parts += [
        f'<text x="15" y="{y(seconds):.0f}">{seconds:g}</text>'
        for seconds in (0.1, 0.3, 1, 3, 10, 30)
        if least <= seconds <= most
    ]
    ends = sorted(lines, key=lambda name: lines[name][-1])
    for number, name in enumerate(ends):
        colour = f"hsl({360 * number // len(ends)},70%,40%)"
        points = " ".join(f"{x(n):.1f},{y(s):.1f}" for n, s in zip(FEW, lines[name], strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        low = height - edge - number * (height - 2 * edge) / len(ends)
        parts.append(f'<text x="{width - 150}" y="{low:.0f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "automerge-lab")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", type=float, default=2.0, help="GiB")
    parser.add_argument("--mecha", default=shutil.which("python"), help="Python with sd-mecha")
    parser.add_argument("--threads", type=int, default=1)
    parts = parser.add_subparsers(required=True)
    for name, function in (("pair", pair), ("peer", peer), ("many", many), ("curve", curve)):
        parts.add_parser(name).set_defaults(run=function)
    alone = parts.add_parser("one", help="used by the others")
    alone.add_argument("way")
    alone.add_argument("output", type=Path)
    alone.add_argument("files", type=Path, nargs="+")
    alone.add_argument("--memory", type=float, default=2.0)
    alone.add_argument("--threads", type=int, default=1)
    alone.set_defaults(run=one)
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
