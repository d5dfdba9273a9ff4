"""The files that rewards need: what they are, where they are looked for, whether they are intact.

Looking up never uses the network. In this order: the path that the user gave; the models folders
that the host names; the Hugging Face hub's cache; where the model's own package keeps its download.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from lib_automerge.errors import RewardError
from lib_automerge.reward import digests
from lib_automerge.reward.base import reason

FOLDER = "rewards"
"""The models folder's name in the folder of the user's data."""

_HUB = "https://huggingface.co"

# Larger reads leave the processor's cache before they are hashed.
_CHUNK = 1 << 18


class WeightFile(msgspec.Struct, frozen=True):
    """A published file that an option of a reward takes.

    Several with the same option are alternatives; the first is the one to download.

    Attributes:
        option: the option's name.
        name: what the file is called in a models folder; no other file's name.
        repo: its repository on the Hugging Face hub, "owner/name"; empty if it is not there.
        path: where it is in that repository, or, without one, the address to get it from.
        size: in bytes, as published; may be off by a few per cent where it is only quoted.
        licence: of the file, in a few words.
        sha256: of the published file in lower-case hexadecimal, or its first eight digits or more;
            None if unknown.
        kept: where the model's own package keeps its download, below the user's home folder.
    """

    option: str
    name: str
    repo: str
    path: str
    size: int
    licence: str
    sha256: str | None = None
    kept: str | None = None

    @property
    def address(self) -> str:
        """Where a person can get the file."""
        return f"{_HUB}/{self.repo}/blob/main/{self.path}" if self.repo else self.path

    def __str__(self) -> str:
        return f"{self.name} ({in_bytes(self.size)}, {self.licence})"


def find(files: Sequence[WeightFile], folders: Iterable[Path] = ()) -> Path | None:
    """Look for the first of some alternatives; None if there is none.

    In a models folder the file may also be a copy in safetensors: the same name with that ending.

    Args:
        files: alternatives, the preferred one first.
        folders: models folders, the preferred one first; need not exist.
    """
    for folder in folders:
        for file in files:
            for path in (folder / file.name, (folder / file.name).with_suffix(".safetensors")):
                if path.is_file():
                    return path
    for file in files:
        cached = _in_hub_cache(file) if file.repo else None
        if cached is not None:
            return cached
        if file.kept is not None and (Path.home() / file.kept).is_file():
            return Path.home() / file.kept
    return None


def file_of_digests(folders: Iterable[Path]) -> Path | None:
    """Where digests of weights are kept: in the folder of the user's data, if one of them is there.

    Args:
        folders: models folders.
    """
    return next((f.parent / digests.FILE for f in folders if f.name == FOLDER), None)


def missing(label: str, reward: str, files: Sequence[WeightFile], folders: Sequence[Path]) -> str:
    """Say which file a reward lacks, and how to get it; one or two sentences."""
    file = files[0]
    looked = " or ".join([*map(str, folders), "the Hugging Face cache"])
    put = f"get it from {file.address}"
    if folders:
        put += f" and put it into {folders[0]}"
    return (
        f"{label} needs the file {file}: it is not in {looked}. Download it "
        f"(python -m lib_automerge rewards --download {reward}), or {put}."
    )


def check(file: WeightFile, path: Path) -> None:
    """Refuse a file that bears the name of a published one but is another.

    Nothing is checked if the published file's SHA-256 is unknown or the file has another name: the
    user may have converted it, and its structure is checked when it is loaded.

    Raises:
        RewardError: its SHA-256 is not the published one, or it cannot be read.
    """
    if file.sha256 is None or (path.name != file.name and path != _in_hub_cache(file)):
        return
    digest = sha256_of_weights(path)
    if not digest.startswith(file.sha256):
        raise RewardError(
            f"{path} is not the published {file.name}: its SHA-256 begins with {digest[:8]} "
            f"instead of {file.sha256[:8]}. Download it again; rename it if it is a copy that you "
            "made on purpose."
        )


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes as they are now.

    Raises:
        RewardError: The file cannot be read.
    """
    try:
        return _hashed(path)
    except OSError as error:
        raise unreadable(path, error) from error


def sha256_of_weights(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file of weights.

    Computed once, as long as the file keeps its `digests.Stamp`: for this process, and for later
    ones in the file that `digests.kept_in` names.

    Raises:
        RewardError: The file cannot be read.
    """
    try:
        return digests.of(path, _hashed)
    except OSError as error:
        raise unreadable(path, error) from error


def in_bytes(size: int) -> str:
    """A size for people: "1.8 GB", "3.7 MB", "12 kB"."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{max(1, round(size / 1e3))} kB"


def hub_cache() -> Path:
    """The Hugging Face hub's cache on this machine, by the hub client's own rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.path.expandvars(os.environ[variable])).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = str(Path(cache) / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _in_hub_cache(file: WeightFile) -> Path | None:
    """The file of the newest revision that was downloaded, else of any."""
    repository = hub_cache() / f"models--{file.repo.replace('/', '--')}"
    try:
        newest = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        newest = ""
    snapshots = repository / "snapshots"
    revisions = [newest, *sorted(path.name for path in snapshots.glob("*"))]
    paths = (snapshots / revision / file.path for revision in revisions if revision)
    return next((path for path in paths if path.is_file()), None)


def _hashed(path: Path) -> str:
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(chunk):
            digest.update(chunk[:size])
    return digest.hexdigest()


def unreadable(path: Path, error: OSError) -> RewardError:
    """The operating system does not let us read a file."""
    told = error.strerror or reason(error)
    return RewardError(f"file cannot be read: {path} ({told}). Check its path and permissions.")
