"""What a report and the tab say of a run that several rewards judged."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import msgspec
import pytest

from lib_automerge import run_commands
from lib_automerge.app.desk import Opened
from lib_automerge.app.insights import insights
from lib_automerge.app.service import Service
from lib_automerge.domain.config import RewardMember
from lib_automerge.domain.events import Stage
from lib_automerge.study import judges as views
from lib_automerge.study import report
from lib_automerge.study.findings import Findings, findings
from lib_automerge.study.headline import headline
from lib_automerge.study.lesson_words import in_words
from lib_automerge.study.store import RunFolder
from lib_automerge.ui.views import live
from lib_automerge.ui.views.leaderboard import leaderboard
from lib_automerge.ui.views.results import results
from tests.app.test_ensembles import EnsembleHost, ensemble, red
from tests.fake_host import tiny_models
from tests.run_folders import Plan, build

MEMBERS = (
    RewardMember(name="red"),
    RewardMember(name="redder", weight=2.0),
    RewardMember(name="pale", role="cap"),
    RewardMember(name="judge", role="referee"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged")
    models = root / "models"
    models.mkdir()
    host = EnsembleHost(
        red=red,
        redder=lambda image: 100 * red(image) - 7,
        pale=lambda image: red(image) if red(image) < 0.67 else -50.0,
        judge=lambda image: 3 * red(image),
    )
    config = ensemble(
        tiny_models(models), *MEMBERS, guards=("brightness", "duplicate"), diversity_strength=0.5
    )
    config = msgspec.structs.replace(
        config, search=msgspec.structs.replace(config.search, evaluations=12)
    )
    Service(host, clock=lambda: 0.0).start(config, root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    run = RunFolder(folder)
    return findings(folder, run.manifest(), list(run.events()))


def words(html: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))


def test_every_reward_has_its_mean_in_units_of_the_parents_and_its_raw_mean(
    found: Findings,
) -> None:
    said = words(views.judges(found))
    merge = found.contest.merge
    assert merge is not None
    images = found.state.scores[Stage.VERDICT, merge.number].values()
    scale = found.state.scale
    assert scale is not None
    # both search and verdict payloads weigh the same, and have as many images
    z = [
        (image.raw["redder"] - scale.centres["redder"][image.payload]) / scale.scales["redder"]
        for image in images
    ]
    raw = sum(image.raw["redder"] for image in images) / len(images)
    assert f"{sum(z) / len(z):+.2f} ({raw:.3f})" in said.replace("\N{MINUS SIGN}", "-")


def test_what_a_reward_is_for_stands_beside_its_name(found: Findings) -> None:
    said = words(views.judges(found))
    assert "redder weight 2" in said
    assert "pale cap: may not fall below the parents" in said
    assert "judge referee: not optimised" in said
    assert "red weight" not in said


def test_guards_diversity_payloads_and_caps_are_told(found: Findings) -> None:
    said = words(views.judges(found))
    wins, of = views.payloads_won(found)
    assert of == 1
    assert f"Beats both parents on {wins} of 1 payload" in said
    assert "Outside the parents' range" in said
    merge = found.contest.merge
    assert merge is not None
    assert merge.judgement is not None
    assert merge.judgement.diversity_ratio is not None
    assert f"Diversity over seeds {100 * merge.judgement.diversity_ratio:.0f} %" in said
    refused = [e for e in found.state.history if views.below_caps(e)]
    assert refused
    assert f"evaluation {refused[0].number} (below the cap of pale)" in said


def test_guards_that_are_left_have_the_share_of_images(found: Findings) -> None:
    merge = found.contest.merge
    assert merge is not None
    images = {
        job: msgspec.structs.replace(image, looks={**image.looks, "brightness": 9.0})
        if job == 0
        else image
        for job, image in found.contest.scores[merge.number].items()
    }
    contest = msgspec.structs.replace(
        found.contest, scores={**found.contest.scores, merge.number: images}
    )
    said = words(views.judges(msgspec.structs.replace(found, contest=contest)))
    assert "Brightness 25 % of the images" in said


def test_the_verdict_says_what_its_numbers_are(found: Findings) -> None:
    said = headline(found).explanation
    assert "red and redder together scored them" in said
    assert "standard deviations of the parents' images" in said
    wins, of = views.payloads_won(found)
    assert f"It beats both parents on {wins} of {of} payload" in said


def test_the_leaderboard_marks_what_a_cap_refuses(found: Findings) -> None:
    drawn = words(leaderboard(found, "run"))
    assert "below the cap of pale" in drawn
    assert "In standard deviations of the parents' images." in drawn


def test_the_live_view_and_the_terminal_say_the_unit(found: Findings) -> None:
    unit = views.unit_hint(found)
    assert unit in words(live.history(found))
    learned = insights(found.manifest, found.state)
    assert learned is not None
    assert unit in in_words(found, learned)


def test_the_command_says_the_unit_of_its_verdict(
    folder: Path, found: Findings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_commands.end(found.state, folder)
    assert (
        "differences are in standard deviations of the parents' images" in capsys.readouterr().out
    )


def test_report_and_results_have_the_table(folder: Path, found: Findings) -> None:
    page = report.render(RunFolder(folder))
    assert "What each reward says" in page
    assert "Mean score on the images of the verdict, in standard deviations" in page
    opened = Opened(
        id="run", name="run", path=folder, manifest=found.manifest, state=found.state, live=False
    )
    assert "referee: not optimised" in results(opened, found)


def test_a_run_with_one_reward_says_none_of_it(tmp_path: Path) -> None:
    run = build(tmp_path / "run", Plan(evaluations=8, size=0))
    one = findings(run.path, run.manifest(), list(run.events()))
    assert views.judges(one) == ""
    assert views.unit_hint(one) == ""
    assert "image_reward scored them" in headline(one).explanation
    assert "standard deviations of the parents" not in report.render(run)
    assert "standard deviations" not in live.history(one)
