"""The verdict of a person who judges alone: blind choices between images that the search never saw.

The merge to be proved meets one baseline after the other, the one that its judge liked most first,
because a gain needs all of them beaten (as in `app.proof`): the first that is not ends it. What is
asked next, and what all answers come to, is a function of the plan and the state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lib_automerge.app.plan import Plan
from lib_automerge.app.proof import NAMES, unseen
from lib_automerge.domain.blind import Trial
from lib_automerge.domain.events import BASELINES, Choices, Comparison, Origin, Stage, Verdict
from lib_automerge.domain.human_judge import CHOICES
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.search import sign_test
from lib_automerge.search.randomness import generator
from lib_automerge.study.choices import tally
from lib_automerge.study.formats import listed


def planned(images: int) -> int:
    """How many choices a verdict on so many images of each model brings at most; 0: too few."""
    return len(BASELINES) * min(CHOICES, images) if images >= sign_test.fewest() else 0


class _Bout(msgspec.Struct, frozen=True):
    """The winner against one baseline: the jobs of the pairs, in order, and the answers so far."""

    baseline: Evaluation
    jobs: tuple[int, ...]
    choices: Choices

    @property
    def made(self) -> int:
        return self.choices.winner + self.choices.baseline + self.choices.equal

    @property
    def left(self) -> int:
        return len(self.jobs) - self.made

    @property
    def beaten(self) -> bool | None:
        """Whether the winner is preferred, whatever else is answered; None while that is open."""
        return sign_test.settled(self.choices.winner, self.choices.baseline, self.left)


def next_trial(plan: Plan, state: RunState) -> Trial | None:
    """The choice to ask for; None if the verdict is known, waived, or cannot be had."""
    winner = _winner(state)
    bouts = _bouts(plan, state)
    if winner is None or state.waived or state.verdict is not None:
        return None
    for place, bout in enumerate(bouts):
        if bout.beaten is False:
            return None
        if bout.beaten is None:
            side = generator(plan.seed, "blind sides", place * CHOICES + bout.made)
            return Trial(
                evaluation=winner.number,
                other=bout.baseline.number,
                job=bout.jobs[bout.made],
                winner_left=bool(side.integers(2)),
                number=state.said,
                made=len(state.preferred),
                most=sum(len(one.jobs) for one in bouts) - len(state.preferred),
            )
    return None


def verdict(plan: Plan, state: RunState) -> Verdict | None:
    """What the choices say; None while they say nothing: see `next_trial`."""
    winner = _winner(state)
    bouts = [bout for bout in _bouts(plan, state) if bout.made]
    if winner is None or not bouts or state.waived or next_trial(plan, state) is not None:
        return None
    comparisons = tuple(_comparison(bout) for bout in bouts)
    gain = all(comparison.significant for comparison in comparisons)
    won = sum(bout.choices.winner for bout in bouts)
    lost = sum(bout.choices.baseline for bout in bouts)
    shares = {b.baseline.number: _share(b.choices.baseline, b.choices.winner) for b in bouts}
    parents = [e for e in _strongest_first(state) if e.origin is not Origin.HALF]
    jobs, held_out = plan.proof_jobs()
    return Verdict(
        winner=winner.number,
        better_parent=parents[0].origin,
        gain=gain,
        held_out=held_out,
        sentence=_sentence(winner, comparisons, gain, held_out),
        comparisons=comparisons,
        means={winner.number: _share(won, lost), **shares},
        images=len(_whole(state, winner, jobs)),
    )


def too_few(plan: Plan, state: RunState) -> str:
    """Why nobody can be asked, in a sentence; empty if they can."""
    winner = _winner(state)
    jobs, _ = plan.proof_jobs()
    found = len(jobs) if winner is None else len(_whole(state, winner, jobs))
    if planned(found):
        return ""
    return (
        f"there is no verdict: {found} unseen images of each model can be compared, and "
        f"{sign_test.fewest()} choices are the fewest that can prove anything. Hold more prompts "
        "out, or give the verdict more seeds."
    )


def _winner(state: RunState) -> Evaluation | None:
    """The candidate whose unseen images are all made; the first finalist that made whole ones."""
    done = (state.evaluations[n] for stage, n in state.stages if stage is Stage.VERDICT)
    return next((e for e in done if e.origin not in BASELINES), None)


def _strongest_first(state: RunState) -> list[Evaluation]:
    return sorted(state.baselines, key=lambda e: (-(e.score or 0.0), e.number))


def _bouts(plan: Plan, state: RunState) -> list[_Bout]:
    """One for each baseline, the strongest first, on images of their own as far as there are any.

    A picture that comes again would be recognized.
    """
    winner = _winner(state)
    if winner is None:
        return []
    jobs, _ = plan.proof_jobs()
    order = _order(plan.seed, _whole(state, winner, jobs))
    count = min(CHOICES, len(order)) if planned(len(order)) else 0
    bouts = []
    for place, baseline in enumerate(_strongest_first(state)):
        mine = tuple(order[(place * count + i) % len(order)] for i in range(count))
        said = [one.value for one in state.preferred if one.other == baseline.number]
        choices = Choices(winner=said.count(1.0), baseline=said.count(0.0), equal=said.count(0.5))
        bouts.append(_Bout(baseline, mine, choices))
    return bouts


def _whole(state: RunState, winner: Evaluation, jobs: Sequence[ImageJob]) -> list[ImageJob]:
    """The jobs of which the winner and every baseline made an image that is not broken."""
    made = [state.scores.get((Stage.VERDICT, e.number), {}) for e in (winner, *state.baselines)]
    return [
        job
        for job in jobs
        if all(job.number in found and found[job.number].broken is None for found in made)
    ]


def _order(seed: int, jobs: Sequence[ImageJob]) -> list[int]:
    """The numbers of the jobs in an order of chance in which every prompt comes equally often."""
    random = generator(seed, "blind order")
    by_payload: dict[str, list[int]] = {}
    for job in jobs:
        by_payload.setdefault(job.payload.name, []).append(job.number)
    columns = [[int(n) for n in random.permutation(numbers)] for numbers in by_payload.values()]
    order: list[int] = []
    while any(columns):
        full = [column for column in columns if column]
        order += [full[i].pop() for i in random.permutation(len(full))]
    return order


def _comparison(bout: _Bout) -> Comparison:
    wins, losses = bout.choices.winner, bout.choices.baseline
    share = _share(wins, losses)
    low, high = sign_test.share_interval(wins, losses)
    made = wins + losses
    if bout.beaten:
        p_value = sign_test.p_value(wins, losses + bout.left)
    else:
        p_value = sign_test.p_value(wins + bout.left, losses)
    return Comparison(
        baseline=bout.baseline.origin,
        difference=2 * share - 1,
        standard_error=2 * math.sqrt(share * (1 - share) / made) if made else 0.0,
        low=2 * low - 1,
        high=2 * high - 1,
        p_value=p_value,
        pairs=bout.made,
        choices=bout.choices,
    )


def _share(part: int, rest: int) -> float:
    """The part of the choices that preferred one of the two; a half if none did."""
    return part / (part + rest) if part + rest else 0.5


def _sentence(
    winner: Evaluation, comparisons: Sequence[Comparison], gain: bool, held_out: bool
) -> str:
    told = listed(f"to {NAMES[c.baseline]} in {tally(c.choices)}" for c in comparisons if c.choices)
    said = (
        f"in blind choices between images of {unseen(held_out)}, you preferred evaluation "
        f"{winner.number} {told}"
    )
    if gain:
        return f"Better: {said}."
    weak = listed(NAMES[c.baseline] for c in comparisons if not c.significant)
    return f"No significant gain: {said}; that is not enough against {weak}."
