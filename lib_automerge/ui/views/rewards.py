"""The rewards of the form: what each needs, its download, and what they say of one image."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.app.downloads import DownloadPhase, DownloadSnapshot
from lib_automerge.app.try_rewards import Tried, TrySnapshot
from lib_automerge.domain.config import RewardMember
from lib_automerge.domain.guards import GUARDS
from lib_automerge.reward.files import WeightFile, in_bytes
from lib_automerge.reward.status import RewardStatus
from lib_automerge.study.formats import duration, number
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui.messages import sentence
from lib_automerge.ui.views.parts import button

LIST = "rewards"
TRY = "reward-try"
"""The names of the two views."""

ROLE_WORDS = {
    "score": "maximised",
    "cap": "not below the parents",
    "referee": "only reported",
}


class Judge(msgspec.Struct, frozen=True):
    """A reward that the form uses, and how it stands."""

    member: RewardMember
    status: RewardStatus


def reward_list(
    judges: Sequence[Judge], download: DownloadSnapshot, *, several: bool, told: str = ""
) -> Markup:
    """Each reward with its readiness, and what can be done about it.

    Args:
        judges: in the order in which they are asked.
        download: the latest download.
        several: whether they judge together, so that each has a part to play.
        told: what comes first: what the choice is, or why there is none.
    """
    return element(
        "div",
        element("p", told, class_="automerge-help") if told else EMPTY,
        element(
            "ul",
            *(_judge(judge, download, several=several) for judge in judges),
            class_="automerge-reward-items automerge-plain",
        )
        if judges
        else EMPTY,
        class_="automerge-rewards",
    )


def placed(view: str, version: str, content: Markup = EMPTY) -> Markup:
    """The place of a view that the script draws again when its version is another."""
    return element("div", content, data_automerge_view=view, data_version=f"|{version}")


def _judge(judge: Judge, download: DownloadSnapshot, *, several: bool) -> Markup:
    member, status = judge.member, judge.status
    role = ROLE_WORDS[member.role]
    if member.weight != 1 and member.role != "referee":
        role += f", weight {member.weight:g}"
    mine = download.reward == status.name
    state = ("ready", "Ready")
    if mine and download.running:
        state = ("busy", "Downloading")
    elif not status.ready:
        state = ("missing", "File missing" if _lacking(judge) else "Not ready")
    return element(
        "li",
        element(
            "div",
            element("b", status.label),
            element("small", role) if several else EMPTY,
            element("span", state[1], class_=f"automerge-ready {state[0]}"),
            class_="automerge-reward-line",
        ),
        *_needs(judge, download, mine=mine),
    )


def _needs(judge: Judge, download: DownloadSnapshot, *, mine: bool) -> list[Markup]:
    """Below a reward's name: its progress, or what it lacks and the button that gets it."""
    status = judge.status
    if mine and download.running:
        return [_progress(download)]
    found: list[Markup] = []
    if mine and download.phase is DownloadPhase.FAILED:
        found.append(element("p", sentence(download.told), class_="automerge-error", role="alert"))
    if status.ready:
        return found
    lacking = _lacking(judge)
    if not lacking:
        return [*found, element("p", sentence(status.told), class_="automerge-lack")]
    names = [
        element("li", element("code", one.name), f" {in_bytes(one.size)}, {one.licence}")
        for one in lacking
    ]
    total = in_bytes(sum(one.size for one in lacking))
    again = mine and download.phase in (DownloadPhase.CANCELLED, DownloadPhase.FAILED)
    waits = download.running
    return [
        *found,
        element(
            "div",
            element("ul", *names, class_="automerge-files automerge-plain"),
            button(
                f"Go on: {total}" if again else f"Download {total}",
                "download",
                data_reward=status.name,
                disabled=waits,
                hint="Another download is in progress: one at a time." if waits else None,
            ),
            class_="automerge-lack",
        ),
    ]


def _lacking(judge: Judge) -> list[WeightFile]:
    """The files to download; one that the user named is theirs to put right."""
    named = judge.member.options
    return [
        one.file
        for one in judge.status.files
        if one.found is None and named.get(one.file.option) is None
    ]


def _progress(download: DownloadSnapshot) -> Markup:
    known = download.size > 0
    share = 100 * download.have / download.size if known else 0.0
    bar = element("div", style=f"width: {share:.1f}%")
    told = f"{download.file}: {in_bytes(download.have)}"
    if known:
        told += f" of {in_bytes(download.size)}"
    if known and download.pace > 0:
        told += f", about {duration((download.size - download.have) / download.pace)} left"
    cancelling = download.phase is DownloadPhase.CANCELLING
    return element(
        "div",
        element(
            "div",
            bar,
            class_="automerge-bar" if known else "automerge-bar unknown",
            role="progressbar",
            aria_label=f"Download of {download.file}",
            aria_valuemin=0,
            aria_valuemax=100,
            aria_valuenow=round(share) if known else None,
        ),
        element(
            "div",
            element("small", told),
            button("Cancelling …" if cancelling else "Cancel", "cancel", disabled=cancelling),
            class_="automerge-reward-line",
        ),
        class_="automerge-lack",
    )


def tried(found: TrySnapshot) -> Markup:
    """What the rewards said of one image; nothing before the first try."""
    if not found.number:
        return EMPTY
    return element(
        "div",
        element("img", src=found.preview, alt="The image that was judged")
        if found.preview
        else EMPTY,
        element("div", *_said(found), class_="automerge-said"),
        class_="automerge-try",
        aria_busy="true" if found.running else "false",
    )


def _said(found: TrySnapshot) -> list[Markup]:
    parts = []
    if found.told:
        parts.append(element("p", sentence(found.told), class_="automerge-error", role="alert"))
    if found.tried:
        parts.append(element("dl", *map(_score, found.tried), class_="automerge-scores"))
    if found.judging:
        parts.append(element("p", f"{found.judging} is loading and judging …", role="status"))
    elif found.running:
        parts.append(element("p", "Reading the image …", role="status"))
    parts += [
        element("p", sentence(text), class_="automerge-check-warning automerge-warned")
        for text in found.warnings
    ]
    if found.read:
        parts.append(element("p", element("small", "Prompt as it was read: "), found.read))
    if found.looks:
        labels = {guard.name: guard.label for guard in GUARDS}
        chips = [
            element("span", f"{labels[name]} {number(value, 3)}", class_="automerge-chip")
            for name, value in found.looks.items()
        ]
        parts.append(element("p", element("small", "Guards measure: "), *chips))
    if found.tried and not found.running:
        hint = "Every reward has a scale of its own. Compare images, not rewards."
        parts.append(element("p", hint, class_="automerge-help"))
    return parts


def _score(one: Tried) -> Markup:
    return element(
        "div",
        element("dt", one.label),
        element("dd", element("b", number(one.score, 4)), element("small", f"{one.seconds:.1f} s"))
        if one.score is not None
        else element("dd", sentence(one.told), class_="automerge-failed"),
    )
