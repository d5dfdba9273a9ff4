"""A run that measures how exact a score is, and searches nothing."""

from __future__ import annotations

import msgspec

from lib_automerge.domain.candidate import given
from lib_automerge.domain.config import OutputConfig, RunConfig, SearchConfig

SEED_SETS = 4
"""Sets of fresh seeds, unless told otherwise."""


def measurement_of(config: RunConfig, seed_sets: int | None = None) -> RunConfig:
    """The run that measures the noise of another one's scores, on the same images.

    It scores the baselines, and the 50:50 merge again on sets of fresh seeds: as many as are given,
    or as the run asks for (`SearchConfig.calibration`), or four.
    """
    search = config.search
    return msgspec.structs.replace(
        config,
        name=f"noise of {config.name}" if config.name else "noise",
        search=SearchConfig(
            evaluations=given(config),
            calibration=seed_sets or search.calibration or SEED_SETS,
            stop="never",
            low=search.low,
            high=search.high,
            blocks=search.blocks,
            parameters=search.parameters,
            seed=search.seed,
            seeds_per_payload=search.seeds_per_payload,
        ),
        output=OutputConfig(),
    )
