"""Runs that a person judges, alone or beside a reward: what is asked, and what comes of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.ports import Controls
from lib_automerge.app.question import Answer, Over, QuestionDesk
from lib_automerge.app.service import Service
from lib_automerge.app.worker import Phase, Worker
from lib_automerge.domain.config import RewardConfig, RewardMember, RunConfig, decode_config
from lib_automerge.domain.events import BASELINES, Learned, Revalued, SearchEnded
from lib_automerge.domain.human import Question, expected_questions
from lib_automerge.domain.human_judge import HumanJudge
from lib_automerge.domain.run import Activity, Evaluation, RunState, Status
from lib_automerge.errors import ConfigError
from lib_automerge.study.store import RunFolder
from tests.fake_host import FakeHost, tiny_config

LONG_S = 30.0
HIDDEN_TASTE = {1: 0.3, 2: 0.1, 3: 0.5, 4: 0.9, 5: 0.2, 6: 0.7, 7: 0.4}
"""What the person of these tests thinks of evaluations, from 0 to 1."""


def of_taste(question: Question, over: Over) -> Answer:
    mine = HIDDEN_TASTE[question.evaluation]
    if question.other is None:
        return Answer(mine)
    return Answer(float(mine > HIDDEN_TASTE[question.other]))


def alone(models: Mapping[str, str], mode: str, **search: object) -> RunConfig:
    config = tiny_config(models, **search)
    return msgspec.structs.replace(config, reward=RewardConfig(name=f"human_{mode}"))


def mixed(models: Mapping[str, str], mode: str, weight: float = 1.0) -> RunConfig:
    members = (
        RewardMember(name="demo"),
        RewardMember(name=f"human_{mode}", weight=weight),
    )
    reward = RewardConfig(name="ensemble", members=members, guards=(), diversity_strength=0.0)
    return msgspec.structs.replace(tiny_config(models), reward=reward)


def play(
    config: RunConfig,
    folder: Path,
    ask: Callable[[Question, Over], Answer | None] = of_taste,
) -> RunState:
    controls = Controls(ask=ask)
    return Service(FakeHost(), clock=lambda: 0.0).start(config, folder, controls=controls)


@pytest.mark.parametrize("mode", ["rate", "choose"])
def test_what_a_person_likes_most_leads_a_run_that_they_alone_judge(
    models: Mapping[str, str], folder: Path, mode: str
) -> None:
    asked: list[Question] = []

    def person(question: Question, over: Over) -> Answer:
        asked.append(question)
        return of_taste(question, over)

    state = play(alone(models, mode), folder, person)
    assert state.status is Status.FINISHED
    scores = {e.number: e.score or 0.0 for e in state.history}
    assert max(scores, key=scores.__getitem__) == 4
    assert min(scores, key=scores.__getitem__) in (2, 5)
    human = HumanJudge(name=f"human_{mode}", weight=1.0, alone=True)
    assert len(asked) == expected_questions(human, 7) == (7 if mode == "rate" else 11)
    assert [question.number for question in asked] == list(range(len(asked)))
    assert state.verdict is None
    assert state.saved is None


def test_a_new_candidate_meets_two_different_ones_before_it(
    models: Mapping[str, str], folder: Path
) -> None:
    state = play(alone(models, "choose"), folder)
    pairs = [(said.evaluation, said.other) for said in state.judged]
    assert pairs[0] == (2, 1)
    assert len(set(pairs)) == len(pairs)
    assert all(other is not None and other < number for number, other in pairs)


def test_later_answers_change_the_scores_of_earlier_candidates(
    models: Mapping[str, str], folder: Path
) -> None:
    play(alone(models, "choose"), folder)
    told = [event for event in RunFolder.open(folder).events() if isinstance(event, Revalued)]
    assert len({event.values[1].value for event in told if 1 in event.values}) > 3


def test_the_model_learns_after_the_person_has_spoken(
    models: Mapping[str, str], folder: Path
) -> None:
    play(alone(models, "rate"), folder)
    events = list(RunFolder.open(folder).events())
    for place, event in enumerate(events):
        if isinstance(event, Learned):
            before = [e for e in events[:place] if isinstance(e, Revalued)]
            assert event.evaluation in before[-1].values


def test_beside_a_reward_the_opinion_is_added_to_its_score(
    models: Mapping[str, str], folder: Path
) -> None:
    state = play(mixed(models, "rate", weight=2.0), folder)
    assert state.verdict is not None
    assert state.verdict.comparisons
    for evaluation in state.history:
        assert evaluation.judgement is not None
        assert evaluation.opinion is not None
        wanted = evaluation.judgement.total + 2.0 * evaluation.opinion.value
        assert evaluation.score == pytest.approx(wanted, abs=1e-12)
        assert (evaluation.standard_error or 0.0) >= 2.0 * evaluation.opinion.standard_error
    assert state.evaluations[4].opinion is not None
    assert state.evaluations[4].opinion.value > 1.0


def test_a_heavy_opinion_decides_which_candidates_are_proved(
    models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    heavy = play(mixed(models, "rate", weight=100.0), folder)
    assert heavy.verdict is not None
    assert heavy.verdict.winner == 4
    other = dict(HIDDEN_TASTE) | {4: 0.0, 5: 1.0}
    turned = play(
        mixed(models, "rate", weight=100.0),
        tmp_path / "other",
        lambda question, over: Answer(other[question.evaluation]),
    )
    assert turned.verdict is not None
    assert turned.verdict.winner == 5


def test_an_answer_can_be_taken_back(models: Mapping[str, str], folder: Path) -> None:
    mistakes = [3, 6]

    def clumsy(question: Question, over: Over) -> Answer:
        if question.evaluation - 1 in mistakes:
            mistakes.remove(question.evaluation - 1)
            return Answer(None)
        if question.evaluation in mistakes:
            return Answer(0.05)
        return of_taste(question, over)

    state = play(alone(models, "rate"), folder, clumsy)
    assert not mistakes
    rated = {said.evaluation: said.value for said in state.judged}
    assert rated == HIDDEN_TASTE
    straight = play(alone(models, "rate"), folder.parent / "straight")
    assert {e.number: e.score for e in state.history} == {
        e.number: e.score for e in straight.history
    }


def timeless(state: RunState) -> list[Evaluation]:
    return [msgspec.structs.replace(e, seconds={}) for e in state.history]


@pytest.mark.parametrize("mode", ["rate", "choose"])
def test_a_run_killed_anywhere_comes_back_to_the_same_question(
    models: Mapping[str, str], folder: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    config = mixed(models, mode) if mode == "choose" else alone(models, mode)
    whole = play(config, folder)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = folder.parent / "cut"
    shutil.copytree(folder, cut)
    at = [n for n, line in enumerate(lines) if b'"judged"' in line]
    for number in at[:: 1 if mode == "rate" else 2]:
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:number]))
        asked: list[Question] = []
        told = json.loads(lines[number])

        def gone(question: Question, over: Over, asked: list[Question] = asked) -> None:
            asked.append(question)

        controls = Controls(ask=gone, stop=lambda asked=asked: bool(asked))
        Service(FakeHost(), clock=lambda: 0.0).resume(cut, controls=controls)
        assert [(q.evaluation, q.other) for q in asked] == [(told["evaluation"], told.get("other"))]
    after = [n + 1 for n, line in enumerate(lines) if b'"revalued"' in line or n in at]
    for length in after[1::7]:
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:length]))
        again = Service(FakeHost(), clock=lambda: 0.0).resume(cut, controls=Controls(ask=of_taste))
        assert again.judged == whole.judged
        assert timeless(again) == timeless(whole)
        assert again.learned == whole.learned


def test_nobody_to_ask_is_said_before_anything_is_written(
    models: Mapping[str, str], folder: Path
) -> None:
    with pytest.raises(ConfigError, match="asked in the tab"):
        Service(FakeHost()).start(alone(models, "rate"), folder)
    assert not folder.exists()


RATING: dict[str, object] = {"reward": {"name": "human_rate"}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward": {"name": "human_rate", "options": {"eyes": 2}}}, "takes no options: 'eyes'"),
        ({**RATING, "search": {"early_reject": True}}, "search.early_reject"),
        ({**RATING, "search": {"warm_start": ["x"]}}, "search.warm_start"),
        ({**RATING, "search": {"calibration": 1}}, "search.calibration"),
        ({**RATING, "output": {"checkpoint": "always"}}, "output.checkpoint"),
        (
            {"reward": {"name": "ensemble", "members": [{"name": "human_rate"}]}},
            "no reward is to be maximised",
        ),
        (
            {
                "reward": {
                    "name": "ensemble",
                    "members": [{"name": "demo"}, {"name": "human_rate"}, {"name": "human_choose"}],
                }
            },
            "as a judge twice",
        ),
        (
            {
                "reward": {
                    "name": "ensemble",
                    "members": [{"name": "demo"}, {"name": "human_rate", "role": "referee"}],
                }
            },
            "role of the human judge",
        ),
        (
            {
                "reward": {
                    "name": "ensemble",
                    "members": [{"name": "demo"}, {"name": "human_rate", "weight": 0}],
                }
            },
            "weight of the human judge",
        ),
    ],
)
def test_what_a_person_cannot_judge_is_refused(changes: dict[str, object], sentence: str) -> None:
    raw = {"models": {"a": "a", "b": "b"}, "payloads": [{"prompt": "a ball"}], **changes}
    with pytest.raises(ConfigError, match=sentence):
        decode_config(raw)


# --- waiting ------------------------------------------------------------------------------------


def asking(worker: Worker, number: int = 1) -> Question:
    """Wait until the run asks about this evaluation."""

    def asked() -> bool:
        question = worker.questions.question
        return question is not None and question.evaluation == number

    with worker._changed:
        assert worker._changed.wait_for(asked, LONG_S)
        question = worker.questions.question
    assert question is not None
    return question


@pytest.fixture
def worker() -> Worker:
    return Worker(Service(FakeHost()))


def test_a_run_waits_shows_it_and_goes_on(
    worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    worker.start(alone(models, "rate"), folder)
    for number in range(1, 8):
        question = asking(worker, number)
        snapshot = worker.snapshot()
        assert snapshot.question == question
        assert snapshot.activity is Activity.WAITING
        assert snapshot.phase is Phase.RUNNING
        worker.questions.answer(question.key, Answer(0.5))
    assert worker.wait(LONG_S)
    assert worker.snapshot().question is None
    assert RunFolder(folder).state().status is Status.FINISHED


@pytest.mark.parametrize(("wish", "status"), [("pause", Status.PAUSED), ("stop", Status.STOPPED)])
def test_a_waiting_run_can_be_paused_and_stopped_and_asks_again(
    worker: Worker, models: Mapping[str, str], folder: Path, wish: str, status: Status
) -> None:
    worker.start(alone(models, "rate"), folder)
    question = asking(worker)
    getattr(worker, wish)()
    assert worker.wait(LONG_S)
    state = RunFolder(folder).state()
    assert state.status is status
    assert not state.judged
    worker.resume(folder)
    assert asking(worker) == question
    worker.stop()
    assert worker.wait(LONG_S)


def test_finish_ends_the_questions_once_there_is_a_candidate(
    worker: Worker, models: Mapping[str, str], folder: Path
) -> None:
    worker.start(alone(models, "rate"), folder)
    worker.questions.answer(asking(worker).key, Answer(0.5))
    worker.finish()
    for number in (2, 3):
        worker.questions.answer(asking(worker, number).key, Answer(0.5))
    assert worker.wait(LONG_S)
    state = RunFolder(folder).state()
    assert len(state.history) == len(BASELINES) + 1
    assert [said.evaluation for said in state.judged] == [1, 2, 3]
    assert state.search_ended == SearchEnded(
        time=state.search_ended.time if state.search_ended else 0.0,
        reason="you ended the search",
        outlook=state.search_ended.outlook if state.search_ended else "",
    )


@pytest.mark.parametrize(
    ("question", "key", "answer", "sentence"),
    [
        (Question(evaluation=4, number=2), "4-0-1", 0.5, "answered already"),
        (Question(evaluation=4, number=2), "4-0-2", 1.5, "from 0 to 1"),
        (Question(evaluation=4, number=2), "4-0-2", float("nan"), "from 0 to 1"),
        (Question(evaluation=4, other=3, number=2), "4-3-2", 0.4, "Use 1"),
        (Question(evaluation=1, number=0), "1-0-0", None, "nothing to take back"),
    ],
)
def test_an_answer_to_something_else_is_refused(
    question: Question, key: str, answer: float | None, sentence: str
) -> None:
    changed = threading.Condition()
    desk = QuestionDesk(changed, lambda: None)
    over = threading.Event()
    waiting = threading.Thread(target=desk.ask, args=(question, over.is_set), daemon=True)
    waiting.start()
    while desk.question is None:
        pass
    with pytest.raises(ConfigError, match=sentence):
        desk.answer(key, Answer(answer))
    assert desk.question == question
    over.set()
    with changed:
        changed.notify_all()
    waiting.join(LONG_S)
    assert desk.question is None
    with pytest.raises(ConfigError, match="answered already"):
        desk.answer(question.key, Answer(0.5))
