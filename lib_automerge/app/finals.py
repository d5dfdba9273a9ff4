"""The end of a search: the best candidates once more, then the winner against the baselines.

The highest of many scores is partly luck. So the candidates that the search believes in are scored
again on fresh seeds, and again as long as the best of them cannot be told apart; the winner then
meets the baselines on images that chose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib_automerge.app import proof
from lib_automerge.app.bench import Bench
from lib_automerge.app.evaluate import Scores, by_pair
from lib_automerge.app.proof import PairScores
from lib_automerge.domain.events import BASELINES, Origin, Stage, Verdict
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState, best
from lib_automerge.errors import ConfigError
from lib_automerge.search import statistics
from lib_automerge.study.formats import listed

ROUNDS = 3
"""So often finalists are scored again at most."""


def prove(bench: Bench) -> None:
    """Score the finalists and prove the first of them that makes whole images and keeps to the
    caps.
    """
    for winner in _ranked(bench):
        verdict = _verdict(bench, winner)
        if verdict is not None:
            bench.record.add(verdict)
            return
    bench.record.add(_nothing_proved(bench.state, None, _why_none(bench.state)))


def make_images(bench: Bench) -> None:
    """Make the unseen images that a person will choose from, for the first finalist without a
    broken one.

    Nobody scores images where a person judges alone, so finalists keep their order.
    """
    jobs, _ = bench.plan.proof_jobs()
    for winner in bench.plan.finalists(bench.state):
        if _whole(bench, winner, jobs) is not None:
            for baseline in bench.state.baselines:
                bench.stage(baseline, Stage.VERDICT, jobs, until_broken=False)
            return
    bench.record.add(_nothing_proved(bench.state, None, _why_none(bench.state)))


def _ranked(bench: Bench) -> list[Evaluation]:
    """The finalists, the best first; those that made broken images, or fell below a cap, are left
    out.

    Whoever can be told from the first of a round leaves with the place that they have.
    """
    contenders = bench.plan.finalists(bench.state)
    behind: list[Evaluation] = []
    for number in range(ROUNDS):
        standings = _round(bench, contenders, number)
        contenders = [e for e, _ in standings]
        if number == ROUNDS - 1 or not contenders:
            break
        level = _level(standings, bench.plan.payload_weights)
        if len(level) < 2:
            break
        behind = [e for e in contenders if e not in level] + behind
        contenders = level
    return contenders + behind


def _round(
    bench: Bench, contenders: Sequence[Evaluation], number: int
) -> list[tuple[Evaluation, PairScores]]:
    """Score contenders on the fresh seeds of a round; best first, with all their images so far."""
    jobs = bench.plan.finalist_jobs(number)
    standings: list[tuple[float, Evaluation, PairScores]] = []
    for contender in contenders:
        scores = bench.stage(contender, Stage.FINALISTS, jobs)
        if scores.broken is not None:
            continue
        fresh = bench.judged(scores)
        if fresh.judgement is not None and fresh.judgement.below_caps:
            continue
        images = contender.images + fresh.images
        score = contender.score or 0.0
        learned = contender.judgement.total if contender.judgement else score
        pooled = (learned * contender.images + fresh.mean * fresh.images) / images
        # fresh images do not change what the user thinks of a candidate
        pooled += score - learned
        searched = by_pair(bench.state.scores.get((Stage.SEARCH, contender.number), {}))
        standings.append((pooled, contender, {**searched, **scores.by_pair()}))
    standings.sort(key=lambda entry: (-entry[0], entry[1].number))
    return [(contender, pairs) for _, contender, pairs in standings]


def _level(
    standings: Sequence[tuple[Evaluation, PairScores]], weights: dict[str, float]
) -> list[Evaluation]:
    """The first and those who are less than one standard error behind it on the same images."""
    first, images = standings[0]
    level = [first]
    for other, pairs in standings[1:]:
        shared = images.keys() & pairs.keys()
        if len(shared) < 2:
            continue
        behind = statistics.compare(
            {key: images[key] for key in sorted(shared)},
            {key: pairs[key] for key in sorted(shared)},
            weights,
        )
        if behind.difference < behind.standard_error:
            level.append(other)
    return level


def _verdict(bench: Bench, winner: Evaluation) -> Verdict | None:
    """The winner against the baselines on unseen images; None if it makes a broken one there, or
    falls below a cap.
    """
    jobs, held_out = bench.plan.proof_jobs()
    try:
        bench.settle(Stage.VERDICT, jobs)
    except ConfigError as error:
        return _nothing_proved(bench.state, winner, str(error).rstrip("."))
    scores = _whole(bench, winner, jobs)
    if scores is None:
        return None
    judgement = bench.judged(scores).judgement
    if judgement is not None and judgement.below_caps:
        bench.warn(
            f"evaluation {winner.number} was the best, but falls below the cap of "
            f"{listed(judgement.below_caps)} on unseen images; the next one was proved instead."
        )
        return None
    baselines = bench.state.baselines
    pairs = {winner.number: scores.by_pair()}
    for baseline in baselines:
        shown = bench.stage(baseline, Stage.VERDICT, jobs, until_broken=False)
        pairs[baseline.number] = shown.by_pair()
    whole = set.intersection(*(set(scored) for scored in pairs.values()))
    if len(whole) < 2:
        why = (
            f"only {len(whole)} of {len(jobs)} unseen images can be compared, because a parent or "
            "the 50:50 merge made a black or NaN image of the others"
        )
        return _nothing_proved(bench.state, winner, why)
    if len(whole) < len(jobs):
        bench.warn(
            f"{len(jobs) - len(whole)} of {len(jobs)} images of the verdict were left "
            "out: a parent or the 50:50 merge made a black or NaN image there."
        )
    return proof.judge(
        winner.number,
        {n: {key: p[key] for key in sorted(whole)} for n, p in pairs.items()},
        {baseline.number: baseline.origin for baseline in baselines},
        bench.plan.payload_weights,
        held_out=held_out,
    )


def _whole(bench: Bench, winner: Evaluation, jobs: Sequence[ImageJob]) -> Scores | None:
    """A finalist's unseen images; None if one is broken."""
    scores = bench.stage(winner, Stage.VERDICT, jobs)
    if scores.broken is None:
        return scores
    bench.warn(
        f"evaluation {winner.number} was the best, but makes a {scores.broken.broken} "
        f"image for payload {scores.broken.payload!r}; the next one was proved instead."
    )
    return None


def _nothing_proved(state: RunState, winner: Evaluation | None, why: str) -> Verdict:
    baselines = state.baselines
    shown = winner or best(baselines)
    better = best(e for e in baselines if e.origin is not Origin.HALF)
    assert shown is not None
    assert better is not None
    means = {e.number: e.score or 0.0 for e in (*baselines, shown)}
    return proof.nothing_proved(shown.number, means, better.origin, shown.images, why)


def _why_none(state: RunState) -> str:
    """Why no candidate can be proved."""
    candidates = [e for e in state.history if e.origin not in BASELINES]
    if any(stage is Stage.FINALISTS for stage, _ in state.scores):
        return "the best candidates fall below a cap, or make broken images, on unseen seeds"
    refused = {name for e in candidates if e.judgement for name in e.judgement.below_caps}
    if refused:
        caps = listed(sorted(refused))
        return f"every candidate that was scored to the end falls below the cap of {caps}"
    if any(e.rejected is not None and e.per_payload for e in candidates):
        return "every candidate was given up early for being worse than what was known, or broken"
    return "no candidate besides the baselines made usable images"
