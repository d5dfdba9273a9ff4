"""What each reward of an ensemble says of the best merge and of the baselines, and what it costs.

Hides how the score of an ensemble comes about: the reader sees it in the end, here what is behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import judging
from lib_automerge.domain.ensemble import Ensemble, Member
from lib_automerge.domain.events import GIVEN, Origin, Scored
from lib_automerge.domain.guards import GUARDS
from lib_automerge.domain.judging import Judgement
from lib_automerge.domain.run import Evaluation
from lib_automerge.domain.scale import Judged, Scale
from lib_automerge.study.findings import Findings, label_of
from lib_automerge.study.formats import listed, number, percent, plural, signed
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.tables import facts, table

UNIT = "standard deviations of the parents' images"
"""What the score of an ensemble is measured in."""

_Z_DECIMALS = 2
_NAMED = 4
"""So many refused candidates are named."""


def unit_hint(found: Findings) -> str:
    """What a score of the run means, in a sentence; empty for a reward that has its own units."""
    if found.manifest.config.reward.ensemble is None:
        return ""
    return (
        f"Scores are in {UNIT} of the same prompt: 0 is as good as these on average, and +1 is "
        "as far above as one of these images typically is from another."
    )


def named_rewards(found: Findings) -> str:
    """Who made the scores: the reward, or those of an ensemble that are optimised."""
    reward = found.manifest.config.reward
    if reward.ensemble is None:
        return reward.name
    scoring = [m.reward for m in reward.ensemble.members if m.role == "score"]
    return f"{listed(scoring)} together" if len(scoring) > 1 else listed(scoring)


def payloads_won(found: Findings) -> tuple[int, int]:
    """On how many payloads the best merge beats both parents, and how many all three made."""
    contest = found.contest
    parents = [e for e in contest.baselines if e.origin is not Origin.HALF]
    if contest.merge is None or len(parents) < 2:
        return 0, 0
    means = {
        e.number: {
            row.payload.name: row.means[e.number] for row in found.rows if e.number in row.means
        }
        for e in (contest.merge, *parents)
    }
    return judging.won_against(means[contest.merge.number], [means[p.number] for p in parents])


def won_sentence(found: Findings) -> str:
    """Say it, as in "It beats both parents on 9 of 12 payloads."; empty before there is a merge."""
    wins, of = payloads_won(found)
    return f"It beats both parents on {wins} of {plural(of, 'payload')}." if of else ""


def judges(found: Findings) -> Markup:
    """Every reward's opinion of each entrant, guards, diversity and caps; empty for one reward."""
    ensemble, scale = found.manifest.config.reward.ensemble, found.state.scale
    if ensemble is None or scale is None:
        return EMPTY
    judged = {e.number: _judged(found, e, ensemble, scale) for e in found.contest.entrants}
    entrants = [e for e in found.contest.entrants if judged[e.number] is not None]
    if not entrants:
        return EMPTY
    rows = [
        [
            join([member.reward, _note(member)]),
            *(_opinion(found, e, member.reward, judged[e.number]) for e in entrants),
        ]
        for member in ensemble.members
    ]
    return join(
        [
            element("p", _hint(found, ensemble), class_="hint"),
            table(
                "Mean score in the parents' spread (raw mean)",
                ["Reward", *(label_of(e) for e in entrants)],
                rows,
                closing=[
                    [
                        element("strong", "Score"),
                        *(
                            number(found.contest.means.get(e.number), found.decimals)
                            for e in entrants
                        ),
                    ]
                ],
            ),
            facts(_findings(found, ensemble, judged)),
        ]
    )


def below_caps(evaluation: Evaluation) -> str:
    """Why a candidate cannot win: "below the cap of laion_v2"; empty if it can."""
    judgement = evaluation.judgement
    if judgement is None or not judgement.below_caps:
        return ""
    return f"below the cap of {listed(judgement.below_caps)}"


def _judged(
    found: Findings, evaluation: Evaluation, ensemble: Ensemble, scale: Scale
) -> Judgement | None:
    """The judgement of the images that are compared; None before they are scored."""
    images = [_as_judged(image) for image in _scored(found, evaluation)]
    weights = {payload.name: payload.weight for payload in found.manifest.config.payloads}
    return judging.judge(images, ensemble, scale, weights) if images else None


def _scored(found: Findings, evaluation: Evaluation) -> list[Scored]:
    images = found.contest.scores.get(evaluation.number, {})
    return [image for _, image in sorted(images.items()) if image.score is not None]


def _as_judged(image: Scored) -> Judged:
    return Judged(
        evaluation=image.evaluation,
        payload=image.payload,
        seed=image.seed,
        raw=image.raw,
        looks=image.looks,
    )


def _note(member: Member) -> Markup:
    words = {
        "score": f"weight {member.weight:g}" if member.weight != 1 else "",
        "cap": "cap: may not fall below the parents",
        "referee": "referee: not optimised",
    }[member.role]
    return element("span", words, class_="tag") if words else EMPTY


def _opinion(
    found: Findings, evaluation: Evaluation, reward: str, judgement: Judgement | None
) -> str:
    raw = [image.raw[reward] for image in _scored(found, evaluation) if reward in image.raw]
    if judgement is None or reward not in judgement.z or not raw:
        return number(None, 0)
    mean = number(sum(raw) / len(raw), 3)
    return f"{signed(judgement.z[reward], _Z_DECIMALS)} ({mean})"


def _hint(found: Findings, ensemble: Ensemble) -> str:
    count = sum(member.role == "score" for member in ensemble.members)
    rule = {
        1: "The score is that of the one reward that is optimised",
        2: "The score is the mean of both rewards minus half of how much they disagree",
        3: "The score is the mean of the rewards minus half of how much they disagree",
    }.get(count, "The score is the median of the rewards")
    return (
        f"{unit_hint(found)} {rule}, image by image, less what guards and lost diversity cost; "
        "the worst quarter of the payloads counts more."
    )


def _findings(
    found: Findings, ensemble: Ensemble, judged: Mapping[int, Judgement | None]
) -> list[tuple[str, str]]:
    merge = found.contest.merge
    entries: list[tuple[str, str]] = []
    wins, of = payloads_won(found)
    if of:
        entries.append(("Beats both parents", f"on {wins} of {plural(of, 'payload')}"))
    own = None if merge is None else judged[merge.number]
    if own is not None and ensemble.guards:
        entries.append(("Outside the parents' range", _outside(own)))
    searched = None if merge is None else merge.judgement
    if searched is not None and searched.diversity_ratio is not None:
        ratio = percent(searched.diversity_ratio)
        entries.append(("Diversity over seeds", f"{ratio} of the parents'"))
    refused = [e for e in found.state.history if e.origin not in GIVEN and below_caps(e)]
    if refused:
        entries.append(("Refused by a cap", _refused(refused)))
    return entries


def _outside(judgement: Judgement) -> str:
    labels = {guard.name: guard.label for guard in GUARDS}
    shares = sorted(judgement.outside.items(), key=lambda item: -item[1])
    return (
        ", ".join(f"{labels.get(name, name)} {percent(share)}" for name, share in shares)
        + " of the images"
        if shares
        else "no image of the merge"
    )


def _refused(refused: list[Evaluation]) -> str:
    named = [f"evaluation {e.number} ({below_caps(e)})" for e in refused[:_NAMED]]
    more = len(refused) - len(named)
    return f"{listed(named)}{f', and {more} more' if more else ''}"
