"""What the model says is journalled, shown and acted on: leader, finalists, early reject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from lib_automerge.app import plan
from lib_automerge.app.finals import ROUNDS
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain import architectures
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import (
    BASELINES,
    Evaluated,
    Learned,
    Origin,
    Proposed,
    Rejected,
    SearchEnded,
    Stage,
)
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState, Status, best
from lib_automerge.errors import ConfigError, GenerationError
from lib_automerge.search.model import Knowledge, Model
from lib_automerge.study.findings import candidates, contest, findings
from lib_automerge.study.headline import headline
from lib_automerge.study.store import RunFolder
from tests.fake_host import BrightnessReward, FakeHost, tiny_config

PROMPTS = ("a red ball", "a moon", "a fox", "a house", "a tree", "a boat")


class NoisyReward(BrightnessReward):
    """Adds chance, a function of the image, of the given standard deviation."""

    def __init__(self, sd: float) -> None:
        super().__init__(f"noisy-{sd}")
        self._sd = sd

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [
            value + self._sd * _normal(image)
            for value, image in zip(super().score(images, prompts), images, strict=True)
        ]


def _normal(image: Image.Image) -> float:
    digest = hashlib.sha256(image.tobytes()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "big")).normal())


def noisy(sd: float) -> FakeHost:
    host = FakeHost()
    host.judge = NoisyReward(sd)
    return host


def six_prompts(models: Mapping[str, str], **search: object) -> RunConfig:
    """Six prompts with two seeds each, in batches of two and three that straddle the prompts."""
    config = tiny_config(models, **search)
    payloads = tuple(
        msgspec.structs.replace(
            config.payloads[0], prompt=prompt, seeds=(2 * n, 2 * n + 1), batch_size=2 + n // 3
        )
        for n, prompt in enumerate(PROMPTS)
    )
    return msgspec.structs.replace(config, payloads=(*payloads, config.payloads[2]))


@pytest.fixture
def contrary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that expects most of what scored worst."""

    class Contrary(Model):
        def learn(self, history: Sequence[Evaluation]) -> Knowledge | None:
            found = super().learn(history)
            if found is None:
                return None
            return msgspec.structs.replace(found, ranking=found.ranking[::-1])

    monkeypatch.setattr(plan, "Model", Contrary)


