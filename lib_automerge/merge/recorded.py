"""Models that a recipe names, opened only if they are the ones that it means."""

from __future__ import annotations

from pathlib import Path

from lib_automerge.domain.recipe import ModelRef
from lib_automerge.errors import ModelError
from lib_automerge.merge.readers import Checkpoint, open_checkpoint


def open_recorded(ref: ModelRef) -> Checkpoint:
    """Open a recipe's model and check that it is the one that was recorded.

    Raises:
        ModelError: it is not there, or its content has another SHA-256.
    """
    if not ref.path:
        raise ModelError(f"the recipe gives no path for {ref.name}. Add the path of the file.")
    checkpoint = open_checkpoint(Path(ref.path))
    if ref.sha256 and checkpoint.sha256() != ref.sha256:
        found = checkpoint.sha256()
        checkpoint.close()
        raise ModelError(
            f"{ref.path} is not the model of the recipe: its SHA-256 is {found[:12]}..., the "
            f"recipe's {ref.sha256[:12]}.... Point to the right file."
        )
    return checkpoint
