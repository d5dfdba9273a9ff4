"""What the images of one candidate have in common: near duplicates, and diversity over seeds.

Both compare images with others, which may be of an earlier session of the run: those are read from
the run folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from lib_automerge.domain.events import Scored
from lib_automerge.errors import RewardError
from lib_automerge.reward.looks import diversity, embedding, near_duplicate, perceptual_hash
from lib_automerge.reward.rgb import as_rgb
from lib_automerge.study.store import RunFolder

log = logging.getLogger(__name__)

_KEPT = 256


class Appearance:
    """Compares the images of a run folder.

    Args:
        folder: where the images are.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._hashes: dict[str, int] = {}

    def duplicate(self, image: Picture, file: str, earlier: Iterable[str]) -> float:
        """Return 1 if an image looks the same as an earlier one of its payload, else 0.

        Args:
            image: the image.
            file: where it is stored, relative to the folder.
            earlier: the files of the payload's images with earlier seeds.
        """
        mine = self._remember(file, perceptual_hash(image))
        return float(any(self._looks_like(mine, other) for other in earlier))

    def diversity(self, images: Iterable[Scored]) -> dict[str, float]:
        """Return the diversity of each payload that has several whole images: name -> 0 or more."""
        files: dict[str, list[str]] = {}
        for image in images:
            if image.broken is None:
                files.setdefault(image.payload, []).append(image.file)
        found: dict[str, float] = {}
        for payload, names in files.items():
            seen = [embedding(picture) for picture in map(self._read, names) if picture is not None]
            if len(seen) == len(names) > 1:
                found[payload] = diversity(np.stack(seen))
        return found

    def _looks_like(self, mine: int, file: str) -> bool:
        if file not in self._hashes:
            picture = self._read(file)
            if picture is None:
                return False
            self._remember(file, perceptual_hash(picture))
        return near_duplicate(mine, self._hashes[file])

    def _remember(self, file: str, value: int) -> int:
        while len(self._hashes) >= _KEPT:
            del self._hashes[next(iter(self._hashes))]
        self._hashes[file] = value
        return value

    def _read(self, file: str) -> Picture | None:
        """An image of the run; None, and a line in the log, if somebody removed it."""
        try:
            with Image.open(self._folder.path / file) as picture:
                return as_rgb(picture)
        except (OSError, RewardError) as error:
            log.warning("%s cannot be compared with others: %s", file, error)
            return None


def mean_diversity(parents: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the parents' mean diversity of each payload that all of them have."""
    common = set.intersection(*(set(found) for found in parents)) if parents else set()
    return {name: sum(found[name] for found in parents) / len(parents) for name in sorted(common)}
