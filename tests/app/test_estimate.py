from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.estimate import (
    forecast,
    images_after_search,
    images_in_stage,
    images_per_evaluation,
    planned_evaluations,
    planned_images,
    remaining,
    work_of,
)
from lib_automerge.app.finals import ROUNDS
from lib_automerge.app.preflight import with_seeds
from lib_automerge.app.service import Service
from lib_automerge.domain.events import (
    FAILED,
    Calibrated,
    Evaluated,
    Origin,
    Proposed,
    Rejected,
    Scored,
    SearchEnded,
    Stage,
    StageDone,
)
from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.domain.run import RunState
from tests.fake_host import FakeHost, tiny_config

MODELS = {"a": "a", "b": "b"}


def add_images(state: RunState, number: int, count: int) -> None:
    """Score so many images of an evaluation."""
    for job in range(count):
        state.add(
            Scored(
                evaluation=number,
                stage=Stage.SEARCH,
                job=job,
                payload="p01",
                seed=job,
                digest="",
                file="",
                score=0.0,
            )
        )


def timed(seconds: list[float]) -> RunState:
    """A state in which evaluation n took so many seconds for its 6 images."""
    state = RunState()
    for number, total in enumerate(seconds, start=1):
        state.add(Proposed(evaluation=number, origin=Origin.SEARCH, weights={}))
        add_images(state, number, 6)
        state.add(
            Evaluated(
                evaluation=number,
                mean=0.0,
                standard_error=None,
                images=6,
                per_payload={},
                seconds={"total": total},
            )
        )
    return state


def test_the_images_of_a_run_are_counted_as_they_are_made(
    models: Mapping[str, str], folder: Path
) -> None:
    config = tiny_config(models)
    state = Service(FakeHost()).start(config, folder)
    made = sum(len(images) for images in state.scores.values())
    assert planned_images(config, RunState()) == made
    assert planned_images(config, state) == made
    assert images_per_evaluation(config) == 6


def test_payloads_without_seeds_count_with_the_seeds_that_they_will_get() -> None:
    config = tiny_config(MODELS)
    bare = tuple(msgspec.structs.replace(p, seeds=()) for p in config.payloads)
    config = msgspec.structs.replace(config, payloads=bare)
    seeded = msgspec.structs.replace(config, payloads=with_seeds(bare, config))
    assert images_per_evaluation(config) == images_per_evaluation(seeded) == 4


def test_nothing_is_promised_before_anything_was_timed() -> None:
    assert remaining(tiny_config(MODELS), RunState()) is None


def test_the_pace_of_the_last_ten_counts() -> None:
    config = tiny_config(MODELS, evaluations=40)
    slow_start = timed([1000.0] * 10 + [12.0] * 10)
    left = remaining(config, slow_start)
    assert left is not None
    after = images_after_search(config)
    assert left.seconds == pytest.approx(20 * 12 + after * 2)
    assert left.low == left.seconds
    more_rounds = (ROUNDS - 1) * 2 * images_in_stage(config, Stage.FINALISTS)
    assert left.high == pytest.approx(left.seconds + more_rounds * 2)


def test_a_range_is_told_when_enough_is_known() -> None:
    config = tiny_config(MODELS, evaluations=40)
    few = remaining(config, timed([10.0, 12.0, 14.0]))
    assert few is not None
    assert few.low is None
    more = remaining(config, timed([10.0, 12.0, 14.0, 16.0, 30.0]))
    assert more is not None
    assert more.low is not None
    assert more.high is not None
    assert more.low < more.seconds < more.high


def test_the_tightest_limit_counts() -> None:
    config = tiny_config(MODELS, evaluations=1000, hours=1.0)
    left = remaining(config, timed([60.0] * 10))
    assert left is not None
    assert left.seconds == pytest.approx(3600 - 600 + images_after_search(config) * 10)


def test_the_hours_of_a_search_are_also_those_of_the_noise_and_of_what_failed() -> None:
    config = tiny_config(MODELS, evaluations=1000, hours=1.0)
    state = timed([60.0] * 10)
    assert state.seconds_before_proof == 600
    state.add(Proposed(evaluation=11, origin=Origin.SEARCH, weights={}))
    state.add(Rejected(evaluation=11, reason=f"{FAILED}: no memory", seconds={"total": 400.0}))
    for stage, seconds in ((Stage.CALIBRATION, 1000.0), (Stage.FINALISTS, 9999.0)):
        state.add(
            StageDone(
                evaluation=3,
                stage=stage,
                mean=0.0,
                standard_error=None,
                images=6,
                seconds={"total": seconds},
            )
        )
    assert state.seconds_before_proof == 2000
    assert planned_evaluations(config, state) == 11 + 27  # the 1600 s left hold 26.7 of 60 s
    left = remaining(config, state)
    assert left is not None
    assert left.seconds == pytest.approx(1600 + images_after_search(config) * 10)


