"""The rewards of the form, as the page shows them."""

from __future__ import annotations

import re

from lib_automerge.app.downloads import DownloadPhase, DownloadSnapshot
from lib_automerge.app.try_rewards import Tried, TryPhase, TrySnapshot
from lib_automerge.domain.config import RewardMember
from lib_automerge.reward.files import WeightFile
from lib_automerge.reward.status import FileStatus, RewardStatus
from lib_automerge.ui.views.rewards import Judge, reward_list, tried

FILE = WeightFile("weights", "J<u>dge.pt", "people/judge", "w.pt", 1_800_000_000, "MIT")
NONE = DownloadSnapshot()


def judge(
    *, ready: bool = False, told: str = "it lacks it.", found: str | None = None, **member: object
) -> Judge:
    status = RewardStatus("judge", "Judge", "Judges.", ready, told, (FileStatus(FILE, found),))
    return Judge(RewardMember(name="judge", **member), status)  # type: ignore[arg-type]


def text(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_a_missing_file_is_named_with_size_and_licence_and_can_be_downloaded() -> None:
    drawn = reward_list([judge()], NONE, several=False)
    assert "File missing" in drawn
    assert "J&lt;u&gt;dge.pt 1.8 GB, MIT Download 1.8 GB" in text(drawn)
    assert 'data-action="download"' in drawn
    assert 'data-reward="judge"' in drawn
    assert "disabled" not in drawn
    assert "maximised" not in drawn


def test_a_ready_reward_offers_nothing() -> None:
    drawn = reward_list([judge(ready=True, found="/w.pt")], NONE, several=False)
    assert text(drawn) == "Judge Ready"
    assert "<button" not in drawn


def test_a_file_that_the_user_named_is_not_downloaded() -> None:
    drawn = reward_list([judge(options={"weights": "/gone.pt"})], NONE, several=False)
    assert text(drawn) == "Judge Not ready It lacks it."
    assert "<button" not in drawn


def test_each_of_several_says_its_part() -> None:
    parts = [judge(weight=0.5, role="cap"), judge(role="referee", weight=3.0)]
    drawn = text(reward_list(parts, NONE, several=True, told="Together."))
    assert drawn.startswith("Together. Judge not below the parents, weight 0.5 File missing")
    assert "Judge only reported File missing" in drawn


def test_a_download_shows_how_far_it_is_and_can_be_cancelled() -> None:
    running = DownloadSnapshot(
        DownloadPhase.RUNNING, "judge", "Judge.pt", 450_000_000, 1_800_000_000, "", 5e6
    )
    drawn = reward_list([judge()], running, several=False)
    assert "Judge.pt: 450.0 MB of 1.8 GB, about 4 min" in text(drawn)
    assert "width: 25.0%" in drawn
    assert 'aria-valuenow="25"' in drawn
    assert 'data-action="cancel"' in drawn
    assert 'data-action="download"' not in drawn
    unknown = DownloadSnapshot(DownloadPhase.CANCELLING, "judge", "Judge.pt", 1000)
    drawn = reward_list([judge()], unknown, several=False)
    assert "left" not in drawn
    assert "disabled" in drawn


def test_another_download_must_be_waited_for() -> None:
    other = DownloadSnapshot(DownloadPhase.RUNNING, "other", "Other.pt", 1, 2)
    drawn = reward_list([judge()], other, several=False)
    assert re.search(r'<button[^>]*data-action="download"[^>]* disabled', drawn)
    assert "Other.pt" not in drawn


def test_a_download_that_failed_says_why_and_can_go_on() -> None:
    failed = DownloadSnapshot(DownloadPhase.FAILED, "judge", "Judge.pt", told="no <answer>.")
    drawn = reward_list([judge()], failed, several=False)
    assert "No &lt;answer&gt;." in drawn
    assert "Go on: 1.8 GB" in drawn
    assert 'role="alert"' in drawn


def test_nothing_is_said_before_the_first_try() -> None:
    assert tried(TrySnapshot()) == ""


def test_what_the_rewards_say_of_an_image() -> None:
    found = TrySnapshot(
        number=1,
        phase=TryPhase.RUNNING,
        prompt="(a <cat>:1.2)",
        read="a <cat>",
        judging="Third",
        tried=(
            Tried(reward="one", label="One", score=-0.25, seconds=1.26),
            Tried(reward="two", label="Two", told="it is ill."),
        ),
        looks={"contrast": 0.5},
        warnings=("it was cut off.",),
        preview="data:image/jpeg;base64,AAAA",
    )
    drawn = tried(found)
    told = text(drawn)
    assert "One \N{MINUS SIGN}0.2500 1.3 s Two It is ill." in told
    assert "Third is loading and judging" in told
    assert "It was cut off." in told
    assert "Prompt as it was read: a &lt;cat&gt;" in told
    assert "Guards measure: Contrast 0.500" in told
    assert 'src="data:image/jpeg;base64,AAAA"' in drawn
    assert "Compare images" not in told
    failed = TrySnapshot(number=1, phase=TryPhase.DONE, told="this is no image.")
    assert text(tried(failed)) == "This is no image."
