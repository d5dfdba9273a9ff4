"""What a run does next: a pure function of its manifest and its state.

Jobs, recipes, proposals and the reason to stop are decided here, from what is on disk alone, so
that a resumed run decides as an uninterrupted one would have. The runner carries them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from lib_automerge.app import searched
from lib_automerge.app.evaluate import by_pair
from lib_automerge.app.judging import Judging
from lib_automerge.app.preflight import baseline_weights, fresh_seeds
from lib_automerge.domain import architectures
from lib_automerge.domain.candidate import BASELINE_METHOD, UNIFORM, given, recipe_of
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import (
    BASELINES,
    GIVEN,
    Calibrated,
    Evaluated,
    Learned,
    Origin,
    Proposed,
    Scored,
    SearchEnded,
    Stage,
)
from lib_automerge.domain.payload import ImageJob, Payload, jobs_of
from lib_automerge.domain.recipe import Recipe
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.errors import SearchError
from lib_automerge.search import calibration, proposers, rejection, stopping
from lib_automerge.search.model import Model
from lib_automerge.search.space import Space
from lib_automerge.study.store import RunManifest

RANKED = 20
"""So many of the leading evaluations are journalled at least."""


def space_of(manifest: RunManifest) -> Space:
    """The space that a run searches: without the blocks whose weight changes nothing.

    Raises:
        ConfigError: nothing is left to search.
    """
    # any other method may change a block in which A and B are equal
    plain = manifest.config.method == BASELINE_METHOD
    architecture = architectures.get(manifest.architecture)
    return searched.space(manifest.config, architecture, manifest.distances if plain else None)


def model_of(manifest: RunManifest) -> Model:
    """The model of a run's scores, over its space.

    Raises:
        ConfigError: nothing is left to search.
    """
    plain = manifest.config.method == BASELINE_METHOD
    shares = {payload.name: payload.weight for payload in manifest.config.payloads}
    return Model(space_of(manifest), manifest.distances if plain else None, shares)


def known(manifest: RunManifest, state: RunState) -> tuple[Evaluation, ...]:
    """What earlier runs and this one found out, in order of their numbers."""
    return (*_earlier(manifest)[1], *_own(manifest, state))


def as_known(manifest: RunManifest, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations as the space of a run knows them.

    A weight in a block in which the models do not differ means nothing, whatever was written down
    by a run that searched it.
    """
    if manifest.config.method != BASELINE_METHOD:
        return list(evaluations)
    idle = {
        block: value
        for block, value in space_of(manifest).blocks.items()
        if isinstance(value, float) and not manifest.distances.get(block)
    }
    return [msgspec.structs.replace(e, weights={**e.weights, **idle}) for e in evaluations]


def _earlier(manifest: RunManifest) -> tuple[list[Evaluation], list[Evaluation]]:
    """The observations that are evaluated again in this run, best first, and the others.

    As many are as there are finalists, if the budget leaves room for a candidate of its own.
    """
    scored = [e for e in manifest.observations if e.score is not None]
    scored.sort(key=lambda e: (-(e.score or 0.0), e.number))
    adopted = scored[: room_for_earlier(manifest.config, len(manifest.config.search.start))]
    others = [e for e in manifest.observations if e not in adopted and not e.unmade]
    return adopted, as_known(manifest, others)


def room_for_earlier(config: RunConfig, start: int) -> int:
    """How many evaluations of earlier runs are taken over beside so many start points."""
    free = config.search.evaluations - given(config) - start - 1
    return max(0, min(config.verdict.finalists, free))


def _own(manifest: RunManifest, state: RunState) -> tuple[Evaluation, ...]:
    """What this run found out.

    The weights of model B and 50:50 mean nothing to another method, and a candidate that could not
    be made says nothing: there they have none, which is outside of every space.
    """
    plain = manifest.config.method == BASELINE_METHOD
    kind = architectures.get(manifest.architecture)
    foreign = GIVEN[1:] if searched.first_is_a(manifest.config, kind) else GIVEN

    def says_nothing(evaluation: Evaluation) -> bool:
        return evaluation.unmade or (not plain and evaluation.origin in foreign)

    return tuple(
        msgspec.structs.replace(e, weights={}) if says_nothing(e) else e
        for e in as_known(manifest, state.history)
    )


