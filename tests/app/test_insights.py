"""What a run taught, from its folder: by its own space and history, never in a report's way."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app import insights as app
from lib_automerge.domain.config import BlockRule
from lib_automerge.domain.events import Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.store import RunFolder, RunManifest
from tests.run_folders import Plan, build, payloads

pytestmark = pytest.mark.usefixtures("taught")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    plan = Plan(evaluations=24, payloads=payloads(2, 3), size=0)
    return build(tmp_path_factory.mktemp("runs") / "run", plan)


def with_rules(manifest: RunManifest, **rules: BlockRule) -> RunManifest:
    search = msgspec.structs.replace(manifest.config.search, blocks=rules)
    config = msgspec.structs.replace(manifest.config, search=search)
    return msgspec.structs.replace(manifest, config=config)


def test_it_is_about_the_winner_and_the_searched_blocks(folder: RunFolder) -> None:
    manifest, state = folder.manifest(), folder.state()
    found = app.insights(manifest, state)
    assert found is not None
    assert state.verdict is not None
    assert found.leader == state.verdict.winner
    assert found.evaluations == 24
    assert {effect.name for effect in found.effects} == set(
        msgspec.json.decode((folder.path / "run.json").read_bytes())["distances"]
    ) - {"BASE", "VAE"}


def test_equal_and_fixed_blocks_have_no_effect(folder: RunFolder) -> None:
    manifest, state = folder.manifest(), folder.state()
    equal = msgspec.structs.replace(manifest, distances={**manifest.distances, "IN03": 0.0})
    for evaluation in list(state.evaluations.values()):
        weights = {**evaluation.weights, "IN03": 0.0}
        state.evaluations[evaluation.number] = msgspec.structs.replace(evaluation, weights=weights)
    found = app.insights(equal, state)
    assert found is not None
    assert "IN03" not in {effect.name for effect in found.effects}
    assert len(found.effects) == 26
    fixed = app.insights(with_rules(manifest, IN03=BlockRule(fixed=0.0)), state)
    assert fixed is not None
    assert {e.name for e in fixed.effects} == {e.name for e in found.effects}


def test_scores_of_earlier_runs_count_but_never_lead(folder: RunFolder) -> None:
    manifest, state = folder.manifest(), folder.state()
    template = state.evaluations[12]
    earlier = tuple(
        Evaluation(
            number=-number,
            origin=Origin.EARLIER,
            weights={block: (number / 10 + w) % 1.0 for block, w in template.weights.items()},
            score=9.0 + 0.01 * number,
            images=template.images,
        )
        for number in range(1, 6)
    )
    informed = msgspec.structs.replace(manifest, observations=earlier)
    found = app.insights(informed, state)
    assert found is not None
    # the best ones are evaluated again in the run, and count there
    again = manifest.config.verdict.finalists
    assert found.evaluations == 24 + 5 - again
    assert found.leader > 0


def test_a_report_never_fails_because_of_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert "What the search learned" in app.report_html(folder)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app.search, "insights", broken)
    with caplog.at_level(logging.ERROR):
        html = app.report_html(folder)
    assert "What the search learned" not in html
    assert "What the merge takes from whom" in html
    assert "what the run taught could not be computed" in caplog.text


def test_a_short_run_teaches_nothing(tmp_path: Path) -> None:
    plan = Plan(evaluations=4, payloads=payloads(2, 2), size=0)
    short = build(tmp_path / "run", plan)
    assert app.insights(short.manifest(), short.state()) is None
    assert "What the search learned" not in app.report_html(short)
