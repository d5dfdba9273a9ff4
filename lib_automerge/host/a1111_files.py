"""Checkpoint files as AUTOMATIC1111 sees them. Import it only inside that WebUI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modules import sd_models


def info_of(path: Path) -> Any:
    """The WebUI's own description of a checkpoint file, as it knows it, or a new one."""
    model = sd_models.model_data.sd_model
    known = [] if model is None else [model.sd_checkpoint_info]
    for info in [*known, *sd_models.checkpoints_list.values()]:
        if same_file(info.filename, path):
            return info
    return sd_models.CheckpointInfo(str(path))


@contextmanager
def configuration(path: Path, like: Path | None) -> Iterator[None]:
    """Lend a checkpoint the configuration file of another one while it is loaded.

    The WebUI looks for one beside the checkpoint, under its name.
    """
    own = path.with_suffix(".yaml")
    lent = None if like is None else like.with_suffix(".yaml")
    if lent is None or own.exists() or not lent.exists():
        yield
        return
    shutil.copyfile(lent, own)
    try:
        yield
    finally:
        own.unlink(missing_ok=True)


def same_file(one: str, other: Path) -> bool:
    """Whether two paths, one as the WebUI has it, lead to the same file."""
    return Path(one).resolve() == other.resolve()
