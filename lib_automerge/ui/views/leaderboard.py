"""The best evaluations of a run, ranked, with what can be done with each."""

from __future__ import annotations

from lib_automerge.domain.events import GIVEN
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.charts import sparkline
from lib_automerge.study.findings import LABELS, Findings, candidates
from lib_automerge.study.formats import plus_minus, signed
from lib_automerge.study.judges import UNIT, below_caps
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.tables import table
from lib_automerge.ui.views.live import searched
from lib_automerge.ui.views.parts import button, tag

TOP = 12


def leaderboard(found: Findings, run: str) -> Markup:
    """Draw the ranking: the search's scores, with the baselines to compare them with."""
    ranked = candidates(found.state)
    if not ranked:
        return EMPTY
    baselines = [e for e in found.state.history if e.origin in GIVEN and e.score is not None]
    order = searched(found)
    values = [e.weights.get(b, 0.0) for e in (*ranked[:TOP], *baselines) for b in order]
    low, high = min([0.0, *values]), max([1.0, *values])
    better = found.contest.better_parent
    parent = better.score if better is not None else None
    merge = found.contest.merge

    def row(rank: str, e: Evaluation) -> list[str]:
        chosen = merge is not None and merge.number == e.number
        gain = None if e.score is None or parent is None else e.score - parent
        number = str(e.number)
        actions = [button("Use", "duplicate", run, data_evaluation=number, hint=USE_HINT)]
        if e.origin not in GIVEN:
            actions.insert(0, button("Save", "choose", run, data_evaluation=number))
        return [
            rank,
            join(
                [
                    LABELS.get(e.origin, f"Evaluation {number}"),
                    tag("★ best") if chosen else EMPTY,
                    tag(below_caps(e)),
                ]
            ),
            "baseline" if e.origin in GIVEN else e.origin.value,
            sparkline([e.weights.get(b, 0.0) for b in order], low, high),
            plus_minus(e.score, e.standard_error, found.decimals),
            signed(gain, found.decimals),
            element("span", *actions, class_="automerge-row"),
        ]

    headings = ["Rank", "Evaluation", "From", "Weights", "Score", "Over better parent", ""]
    ranks = enumerate(ranked[:TOP], start=1)
    return join(
        [
            element("p", _hint(found, len(ranked)), class_="hint"),
            element(
                "div",
                table(
                    "The best evaluations by the images of the search",
                    headings,
                    (row(str(rank), e) for rank, e in ranks),
                    closing=[row("", e) for e in baselines],
                    texts=4,
                ),
                class_="automerge-leaderboard",
            ),
        ]
    )


USE_HINT = "Fills the form with this run's settings and begins at these weights"


def _hint(found: Findings, count: int) -> str:
    said = f"{min(count, TOP)} of {count:,} merges, by the images of the search, ± one standard "
    said += "error."
    if found.manifest.config.reward.ensemble is not None:
        said += f" In {UNIT}."
    verdict = found.state.verdict
    if verdict is None or not verdict.comparisons:
        return said
    return f"{said} The verdict above is by fresh images: it is the number to trust."
