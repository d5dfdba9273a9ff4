"""Where the time of a run went, and how much of it was neither merging, generating nor scoring.

python -m lib_automerge demo --out runs/overhead && python benchmarks/overhead.py runs/overhead
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lib_automerge.domain.events import Finished, Saved, SearchEnded, Started, Verdict
from lib_automerge.study.store import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    events = RunFolder.open(parser.parse_args().run_dir).events()
    times = {type(event): event.time for event in events}
    (finished,) = (event for event in events if isinstance(event, Finished))
    seconds = finished.seconds
    loading = seconds["load"]
    # from the first to the last image; saving and checking the checkpoint come after the verdict
    loop = times[Verdict] - times[Started] - loading
    work = seconds["merge"] + seconds["generate"] + seconds["score"]
    print(f"search {times[SearchEnded] - times[Started] - loading:.1f} s, loop {loop:.1f} s")
    print("| phase | seconds | share of the loop |")
    print("|---|---|---|")
    for name in ("merge", "generate", "score"):
        print(f"| {name} | {seconds[name]:.2f} | {seconds[name] / loop:.2%} |")
    print(f"| everything else | {loop - work:.2f} | {(loop - work) / loop:.2%} |")
    after = times.get(Saved, times[Finished]) - times[Verdict]
    print(
        f"\nbeside it: loading model A {loading:.1f} s, saving and checking the merge {after:.1f} s"
    )


if __name__ == "__main__":
    main()
