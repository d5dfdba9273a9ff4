"""How long a run takes: before it begins, and while it goes on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import msgspec

from lib_automerge.app import blind
from lib_automerge.app.finals import ROUNDS
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BASELINES, Stage
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.run import RunState

RECENT = 10
"""Evaluations whose pace is taken for that of the rest."""

ENOUGH = 5
"""Evaluations from which on a range of the time left can be told."""


class Remaining(msgspec.Struct, frozen=True):
    """Seconds until a run is over if nothing ends it early; its range once that is known."""

    seconds: float
    low: float | None = None
    high: float | None = None


def images_per_evaluation(config: RunConfig) -> int:
    """How many images every candidate of the search is scored by."""
    return sum(len(p.seeds) or config.search.seeds_per_payload for p in _searched(config))


def images_of_calibration(config: RunConfig) -> int:
    """How many images the noise is measured by, besides those of the baselines."""
    return config.search.calibration * images_per_evaluation(config)


def images_after_search(
    config: RunConfig, evaluations: int | None = None, *, rounds: int = 1
) -> int:
    """How many images the finalists and the verdict take.

    Args:
        config: of the run.
        evaluations: how many the search had; None if it has all that its limits allow.
        rounds: how often the finalists are scored: once, or up to `ROUNDS` times where they cannot
            be told apart.
    """
    fresh, proof = _after_search(config, evaluations, rounds)
    return fresh + proof


def _after_search(config: RunConfig, evaluations: int | None, rounds: int) -> tuple[int, int]:
    """The images of the finalists, and those of the verdict."""
    candidates = (evaluations or _allowed(config)) - len(BASELINES)
    human = config.reward.human
    proof = (len(BASELINES) + 1) * images_in_stage(config, Stage.VERDICT)
    if candidates <= 0:
        return 0, 0
    if human is not None and human.alone:
        # finalists keep their order, and what is too little to choose from is not made
        return 0, proof if blind.planned(images_in_stage(config, Stage.VERDICT)) else 0
    finalists = min(config.verdict.finalists, candidates)
    rounds = rounds if finalists > 1 else 1
    fresh = rounds * finalists * images_in_stage(config, Stage.FINALISTS)
    return fresh, proof


def planned_images(config: RunConfig, state: RunState) -> int:
    """How many images the whole run makes if nothing ends it early, and one round of the finalists
    is enough.
    """
    if state.search_ended is None:
        search = _allowed(config, state) * images_per_evaluation(config)
        return search + images_of_calibration(config) + images_after_search(config)
    fresh, proof = _after_search(config, len(state.history), 1)
    return state.images_before_proof + max(fresh, _made(state, Stage.FINALISTS)) + proof


def remaining(config: RunConfig, state: RunState) -> Remaining | None:
    """The time that a run still takes, from the pace of its last evaluations.

    None until an evaluation has been timed. The tightest limit counts: evaluations, images or
    hours.
    """
    # baselines change every block and the first evaluation loads things: the rest tells more
    timed = [e for e in state.history if e.seconds.get("total") and e.images]
    recent = timed[-RECENT:]
    if not recent:
        return None
    paces = sorted(e.seconds["total"] for e in recent)
    per_image = statistics.median(e.seconds["total"] / e.images for e in recent)
    after, most = (_left_after_search(config, state, rounds) for rounds in (1, ROUNDS))
    again = (most - after) * per_image
    if state.calibrated is None and state.search_ended is None:
        after += max(0, images_of_calibration(config) - _made(state, Stage.CALIBRATION))
    proof = after * per_image
    if state.search_ended is not None:
        return Remaining(seconds=proof, low=proof, high=proof + again)
    left = max(0, _allowed(config, state) - len(state.history))
    spent = state.seconds_before_proof
    limit = None if config.search.hours is None else max(0.0, config.search.hours * 3600 - spent)
    known = len(recent) >= ENOUGH
    return Remaining(
        seconds=_limited(left * statistics.median(paces), limit) + proof,
        low=_limited(left * paces[len(paces) // 4], limit) + proof if known else None,
        high=_limited(left * paces[-1 - len(paces) // 4], limit) + proof + again if known else None,
    )


def _left_after_search(config: RunConfig, state: RunState, rounds: int) -> int:
    """How many images of the finalists and the verdict are still to make, with so many rounds."""
    fresh, proof = _after_search(config, len(state.history) if state.search_ended else None, rounds)
    proved = _made(state, Stage.VERDICT)
    waiting = 0 if proved else max(0, fresh - _made(state, Stage.FINALISTS))
    return waiting + max(0, proof - proved)


def planned_evaluations(config: RunConfig, state: RunState) -> int:
    """How many evaluations the search has if nothing but its limits ends it."""
    done = len(state.history)
    if state.search_ended is not None:
        return done
    timed = [e.seconds["total"] for e in state.history if e.seconds.get("total") and e.images]
    allowed = _allowed(config, state)
    if config.search.hours is None or not timed:
        return allowed
    left = max(0.0, config.search.hours * 3600 - state.seconds_before_proof)
    return min(allowed, done + math.ceil(left / statistics.median(timed[-RECENT:])))


def images_in_stage(config: RunConfig, stage: Stage) -> int:
    """How many images one candidate is scored by in a stage."""
    if stage is Stage.SEARCH:
        return images_per_evaluation(config)
    if stage is Stage.CALIBRATION:
        return images_of_calibration(config)
    if stage is Stage.FINALISTS:
        return len(_searched(config)) * config.verdict.finalist_seeds
    held_out = [p for p in config.payloads if p.held_out]
    seeds = config.verdict_seeds(len(held_out or _searched(config)))
    return sum([len(p.seeds) or seeds for p in held_out] or [seeds for _ in _searched(config)])


def _allowed(config: RunConfig, state: RunState | None = None) -> int:
    """How many evaluations the limits on evaluations and images allow; a candidate is always tried.

    What a run has made already counts as it was: candidates that were given up took fewer images.
    """
    if config.search.images is None:
        return config.search.evaluations
    done, made, measured = 0, 0, 0
    if state is not None:
        done, made = len(state.history), state.images_before_proof
        measured = _made(state, Stage.CALIBRATION)
    made += max(0, images_of_calibration(config) - measured)
    left = math.ceil(max(0, config.search.images - made) / images_per_evaluation(config))
    return min(config.search.evaluations, max(len(BASELINES) + 1, done + left))


def _made(state: RunState, *stages: Stage) -> int:
    return sum(len(found) for (stage, _), found in state.scores.items() if stage in stages)


def _limited(seconds: float, limit: float | None) -> float:
    return seconds if limit is None else min(seconds, limit)


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A run before it begins: what its limits allow. Seconds are None while no pace is known."""

    evaluations: int
    images: int
    seconds: float | None


