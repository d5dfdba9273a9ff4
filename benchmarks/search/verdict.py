"""How often a run's verdict is right: simulated runs from scores to sentence.

The score of an image is a candidate's gain + the payload + what the payload adds to this candidate
only + noise of standard deviation 1, fresh for every image. 80 candidates and the baselines are
scored on 12 payloads with two seeds; the three best candidates on fresh seeds again; the first of
them, and the baselines, on held-out payloads, which `lib_automerge.app.proof.judge` then sees; the
seeds are a configuration's defaults.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from lib_automerge.app import proof
from lib_automerge.domain.config import SearchConfig, VerdictConfig
from lib_automerge.domain.events import BASELINES

Array = NDArray[np.float64]

RUNS, CANDIDATES, PAYLOADS = 200, 80, 12
HELD_OUT = (4, 5, 6, 8)
PAYLOAD_SD, INTERACTION_SD = 1.0, 0.3
GAIN = 1.0


class Verdicts(msgspec.Struct, frozen=True):
    """In how many of `runs` simulated runs a win was declared."""

    held_out: int
    gain: float
    wins: int
    runs: int


def verdicts(held_out: int, gain: float, runs: int = RUNS) -> Verdicts:
    """Simulate runs in which one candidate is truly better by `gain`, the others by nothing."""
    draw = np.random.default_rng([held_out, int(1000 * gain)])
    wins = sum(declared(held_out, gain, draw) for _ in range(runs))
    return Verdicts(held_out, gain, wins, runs)


def declared(held_out: int, gain: float, draw: np.random.Generator) -> bool:
    """Simulate a run; tell whether its verdict is a win."""
    verdict = VerdictConfig()
    count = len(BASELINES) + CANDIDATES
    gains = np.zeros(count)
    gains[-1] = gain
    searched = means(gains, PAYLOADS, draw)
    search = images(searched, SearchConfig().seeds_per_payload, draw).mean(axis=(1, 2))
    candidates = np.arange(len(BASELINES), count)
    finalists = candidates[np.argsort(-search[candidates])[: verdict.finalists]]
    fresh = images(searched[finalists], verdict.finalist_seeds, draw).mean(axis=(1, 2))
    winner = int(finalists[np.argmax(fresh)])
    compared = [*range(len(BASELINES)), winner]
    proved = images(means(gains[compared], held_out, draw), verdict.seeds_for(held_out), draw)
    scores = {
        number: {
            (f"payload {payload}", seed): float(score)
            for (payload, seed), score in np.ndenumerate(table)
        }
        for number, table in zip(compared, proved, strict=True)
    }
    weights = {f"payload {payload}": 1.0 for payload in range(held_out)}
    baselines = dict(enumerate(BASELINES))
    return proof.judge(winner, scores, baselines, weights, held_out=True).gain


def means(gains: Array, payloads: int, draw: np.random.Generator) -> Array:
    """Return the expected scores of candidates on new payloads, (candidates, payloads)."""
    shared = PAYLOAD_SD * draw.normal(size=payloads)
    own = INTERACTION_SD * draw.normal(size=(len(gains), payloads))
    return gains[:, None] + shared + own


def images(expected: Array, seeds: int, draw: np.random.Generator) -> Array:
    """Return the scores of images with so many seeds, (candidates, payloads, seeds)."""
    return expected[:, :, None] + draw.normal(size=(*expected.shape, seeds))
