"""The verdict of a person who judges alone: blind choices between unseen images."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from lib_automerge.app import blind
from lib_automerge.app.checks import Level
from lib_automerge.app.estimate import images_after_search, images_in_stage
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.question import Answer, Over
from lib_automerge.app.service import Service
from lib_automerge.domain.blind import SIDES, Asked, Trial
from lib_automerge.domain.config import OutputConfig, RewardConfig, RunConfig, VerdictConfig
from lib_automerge.domain.events import (
    BASELINES,
    Choices,
    Origin,
    Preferred,
    Stage,
    TakenBack,
    Verdict,
)
from lib_automerge.domain.human_judge import CHOICES
from lib_automerge.domain.run import Evaluation, RunState, Status
from lib_automerge.search import sign_test
from lib_automerge.study.findings import findings
from lib_automerge.study.headline import headline
from lib_automerge.study.report import render
from lib_automerge.study.store import RunFolder
from tests.api.bench import make_desk
from tests.fake_host import FakeHost, tiny_config

BEST = {f"IN{i:02d}": 0.9 for i in range(12)} | {f"OUT{i:02d}": 0.2 for i in range(12)}
START = 4
"""The evaluation of the recipe that is best by construction."""

Person = Callable[[Asked, Over], "Answer | None"]


def config(models: Mapping[str, str], seeds: int = 12) -> RunConfig:
    made = tiny_config(models, evaluations=6, start=[BEST])
    return msgspec.structs.replace(
        made,
        reward=RewardConfig(name="human_rate"),
        verdict=VerdictConfig(finalists=2, finalist_seeds=1, seeds=seeds),
        output=OutputConfig(checkpoint="gain"),
    )


def rating(asked: Asked) -> Answer:
    """What the person thinks of a candidate in the search: they like the best recipe."""
    return Answer(0.9 if asked.evaluation == START else 0.5 if asked.evaluation == 3 else 0.1)


def looking(folder: Path, slips: float = 0.0) -> Person:
    """A person who prefers the redder of the two pictures, but for slips."""
    random = np.random.default_rng(3)

    def redness(number: int, job: int) -> float:
        path = folder / f"images/e{number:04d}/verdict-{job:04d}.png"
        with Image.open(path) as image:
            return float(np.asarray(image)[..., 0].mean())

    def person(asked: Asked, over: Over) -> Answer:
        if not isinstance(asked, Trial):
            return rating(asked)
        left, right = (redness(asked.shown(side), asked.job) for side in SIDES)
        said = float(left > right)
        return Answer(1.0 - said if random.random() < slips else said)

    return person


def answering(choose: Callable[[Trial], Answer | None]) -> Person:
    def person(asked: Asked, over: Over) -> Answer | None:
        return choose(asked) if isinstance(asked, Trial) else rating(asked)

    return person


def play(settings: RunConfig, folder: Path, person: Person) -> RunState:
    service = Service(FakeHost(), clock=lambda: 0.0)
    return service.start(settings, folder, controls=Controls(ask=person))


def resume(folder: Path, person: Person, stop: Callable[[], bool] = lambda: False) -> RunState:
    service = Service(FakeHost(), clock=lambda: 0.0)
    return service.resume(folder, controls=Controls(ask=person, stop=stop))


def verdict_of(state: RunState) -> Verdict:
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    return state.verdict


def test_who_prefers_the_better_images_proves_a_real_gain(
    models: Mapping[str, str], folder: Path
) -> None:
    state = play(config(models, seeds=40), folder, looking(folder, slips=0.1))
    verdict = verdict_of(state)
    assert verdict.gain
    assert verdict.held_out
    assert verdict.winner == START
    assert {c.baseline for c in verdict.comparisons} == set(BASELINES)
    # 50:50 was liked most of the three, so it comes first
    assert verdict.comparisons[0].baseline is Origin.HALF
    for c in verdict.comparisons:
        assert c.choices is not None
        made = c.choices.winner + c.choices.baseline
        assert c.pairs == made <= CHOICES
        assert c.difference == pytest.approx((c.choices.winner - c.choices.baseline) / made)
        assert c.low < c.difference < c.high or c.difference == c.high == 1.0
        assert c.p_value < 0.05
    assert verdict.sentence.startswith("Better: in blind choices between images of prompts and")
    assert state.saved is not None
    told = json.loads((folder / "verdict.json").read_text())
    assert told["unit"] == "share of choices"
    assert told["comparisons"][0]["choices"]["winner"] >= 16


def test_the_tab_and_the_report_say_what_was_chosen(
    models: Mapping[str, str], folder: Path
) -> None:
    play(config(models), folder, looking(folder))
    run = RunFolder.open(folder)
    said = headline(findings(folder, run.manifest(), run.events()))
    assert said.kind == "gain"
    assert said.sentence == (
        f"You preferred evaluation {START} over the 50:50 merge in 10 of 10 choices, over model A "
        "in 10 of 10 choices and over model B in 10 of 10 choices."
    )
    page = render(run)
    assert said.sentence in page
    assert "10 of 10" in page
    assert "100 %" in page
    assert "human_rate score" not in page


def test_a_verdict_stops_at_the_first_baseline_that_is_not_beaten(
    models: Mapping[str, str], folder: Path
) -> None:
    asked: list[Trial] = []

    def against(trial: Trial) -> Answer:
        asked.append(trial)
        return Answer(0.0 if trial.winner_left else 1.0)

    state = play(config(models, seeds=23), folder, answering(against))
    verdict = verdict_of(state)
    assert not verdict.gain
    assert [c.baseline for c in verdict.comparisons] == [Origin.HALF]
    # eight against it: even fifteen more for it would be one too few
    assert len(asked) == 8
    assert "No significant gain" in verdict.sentence
    assert "not enough against the 50:50 merge" in verdict.sentence
    assert state.saved is None
    said = headline(findings(folder, RunFolder(folder).manifest(), RunFolder(folder).events()))
    assert said.kind == "none"
    assert "the others were not asked about" in said.explanation
    render(RunFolder.open(folder))


def test_who_beats_one_baseline_and_not_the_next_has_no_gain(
    models: Mapping[str, str], folder: Path
) -> None:
    def person(trial: Trial) -> Answer:
        return Answer(float(trial.winner_left == (trial.other == 3)))

    state = play(config(models, seeds=12), folder, answering(person))
    verdict = verdict_of(state)
    assert not verdict.gain
    assert state.saved is None
    half, parent = verdict.comparisons
    assert (half.baseline, half.significant) == (Origin.HALF, True)
    assert half.choices == Choices(winner=10, baseline=0, equal=0)
    assert (parent.baseline is Origin.HALF, parent.significant) == (False, False)
    assert parent.choices == Choices(winner=0, baseline=3, equal=0)
    # as if the rest had gone against what is said
    assert half.p_value == sign_test.p_value(10, 2) < 0.05
    assert parent.p_value == sign_test.p_value(9, 3) > 0.05
    assert verdict.means[verdict.winner] == pytest.approx(10 / 13)
    assert verdict.sentence.startswith("No significant gain")
    assert "not enough against model" in verdict.sentence


def test_no_difference_at_all_is_no_gain(models: Mapping[str, str], folder: Path) -> None:
    state = play(config(models, seeds=23), folder, answering(lambda _: Answer(0.5)))
    verdict = verdict_of(state)
    assert not verdict.gain
    (comparison,) = verdict.comparisons
    assert comparison.choices == Choices(winner=0, baseline=0, equal=19)
    assert comparison.difference == 0.0
    assert not comparison.significant
    assert "0 of 0 choices, 19 equal" in verdict.sentence
    render(RunFolder.open(folder))


def test_a_random_person_is_told_of_a_gain_in_less_than_five_percent(
    models: Mapping[str, str], folder: Path
) -> None:
    """The run's own rules with random answers, against three baselines as good as the winner."""
    state = play(config(models, seeds=23), folder, answering(lambda _: Answer(0.5, enough=True)))
    plan = Plan(RunFolder.open(folder).manifest())
    state.waived = False
    random = np.random.default_rng(2)
    gains = 0
    for _ in range(150):
        state.preferred = []
        while (trial := blind.next_trial(plan, state)) is not None:
            value = float(random.integers(2))
            state.preferred.append(
                Preferred(
                    evaluation=trial.evaluation, other=trial.other, job=trial.job, value=value
                )
            )
        found = blind.verdict(plan, state)
        assert found is not None
        gains += found.gain
    assert gains / 150 < 0.05


