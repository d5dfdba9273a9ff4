"""Component surgery on a merge of the lab while it is written: nothing is merged to be replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.detection import Detection
from lib_automerge.merge.edits import Changed, Edits, changed
from lib_automerge.merge.lab.job import Job, Task
from lib_automerge.merge.lab.number_types import NUMBER_TYPES, Raw
from lib_automerge.merge.lab.sources import Entry, Stamp, check_stamp, stamp_of
from lib_automerge.merge.surgery import Piece, Pieces

_NAMES = {dtype: name for name, dtype in NUMBER_TYPES.items()}


def edited(
    job: Job, edits: Edits, detection: Detection, stack: contextlib.ExitStack
) -> tuple[Job, Changed]:
    """Return the job with its components changed, and what was done.

    Args:
        job: the merge.
        edits: what to change, without number types.
        detection: of the first model.
        stack: takes the files that parts come from.

    Raises:
        ModelError: see `edits.changed`.
    """
    paths = [path for path in (edits.text_encoder, edits.vae) if path is not None]
    # what is recorded of a file and what is read from it must be the same bytes
    stamps = {path: stamp_of(path) for path in paths}
    shapes = {task.key: job.source_of(task).entries[task.key].shape for task in job.tasks}
    pieces = {
        task.key: Piece(NUMBER_TYPES[task.number_type], shapes[task.key], _merged)
        for task in job.tasks
    }
    done = changed(pieces, edits, "the merge", detection, stack)
    new = {key: piece for key, piece in done.pieces.items() if piece is not pieces.get(key)}
    family = architectures.get(detection.architecture)
    kept = [task for task in job.tasks if task.key in done.pieces and task.key not in new]
    taken = [
        Task(key, family.block_of(key), _NAMES[piece.dtype], copied=len(job.sources))
        for key, piece in new.items()
    ]
    sources = (*job.sources, _Parts(new, stamps))
    return msgspec.structs.replace(job, sources=sources, tasks=(*kept, *taken)), done


class _Parts:
    """The weights that are not merged; see `Source`.

    Args:
        pieces: by key.
        stamps: of the files that they come from.
    """

    def __init__(self, pieces: Pieces, stamps: Mapping[Path, Stamp]) -> None:
        self._pieces = pieces
        self._stamps = stamps
        self.name = " or ".join(path.name for path in stamps)
        self.entries = {
            key: Entry(_NAMES[piece.dtype], piece.shape, 0) for key, piece in pieces.items()
        }

    def read(self, key: str, start: int, stop: int, out: Raw) -> None:
        """See `Source.read`."""
        flat = self._pieces[key].read().contiguous().view(-1)[start:stop]
        out[:] = flat.view(torch.uint8).numpy()

    def check_unchanged(self) -> None:
        """See `Source.check_unchanged`."""
        for path, stamp in self._stamps.items():
            check_stamp(path, stamp)


def _merged() -> Tensor:
    raise AssertionError("what is merged is written piece by piece")
