"""The verdict: what the scores on unseen images say, as numbers and as one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain.events import Comparison, Origin, Verdict
from lib_automerge.search import statistics

PairScores = Mapping[tuple[str, int], float]
"""Scores by payload name and seed."""

NAMES = {
    Origin.MODEL_A: "model A",
    Origin.MODEL_B: "model B",
    Origin.HALF: "the 50:50 merge",
}


def judge(
    winner: int,
    scores: Mapping[int, PairScores],
    baselines: Mapping[int, Origin],
    weights: Mapping[str, float],
    *,
    held_out: bool,
) -> Verdict:
    """Compare the winner with every baseline on the same payloads and seeds.

    A gain is claimed only if every single test is significant, so none needs a correction for their
    number: whichever baseline is not beaten, its own test passes in at most 5 % of runs (Berger,
    Multiparameter Hypothesis Testing and Acceptance Sampling, Technometrics 1982).

    Args:
        winner: evaluation number of the candidate.
        scores: by evaluation number, the winner's and the baselines'.
        baselines: evaluation number -> which baseline it is; one that made broken images may be
            missing, but not both parents.
        weights: payload name -> weight.
        held_out: whether the payloads were unknown to the search.
    """
    means = {
        number: statistics.summarize(_by_payload(pairs), weights).mean
        for number, pairs in scores.items()
    }
    raw = {
        number: statistics.compare(scores[winner], scores[number], weights) for number in baselines
    }
    comparisons = tuple(
        Comparison(
            baseline=baselines[number],
            difference=test.difference,
            standard_error=test.standard_error,
            low=test.low,
            high=test.high,
            p_value=test.p_value,
            pairs=test.pairs,
        )
        for number, test in raw.items()
    )
    parents = [n for n, origin in baselines.items() if origin is not Origin.HALF]
    better = baselines[max(parents, key=lambda number: means[number])]
    gain = all(comparison.significant for comparison in comparisons)
    images = len(scores[winner])
    return Verdict(
        winner=winner,
        better_parent=better,
        gain=gain,
        held_out=held_out,
        sentence=_sentence(winner, better, comparisons, gain, held_out, images),
        comparisons=comparisons,
        means=means,
        images=images,
    )


def _by_payload(pairs: PairScores) -> dict[str, list[float]]:
    result: dict[str, list[float]] = {}
    for (payload, _), score in pairs.items():
        result.setdefault(payload, []).append(score)
    return result


def _sentence(
    winner: int,
    better: Origin,
    comparisons: tuple[Comparison, ...],
    gain: bool,
    held_out: bool,
    images: int,
) -> str:
    where = f"{images} images of {unseen(held_out)}"
    by_origin = {comparison.baseline: comparison for comparison in comparisons}
    shown = [by_origin[origin] for origin in (better, Origin.HALF) if origin in by_origin]
    parts = [
        f"{_role(c.baseline, better)} by {c.difference:+.3f} ± {c.standard_error:.3f}"
        for c in shown
    ]
    if gain:
        return f"Better: on {where}, evaluation {winner} beats {' and '.join(parts)}."
    weak = [NAMES[c.baseline] for c in comparisons if not c.significant]
    return (
        f"No significant gain: on {where}, evaluation {winner} differs from "
        f"{' and '.join(parts)}; that is not enough against {' and '.join(weak)}."
    )


def unseen(held_out: bool) -> str:
    """Of what the images of a verdict are."""
    if held_out:
        return "prompts and seeds that the search never saw"
    return "seeds that the search never saw (no held-out prompts were given)"


def _role(baseline: Origin, better: Origin) -> str:
    name = NAMES[baseline]
    return f"the better parent ({name})" if baseline is better else name


def nothing_proved(
    best: int, means: Mapping[int, float], better: Origin, images: int, why: str
) -> Verdict:
    """The verdict when nothing can be compared, with the reason as a clause.

    Args:
        best: evaluation number of what is handed over all the same.
        means: mean scores in the search, by evaluation number.
        better: the better parent there.
        images: so many images are behind the score of the best.
        why: the reason.
    """
    return Verdict(
        winner=best,
        better_parent=better,
        gain=False,
        held_out=False,
        sentence=f"No significant gain: {why}.",
        comparisons=(),
        means=dict(means),
        images=images,
    )