def test_by_itself_a_verdict_has_a_picture_of_its_own_for_every_choice(
    models: Mapping[str, str], folder: Path
) -> None:
    settings = config(models)
    alone = msgspec.structs.replace(settings, verdict=VerdictConfig(finalists=1))
    jobs: list[int] = []

    def winning(trial: Trial) -> Answer:
        jobs.append(trial.job)
        # seven against it, the most that it can bear
        return Answer(float(trial.winner_left == (trial.made % 23 >= 7)))

    verdict = verdict_of(play(alone, folder, answering(winning)))
    assert verdict.gain
    assert len(jobs) == len(set(jobs)) == 69
    assert verdict.images == images_in_stage(alone, Stage.VERDICT) == 69
    learned = msgspec.structs.replace(alone, reward=RewardConfig(name="demo"))
    assert images_in_stage(learned, Stage.VERDICT) == 60


def test_choices_are_blind_fair_and_spread(models: Mapping[str, str], folder: Path) -> None:
    asked: list[Trial] = []

    def winning(trial: Trial) -> Answer:
        asked.append(trial)
        return Answer(float(trial.winner_left))

    state = play(config(models, seeds=60), folder, answering(winning))
    assert verdict_of(state).gain
    # sixteen wins of at most 23 decide, for each of the three
    assert [trial.made for trial in asked] == list(range(48))
    # a leap where a baseline is beaten would tell whose the pictures were
    assert [trial.most for trial in asked] == list(range(69, 21, -1))
    assert [trial.number for trial in asked] == list(range(6, 54))
    assert len({trial.key for trial in asked}) == 48
    sides = [trial.winner_left for trial in asked]
    assert 12 <= sum(sides) <= 36
    # by lot, not in turn: a side tells nothing of the next
    assert 12 <= sum(one is next_one for one, next_one in itertools.pairwise(sides)) <= 35
    assert len({(trial.other, trial.job) for trial in asked}) == 48
    # a picture does not come again while there are others
    assert len({trial.job for trial in asked[:46]}) >= 40
    jobs = [trial.job for trial in asked]
    assert jobs != sorted(jobs)
    events = RunFolder.open(folder).events()
    assert all(event.value == 1.0 for event in events if isinstance(event, Preferred))


