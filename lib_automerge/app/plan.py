"""What a run does next: a pure function of its manifest and its state.

Jobs, recipes, proposals and the reason to stop are decided here, from what is on disk alone, so
that a resumed run decides as an uninterrupted one would have. The runner carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.app.preflight import baseline_weights, fresh_seeds
from lib_automerge.domain import architectures
from lib_automerge.domain.payload import ImageJob, Payload, jobs_of
from lib_automerge.domain.recipe import Recipe
from lib_automerge.domain.run import (
    BASELINES,
    Evaluated,
    Evaluation,
    Origin,
    Proposed,
    RunState,
    SearchEnded,
)
from lib_automerge.search import proposers, stopping
from lib_automerge.search.space import Space
from lib_automerge.study.store import RunManifest

UNIFORM = {Origin.MODEL_A: 0.0, Origin.MODEL_B: 1.0, Origin.HALF: 0.5}
BASELINE_METHOD = "weighted_sum"
"""The method under which weight 1 is model B, whatever method the candidates use."""


class Plan:
    """The plan of the run that a manifest describes."""

    def __init__(self, manifest: RunManifest) -> None:
        self._manifest = manifest
        self._config = manifest.config
        self._architecture = architectures.get(manifest.architecture)
        search = manifest.config.search
        space = Space.of(search, self._architecture)
        self._start = [space.point(weights) for weights in search.start]
        scored = [e for e in manifest.observations if e.score is not None]
        scored.sort(key=lambda e: (-(e.score or 0.0), e.number))
        self._adopted = scored[: manifest.config.verdict.finalists]
        self._observations = [e for e in manifest.observations if e not in self._adopted]
        self._proposer = proposers.create(search.optimizer, space, seed=search.seed)
        self._stopping = stopping.from_config(search)
        self._searched = [p for p in self._config.payloads if not p.held_out]
        self._held_out = [p for p in self._config.payloads if p.held_out]
        self.payload_weights = {p.name: p.weight for p in self._config.payloads}
        """Payload name -> weight in every mean."""

    def next(self, state: RunState) -> Proposed | SearchEnded:
        """The next candidate of the search, or that it is over and why."""
        number = len(state.evaluations) + 1
        if number <= len(BASELINES):
            origin = BASELINES[number - 1]
            weights = baseline_weights(
                self._architecture, self._manifest.distances, UNIFORM[origin]
            )
            return Proposed(evaluation=number, origin=origin, weights=weights)
        adopted = number - len(BASELINES) - 1
        if adopted < len(self._adopted):
            weights = self._adopted[adopted].weights
            return Proposed(evaluation=number, origin=Origin.EARLIER, weights=weights)
        start = adopted - len(self._adopted)
        if start < len(self._start):
            return Proposed(evaluation=number, origin=Origin.START, weights=self._start[start])
        history = (*self._observations, *state.history)
        if number > len(BASELINES) + 1:  # whatever the limits, one candidate is tried
            elapsed_s = sum(e.seconds.get("total", 0.0) for e in history)
            reason = self._stopping.reason(history, elapsed_s)
            if reason is not None:
                return SearchEnded(reason=reason)
        if self._config.method != BASELINE_METHOD:
            history = tuple(e for e in history if e.origin not in (Origin.MODEL_B, Origin.HALF))
        proposal = self._proposer.propose(history, state.pending, number)
        return Proposed(evaluation=number, origin=proposal.origin, weights=proposal.weights)

    def known(self, evaluation: Evaluation) -> Evaluated | None:
        """What an earlier run found out about a candidate, if its images need not be made again.

        The best of the observations are taken over as evaluations of this run, as many as there
        are finalists: so they can be shown, led with and proved like its own.
        """
        if evaluation.origin is not Origin.EARLIER:
            return None
        found = self._adopted[evaluation.number - len(BASELINES) - 1]
        assert found.score is not None
        return Evaluated(
            evaluation=evaluation.number,
            mean=found.score,
            standard_error=found.standard_error,
            images=found.images,
            per_payload=found.per_payload,
        )

    def recipe(self, evaluation: Evaluation) -> Recipe:
        """What is merged for an evaluation."""
        baseline = evaluation.origin in BASELINES
        return Recipe(
            architecture=self._architecture.name,
            method=BASELINE_METHOD if baseline else self._config.method,
            models=self._manifest.models,
            weights=evaluation.weights,
            parameters={} if baseline else self._config.parameters,
        )

    def rehearsal(self) -> tuple[list[ImageJob], list[str]]:
        """One image of every kind of settings, and every prompt that a reward will read."""
        kinds = {payload.settings(): payload for payload in self._config.payloads}
        prompts = [payload.judged_prompt for payload in self._config.payloads]
        return [ImageJob(0, payload, 0) for payload in kinds.values()], prompts

    def search_jobs(self) -> tuple[ImageJob, ...]:
        """The images by which every candidate of the search is scored."""
        return jobs_of(self._searched)

    def finalist_jobs(self) -> tuple[ImageJob, ...]:
        """The search's payloads with fresh seeds."""
        return self._fresh(self._searched, "finalists", self._config.verdict.finalist_seeds)

    def proof_jobs(self) -> tuple[tuple[ImageJob, ...], bool]:
        """The verdict's images, and whether their prompts were unknown to the search."""
        payloads = self._held_out or self._searched
        jobs = self._fresh(payloads, "verdict", self._config.verdict.seeds)
        return jobs, bool(self._held_out)

    def _fresh(self, payloads: Sequence[Payload], purpose: str, count: int) -> tuple[ImageJob, ...]:
        """Jobs with seeds that the search does not use; held-out payloads may name their own."""
        seeded = []
        for index, payload in enumerate(payloads):
            own = payload.seeds if payload.held_out else ()
            seeds = own or fresh_seeds(self._config, purpose, index, count, payload.seeds)
            seeded.append(msgspec.structs.replace(payload, seeds=seeds))
        return jobs_of(seeded)
