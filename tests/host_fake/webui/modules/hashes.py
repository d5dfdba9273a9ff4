"""SHA-256 of files, remembered per file and modification time; unknown until first calculated."""

import hashlib
from pathlib import Path

_known: dict[tuple[str, str], tuple[int, str]] = {}


def _time(filename: str) -> int:
    return Path(filename).stat().st_mtime_ns


def sha256_from_cache(filename: str, title: str) -> str | None:
    known = _known.get((title, filename))
    return known[1] if known and known[0] == _time(filename) else None


def sha256(filename: str, title: str) -> str:
    found = sha256_from_cache(filename, title)
    if found is None:
        found = hashlib.sha256(Path(filename).read_bytes()).hexdigest()
        _known[title, filename] = (_time(filename), found)
    return found
