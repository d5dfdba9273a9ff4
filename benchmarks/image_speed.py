"""CPU images with and without `keep_freed_memory`, side by side: each in a process of its own.

python benchmarks/image_speed.py [--images 24] [--repeat 3]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

PLAIN, KEPT = "plain", "kept"


def measure(images: int, repeat: int, kind: str) -> None:
    """Print the best CPU and wall seconds of a batch of demo images."""
    from lib_automerge import demo
    from lib_automerge.domain.payload import jobs_of
    from lib_automerge.generate import diffusers_
    from lib_automerge.merge.readers import open_checkpoint

    if kind == PLAIN:
        diffusers_.keep_freed_memory = lambda: None
    jobs = jobs_of([p for p in demo.load_payloads() if not p.held_out])[:images]
    generator = diffusers_.DiffusersGenerator(device="cpu")
    best = [float("inf")] * 2
    with open_checkpoint(demo.MODEL_A) as a, generator.open({"a": a}) as session:
        for _ in range(repeat):
            start = time.process_time(), time.perf_counter()
            list(session.images(jobs, lambda: False))
            used = time.process_time() - start[0], time.perf_counter() - start[1]
            best = [min(pair) for pair in zip(best, used, strict=True)]
    print(*best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kind", choices=(PLAIN, KEPT), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        measure(options.images, options.repeat, options.kind)
        return
    print("| images on the CPU | CPU s per image | wall s per image |\n|---|---|---|")
    results = {}
    for kind in (PLAIN, KEPT):
        command = [sys.executable, __file__, "--kind", kind]
        command += ["--images", str(options.images), "--repeat", str(options.repeat)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=dict(os.environ)
        )
        results[kind] = [float(x) / options.images for x in done.stdout.split()[-2:]]
        print(f"| {kind} | {results[kind][0]:.4f} | {results[kind][1]:.4f} |")
    print(f"\nratio in wall time {results[KEPT][1] / results[PLAIN][1]:.2f}")


if __name__ == "__main__":
    main()