def test_a_journal_that_does_not_know_the_time_of_what_failed_is_read() -> None:
    state = timed([60.0])
    state.add(Proposed(evaluation=2, origin=Origin.SEARCH, weights={}))
    line = b'{"event": "rejected", "evaluation": 2, "reason": "failed twice: no memory"}'
    state.add(msgspec.json.decode(line, type=Rejected))
    assert state.seconds_before_proof == 60


def test_a_limit_on_images_is_one_on_evaluations() -> None:
    config = tiny_config(MODELS, evaluations=1000, images=100)
    assert forecast(config, None).evaluations == 17  # of 6 images each, the last one completed
    assert forecast(tiny_config(MODELS, evaluations=1000, images=1), None).evaluations == 4
    state = timed([60.0] * 10)
    assert planned_evaluations(config, state) == 17
    left = remaining(config, state)
    assert left is not None
    assert left.seconds == pytest.approx(7 * 60 + images_after_search(config) * 10)
    state.add(Proposed(evaluation=11, origin=Origin.SEARCH, weights={}))
    add_images(state, 11, 2)
    state.add(Rejected(evaluation=11, reason="worse", images=1))
    assert planned_evaluations(config, state) == 11 + 7  # 38 are left, and a candidate takes 6


def test_the_calibration_counts_until_it_is_done() -> None:
    plain, measured = (tiny_config(MODELS, evaluations=40, calibration=n) for n in (0, 3))
    assert images_in_stage(measured, Stage.CALIBRATION) == 18
    assert forecast(measured, None).images == forecast(plain, None).images + 18
    assert planned_images(measured, RunState()) == planned_images(plain, RunState()) + 18
    state = timed([60.0] * 3)
    without, before = remaining(plain, state), remaining(measured, state)
    assert without is not None
    assert before is not None
    assert before.seconds == pytest.approx(without.seconds + 180)
    for job in range(5):
        state.add(scored(Stage.CALIBRATION, 3, job))
    during = remaining(measured, state)
    assert during is not None
    assert during.seconds == pytest.approx(without.seconds + 130)
    state.add(Calibrated(evaluation=3, seed_sd=0.1, sentence=""))
    assert remaining(measured, state) == without


def scored(stage: Stage, evaluation: int, job: int) -> Scored:
    return Scored(
        evaluation=evaluation,
        stage=stage,
        job=job,
        payload="p",
        seed=job,
        digest="",
        file="",
        score=0.0,
    )


def test_in_the_verdict_only_its_images_are_left() -> None:
    config = tiny_config(MODELS)
    state = timed([60.0] * 7)
    state.add(SearchEnded(reason="done"))
    left = remaining(config, state)
    assert left is not None
    assert left.seconds == pytest.approx(images_after_search(config) * 10)
    for job in range(4):
        state.add(scored(Stage.VERDICT, 1, job))
    fewer = remaining(config, state)
    assert fewer is not None
    # the finalists are done, whether or not they took as many rounds as they could
    verdict = 4 * images_in_stage(config, Stage.VERDICT)
    assert fewer.seconds == fewer.high == pytest.approx((verdict - 4) * 10)


def test_a_forecast_without_a_pace_has_no_time() -> None:
    found = forecast(tiny_config(MODELS, evaluations=40, hours=2.0), None)
    assert found.evaluations == 40
    assert found.seconds is None


def test_hires_costs_what_its_pixels_cost() -> None:
    plain = Payload(prompt="x", width=512, height=512, steps=20)
    twice = msgspec.structs.replace(plain, hires=Hires(scale=2.0))
    assert work_of(twice) == pytest.approx(5 * work_of(plain))
    sized = msgspec.structs.replace(
        plain, hires=Hires(resize_x=1024, resize_y=512, second_pass_steps=10)
    )
    assert work_of(sized) == pytest.approx(2 * work_of(plain))


def test_a_forecast_counts_the_rounds_that_finalists_can_need() -> None:
    config = tiny_config(MODELS, evaluations=10)
    once = images_after_search(config)
    each = images_in_stage(config, Stage.FINALISTS)
    assert images_after_search(config, rounds=ROUNDS) == once + (ROUNDS - 1) * 2 * each
    assert forecast(config, None).images == 10 * 6 + once + (ROUNDS - 1) * 2 * each
    one = msgspec.structs.replace(
        config, verdict=msgspec.structs.replace(config.verdict, finalists=1)
    )
    assert images_after_search(one, rounds=ROUNDS) == images_after_search(one)


def test_more_rounds_take_nothing_from_the_verdict() -> None:
    config = tiny_config(MODELS)
    state = timed([60.0] * 7)
    state.add(SearchEnded(reason="done"))
    each = images_in_stage(config, Stage.FINALISTS)
    for number in (4, 5):
        for job in range(3 * each):
            state.add(scored(Stage.FINALISTS, number, job))
    left = remaining(config, state)
    assert left is not None
    verdict = 4 * images_in_stage(config, Stage.VERDICT)
    assert left.seconds == left.high == pytest.approx(verdict * 10)
    assert planned_images(config, state) == 7 * 6 + 6 * each + verdict
