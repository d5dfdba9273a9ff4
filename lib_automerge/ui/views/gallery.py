"""Pictures beside each other: the same prompt and seed, made by different models."""

from __future__ import annotations

from collections.abc import Sequence

from lib_automerge.domain.events import Scored
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.findings import Findings, PayloadRow, label_of, representative
from lib_automerge.study.formats import number, plural, shortened, signed
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.views.parts import button, image_address

PAIRS = 6
"""How many prompts the live view shows."""

GRID_ROWS = 40
"""How many prompts the comparison grid shows at most."""


def pairs(found: Findings, run: str) -> Markup:
    """The best merge beside the better parent; the parents alone before there is a merge."""
    columns = _pair(found)
    rows = representative(found.rows, PAIRS)
    if not columns or not rows:
        return EMPTY
    names = " against ".join(_name(found, e) for e in columns)
    cards = [_card(found, run, row, columns) for row in rows]
    return join(
        [
            element("h3", names[:1].upper() + names[1:]),
            element("p", f"Same prompt and seed.{_star(found, 'higher score')}", class_="hint"),
            element("div", *cards, class_="automerge-pairs", data_gallery="live"),
        ]
    )


def comparison(found: Findings, run: str) -> Markup:
    """A grid: best, 50:50, better parent, other parent; a row for each prompt."""
    columns = _columns(found)
    rows = representative(found.rows, GRID_ROWS)
    if not columns or not rows:
        return EMPTY
    head = element(
        "tr",
        element("th", "Prompt", scope="col", class_="text"),
        *(element("th", _heading(found, e), scope="col") for e in columns),
    )
    body = [_grid_row(found, run, row, columns) for row in rows]
    hint = f"{len(rows)} of {plural(len(found.rows), 'prompt')}, first seed of each."
    hint += f"{_star(found, 'highest score of its row')} Choose a picture to see it in full size."
    table = element(
        "table",
        element("caption", "The same prompts and seeds by every model"),
        element("thead", head),
        element("tbody", *body),
        class_=f"automerge-comparison of-{len(columns)}",
        data_gallery="comparison",
    )
    scroll = element("div", table, class_="scroll", role="region", tabindex="0")
    return join([element("p", hint, class_="hint"), scroll])


def _star(found: Findings, what: str) -> str:
    return f" ★ has the {what}." if found.scored else ""


def _pair(found: Findings) -> list[Evaluation]:
    contest = found.contest
    better = contest.better_parent
    if better is None:
        return []
    if contest.merge is not None:
        return [contest.merge, better]
    others = [e for e in contest.baselines if e.number != better.number]
    return [better, *others[:1]]


def _columns(found: Findings) -> list[Evaluation]:
    contest = found.contest
    ranked = sorted(
        contest.baselines,
        key=lambda e: (
            e.origin.value != "50:50",
            e != contest.better_parent,
        ),
    )
    return [*((contest.merge,) if contest.merge else ()), *ranked]


def _name(found: Findings, evaluation: Evaluation) -> str:
    if evaluation == found.contest.better_parent:
        return f"better parent ({found.model_of(evaluation)})"
    if evaluation == found.contest.merge:
        proved = found.state.verdict is not None
        return (
            f"Best merge (evaluation {evaluation.number})"
            if proved
            else (f"Best so far (evaluation {evaluation.number})")
        )
    return f"{label_of(evaluation)} ({found.model_of(evaluation)})"


def _heading(found: Findings, evaluation: Evaluation) -> Markup:
    label = label_of(evaluation)
    better = evaluation == found.contest.better_parent
    return join(
        [
            element("b", label + (", better parent" if better else "")),
            element("small", found.model_of(evaluation)),
        ]
    )


def _card(found: Findings, run: str, row: PayloadRow, columns: Sequence[Evaluation]) -> Markup:
    shots = [_first(found, e, row.payload.name) for e in columns]
    top = _top(shots)
    difference = ""
    if row.difference is not None and found.contest.merge is not None:
        difference = f"{signed(row.difference, found.decimals)} "
    return element(
        "figure",
        element(
            "div",
            *(
                _shot(found, run, e, shot, row.payload, top)
                for e, shot in zip(columns, shots, strict=True)
            ),
            class_="automerge-shots",
        ),
        element(
            "figcaption",
            element("b", difference) if difference else EMPTY,
            shortened(row.payload.prompt, 70),
            title=row.payload.prompt,
        ),
    )


def _grid_row(found: Findings, run: str, row: PayloadRow, columns: Sequence[Evaluation]) -> Markup:
    shots = [_first(found, e, row.payload.name) for e in columns]
    top = _top(shots)
    about = [
        element("span", shortened(row.payload.prompt, 110), title=row.payload.prompt),
        element("span", row.payload.name, class_="id"),
    ]
    if row.difference is not None:
        mean = signed(row.difference, found.decimals)
        about.append(element("span", f"gain {mean} ({plural(row.images, 'image')})", class_="id"))
    seed = next((s.seed for s in shots if s is not None), None)
    if seed is not None:
        about.append(
            button(
                "Send to txt2img",
                "send",
                run,
                data_payload=row.payload.name,
                data_seed=str(seed),
                hint="Prompt, seed and settings",
            )
        )
    return element(
        "tr",
        element("th", *about, scope="row", class_="text"),
        *(
            element("td", _shot(found, run, e, shot, row.payload, top), data_label=label_of(e))
            for e, shot in zip(columns, shots, strict=True)
        ),
    )


def _first(found: Findings, evaluation: Evaluation, payload: str) -> Scored | None:
    scored = found.contest.scores.get(evaluation.number, {})
    return next((s for _, s in sorted(scored.items()) if s.payload == payload), None)


def _top(shots: Sequence[Scored | None]) -> float | None:
    return max((s.score for s in shots if s is not None and s.score is not None), default=None)


def _shot(
    found: Findings,
    run: str,
    evaluation: Evaluation,
    shot: Scored | None,
    payload: Payload,
    top: float | None,
) -> Markup:
    """A thumbnail with its score; it leads to the full picture."""
    if shot is None:
        return element("div", "no image", class_="automerge-shot missing")
    score = number(shot.score, found.decimals)
    best = shot.score is not None and shot.score == top
    who = f"{label_of(evaluation)}, {found.model_of(evaluation)}"
    said = [who, *([score] if found.scored else []), f"seed {shot.seed}", payload.prompt]
    image = element(
        "img",
        src=image_address(run, shot, "thumbs"),
        alt=f"{who}: {shortened(payload.prompt, 90)}",
        loading="lazy",
        style=f"aspect-ratio: {payload.width} / {payload.height}",
    )
    label = [element("span", score, class_="score")]
    if best:
        label.insert(0, element("span", "★", class_="star", role="img", aria_label="best"))
    return element(
        "a",
        image,
        element("span", *label, class_="automerge-score") if found.scored else EMPTY,
        href=image_address(run, shot, "images"),
        class_="automerge-shot best" if best else "automerge-shot",
        data_action="zoom",
        data_caption=" · ".join(said),
    )
