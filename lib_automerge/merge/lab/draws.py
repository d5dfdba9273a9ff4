"""Random numbers that depend on where they are used and on nothing else.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a key and a
counter into numbers. The key is made of seed, model and tensor name, the counter is the offset of
an element, so that any slice of any tensor can be drawn alone.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RANGE = 1 << 32
"""Draws are whole numbers below this; a probability is exact to its inverse, 2.3e-10."""

_PER_COUNT = 8


def draws(seed: int, model: int, key: str, start: int, stop: int) -> NDArray[np.uint32]:
    """Return uniform whole numbers in [0, `RANGE`) for the elements `start` to `stop`.

    Args:
        seed: of the merge.
        model: the number of the model in the merge, from 0.
        key: the canonical name of the tensor.
        start: offset of the first element in the flattened tensor.
        stop: offset after the last one.
    """
    first, skipped = divmod(start, _PER_COUNT)
    bits = np.random.Philox(key=_philox_key(seed, model, key), counter=first)
    words = bits.random_raw(-(-(skipped + stop - start) // 2))
    numbers: NDArray[np.uint32] = words.astype("<u8", copy=False).view("<u4")
    return numbers[skipped : skipped + stop - start]


@lru_cache(maxsize=4096)
def _philox_key(seed: int, model: int, key: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{model}\n{key}".encode()).digest()
    return int.from_bytes(digest[:16], "little")