class Plan:
    """The plan of the run that a manifest describes."""

    def __init__(self, manifest: RunManifest) -> None:
        self._manifest = manifest
        self._config = manifest.config
        self._architecture = architectures.get(manifest.architecture)
        search = manifest.config.search
        self._model = model_of(manifest)
        space = self._model.space
        self._start = [space.point(weights) for weights in search.start]
        self._given = given(manifest.config)
        self._adopted, self._observations = _earlier(manifest)
        self._proposer = proposers.create(
            search.optimizer,
            space,
            seed=search.seed,
            model=self._model,
            coarse_first=search.coarse_first,
        )
        self._stopping = stopping.from_config(search, self._model)
        self._searched = [p for p in self._config.payloads if not p.held_out]
        self._held_out = [p for p in self._config.payloads if p.held_out]
        self.payload_weights = {p.name: p.weight for p in self._config.payloads}
        """Payload name -> weight in every mean."""
        self.seed = search.seed
        """Of all chance in the run."""
        self.judging = Judging(self._config.reward, self.payload_weights)
        """Turns what was measured into scores."""

    def next(self, state: RunState) -> Proposed | SearchEnded:
        """The next candidate of the search, or that it is over and why."""
        number = len(state.evaluations) + 1
        if number <= self._given:
            origin = GIVEN[min(number, len(GIVEN)) - 1]
            weights = {}
            if "a" in self._config.models:
                weights = baseline_weights(
                    self._architecture, self._manifest.distances, UNIFORM[origin]
                )
            return Proposed(evaluation=number, origin=origin, weights=weights)
        if self._config.search.evaluations <= self._given:
            return SearchEnded(reason=_measured(state))
        adopted = number - self._given - 1
        if adopted < len(self._adopted):
            weights = self._adopted[adopted].weights
            return Proposed(evaluation=number, origin=Origin.EARLIER, weights=weights)
        start = adopted - len(self._adopted)
        if start < len(self._start):
            return Proposed(evaluation=number, origin=Origin.START, weights=self._start[start])
        history = self._history(state)
        known_before = (*GIVEN, Origin.EARLIER)
        if any(e.origin not in known_before for e in state.history):
            # whatever the limits, one candidate is tried
            reason = self._reason(state, history)
            if reason is not None:
                return self.ended(state, reason)
        try:
            proposal = self._proposer.propose(history, state.pending, number)
        except SearchError:
            return self.ended(state, "every point of the search space was tried")
        return Proposed(evaluation=number, origin=proposal.origin, weights=proposal.weights)

    def _reason(self, state: RunState, history: Sequence[Evaluation]) -> str | None:
        """Why the search is over, or None."""
        limit = self._config.search.images
        if limit is not None and state.images_before_proof >= limit:
            return f"the budget of {limit} images is used up"
        return self._stopping.reason(history, state.seconds_before_proof)

    def ended(self, state: RunState, reason: str) -> SearchEnded:
        """The end of the search for a reason, with what going on would probably have gained."""
        outlook = stopping.outlook(self._model.learn(self._history(state)))
        return SearchEnded(reason=reason, outlook=outlook)

    def learned(self, state: RunState) -> Learned | None:
        """What the model makes of the scores so far; None if it cannot tell, or has told already.

        Nothing more is said once the search is over: the proof acts on who leads then. Only this
        run's evaluations can lead; what earlier runs found out informs the model.
        """
        done = state.history
        if not done or state.search_ended is not None:
            return None
        if state.learned is not None and state.learned.evaluation == done[-1].number:
            return None
        knowledge = self._model.learn(self._history(state))
        if knowledge is None:
            return None
        leader = knowledge.leader
        told = (leader.mean, leader.sd, knowledge.noise, knowledge.gain, knowledge.bound)
        if not all(map(math.isfinite, told)):
            return None
        kept = max(RANKED, self._given + self._config.verdict.finalists)
        return Learned(
            evaluation=done[-1].number,
            leader=leader.number,
            ranking=tuple(belief.number for belief in knowledge.ranking[:kept]),
            mean=leader.mean,
            sd=leader.sd,
            noise=knowledge.noise,
            gain=knowledge.gain,
            bound=knowledge.bound,
        )

    def _history(self, state: RunState) -> tuple[Evaluation, ...]:
        return (*self._observations, *_own(self._manifest, state))

    def to_calibrate(self, state: RunState) -> Evaluation | None:
        """The evaluation to measure the noise on now: the 50:50 merge, once after the baselines."""
        half = state.baseline(Origin.HALF)
        wanted = self._config.search.calibration > 0 and state.calibrated is None
        due = wanted and half is not None and half.score is not None
        return half if due and len(state.history) == len(BASELINES) else None

    def calibration_jobs(self) -> tuple[ImageJob, ...]:
        """The search's payloads with several sets of as many fresh seeds."""
        sets = self._config.search.calibration
        seeded = []
        for index, payload in enumerate(self._searched):
            count = sets * len(payload.seeds)
            seeds = fresh_seeds(self._config, "calibration", index, count, payload.seeds)
            seeded.append(msgspec.structs.replace(payload, seeds=seeds))
        return jobs_of(seeded)

    def calibration(self, state: RunState) -> Calibrated:
        """What the scores of the baselines and of the calibration say about chance.

        Raises:
            ConfigError: too many images of the calibration are broken to say anything.
        """
        found = [state.baseline(origin) for origin in BASELINES]
        scored = [e for e in found if e is not None and e.score is not None]
        recipes = [by_pair(state.scores[Stage.SEARCH, e.number]) for e in scored]
        half = scored[-1]
        fresh = by_pair(state.scores[Stage.CALIBRATION, half.number])
        measured = calibration.calibrate(recipes, {**recipes[-1], **fresh}, self.payload_weights)
        return Calibrated(
            evaluation=half.number,
            seed_sd=measured.alone_sd,
            noise=measured.noise,
            prompt_sd=measured.prompt_sd,
            spread=measured.spread,
            advice=measured.advice.value,
            prompts=measured.enough_prompts,
            seeds=measured.enough_seeds,
            sentence=measured.sentence,
        )

    def hopeless(
        self, state: RunState, candidate: Evaluation, images: Mapping[int, Scored]
    ) -> str | None:
        """Why a candidate can be given up, by the images so far; None to go on.

        Baselines and what the user asked for are always scored to the end.
        """
        incumbent = state.incumbent
        exempt = (*GIVEN, Origin.START, Origin.EARLIER)
        if not self._config.search.early_reject or candidate.origin in exempt or incumbent is None:
            return None
        found = rejection.chance(self.complete(images), incumbent.per_payload, self.payload_weights)
        if found is None or not found.hopeless:
            return None
        return (
            f"given up after {found.payloads} of {len(self._searched)} prompts: "
            f"{found.difference:+.3g} ± {found.standard_error:.2g} against evaluation "
            f"{incumbent.number} leaves {100 * found.better:.1f} % for being better"
        )

    def complete(self, images: Mapping[int, Scored]) -> dict[str, float]:
        """The mean score of every payload of the search whose images are all among these."""
        scores = by_pair(images)
        return {
            p.name: math.fsum(scores[p.name, seed] for seed in p.seeds) / len(p.seeds)
            for p in self._searched
            if all((p.name, seed) in scores for seed in p.seeds)
        }

    def known(self, evaluation: Evaluation) -> Evaluated | None:
        """What an earlier run found out about a candidate, if its images need not be made again.

        The best of the observations are taken over as evaluations of this run, as many as there
        are finalists: so they can be shown, led with and proved like its own.
        """
        if evaluation.origin is not Origin.EARLIER:
            return None
        found = self._adopted[evaluation.number - self._given - 1]
        assert found.score is not None
        return Evaluated(
            evaluation=evaluation.number,
            mean=found.score,
            standard_error=found.standard_error,
            images=found.images,
            per_payload=found.per_payload,
            judgement=found.judgement,
        )

    def recipe(self, evaluation: Evaluation) -> Recipe:
        """What is merged for an evaluation."""
        return recipe_of(evaluation, self._config, self._manifest.models, self._architecture)

    def rehearsal(self) -> tuple[list[ImageJob], list[str]]:
        """One image of every kind of settings, and every prompt that a reward will read."""
        kinds = {payload.settings(): payload for payload in self._config.payloads}
        prompts = [payload.judged_prompt for payload in self._config.payloads]
        return [ImageJob(0, payload, 0) for payload in kinds.values()], prompts

    def styles_unread(self) -> list[str]:
        """The payloads with styles of the WebUI, which a reward reads nothing of."""
        return [p.name for p in self._config.payloads if p.styles and p.score_prompt is None]

    def search_jobs(self) -> tuple[ImageJob, ...]:
        """The images by which every candidate of the search is scored."""
        return jobs_of(self._searched)

    def finalists(self, state: RunState) -> list[Evaluation]:
        """The candidates that the search believes in most."""
        candidates = [e for e in state.ranked if e.origin not in GIVEN and not _capped(e)]
        return candidates[: self._config.verdict.finalists]

    def finalist_jobs(self, round_: int) -> tuple[ImageJob, ...]:
        """The search's payloads with the fresh seeds of a round (from 0); numbers go on."""
        count = self._config.verdict.finalist_seeds
        jobs = self._fresh(self._searched, "finalists", count, skip=round_ * count)
        first = round_ * len(jobs)
        return tuple(msgspec.structs.replace(job, number=first + job.number) for job in jobs)

    def proof_jobs(self) -> tuple[tuple[ImageJob, ...], bool]:
        """The verdict's images, and whether their prompts were unknown to the search."""
        payloads = self._held_out or self._searched
        count = self._config.verdict_seeds(len(payloads))
        jobs = self._fresh(payloads, "verdict", count)
        return jobs, bool(self._held_out)

    def _fresh(
        self, payloads: Sequence[Payload], purpose: str, count: int, *, skip: int = 0
    ) -> tuple[ImageJob, ...]:
        """Jobs with seeds that the search does not use; held-out payloads may name their own.

        `skip` is how many of the purpose's seeds are used up already.
        """
        seeded = []
        for index, payload in enumerate(payloads):
            own = payload.seeds if payload.held_out else ()
            drawn = fresh_seeds(self._config, purpose, index, skip + count, payload.seeds)
            seeded.append(msgspec.structs.replace(payload, seeds=own or drawn[skip:]))
        return jobs_of(seeded)


def _capped(evaluation: Evaluation) -> bool:
    """Whether a reward that must not fall below the parents did."""
    return evaluation.judgement is not None and bool(evaluation.judgement.below_caps)


def _measured(state: RunState) -> str:
    """Why a run of the baselines alone ends: what it was made for."""
    if state.calibrated is None:
        return "the baselines are scored; without the 50:50 merge there is nothing to measure"
    said = state.calibrated.sentence.rstrip(".")
    return said[:1].lower() + said[1:]