def forecast(config: RunConfig, seconds_per_image: float | None) -> Forecast:
    """How many evaluations and images a configuration allows at most, and how long they take."""
    each = images_per_evaluation(config)
    evaluations = _allowed(config)
    if seconds_per_image and config.search.hours is not None:
        allowed = int(config.search.hours * 3600 / (each * seconds_per_image))
        evaluations = max(len(BASELINES) + 1, min(evaluations, allowed))
    images = evaluations * each + images_of_calibration(config)
    images += images_after_search(config, evaluations, rounds=ROUNDS)
    seconds = images * seconds_per_image if seconds_per_image else None
    return Forecast(evaluations=evaluations, images=images, seconds=seconds)


def work_of(payload: Payload) -> float:
    """What an image of a payload costs, in units of one step on a megapixel."""
    megapixels = payload.width * payload.height / 1e6
    work = payload.steps * megapixels
    if payload.hires is not None:
        hires = payload.hires
        resized = hires.resize_x * hires.resize_y / 1e6
        scaled = megapixels * hires.scale**2
        work += (hires.second_pass_steps or payload.steps) * (resized or scaled)
    return work


def mean_work(payloads: Iterable[Payload]) -> float:
    """What an image of these payloads costs on average; see `work_of`."""
    return statistics.fmean(work_of(payload) for payload in payloads)


def _searched(config: RunConfig) -> list[Payload]:
    return [payload for payload in config.payloads if not payload.held_out]
