"""What a run's journal says, as the values that a report shows.

Hides which stage is looked at: the verdict's images once there are any, the search's before.
Everything is computed from the manifest and the state; nothing is read from images or the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.domain.events import (
    BASELINES,
    AnyEvent,
    Evaluated,
    Origin,
    Scored,
    Stage,
    StageDone,
    Verdict,
)
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.recipe import Recipe
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.study.formats import decimals_for
from lib_automerge.study.store import RunManifest

LABELS = {Origin.MODEL_A: "Model A", Origin.MODEL_B: "Model B", Origin.HALF: "50:50"}
IN_TEXT = {Origin.MODEL_A: "model A", Origin.MODEL_B: "model B", Origin.HALF: "the 50:50 merge"}
PARENTS = (Origin.MODEL_A, Origin.MODEL_B)
PHASES = ("merge", "generate", "score")
"""The timed parts of an evaluation; what is left of its total is everything else."""


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """The best merge against the baselines, on the same payloads and seeds.

    `merge` is the verdict's winner or, before the verdict, the best candidate so far; None while
    there is none besides the baselines. `scores` and `means` go by evaluation number; `means` are
    weighted by payload. `better_parent` is None while no parent has a score.

    After blind choices, `chosen` has the merge's lead over each baseline that it met, by number,
    and `means` the shares of `domain.events.Verdict`.
    """

    stage: Stage
    baselines: tuple[Evaluation, ...]
    merge: Evaluation | None
    better_parent: Evaluation | None
    scores: Mapping[int, Mapping[int, Scored]]
    means: Mapping[int, float]
    chosen: Mapping[int, float] = {}

    @property
    def entrants(self) -> tuple[Evaluation, ...]:
        """A, B, 50:50 and the merge; those that have images."""
        return (*self.baselines, self.merge) if self.merge else self.baselines

    def gain_over(self, baseline: Evaluation | None) -> float | None:
        """Mean of the merge minus mean of a baseline."""
        if self.merge is None or baseline is None:
            return None
        if self.chosen or not {self.merge.number, baseline.number} <= self.means.keys():
            return self.chosen.get(baseline.number)
        return self.means[self.merge.number] - self.means[baseline.number]


class PayloadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One payload of a contest: mean scores by evaluation number (none where a person alone
    judges), the merge's difference from the better parent (None without both), and how many images
    each mean is of.
    """

    payload: Payload
    means: dict[int, float]
    difference: float | None
    images: int


