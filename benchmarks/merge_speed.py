"""Speed and memory of merging at the size of Stable Diffusion 1.x.

Everything is compared side by side in one run, as ratios of CPU seconds (best of several), because
wall time on a shared machine says little. Two synthetic checkpoints with the real SD1 keys and
shapes (2.1 GB each, float16) are written to --dir first and kept there for the next run.

    python benchmarks/merge_speed.py [--dir DIR] [--repeat 5]
    /usr/bin/time -v python benchmarks/merge_speed.py --only save     # peak memory of a file merge
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import Checkpoint, open_checkpoint

SD1 = architectures.get("sd1")


def write_checkpoint(path: Path, seed: int) -> None:
    """A file with SD1's keys and shapes, float16, of random weights."""
    shapes = {key: SD1.reference_keys[key] for key in sorted(SD1.reference_keys)}
    shapes = {key: shape for key, shape in shapes.items() if SD1.block_of(key) is not None}
    offset = 0
    entries: dict[str, object] = {}
    for key, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        entries[key] = {
            "dtype": "F16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    noise = torch.randn(1 << 24, generator=torch.Generator().manual_seed(seed)).mul_(0.05).half()
    block = noise.view(torch.uint8).numpy().tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        while offset > 0:
            offset -= file.write(block[: min(offset, len(block))])


class Live:
    """The UNet of a loaded model, as a sink."""

    def __init__(self, model: Checkpoint) -> None:
        unet = [k for k in model.keys() if k.startswith("model.diffusion_model.")]  # noqa: SIM118
        self.live = {key: torch.empty_like(model.tensor(key)) for key in unet}

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        return self.live[key]

    def put(self, key: str, tensor: Tensor) -> None:
        self.live[key].copy_(tensor)


def cpu_seconds(function: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Best CPU and wall seconds."""
    results = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        results.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(r[0] for r in results), min(r[1] for r in results)


def row(name: str, seconds: tuple[float, float], floor: float) -> None:
    print(f"| {name} | {seconds[0]:.3f} | {seconds[1]:.3f} | {seconds[0] / floor:.2f} |")


def live(a: Checkpoint, b: Checkpoint, repeat: int) -> None:
    """Swapping a candidate into a live UNet of 860 M parameters."""
    sink = Live(a)
    merger = Merger({"a": a, "b": b}, "weighted_sum")
    unet = SD1.parameters
    weights = {block: 0.1 + 0.03 * n for n, block in enumerate(unet)}
    few = {"IN04", "M00", "OUT08"}

    def copy() -> None:
        for key, tensor in sink.live.items():
            tensor.copy_(a.tensor(key))

    def peers() -> None:
        # what the runtime mergers do: load both files, loop in float32, load_state_dict
        one, two = (load_file(model.path) for model in (a, b))
        result = {}
        for key in sink.live:
            w = weights[str(SD1.block_of(key))]
            result[key] = ((1 - w) * one[key].float() + w * two[key].float()).half()
        for key, tensor in sink.live.items():
            tensor.copy_(result[key])

    copy()
    merger.merge(weights, sink, blocks=unet)
    floor = cpu_seconds(copy, repeat)
    full = cpu_seconds(lambda: merger.merge(weights, sink, blocks=unet), repeat)
    part = cpu_seconds(lambda: merger.merge(weights, sink, blocks=few), repeat)
    print("\n| live UNet, 860 M parameters, fp16, files in memory | CPU s | wall s | x copy |")
    print("|---|---|---|---|")
    row("copy the same bytes (the floor)", floor, floor[0])
    row("merge a candidate (27 blocks)", full, floor[0])
    row("merge again, 3 blocks changed", part, floor[0])
    row("as peers do: load both, loop in fp32, load_state_dict", cpu_seconds(peers, 1), floor[0])
    print(f"\n3 of 27 blocks cost {part[0] / full[0]:.2f} of a full merge.")


class AnonymousMemory:
    """Peak of the process's own memory (without the page cache of mapped files), Linux only."""

    def __enter__(self) -> AnonymousMemory:
        self.peak, self._on = 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on and Path("/proc/self/status").exists():
            status = Path("/proc/self/status").read_text()
            held = next(x for x in status.splitlines() if x.startswith("RssAnon"))
            self.peak = max(self.peak, int(held.split()[1]) * 1024)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


def save(a: Checkpoint, b: Checkpoint, folder: Path, repeat: int) -> None:
    """Writing a merged file, against the straight loop."""
    blocks = SD1.blocks
    weights = {block: 0.1 + 0.02 * n for n, block in enumerate(blocks)}
    recipe = Recipe(
        architecture="sd1",
        method="weighted_sum",
        models={"a": ModelRef(a.name), "b": ModelRef(b.name)},
        weights=weights,
    )

    def ours() -> None:
        path = folder / "ours.safetensors"
        path.unlink(missing_ok=True)
        write_merge(recipe, {"a": a, "b": b}, path)

    def straight() -> None:
        path = folder / "straight.bin"
        with safe_open(a.path, "pt") as one, safe_open(b.path, "pt") as two, path.open("wb") as out:
            for key in sorted(one.keys()):
                w = weights[str(SD1.block_of(key))]
                x, y = one.get_tensor(key).float(), two.get_tensor(key).float()
                out.write(((1 - w) * x + w * y).half().numpy().tobytes())
            os.fsync(out.fileno())

    loop = cpu_seconds(straight, repeat)
    with AnonymousMemory() as memory:
        mine = cpu_seconds(ours, repeat)
    print("\n| saving a merged SD1 file, 2.1 GB | CPU s | wall s | x straight loop |")
    print("|---|---|---|---|")
    row("straight loop (safe_open, fp32, sequential write)", loop, loop[0])
    row("merge_files", mine, loop[0])
    print(f"\nwall ratio {mine[1] / loop[1]:.2f}; peak own memory {memory.peak / 1e6:.0f} MB")
    for name in ("ours.safetensors", "straight.bin"):
        (folder / name).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "automerge-bench")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=("live", "save"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    paths = [options.dir / f"sd1-{name}.safetensors" for name in "ab"]
    for seed, path in enumerate(paths):
        if not path.exists():
            write_checkpoint(path, seed)
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        if options.only != "save":
            live(a, b, options.repeat)
        if options.only != "live":
            save(a, b, options.dir, options.repeat)


if __name__ == "__main__":
    main()
