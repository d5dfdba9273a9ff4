"""The user as a judge: what they are asked, and what their answers make of the candidates.

They judge candidates, by the images that the search made of them, not single images. Alone, their
opinion is the score; beside learned rewards, `weight` times the opinion is added to the score of
the others. An opinion has the units of `domain.preferences`: over candidates as they come, the
standard deviation is about 1, which is also the unit of an ensemble's score.
"""

from __future__ import annotations

import msgspec

from lib_automerge.domain.events import Judged, Revalued, Stage
from lib_automerge.domain.human_judge import RATE, HumanJudge
from lib_automerge.domain.preferences import Choice, Opinion, Rating
from lib_automerge.domain.run import Evaluation, RunState

COMPARISONS = 2
"""So often a new candidate is compared with one before it."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the user is asked: how good `evaluation` is, or whether it is better than `other`.

    `number` counts what they have said so far; it tells an answer to this question from one that
    comes too late.
    """

    evaluation: int
    other: int | None = None
    number: int = 0

    @property
    def key(self) -> str:
        """The question's name, which an answer repeats."""
        return f"{self.evaluation}-{self.other or 0}-{self.number}"


def question(state: RunState, human: HumanJudge) -> Question | None:
    """What to ask next; None if every candidate that can be shown is judged.

    The first candidate that is not judged is asked about. A user who chooses compares it with
    those before it of which the answer tells most, each once.
    """
    shown = [e.number for e in _shown(state)]
    for place, number in enumerate(shown):
        if human.name == RATE:
            if not any(said.evaluation == number for said in state.judged):
                return Question(evaluation=number, number=state.said)
            continue
        met = _met(state, number)
        if len(met) < min(COMPARISONS, place):
            fresh = [other for other in shown[:place] if other not in met]
            pair = _opinion(state).next_pair([*fresh, number], including=number)
            assert pair is not None
            other = next(one for one in pair if one != number)
            return Question(evaluation=number, other=other, number=state.said)
    return None


def expected_questions(human: HumanJudge, candidates: int) -> int:
    """How many questions so many candidates bring."""
    if human.name == RATE:
        return candidates
    return sum(min(COMPARISONS, place) for place in range(candidates))


def revalued(state: RunState, human: HumanJudge) -> Revalued | None:
    """What the candidates are worth to the user by now; None if that is known already."""
    shown = _shown(state)
    opinion = _opinion(state)
    values = {e.number: opinion.value(e.number) for e in shown}
    if all(e.opinion == values[e.number] for e in shown):
        return None
    return Revalued(weight=human.weight, values=values)


def _shown(state: RunState) -> list[Evaluation]:
    """The candidates with images and a score, in order of their numbers."""
    return [
        e for e in state.history if e.score is not None and (Stage.SEARCH, e.number) in state.scores
    ]


def _met(state: RunState, number: int) -> set[int]:
    """The earlier candidates with which a candidate was compared when it was new."""
    return {
        said.other for said in state.judged if said.evaluation == number and said.other is not None
    }


def _opinion(state: RunState) -> Opinion:
    return Opinion([_as_judgement(said) for said in state.judged])


def _as_judgement(said: Judged) -> Choice | Rating:
    if said.other is None:
        return Rating(candidate=said.evaluation, rating=said.value)
    first = said.value >= 0.5
    return Choice(
        winner=said.evaluation if first else said.other,
        loser=said.other if first else said.evaluation,
        tie=said.value == 0.5,
    )
