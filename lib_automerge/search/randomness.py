"""The one source of randomness: generators that depend on a seed, a purpose and an index alone.

Hides how these three become a stream. A caller never keeps a generator between steps, so nothing
depends on what was drawn before, and a resumed run draws what an uninterrupted one would have.
"""

from __future__ import annotations

import hashlib

import numpy as np

from lib_automerge.errors import ConfigError


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator of (seed, purpose, index); the same on every machine.

    Args:
        seed: the seed of the run, 0 or more.
        purpose: what the numbers are for; different purposes give independent streams.
        index: which of the streams of this purpose, 0 or more.

    Raises:
        ConfigError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ConfigError(f"seed {seed} with index {index} is negative. Use 0 or more.")
    digest = hashlib.sha256(purpose.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    sequence = np.random.SeedSequence(seed, spawn_key=(*words, index))
    # Named rather than default_rng, whose bit generator numpy may exchange.
    return np.random.Generator(np.random.PCG64(sequence))
