"""What a run found, in words: one sentence with the numbers, and what to do next.

Hides the states of a run: every combination of verdict, status and scores has its sentence.
"""

from __future__ import annotations

import shlex

import msgspec

from lib_automerge.domain.events import BASELINES, Comparison, Origin, Verdict
from lib_automerge.domain.run import Status
from lib_automerge.study.choices import tally
from lib_automerge.study.findings import IN_TEXT, Findings, candidates, given_up
from lib_automerge.study.formats import listed, number, plural, signed
from lib_automerge.study.judges import named_rewards, unit_hint, won_sentence

BADGES = {
    Status.STARTING: "Not started",
    Status.UNFINISHED: "Not finished",
    Status.STOPPED: "Stopped",
    Status.PAUSED: "Paused",
    Status.FAILED: "Failed",
    Status.FINISHED: "Finished",
}


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The top of a report.

    `kind` is "gain", "none" (no significant gain) or "open" (no verdict yet). `notice` says what
    went wrong or is left to do, and `command` goes on from there; both may be None.
    """

    kind: str
    badge: str
    sentence: str
    explanation: str
    notice: str | None
    command: str | None


def headline(found: Findings) -> Headline:
    """Say what the run found."""
    verdict = found.state.verdict
    if verdict is None and _only_liked(found):
        kind, badge = "open", BADGES[found.state.status]
        sentence, explanation = _liked(found)
    elif verdict is None and found.state.finished is not None:
        kind, badge = "open", "Measured"
        sentence, explanation = _measured(found)
    elif verdict is None:
        kind, badge = "open", BADGES[found.state.status]
        sentence, explanation = _so_far(found)
    elif not verdict.comparisons and candidates(found.state):
        # merges were scored, and none could be proved: the verdict says why
        kind, badge = "none", "Nothing proved"
        sentence, explanation = verdict.sentence, f"In the search, {_leader(found)}."
    elif not verdict.comparisons:
        early = any(given_up(e) for e in found.state.history)
        kind, badge = "none", "No good merge" if early else "No usable merge"
        sentence, explanation = _nothing_usable(found)
    elif verdict.comparisons[0].choices is not None:
        kind = "gain" if verdict.gain else "none"
        badge = "You prefer the merge" if verdict.gain else "No significant gain"
        sentence, explanation = _chosen(verdict)
    elif verdict.gain:
        kind, badge = "gain", "Significant gain"
        sentence, explanation = _gain(found, verdict)
    else:
        kind, badge = "none", "No significant gain"
        sentence, explanation = _no_gain(found, verdict)
    ended = found.state.search_ended
    if verdict is not None and ended is not None:
        explanation = f"{explanation} {ended.outlook}".rstrip()
    notice = _notice(found)
    return Headline(
        kind=kind,
        badge=badge,
        sentence=sentence,
        explanation=explanation,
        notice=notice,
        command=resume_command(found) if notice is not None else None,
    )


def resume_command(found: Findings) -> str:
    """The command that takes the run up again."""
    return f"python -m lib_automerge resume {shlex.quote(str(found.path))}"


def shown_comparisons(verdict: Verdict) -> list[Comparison]:
    """Those of the sentence: against the better parent, and against 50:50 if it made images."""
    by_origin = {comparison.baseline: comparison for comparison in verdict.comparisons}
    wanted = (verdict.better_parent, Origin.HALF)
    return [by_origin[origin] for origin in wanted if origin in by_origin]


def in_words(comparison: Comparison, verdict: Verdict) -> str:
    """The baseline of a comparison: "the better parent", or its name."""
    if comparison.baseline is verdict.better_parent:
        return "the better parent"
    return IN_TEXT[comparison.baseline]


def interval_text(comparison: Comparison, decimals: int) -> str:
    """The 95 % interval of a difference: "+0.12 to +0.43"."""
    return f"{signed(comparison.low, decimals)} to {signed(comparison.high, decimals)}"


def _gain(found: Findings, verdict: Verdict) -> tuple[str, str]:
    beaten = listed(
        f"{in_words(c, verdict)} by {signed(c.difference, found.decimals)}"
        for c in shown_comparisons(verdict)
    )
    return f"Evaluation {verdict.winner} beats {beaten}.", _evidence(found, verdict)


def _no_gain(found: Findings, verdict: Verdict) -> tuple[str, str]:
    shown = listed(
        f"{signed(c.difference, found.decimals)} against {in_words(c, verdict)}"
        for c in shown_comparisons(verdict)
    )
    weak = listed(IN_TEXT[c.baseline] for c in verdict.comparisons if not c.significant)
    return (
        f"No significant gain: evaluation {verdict.winner} scores {shown}.",
        f"The difference is not significant against {weak}. {_evidence(found, verdict)}",
    )


def _chosen(verdict: Verdict) -> tuple[str, str]:
    """Of a verdict by blind choices."""
    told = listed(
        f"over {IN_TEXT[c.baseline]} in {tally(c.choices)}"
        for c in verdict.comparisons
        if c.choices is not None
    )
    sentence = f"You preferred evaluation {verdict.winner} {told}."
    unseen = "prompts and seeds" if verdict.held_out else "seeds"
    how = (
        f"Both pictures of a choice had the same prompt and seed, from {unseen} that the search "
        "never saw, and you were not told whose they were. "
    )
    if verdict.gain:
        return sentence, f"{how}Each of these is more than chance makes in one of twenty runs."
    weak = listed(IN_TEXT[c.baseline] for c in verdict.comparisons if not c.significant)
    rest = "; the others were not asked about" if len(verdict.comparisons) < len(BASELINES) else ""
    return (
        f"No significant gain: {sentence[:1].lower()}{sentence[1:]}",
        f"{how}That is not significant against {weak}{rest}.",
    )


def _evidence(found: Findings, verdict: Verdict) -> str:
    unseen = "prompts and seeds" if verdict.held_out else "seeds"
    known = "" if verdict.held_out else ", on the search's own prompts as none were held out"
    better = _named(found, verdict.better_parent)
    said = (
        f"The better parent is {better}. All {len(verdict.comparisons) + 1} models made the same "
        f"{plural(verdict.images, 'image')}, from {unseen} that the search never saw{known}; "
        f"{named_rewards(found)} scored them.{_without_half(verdict)}"
    )
    return " ".join(filter(None, [said, won_sentence(found), unit_hint(found)]))


def _without_half(verdict: Verdict) -> str:
    if any(comparison.baseline is Origin.HALF for comparison in verdict.comparisons):
        return ""
    return " The 50:50 merge made broken images and is left out."


def _nothing_usable(found: Findings) -> tuple[str, str]:
    rejected = [e for e in found.state.history if e.rejected is not None]
    reason = f" The first: {rejected[0].rejected}." if rejected else ""
    if any(given_up(e) for e in rejected):
        return (
            f"No merge came near the best known; {_leader(found)}.",
            f"{plural(len(rejected), 'evaluation')} of {len(found.state.history)} were given up "
            f"early.{reason}",
        )
    return (
        f"No merge made usable images; {_leader(found)}.",
        f"{plural(len(rejected), 'evaluation')} of {len(found.state.history)} had to be rejected."
        f"{reason} A narrower range of weights, or fp32, often helps.",
    )


def _measured(found: Findings) -> tuple[str, str]:
    """Of a run that was made to measure the noise, and searched nothing."""
    calibrated, finished = found.state.calibrated, found.state.finished
    assert finished is not None
    reason = finished.reason
    said = calibrated.sentence if calibrated else f"{reason[:1].upper()}{reason[1:]}."
    return said, f"Only the baselines were made, to measure chance; {_leader(found)}."


def _only_liked(found: Findings) -> bool:
    """Whether the user alone judges, and has seen a merge."""
    return found.by_person and found.contest.merge is not None


def _liked(found: Findings) -> tuple[str, str]:
    merge = found.contest.merge
    assert merge is not None
    gain = found.contest.gain_over(found.contest.better_parent)
    over = "" if gain is None else f", {signed(gain, found.decimals)} over the better parent"
    value = number(found.contest.means[merge.number], found.decimals)
    return (
        f"You like evaluation {merge.number} best: {value}{over}.",
        f"{_unproved(found)} 0 is an average candidate; two of three differ from it by less than "
        "1. Save the merge here if it pleases you.",
    )


def _unproved(found: Findings) -> str:
    """Why there is no verdict on what the user liked."""
    state = found.state
    if state.waived:
        made = plural(len(state.preferred), "blind choice")
        return f"You ended the verdict after {made}, so nothing is proved."
    if state.finished is not None:
        return "You are the only judge: nothing is proved on images that the search never saw."
    return "No verdict yet: after the search, blind choices tell whether it is better."


def _so_far(found: Findings) -> tuple[str, str]:
    contest = found.contest
    gain = contest.gain_over(contest.better_parent)
    if not contest.means:
        return "Nothing is scored yet.", "The baselines come first: model A, model B and 50:50."
    if contest.merge is None or gain is None:
        rejected = [e for e in found.state.history if e.rejected is not None]
        tried = f" {plural(len(rejected), 'candidate')} had to be rejected." if rejected else ""
        return (
            f"Only the baselines are scored so far; {_leader(found)}.",
            f"Every merge will be compared with the better parent.{tried}",
        )
    score = number(contest.means[contest.merge.number], found.decimals)
    over = f"{signed(gain, found.decimals)} over the better parent"
    if gain > 0:
        sentence = f"Best so far: evaluation {contest.merge.number} with {score}, {over}."
    else:
        sentence = (
            "No merge beats the better parent so far; the best one, evaluation "
            f"{contest.merge.number}, scores {signed(gain, found.decimals)} against it."
        )
    count = len(candidates(found.state))
    luck = f", and the best of {count} looks better than it is" if count > 1 else ""
    return (
        sentence,
        f"No verdict yet. These are the search's own images{luck}: the verdict compares the best "
        "with the parents on images that the search never saw.",
    )


def _leader(found: Findings) -> str:
    better = found.contest.better_parent
    if better is None:
        return "no parent has a score"
    score = number(found.contest.means[better.number], found.decimals)
    return f"the better parent is {_named(found, better.origin)} with {score}"


def _named(found: Findings, origin: Origin) -> str:
    evaluation = found.state.baseline(origin)
    if origin is Origin.HALF or evaluation is None:
        return IN_TEXT[origin]
    return f"{IN_TEXT[origin]} ({found.model_of(evaluation)})"


def _notice(found: Findings) -> str | None:
    state = found.state
    match state.status:
        case Status.FINISHED:
            return None
        case Status.FAILED:
            return f"The run failed: {state.failure} Everything scored is kept. To go on:"
        case Status.STOPPED:
            return "The run was stopped. Everything scored is kept. To go on:"
        case Status.PAUSED:
            why = f": {state.pause_reason}" if state.pause_reason else "."
            return f"The run is paused{why} Everything scored is kept. To go on:"
    return (
        "The run was not finished when this report was written. If nothing is working on it any "
        "more, nothing is lost. To go on:"
    )
