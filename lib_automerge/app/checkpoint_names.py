"""What merged checkpoints are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lib_automerge.errors import ConfigError, StorageError

MAX_NAME_BYTES = 90
CHECKPOINT_NAME = re.compile(r"\w[\w .,'()+-]{0,99}")


def new_checkpoint(folder: Path, name: str) -> Path:
    """The path of a checkpoint that does not exist yet.

    Args:
        folder: where it will be.
        name: of the file, with or without `.safetensors`.

    Raises:
        ConfigError: the name cannot be a file name.
        StorageError: a file of that name exists.
    """
    name = name.strip().removesuffix(".safetensors")
    if not CHECKPOINT_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a checkpoint. Use letters, digits, spaces and "
            "_ . , ' ( ) + -, at most 100."
        )
    path = folder / f"{name}.safetensors"
    if path.exists():
        raise StorageError(f"the file exists already: {path}. Choose another name.")
    return path


def checkpoint_name(run: str, models: Sequence[str], ending: str = "") -> str:
    """`A-B-automerge-k3fa`, of characters that every file system takes, and not too long."""
    return joined_name(models, f"-automerge-{run.rpartition('-')[2]}{ending}")


def joined_name(models: Sequence[str], suffix: str) -> str:
    """Names of models and a suffix, of characters that every file system takes, not too long."""
    joined = re.sub(r"[^\w.+-]+", "_", "-".join(models)).lstrip("+-.") or "merge"
    # file systems count bytes, and other letters than ours take up to four
    room = MAX_NAME_BYTES - len(suffix)
    return joined.encode()[:room].decode(errors="ignore") + suffix
