"""The status strip: what happens now, in one line, with the buttons that change it."""

from __future__ import annotations

from lib_automerge.app.lab import LabPhase, LabSnapshot
from lib_automerge.app.standing import RESUMABLE, RunStanding, Standing
from lib_automerge.app.worker import Phase
from lib_automerge.domain.events import Stage
from lib_automerge.study.formats import number, percent, plural, signed, size, two_digits
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.ui.messages import sentence
from lib_automerge.ui.views.lab import title
from lib_automerge.ui.views.parts import button, clock_time

WORDS = {
    Phase.IDLE: "No run",
    Phase.STARTING: "Starting",
    Phase.RUNNING: "Running",
    Phase.PAUSING: "Pausing",
    Phase.STOPPING: "Stopping",
    Phase.FINISHING: "Finishing",
}
WAITING = "Waiting for your judgement"
WHERE = "The pictures to judge are in the tab Search; the run goes on when you have answered."
MERGING = {
    LabPhase.MERGING: "Merging",
    LabPhase.GENERATING: "Making the image",
    LabPhase.CANCELLING: "Cancelling",
}
NO_MERGE = LabSnapshot()
MERGE_FIRST = "A run can start when the merge lab is done."
MEANINGS = {
    Phase.PAUSING: "after this evaluation; then the WebUI is free again.",
    Phase.STOPPING: "after the images in the air.",
    Phase.FINISHING: "the search ends after this evaluation, then the best is proved.",
}
STOP_QUESTION = (
    "Stop the run now? Images that are not scored yet are made again when you resume it; "
    "everything else is kept."
)


def strip(now: Standing, clock: float, merge: LabSnapshot = NO_MERGE) -> Markup:
    """Draw the strip: the run in hand, else a merge of the lab, else the run before.

    Args:
        now: how the runs stand.
        clock: the time in seconds since the epoch.
        merge: the latest of the lab; a run and a merge are never at work together.
    """
    if now.busy:
        kind, words, actions = now.phase.value, _busy(now, clock), _busy_actions(now)
    elif merge.working:
        cancel = button("Cancel", "lab-cancel", hint="What is finished of the merge is kept")
        cancelling = merge.phase is LabPhase.CANCELLING
        kind, words, actions = "merging", _merging(merge, clock), [] if cancelling else [cancel]
    else:
        kind, words, actions = _idle(now, _unfinished(merge))
    return element(
        "div",
        words,
        # the host's shortcuts look for buttons of these ids in every tab, also when idle
        element("div", *actions, _interrupt(now), _skip(), class_="automerge-actions"),
        class_=f"automerge-strip-body is-{kind}",
    )


def announcement(now: Standing, merge: LabSnapshot = NO_MERGE) -> str:
    """What a screen reader says when it changes: the state, without numbers that tick."""
    if merge.working and not now.busy:
        return f"{MERGING[merge.phase]}: {title(merge)}."
    if now.busy:
        name = now.run.name if now.run else now.name
        if now.waiting:
            return f"Waiting for your judgement: {name}."
        return f"{WORDS[now.phase]}: {name}."
    if now.failure:
        return f"The run could not be carried out: {now.failure}"
    if now.run is None:
        return "No run."
    return f"{_capital(now.run.state)}: {now.run.name}. {now.run.sentence}"


def _busy(now: Standing, clock: float) -> Markup:
    run = now.run
    state = [
        element("span", class_="automerge-dot", aria_hidden="true"),
        element("strong", WAITING if now.waiting else WORDS[now.phase]),
        " ",
        element("span", run.name if run else now.name, class_="automerge-name"),
    ]
    head = element("p", *state, class_="automerge-state")
    meaning = WHERE if now.waiting else MEANINGS.get(now.phase)
    note = element("p", meaning, class_="hint") if meaning else EMPTY
    if run is None:
        doing = "Checking models and reward. This takes minutes for large files."
        return join([head, note or element("p", doing, class_="hint")])
    return join([head, note, element("ul", *_numbers(run, clock), class_="automerge-numbers")])


def _merging(merge: LabSnapshot, clock: float) -> Markup:
    items = []
    progress = merge.progress
    if progress is not None and merge.phase is not LabPhase.GENERATING:
        share = progress.done / progress.total if progress.total else 1.0
        items.append(element("li", element("b", percent(share)), " done"))
        if progress.note:
            items.append(element("li", progress.note))
        elif progress.rate > 0:
            items.append(element("li", element("b", f"{size(progress.rate)}/s")))
        if progress.left is not None and merge.phase is LabPhase.MERGING:
            items.append(
                element("li", "done about ", element("b", clock_time(progress.left, clock)))
            )
    numbers = element("ul", *items, class_="automerge-numbers") if items else EMPTY
    return join([_said(MERGING[merge.phase], title(merge), MERGE_FIRST), numbers])


