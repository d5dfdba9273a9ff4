"""What the search knows: who leads and why, how exact a score is, what is left to gain."""

from __future__ import annotations

from lib_automerge.domain.events import Learned
from lib_automerge.domain.run import Evaluation, best
from lib_automerge.study.findings import LABELS, Findings
from lib_automerge.study.formats import number, two_digits
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.study.tables import facts
from lib_automerge.ui.messages import sentence

PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"


def learned(found: Findings) -> Markup:
    """Draw it; nothing before the model says anything."""
    state = found.state
    parts = []
    if state.learned is not None:
        parts += [facts(_facts(found, state.learned)), _luck(found, state.learned)]
    if state.calibrated is not None:
        parts.append(element("p", sentence(state.calibrated.sentence), class_="hint"))
    searched = state.has_candidates
    if state.search_ended is not None and searched:
        parts.append(element("p", _ending(found)))
    if not parts:
        return EMPTY
    title = "What the search learned" if state.search_ended else "What the search knows so far"
    if not searched:
        title = "How exact a score is"
    return element("div", element("h3", title), *parts)


def _facts(found: Findings, known: Learned) -> list[tuple[str, str]]:
    leader = found.state.evaluations[known.leader]
    mean = number(known.mean, found.decimals)
    rows = [
        ("Leader", f"{_name(leader)}, expected {mean}{PLUS_MINUS}{two_digits(known.sd)}"),
        ("Noise on these images", f"{PLUS_MINUS.lstrip()}{two_digits(known.noise)}"),
    ]
    if known.bound is not None:
        rows.append(("Left to gain", _left(known, known.bound)))
    return rows


def _left(known: Learned, bound: float) -> str:
    if bound == 0.0:
        return "nothing: all scores are equal"
    told = f"at most {two_digits(bound)}"
    if known.gain is not None:
        told += f", about {two_digits(known.gain)} by the next candidate"
    return told


def _luck(found: Findings, known: Learned) -> Markup:
    """Why the leader is not the evaluation with the highest score, if so."""
    top = best(found.state.history)
    if top is None or top.number == known.leader:
        return EMPTY
    leader = found.state.evaluations[known.leader]
    if top.score == leader.score:
        return EMPTY
    told = (
        f"{_name(top)} has the highest score, {number(top.score, found.decimals)}. Part of that "
        f"is luck, as the scores of similar merges tell: more is expected of {_within(leader)}."
    )
    return element("p", told, class_="hint")


def _ending(found: Findings) -> str:
    ended = found.state.search_ended
    assert ended is not None
    return " ".join(filter(None, [f"Why it ended: {ended.reason}.", ended.outlook]))


def _name(evaluation: Evaluation) -> str:
    return LABELS.get(evaluation.origin, f"Evaluation {evaluation.number}")


def _within(evaluation: Evaluation) -> str:
    name = _name(evaluation)
    return name[0].lower() + name[1:]
