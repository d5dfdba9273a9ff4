"""The cap on memory, measured: in a process of its own, on what the merge takes of the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = '''
import re, sys
from pathlib import Path

import torch

from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import budget, catalogue, engine
from tests.lab_merges import PLAIN, merge_to, write

PER_THREAD, CHUNK = 6 << 20, 1 << 13
budget.LEAST, engine._PER_THREAD = 1 << 20, PER_THREAD
folder = Path(sys.argv[1])


def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10


def models(tag, shape, count):
    """Four files, again and again."""
    paths = [folder / f"{tag}{number}" for number in range(4)]
    for number, path in enumerate(paths):
        if not path.exists():
            torch.manual_seed(number)
            write(path, {"w": torch.randn(shape, dtype=torch.float16)})
    return [paths[number % 4] for number in range(count)]


def measure(method, tag, shape, count):
    based, roles = catalogue.get(method).based, catalogue.get(method).roles
    files = models(tag, shape, len(roles) or count + based)
    out = folder / "out"
    merge_to(out, method, files[: len(roles) or 1 + based], chunk=CHUNK)
    out.unlink()
    try:
        merge_to(out, method, files, chunk=CHUNK, memory=1)
    except ConfigError as error:
        least = int(re.search(r"Give it (\\d+) MiB", str(error))[1])
    Path("/proc/self/clear_refs").write_text("5")
    merge_to(out, method, files, chunk=CHUNK, memory=(least + 1) << 20)
    out.unlink()
    more = (status("VmHWM") - (least << 20)) / 2**20
    print(f"{method} {tag}: {more:.1f} MiB too much", flush=True)


for method in PLAIN:
    measure(method, "row", (1, 1 << 18), 3)
    measure(method, "square", (300, 300), 3)
measure("average", "long", (1, 1 << 20), 30)
measure("model_stock", "many", (1, 1 << 15), 250)
measure("ties", "many", (1, 1 << 15), 99)
'''


MANY = """
import os, re, sys
from pathlib import Path

import torch

from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from tests.lab_merges import merge_to, write

folder = Path(sys.argv[1])
files = [folder / f"m{number:03d}" for number in range(201)]
for number, path in enumerate(files):
    if number < 4:
        torch.manual_seed(number)
        write(path, {"w": torch.randn((1, 1 << 19), dtype=torch.float16)})
    else:
        os.link(files[number % 4], path)
out = folder / "out"
for method in ("average", "ties", "dare", "model_stock", "geometric_median"):
    merge_to(out, method, files[:3])
    out.unlink()
    try:
        merge_to(out, method, files, memory=1)
    except ConfigError as error:
        cap = int(re.search(r"Give it (\\d+) MiB", str(error))[1]) + 1
    Path("/proc/self/clear_refs").write_text("5")
    merge_to(out, method, files, memory=cap << 20)
    out.unlink()
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
    print(f"{method} {peak - cap:.1f}", flush=True)
"""

OVERHEAD = 8
"""MiB that Python's and the system's allocators may hold besides the cap."""


@pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux's own count")
def test_two_hundred_files_are_merged_under_the_cap(tmp_path: Path) -> None:
    # as numbers they are 800 MiB; the cap is the least that is accepted, some 130 MiB above Python
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY, str(tmp_path)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told = dict(line.split() for line in run.stdout.splitlines())
    assert len(told) == 5
    assert {name: over for name, over in told.items() if float(over) > OVERHEAD} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux's own count")
def test_no_method_takes_more_than_the_smallest_memory_that_is_accepted(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path)],
        # what is freed goes back to the system at once, so that it is not there to be used again
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told = run.stdout.splitlines()
    over = [line for line in told if not line.split(": ")[1].startswith("-")]
    assert len(told) > 40
    assert not over, "\n".join(over)