def _numbers(run: RunStanding, clock: float) -> list[Markup]:
    items = [_number(_where(run), "", "")]
    if run.best is not None:
        items.append(_number("best candidate", number(run.best, run.decimals), "best"))
    if run.difference is not None:
        shown = signed(run.difference, run.decimals)
        items.append(
            element("li", element("b", shown), " over the better parent", class_="difference")
        )
    if run.bound is not None and run.stage is Stage.SEARCH:
        items.append(
            element(
                "li",
                "at most ",
                element("b", two_digits(run.bound)),
                " left to gain",
                title="what any merge is likely to be better by than the best, at most",
            )
        )
    parents = [("A", run.parent_a), ("B", run.parent_b), ("50:50", run.half)]
    items += [
        _number(name, number(value, run.decimals), "parent")
        for name, value in parents
        if value is not None
    ]
    if run.per_hour is not None:
        pace = element("b", f"{run.per_hour:.0f}")
        items.append(element("li", pace, " per hour", title="evaluations per hour"))
    if run.remaining is not None and run.remaining.seconds > 0:
        items.append(
            element("li", "done about ", element("b", clock_time(run.remaining.seconds, clock)))
        )
    elif run.finished_evaluations == 0:
        items.append(element("li", "measuring the pace"))
    if run.warnings:
        items.append(element("li", f"⚠ {plural(run.warnings, 'warning')}"))
    return items


def _where(run: RunStanding) -> str:
    if run.stage is Stage.SEARCH:
        return f"evaluation {run.evaluation:,} of {run.planned:,}"
    if run.stage is Stage.CALIBRATION:
        return "measuring the noise"
    return "scoring the finalists again" if run.stage is Stage.FINALISTS else "proving the best"


def _number(label: str, value: str, kind: str) -> Markup:
    if not value:
        return element("li", element("b", label))
    return element("li", element("span", label), " ", element("b", value), class_=kind)


def _busy_actions(now: Standing) -> list[Markup]:
    actions = []
    run = now.run
    searching = run is not None and run.stage is Stage.SEARCH and run.best is not None
    if now.phase is Phase.RUNNING and searching:
        actions.append(
            button(
                "Finish",
                "finish",
                now.name,
                hint="Stop searching after this evaluation and prove the best so far",
            )
        )
    if now.phase is not Phase.STOPPING:
        actions.append(button("Stop now", "stop", now.name, confirm=STOP_QUESTION))
    return actions


def _interrupt(now: Standing) -> Markup:
    usable = now.phase in (Phase.RUNNING, Phase.STARTING, Phase.FINISHING)
    return button(
        "Pause",
        "pause",
        now.name,
        primary=True,
        hint="After this evaluation: your model is restored and the WebUI is free",
        id="automerge_interrupt",
        style=f"display: {'block' if usable else 'none'}",
    )


def _skip() -> Markup:
    # without it the host's Alt+Enter raises an error in this tab; a run has nothing to skip
    return element(
        "button", type="button", id="automerge_skip", style="display: none", tabindex="-1"
    )


def _unfinished(merge: LabSnapshot) -> str:
    """What of the merge lab can be gone on with; empty if nothing."""
    if not merge.kept:
        return ""
    if len(merge.kept) > 1:
        return f"{len(merge.kept)} merges are not finished: see Merge lab."
    return f"The merge {merge.kept[0].name} is not finished: see Merge lab."


def _idle(now: Standing, also: str) -> tuple[str, Markup, list[Markup]]:
    run = now.run
    actions = [] if run is None else [button("Open results", "open", run.id)]
    if run is not None and run.state in RESUMABLE:
        actions.insert(0, button("Resume", "resume", run.id, primary=True))
    if now.failure:
        last = f"Last run: {run.name}, {run.state}." if run is not None else ""
        words = _said("The run could not be carried out", "", sentence(now.failure), last, also)
        return "failed", words, actions
    if run is None:
        words = _said("No run yet", "", "Choose model B and press Start.", also)
        return "idle", words, []
    words = _said(_capital(run.state), run.name, _ended(run), _others(now), also)
    return run.state.replace(" ", "-"), words, actions


def _ended(run: RunStanding) -> str:
    at = f"{plural(run.finished_evaluations, 'evaluation')} done."
    match run.state:
        case "finished":
            return run.sentence
        case "failed":
            return f"{run.reason} {at} Everything scored is kept."
        case "paused":
            return f"{run.reason} {at} {run.sentence}".strip()
        case "interrupted":
            return f"{at} The program ended while it ran; nothing that was scored is lost."
        case "stopped":
            return f"{at} {run.sentence}"
    return f"Another process works on it. {at}"


def _others(now: Standing) -> str:
    if not now.unfinished:
        return ""
    return f"{plural(len(now.unfinished), 'other run')} can be resumed: see Runs."


def _said(state: str, name: str, *sentences: str) -> Markup:
    head = element(
        "p",
        element("span", class_="automerge-dot", aria_hidden="true"),
        element("strong", state),
        " ",
        element("span", name, class_="automerge-name"),
        class_="automerge-state",
    )
    return join([head, *(element("p", s, class_="hint") for s in sentences if s)])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