def run(host: FakeHost, config: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(config, folder)


# --- what the model says ------------------------------------------------------------------------


def test_the_model_speaks_after_every_score_before_the_next_decision(
    models: Mapping[str, str], folder: Path
) -> None:
    run(FakeHost(), tiny_config(models, evaluations=10), folder)
    events = RunFolder(folder).events()
    decisions = [n for n, e in enumerate(events) if isinstance(e, Proposed | SearchEnded)]
    told = [events[n - 1] for n in decisions]
    # the uniform parents are in the space but for their text encoder: candidates alone count
    silent = [isinstance(e, Learned) for e in told].index(True)
    assert all(isinstance(e, Learned) for e in told[silent:])
    finished = [e.evaluation for e in told if isinstance(e, Learned)]
    assert finished == list(range(finished[0], 11))
    assert sum(isinstance(e, Learned) for e in events) == len(finished)
    for learned in (e for e in told if isinstance(e, Learned)):
        assert learned.ranking[0] == learned.leader
        assert 1 <= learned.leader <= learned.evaluation
        assert learned.noise >= 0
        assert learned.gain is not None
        assert learned.bound is not None


@pytest.mark.usefixtures("contrary")
def test_the_best_is_whom_the_model_believes_in_and_not_the_highest_score(
    models: Mapping[str, str], folder: Path
) -> None:
    state = run(FakeHost(), tiny_config(models, evaluations=12), folder)
    highest = best(state.history)
    assert state.learned is not None
    assert highest is not None
    leader = state.evaluations[state.learned.leader]
    assert (leader.score or 0.0) < (highest.score or 0.0)
    assert state.incumbent == leader == state.ranked[0]
    shown = json.loads((folder / "best.json").read_text())
    assert shown["evaluation"] == leader.number
    assert shown["weights"] == leader.weights
    expected = [e for e in state.ranked if e.origin not in BASELINES]
    again = sorted(n for stage, n in state.scores if stage is Stage.FINALISTS)
    assert again == sorted(e.number for e in expected[:2])


@pytest.mark.usefixtures("contrary")
def test_every_view_names_the_same_best_while_the_run_goes_on(
    models: Mapping[str, str], folder: Path
) -> None:
    run(FakeHost(), tiny_config(models, evaluations=12), folder)
    told = Proposed | Evaluated | Learned
    events = [e for e in RunFolder(folder).events() if isinstance(e, told)]
    manifest = RunFolder(folder).manifest()
    for count in range(len(events)):
        partial = RunState(events[:count])
        merge = contest(partial).merge
        ranked = [e for e in partial.ranked if e.origin not in BASELINES]
        assert merge == (ranked[0] if ranked else None)
        assert candidates(partial) == ranked
        assert {e.number for e in partial.ranked} == {
            e.number for e in partial.history if e.score is not None
        }
        assert Plan(manifest).finalists(partial) == ranked[:2]


def test_a_run_from_before_the_model_spoke_goes_on(
    models: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(models, evaluations=12)
    asked = iter([False] * (1 + 2 * 2 + 2 * 3 * 9))
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "learned", lambda *_, **__: None)
        state = Service(FakeHost()).start(
            config, folder, controls=Controls(stop=lambda: next(asked, True))
        )
    assert state.status is Status.STOPPED
    assert state.learned is None
    assert state.incumbent == best(state.history)
    state = Service(FakeHost()).resume(folder)
    assert state.status is Status.FINISHED
    assert state.learned is not None
    assert state.learned.evaluation == 12


def test_a_resumed_run_learns_nothing_twice(models: Mapping[str, str], folder: Path) -> None:
    run(FakeHost(), tiny_config(models, evaluations=12), folder)
    manifest = RunFolder(folder).manifest()
    state = RunState()
    for event in RunFolder(folder).events():
        if isinstance(event, Learned):
            said = Plan(manifest).learned(state)
            assert said is not None
            assert msgspec.structs.replace(said, time=event.time) == event
        state.add(event)
        if isinstance(event, Learned):
            assert Plan(manifest).learned(state) is None


def test_nothing_is_learned_once_the_search_is_over(
    models: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from before the model spoke, in its proof: its finalists are those that it had."""
    config = tiny_config(models, evaluations=12)
    asked = iter([False] * (1 + 2 * 2 + 2 * 3 * 12 + 2))
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "learned", lambda *_, **__: None)
        state = Service(FakeHost()).start(
            config, folder, controls=Controls(stop=lambda: next(asked, True))
        )
    assert state.search_ended is not None
    assert state.verdict is None
    state = Service(FakeHost()).resume(folder)
    assert state.verdict is not None
    assert state.learned is None


def test_a_paused_run_shows_who_leads(models: Mapping[str, str], folder: Path) -> None:
    def pause() -> bool:
        return len(RunFolder(folder).state().history) == 8

    state = Service(FakeHost()).start(
        tiny_config(models, evaluations=12), folder, controls=Controls(pause=pause)
    )
    assert state.status is Status.PAUSED
    assert state.learned is not None
    assert state.learned.evaluation == 8
    assert json.loads((folder / "best.json").read_text())["evaluation"] == state.learned.leader


def test_what_going_on_would_gain_is_said(models: Mapping[str, str], folder: Path) -> None:
    state = run(FakeHost(), tiny_config(models, evaluations=12), folder)
    assert state.search_ended is not None
    assert "would probably have gained" in state.search_ended.outlook
    for name in ("log.txt", "report.html"):
        assert state.search_ended.outlook in (folder / name).read_text()
    found = findings(folder, RunFolder(folder).manifest(), RunFolder(folder).events())
    assert state.search_ended.outlook in headline(found).explanation
    ended = Service(FakeHost()).status(folder).ended
    assert ended == f"{state.search_ended.reason}. {state.search_ended.outlook}"


# --- the finalists ------------------------------------------------------------------------------


def near(models: Mapping[str, str], *weights: float) -> RunConfig:
    """Candidates that differ in one weight alone, by as much as is given."""
    base = dict.fromkeys(architectures.get("sd1").parameters, 0.5)
    start = tuple(base | {"M00": weight} for weight in weights)
    return six_prompts(models, start=start, evaluations=len(BASELINES) + len(start))


def test_finalists_that_cannot_be_told_apart_are_scored_again(
    models: Mapping[str, str], folder: Path
) -> None:
    host = noisy(0.2)
    state = run(host, near(models, 0.5, 0.5001), folder)
    rounds = {n: done.images // 6 for (s, n), done in state.stages.items() if s is Stage.FINALISTS}
    assert set(rounds) == {4, 5}
    assert max(rounds.values()) > 1
    assert all(1 <= count <= ROUNDS for count in rounds.values())
    for number, count in rounds.items():
        images = state.scores[Stage.FINALISTS, number]
        assert sorted(images) == list(range(6 * count))
        seeds = {(image.payload, image.seed) for image in images.values()}
        searched = {(i.payload, i.seed) for i in state.scores[Stage.SEARCH, number].values()}
        assert len(seeds) == 6 * count
        assert not seeds & searched
        done = state.stages[Stage.FINALISTS, number]
        assert done.mean == pytest.approx(np.mean([i.score for i in images.values()]))
    assert state.verdict is not None


def test_finalists_that_are_far_apart_are_scored_once(
    models: Mapping[str, str], folder: Path
) -> None:
    base = dict.fromkeys(architectures.get("sd1").parameters, 0.5)
    start = (base, dict.fromkeys(base, 0.9))
    config = six_prompts(models, start=start, evaluations=5)
    state = run(FakeHost(), config, folder)
    images = {n: d.images for (s, n), d in state.stages.items() if s is Stage.FINALISTS}
    assert images == {4: 6, 5: 6}
    assert state.verdict is not None
    assert state.verdict.winner == 4


def test_a_finalist_that_breaks_on_fresh_seeds_leaves(
    models: Mapping[str, str], folder: Path
) -> None:
    host = noisy(0.2)
    weak = {"M00": 0.5001}

    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        again = job.seed > 100 and all(weights.get(n) == w for n, w in weak.items())
        return "black" if again else None

    host.broken = broken
    state = run(host, near(models, 0.5, 0.5001), folder)
    assert state.verdict is not None
    assert state.verdict.winner == 4
    assert (Stage.FINALISTS, 5) not in state.stages
    assert state.stages[Stage.FINALISTS, 4].images == 6


# --- early reject -------------------------------------------------------------------------------


def rejecting(models: Mapping[str, str], **search: object) -> RunConfig:
    return six_prompts(models, early_reject=True, evaluations=14, optimizer="random", **search)


def early(state: RunState) -> list[Evaluation]:
    return [e for e in state.history if e.rejected is not None]


def test_a_candidate_that_is_clearly_worse_is_given_up_with_what_is_known(
    models: Mapping[str, str], folder: Path
) -> None:
    state = run(noisy(0.01), rejecting(models), folder)
    rejected = early(state)
    assert rejected, "random candidates lie far apart"
    for evaluation in rejected:
        made = state.scores[Stage.SEARCH, evaluation.number]
        assert evaluation.score is None
        assert 4 <= len(evaluation.per_payload) < 6
        assert evaluation.images == 2 * len(evaluation.per_payload) <= len(made) < 12
        for name, mean in evaluation.per_payload.items():
            own = [image.score for image in made.values() if image.payload == name]
            assert len(own) == 2
            assert mean == pytest.approx(np.mean(own))
        assert (evaluation.rejected or "").startswith("given up after ")
        assert "for being better" in (evaluation.rejected or "")
    numbers = {e.number for e in rejected}
    assert not numbers & {e.number for e in state.ranked}
    assert not numbers & {n for stage, n in state.scores if stage is not Stage.SEARCH}
    for event in RunFolder(folder).events():
        if isinstance(event, Learned):
            assert not numbers & set(event.ranking)


def test_it_is_off_unless_asked_for(models: Mapping[str, str], folder: Path) -> None:
    config = six_prompts(models, evaluations=14, optimizer="random")
    assert not config.search.early_reject
    assert not early(run(noisy(0.01), config, folder))


def test_baselines_and_what_the_user_asked_for_are_scored_to_the_end(
    models: Mapping[str, str], folder: Path
) -> None:
    blocks = architectures.get("sd1").parameters
    bad = {n: 0.0 if n.startswith("IN") else 1.0 for n in blocks}
    state = run(noisy(0.01), rejecting(models, start=(bad,)), folder)
    assert all(state.evaluations[n].score is not None for n in (1, 2, 3))
    assert state.evaluations[4].origin is Origin.START
    assert state.evaluations[4].score is not None
    assert early(state)


class OnlyHalf(BrightnessReward):
    """The 50:50 merge, which is the third to be made, is clearly better than all else."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__("only-half")
        self._host = host

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        half = len(self._host.applied) == 3
        return [(1.0 if half else 0.0) + 0.01 * _normal(image) for image in images]


def test_early_rejects_do_not_mean_that_nothing_can_be_made(
    models: Mapping[str, str], folder: Path
) -> None:
    """Every second one fails, the others are given up: that is not three failures in a row."""
    host = FakeHost()
    host.judge = OnlyHalf(host)

    def fail(jobs: Sequence[ImageJob]) -> None:
        number = len(RunFolder(folder).state().history) + 1
        if number > len(BASELINES) and number % 2:
            raise GenerationError("out of memory")

    host.before_batch = fail
    state = run(host, rejecting(models), folder)
    reasons = [(e.rejected or "").split(" ")[0] for e in early(state)]
    assert reasons == ["given", "failed"] * 5 + ["given"]
    assert state.status is Status.FINISHED


def test_a_broken_candidate_ends_at_once_and_tells_no_payloads(
    models: Mapping[str, str], folder: Path
) -> None:
    host = noisy(0.01)

    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        return "NaN" if len(host.applied) == 5 and job.number == 0 else None

    host.broken = broken
    state = run(host, rejecting(models), folder)
    fifth = state.evaluations[5]
    assert (fifth.rejected or "").startswith("NaN image")
    assert fifth.per_payload == {}
    assert fifth.images == 0
    assert len(state.scores[Stage.SEARCH, 5]) == 2


def test_when_every_candidate_is_given_up_the_verdict_says_so(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    host.judge = OnlyHalf(host)
    state = run(host, rejecting(models), folder)
    assert len(early(state)) == 11
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert not state.verdict.gain
    assert "given up early for being worse" in state.verdict.sentence
    assert "No merge came near the best known" in (folder / "report.html").read_text()


def test_too_few_prompts_for_early_reject_are_refused(
    models: Mapping[str, str], folder: Path
) -> None:
    with pytest.raises(ConfigError, match="early_reject needs more than 4 prompts"):
        run(FakeHost(), tiny_config(models, early_reject=True), folder)
    assert not folder.exists()


def test_a_given_up_candidate_is_told_as_one_in_the_journal(
    models: Mapping[str, str], folder: Path
) -> None:
    run(noisy(0.01), rejecting(models), folder)
    told = [e for e in RunFolder(folder).events() if isinstance(e, Rejected)]
    assert told
    assert all(e.per_payload and e.images for e in told)
