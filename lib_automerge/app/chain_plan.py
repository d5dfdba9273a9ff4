"""What a chain does next: pure functions of its manifest and its state.

Which images rank a model, who meets whom in a tree, who leaves it and which files are still needed
are decided here, from what is on disk alone, so that a resumed chain decides as an uninterrupted
one would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lib_automerge.app.preflight import fresh_seeds
from lib_automerge.domain.chain import (
    POOL,
    RANK_IMAGES,
    ChainConfig,
    TreeStep,
    named_by,
)
from lib_automerge.domain.chain_events import Purpose, Standing
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.payload import ImageJob, Payload, jobs_of
from lib_automerge.study.chain_store import ChainManifest

FEWEST_STAY = 2
"""So many models stay in a tree whatever their scores are."""


def chain_jobs(config: ChainConfig, purpose: Purpose) -> tuple[ImageJob, ...]:
    """The images by which every model is shown, ranked, or compared at the end of a tree.

    All seeds are fresh: no search uses them, and no two purposes share any.
    """
    searched = [p for p in config.payloads if not p.held_out]
    if purpose is Purpose.PREVIEW:
        shown = searched[: config.previews]
        return jobs_of([_seeded(config, "preview", n, p, 1) for n, p in enumerate(shown)])
    held_out = [p for p in config.payloads if p.held_out]
    ranking = [p for p in held_out if p not in config.reserved] or searched
    count = config.rank_seeds or max(2, math.ceil(RANK_IMAGES / len(ranking)))
    ranked = [_seeded(config, "rank", n, p, count) for n, p in enumerate(ranking)]
    if purpose is Purpose.RANK:
        return jobs_of(ranked)
    final = list(config.reserved) or ranking
    run = config.run({}, None)
    count = run.verdict_seeds(len(final))
    used = {p.name: p.seeds for p in ranked}
    return jobs_of(
        [_seeded(config, "final", n, p, count, used.get(p.name, ())) for n, p in enumerate(final)]
    )


def _seeded(
    config: ChainConfig,
    purpose: str,
    index: int,
    payload: Payload,
    count: int,
    used: tuple[int, ...] = (),
) -> Payload:
    run = config.run({}, None)
    seeds = fresh_seeds(run, f"chain {purpose}", index, count, (*payload.seeds, *used))
    return msgspec.structs.replace(payload, seeds=seeds)


class ChainPlan:
    """What follows from a chain's manifest.

    Args:
        manifest: of the chain.
    """

    def __init__(self, manifest: ChainManifest) -> None:
        self.manifest = manifest
        self.config = manifest.config
        self.weights = {p.name: p.weight for p in self.config.payloads}
        self._jobs = {purpose: chain_jobs(self.config, purpose) for purpose in Purpose}

    @property
    def reserved(self) -> bool:
        """Whether a tree's final verdict has prompts that no step saw."""
        ranked = {job.payload.name for job in self._jobs[Purpose.RANK]}
        return not any(job.payload.name in ranked for job in self._jobs[Purpose.FINAL])

    def jobs(self, purpose: Purpose) -> tuple[ImageJob, ...]:
        """The images of a purpose, the same for all models."""
        return self._jobs[purpose]

    def models(self, names: Sequence[str], state: ChainState) -> tuple[str, ...]:
        """The models that a step names, each once: of the pool, and what earlier steps hand on."""
        found: list[str] = []
        for name in names:
            if name == POOL:
                found += [member.name for member in self.manifest.pool]
            elif name in state.done:
                found += state.done[name].models
            else:
                found.append(name)
        return tuple(dict.fromkeys(found))

    def needed(self, after: int, state: ChainState) -> frozenset[str]:
        """The models that the steps after number `after` (from 0) name, or that are the result."""
        later = self.config.steps[after + 1 :]
        names = [name for step in later for name in named_by(step) if name in state.done]
        if not later:
            names = [self.config.steps[-1].name]
        compared = {event.winner for event in state.compared.values()}
        return frozenset(self.models(names, state)) | compared


def paired(models: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Who meets whom at a level of a tree, and who goes up without a search.

    The best meets the second best, the third the fourth, and so on: a merge must beat the better of
    its parents, which is the likelier the less they differ in quality; and where it does not, the
    parent that leaves is hardly worse than the one that stays. Of an odd number the last one waits.

    Args:
        models: the best first.
    """
    pairs = tuple(zip(models[::2], models[1::2], strict=False))
    return pairs, models[-1] if len(models) % 2 else None


def staying(step: TreeStep, standings: Sequence[Standing]) -> tuple[str, ...]:
    """The winners of a level that go on, the best first; see `TreeStep`.

    The share is rounded to the nearest number. Those that make broken images never go on.
    """
    whole = [standing for standing in standings if standing.mean is not None]
    if step.keep is not None:
        return tuple(s.model for s in whole[: max(step.keep, FEWEST_STAY)])
    leaving = min(math.floor(step.prune * len(whole) + 0.5), max(len(whole) - FEWEST_STAY, 0))
    worst = whole[len(whole) - leaving :] if leaving else []
    gone = {standing.model for standing in worst if standing.clearly_worse}
    return tuple(s.model for s in whole if s.model not in gone)