class Finalist(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that was scored again on fresh seeds; `fresh` is None if it made a broken image
    then. `pooled` is the mean of its images of both stages.
    """

    evaluation: Evaluation
    fresh: StageDone | None
    pooled: float | None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report is made of.

    `ended` is the time of the last event (None without events), `seconds` the time at work,
    `decimals` how many decimals of a score matter, `memory_bytes` the peak of the process (0:
    unknown).
    """

    path: Path
    manifest: RunManifest
    state: RunState
    contest: Contest
    rows: Sequence[PayloadRow]
    decimals: int
    ended: float | None
    seconds: float
    memory_bytes: int

    @property
    def by_person(self) -> bool:
        """Whether the user alone judges."""
        return _by_person(self.manifest)

    @property
    def scored(self) -> bool:
        """Whether single images have scores; they have none where a person alone judges."""
        return any(row.means for row in self.rows)

    @property
    def name(self) -> str:
        """What to call the run."""
        return self.manifest.config.name or self.path.name

    def model_of(self, evaluation: Evaluation) -> str:
        """What an entrant is made of: a model's name, or which evaluation it is."""
        role = {Origin.MODEL_A: "a", Origin.MODEL_B: "b"}.get(evaluation.origin)
        if role is not None:
            return self.manifest.models[role].name
        if evaluation.origin is Origin.HALF:
            return "half of each"
        return f"evaluation {evaluation.number}"


def findings(path: Path, manifest: RunManifest, events: Sequence[AnyEvent]) -> Findings:
    """Fold a run's events into what its report shows."""
    return summarize(
        path,
        manifest,
        RunState(events),
        ended=events[-1].time if events else None,
        memory_bytes=max((e.memory_bytes for e in events if isinstance(e, Evaluated)), default=0),
    )


def summarize(
    path: Path,
    manifest: RunManifest,
    state: RunState,
    *,
    ended: float | None = None,
    memory_bytes: int = 0,
) -> Findings:
    """What a run that is folded already shows; `ended` and `memory_bytes` as in `Findings`."""
    compared = contest(state)
    scores = sorted(e.score for e in state.history if e.score is not None)
    # the better half: ruined merges, far below all others, must not cost the others their decimals
    typical = scores[len(scores) // 2 :]
    return Findings(
        path=path,
        manifest=manifest,
        state=state,
        contest=compared,
        rows=payload_rows(
            compared,
            manifest.config.payloads,
            # before the end, pictures with names would spoil the judgement of those without
            unscored=_by_person(manifest) and state.finished is not None,
        ),
        decimals=decimals_for([*typical, *(compared.means[e.number] for e in compared.entrants)]),
        ended=ended,
        seconds=math.fsum(sum(part.values()) for part in times(state).values()),
        memory_bytes=memory_bytes,
    )


def _by_person(manifest: RunManifest) -> bool:
    human = manifest.config.reward.human
    return human is not None and human.alone


def label_of(evaluation: Evaluation) -> str:
    """The role of an entrant: Model A, Model B, 50:50 or Best merge."""
    return LABELS.get(evaluation.origin, "Best merge")


def contest(state: RunState) -> Contest:
    """The comparison that the run's state allows."""
    verdict = state.verdict
    proven = verdict is not None and bool(verdict.comparisons)
    stage = Stage.VERDICT if proven else Stage.SEARCH
    if verdict is not None and proven:
        means = dict(verdict.means)
        merge: Evaluation | None = state.evaluations[verdict.winner]
    else:
        means = {e.number: e.score for e in state.history if e.score is not None}
        known = candidates(state)
        if verdict is not None:
            known = [e for e in known if e.number == verdict.winner]
        merge = next(iter(known), None)
    baselines = tuple(e for e in map(state.baseline, BASELINES) if e and e.number in means)
    parents = [e for e in baselines if e.origin in PARENTS]
    if verdict is not None:
        better = state.baseline(verdict.better_parent)
    else:
        better = max(parents, key=lambda e: means[e.number], default=None)
    return Contest(
        stage=stage,
        baselines=baselines,
        merge=merge,
        better_parent=better,
        scores={
            e.number: state.scores.get((stage, e.number), {})
            for e in (*baselines, *((merge,) if merge else ()))
        },
        means=means,
        chosen={} if verdict is None else _chosen(state, verdict),
    )


def _chosen(state: RunState, verdict: Verdict) -> dict[int, float]:
    met = [(state.baseline(c.baseline), c) for c in verdict.comparisons if c.choices is not None]
    return {e.number: comparison.difference for e, comparison in met if e is not None}


def candidates(state: RunState) -> list[Evaluation]:
    """The evaluations besides the baselines that have a score, as `RunState.ranked` has them."""
    return [e for e in state.ranked if e.origin not in BASELINES]


def given_up(evaluation: Evaluation) -> bool:
    """Whether a candidate was given up for being worse than the best, not for broken images."""
    return evaluation.rejected is not None and bool(evaluation.per_payload)


def fate(evaluation: Evaluation) -> str:
    """What became of a candidate without a score, in a few words; empty with a score."""
    if evaluation.rejected is None:
        return ""
    # "given up after 6 of 12 prompts: ...": the rest is for those who want to know more
    return evaluation.rejected.partition(":")[0] if given_up(evaluation) else "rejected"


def payload_rows(
    contest: Contest, payloads: Iterable[Payload], *, unscored: bool = False
) -> list[PayloadRow]:
    """The payloads that the contest has scores of, in the order of the configuration.

    `unscored` takes those in that have images without a score: a person looked at them.
    """
    rows = []
    for payload in payloads:
        groups = {
            number: [s.score for s in scored.values() if _counts(s, payload, unscored)]
            for number, scored in contest.scores.items()
        }
        means = {
            number: math.fsum(v for v in values if v is not None) / len(values)
            for number, values in groups.items()
            if values and None not in values
        }
        if not any(groups.values()):
            continue
        merge, parent = contest.merge, contest.better_parent
        difference = None
        if merge and parent and {merge.number, parent.number} <= means.keys():
            difference = means[merge.number] - means[parent.number]
        images = max(len(values) for values in groups.values())
        rows.append(PayloadRow(payload=payload, means=means, difference=difference, images=images))
    return rows


def _counts(scored: Scored, payload: Payload, unscored: bool) -> bool:
    known = scored.score is not None or (unscored and scored.broken is None)
    return scored.payload == payload.name and known


def representative(rows: Sequence[PayloadRow], limit: int) -> list[PayloadRow]:
    """At most `limit` rows, evenly from the largest gain of the merge to its smallest.

    Rows without a difference keep their order, after the others.
    """
    known = [row for row in rows if row.difference is not None]
    known.sort(key=lambda row: -(row.difference or 0.0))
    ranked = known + [row for row in rows if row.difference is None]
    if len(ranked) <= limit:
        return ranked
    step = (len(ranked) - 1) / (limit - 1)
    return [ranked[round(position * step)] for position in range(limit)]


def finalists(state: RunState) -> list[Finalist]:
    """The candidates of the finalists' stage, best pooled mean first, broken ones last."""
    found = []
    for stage, number in state.scores:
        if stage is not Stage.FINALISTS:
            continue
        evaluation = state.evaluations[number]
        fresh = state.stages.get((stage, number))
        pooled = None
        if fresh is not None and evaluation.score is not None:
            total = evaluation.images + fresh.images
            sums = evaluation.score * evaluation.images + fresh.mean * fresh.images
            pooled = sums / total
        found.append(Finalist(evaluation=evaluation, fresh=fresh, pooled=pooled))
    return sorted(found, key=lambda f: (f.pooled is None, -(f.pooled or 0.0), f.evaluation.number))


def times(state: RunState) -> dict[Stage, dict[str, float]]:
    """Seconds by stage and phase (`PHASES`, "rest"), of the stages that have begun."""
    timings: dict[Stage, list[Mapping[str, float]]] = {
        Stage.SEARCH: [e.seconds for e in state.history]
    }
    for (stage, _), done in sorted(state.stages.items(), key=lambda item: item[0][1]):
        timings.setdefault(stage, []).append(done.seconds)
    result = {}
    for stage in Stage:
        sums = {p: math.fsum(t.get(p, 0.0) for t in timings.get(stage, ())) for p in PHASES}
        total = math.fsum(t.get("total", 0.0) for t in timings.get(stage, ()))
        sums["rest"] = max(total - math.fsum(sums.values()), 0.0)
        if any(sums.values()):
            result[stage] = sums
    return result


def recipe_of(manifest: RunManifest, evaluation: Evaluation) -> Recipe:
    """What makes an evaluation's model again; a baseline is a weighted sum under any method."""
    baseline = evaluation.origin in BASELINES
    return Recipe(
        architecture=manifest.architecture,
        method="weighted_sum" if baseline else manifest.config.method,
        models=manifest.models,
        weights=evaluation.weights,
        parameters={} if baseline else manifest.config.parameters,
    )