def test_an_answer_can_be_taken_back_to_the_first_choice(
    models: Mapping[str, str], folder: Path
) -> None:
    asked: list[Trial] = []
    script = [1.0, 0.0, None, None, None]

    def clumsy(trial: Trial) -> Answer:
        asked.append(trial)
        if script:
            value = script.pop(0)
            if value is None and trial.made == 0:
                return Answer(float(trial.winner_left))
            return Answer(value)
        return Answer(float(trial.winner_left))

    state = play(config(models), folder, answering(clumsy))
    pairs = [(t.other, t.job, t.winner_left, t.made) for t in asked]
    assert pairs[3] == pairs[1]
    assert pairs[4] == pairs[0]
    assert len({trial.key for trial in asked}) == len(asked)
    verdict = verdict_of(state)
    assert verdict.gain
    assert all(c.choices is not None and c.choices.baseline == 0 for c in verdict.comparisons)
    taken = [e for e in RunFolder.open(folder).events() if isinstance(e, TakenBack)]
    assert len(taken) == 2
    assert len(state.judged) == 6


def timeless(evaluations: tuple[Evaluation, ...]) -> list[Evaluation]:
    return [msgspec.structs.replace(e, seconds={}) for e in evaluations]


def test_a_run_killed_at_any_choice_comes_back_to_it(
    models: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    seen: list[Trial] = []

    def person(trial: Trial) -> Answer:
        seen.append(trial)
        return Answer(0.5 if trial.made % 5 == 4 else float(trial.winner_left))

    whole = play(config(models), folder, answering(person))
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    at = [n for n, line in enumerate(lines) if b'"preferred"' in line]
    assert len(at) == len(seen) > 20
    cut = folder.parent / "cut"
    shutil.copytree(folder, cut)
    for place, number in list(enumerate(at))[::3]:
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:number]))
        asked: list[Asked] = []

        def gone(trial: Asked, over: Over, asked: list[Asked] = asked) -> None:
            asked.append(trial)

        stopped = resume(cut, gone, stop=lambda asked=asked: bool(asked))  # type: ignore[misc]
        assert stopped.status is Status.STOPPED
        assert asked == [seen[place]]
    for number in (at[0] - 1, at[7] + 1, at[-1] + 1):
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:number]))
        again = resume(cut, answering(person))
        assert verdict_of(again) == msgspec.structs.replace(
            verdict_of(whole), time=verdict_of(again).time
        )
        assert timeless(again.history) == timeless(whole.history)


