"""What a run takes of the machine, and what it wrote into its log."""

from __future__ import annotations

import os
import re
import statistics
from pathlib import Path

import msgspec

from lib_automerge.study.findings import PHASES, Findings
from lib_automerge.study.formats import duration, size
from lib_automerge.study.markup import Markup, element, join
from lib_automerge.study.tables import facts

TAIL = 16 << 10
"""Bytes of the log that are shown; the whole of it can be downloaded."""

LOUD = re.compile(r"^\S+ \S+ (WARNING|ERROR|CRITICAL) ")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: of memory that this process holds, of the device (used, of all), free on the disk.

    None where that cannot be told.
    """

    memory: int | None
    device: tuple[int, int] | None
    disk_free: int


def process_memory() -> int | None:
    """Bytes of memory that this process holds now; None where that cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def resources(found: Findings, usage: Usage) -> Markup:
    """Memory, disk, and the seconds of each phase of an evaluation."""
    unknown = "unknown here"
    pairs = [("Memory of this process", unknown if usage.memory is None else size(usage.memory))]
    if usage.device is not None:
        used, total = usage.device
        pairs.append(("Graphics memory", f"{size(used)} of {size(total)}"))
    pairs.append(("Free on the disk of the runs", size(usage.disk_free)))
    timed = [e.seconds for e in found.state.history if e.seconds.get("total")][-20:]
    names = {"merge": "Merging", "generate": "Images", "score": "Scoring"}
    for phase in PHASES if timed else ():
        seconds = statistics.median(t.get(phase, 0.0) for t in timed)
        pairs.append((f"{names[phase]}, per evaluation", duration(seconds)))
    return facts(pairs)


def log_tail(path: Path, href: str) -> Markup:
    """The last lines of a log, with what is wrong set apart."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - TAIL)
            file.seek(start)
            lines = file.read(TAIL).decode("utf-8", "replace").splitlines()
    except OSError:
        return element("p", "There is no log yet.", class_="hint")
    # the first line is cut somewhere
    shown = lines[1:] if start else lines
    content = [element("mark", line, "\n") if LOUD.match(line) else f"{line}\n" for line in shown]
    return join(
        [
            element(
                "p",
                element(
                    "button",
                    "Copy",
                    type="button",
                    class_="automerge-button",
                    data_action="copy",
                    data_copy="automerge-log",
                ),
                " ",
                element("a", "Download log.txt", href=href, download=True),
            ),
            element("pre", *content, id="automerge-log", class_="automerge-log", tabindex="0"),
        ]
    )