def test_who_has_had_enough_ends_the_run_without_a_verdict(
    models: Mapping[str, str], folder: Path
) -> None:
    def patient(trial: Trial) -> Answer:
        if trial.made < 3:
            return Answer(1.0)
        return Answer(None, enough=True)

    state = play(config(models), folder, answering(patient))
    assert state.status is Status.FINISHED
    assert state.verdict is None
    assert state.waived
    plan = Plan(RunFolder.open(folder).manifest())
    assert blind.next_trial(plan, state) is None
    # the choices made so far are no verdict
    assert blind.verdict(plan, state) is None
    assert not (folder / "verdict.json").exists()
    said = headline(findings(folder, RunFolder(folder).manifest(), RunFolder(folder).events()))
    assert said.sentence.startswith(f"You like evaluation {START} best")
    assert "You ended the verdict after 3 blind choices, so nothing is proved." in said.explanation
    page = render(RunFolder.open(folder))
    assert "human_rate score" not in page
    assert "How much you like them, by your answers: 0 is an average candidate" in page
    assert "Images made" in page
    assert "Images scored" not in page
    # a killed process may not have come to the end
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))

    def nobody(trial: Trial) -> Answer:
        raise AssertionError("asked again")

    again = resume(folder, answering(nobody))
    assert again.status is Status.FINISHED
    assert again.verdict is None


def test_nothing_is_made_again_for_a_verdict_that_was_waived(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    host.broken = lambda weights, job: (
        "black" if weights["IN00"] == 0.9 and "moon" in job.payload.prompt else None
    )
    person = answering(lambda _: Answer(None, enough=True))
    before = Service(host, clock=lambda: 0.0).start(
        config(models), folder, controls=Controls(ask=person)
    )
    told = [text for text in before.warnings if "makes a black image" in text]
    assert len(told) == 1
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    assert resume(folder, person).warnings == before.warnings


def test_too_few_unseen_images_are_not_made_and_said(
    models: Mapping[str, str], folder: Path
) -> None:
    few = config(models, seeds=4)
    state = play(few, folder, answering(lambda _: pytest.fail("asked")))
    assert state.status is Status.FINISHED
    assert state.verdict is None
    assert not any(stage is Stage.VERDICT for stage, _ in state.scores)
    assert any("there is no verdict: 4 unseen images" in text for text in state.warnings)
    assert images_after_search(few) == 0
    assert blind.planned(4) == 0
    assert blind.planned(5) == 15
    assert blind.planned(1000) == 69


def test_the_checks_tell_how_many_choices_there_are(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    settings = config({r: m.path for r, m in zip("ab", desk.catalogue.models(), strict=True)})

    def told(seeds: int | None) -> tuple[Level, str]:
        asked = msgspec.structs.replace(settings, verdict=VerdictConfig(seeds=seeds))
        found = [c for c in desk.preflight(asked).checks if "choices" in c.text]
        assert len(found) == 1
        return found[0].level, found[0].text

    enough = "After the search, {} blind choices at most tell whether the merge is better."
    again = " Pictures of the merge come again, as there are only {} unseen ones."
    assert told(None) == (Level.OK, enough.format(69))
    assert told(12) == (Level.OK, enough.format(36) + again.format(12))
    level, sentence = told(4)
    assert level is Level.WARNING
    assert sentence.startswith("4 images of each model are too few for a verdict by choices")


def test_the_forecast_has_the_unseen_images(models: Mapping[str, str], folder: Path) -> None:
    settings = config(models)
    state = play(settings, folder, looking(folder))
    made = sum(len(images) for (stage, _), images in state.scores.items() if stage is Stage.VERDICT)
    assert images_after_search(settings, 6) == made == 48


def test_a_winner_with_broken_unseen_images_gives_way(
    models: Mapping[str, str], folder: Path
) -> None:
    host = FakeHost()
    host.broken = lambda weights, job: (
        "black" if weights["IN00"] == 0.9 and "moon" in job.payload.prompt else None
    )
    controls = Controls(ask=answering(lambda trial: Answer(float(trial.winner_left))))
    state = Service(host, clock=lambda: 0.0).start(config(models), folder, controls=controls)
    verdict = verdict_of(state)
    assert verdict.winner != START
    assert verdict.comparisons
    assert any("makes a black image" in text for text in state.warnings)


def test_a_pair_with_a_broken_picture_is_not_shown(models: Mapping[str, str], folder: Path) -> None:
    host = FakeHost()
    host.broken = lambda weights, job: (
        "black"
        if weights["IN00"] == 0.0 and "moon" in job.payload.prompt and job.seed % 2
        else None
    )
    jobs: set[int] = set()

    def winning(trial: Trial) -> Answer:
        jobs.add(trial.job)
        return Answer(float(trial.winner_left))

    controls = Controls(ask=answering(winning))
    state = Service(host, clock=lambda: 0.0).start(config(models), folder, controls=controls)
    images = state.scores[Stage.VERDICT, 1]
    broken = {job for job, image in images.items() if image.broken}
    assert 0 < len(broken) < 8
    assert jobs == images.keys() - broken
    assert verdict_of(state).images == 12 - len(broken)


def test_who_finished_the_search_is_waited_for(models: Mapping[str, str], folder: Path) -> None:
    def person(asked: Asked, over: Over) -> Answer:
        if not isinstance(asked, Trial):
            return rating(asked)
        assert not over()
        return Answer(float(asked.winner_left))

    controls = Controls(ask=person, finish=lambda: True)
    service = Service(FakeHost(), clock=lambda: 0.0)
    state = service.start(config(models), folder, controls=controls)
    assert verdict_of(state).gain
    assert len(state.history) == 4


def test_an_older_run_of_a_person_still_reads(models: Mapping[str, str], folder: Path) -> None:
    """Before there were blind choices, such a run ended after the search."""
    play(config(models), folder, looking(folder))
    path = folder / "journal.jsonl"
    kept = [
        line
        for line in path.read_bytes().splitlines(keepends=True)
        if b'"stage":"verdict"' not in line
        and not any(f'"event":"{e}"'.encode() in line for e in ("preferred", "verdict", "saved"))
    ]
    # numbers and checksums as they would have been
    from lib_automerge.study import journal

    events = [journal._DECODER.decode(b"{" + line.split(b",", 2)[2]) for line in kept]
    state = RunState(events)
    assert state.status is Status.FINISHED
    said = headline(findings(folder, RunFolder(folder).manifest(), events))
    assert "nothing is proved on images that the search never saw" in said.explanation
    assert sign_test.fewest() == 5
