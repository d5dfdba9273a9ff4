"""Simulated scores with known components: recipe, payload, payload x recipe, and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.search.calibration import Advice, Calibration, calibrate

Scores = dict[tuple[str, int], float]


def simulated(
    rng: np.random.Generator,
    *,
    seed_sd: float,
    interaction_sd: float,
    shared_sd: float = 0.0,
    prompts: int = 12,
    seeds: int = 2,
    sets: int = 4,
    means: tuple[float, float, float] = (0.0, 0.3, 0.6),
) -> tuple[list[Scores], Scores]:
    """Three recipes on the images of a search, the last of them on `sets` more sets of seeds."""
    payload = rng.normal(0.0, 1.0, prompts)
    recipes: list[Scores] = [{} for _ in means]
    repeated: Scores = {}
    for p in range(prompts):
        special = rng.normal(0.0, interaction_sd, len(means))
        for s in range(seeds * (1 + sets)):
            shared = payload[p] + rng.normal(0.0, shared_sd)
            for r, mean in enumerate(means):
                score = mean + shared + special[r] + rng.normal(0.0, seed_sd)
                if s < seeds:
                    recipes[r][f"p{p}", s] = score
                if r == len(means) - 1:
                    repeated[f"p{p}", s] = score
    return recipes, repeated


def equal_weights(recipes: list[Scores]) -> dict[str, float]:
    return {payload: 1.0 for payload, _ in recipes[0]}


def measured(**settings: object) -> Calibration:
    rng = np.random.default_rng(3)
    recipes, repeated = simulated(rng, **settings)  # type: ignore[arg-type]
    return calibrate(recipes, repeated, equal_weights(recipes))


def test_every_kind_of_chance_is_estimated_without_bias() -> None:
    rng = np.random.default_rng(0)
    alone, seed, prompt = [], [], []
    for _ in range(400):
        recipes, repeated = simulated(rng, seed_sd=0.4, shared_sd=0.3, interaction_sd=0.5)
        found = calibrate(recipes, repeated, equal_weights(recipes))
        alone.append(found.alone_sd**2)
        seed.append(found.seed_sd**2)
        prompt.append(found.prompt_sd**2)
    assert np.mean(alone) == pytest.approx((0.4**2 + 0.3**2) / 24, rel=0.03)
    assert np.mean(seed) == pytest.approx(0.4**2 / 24, rel=0.06)
    assert np.mean(prompt) == pytest.approx(0.5**2 / 12, rel=0.06)


def test_the_whole_noise_is_right_with_one_seed_for_each_prompt_too() -> None:
    rng = np.random.default_rng(0)
    noise = []
    for _ in range(400):
        recipes, repeated = simulated(rng, seed_sd=0.4, shared_sd=0.3, interaction_sd=0.5, seeds=1)
        noise.append(calibrate(recipes, repeated, equal_weights(recipes)).noise ** 2)
    assert np.mean(noise) == pytest.approx((0.4**2 + 0.5**2) / 12, rel=0.05)


def test_seeds_alone_are_not_taken_for_an_interaction_with_prompts() -> None:
    rng = np.random.default_rng(1)
    found = [
        calibrate(
            *(data := simulated(rng, seed_sd=0.5, interaction_sd=0.0)), equal_weights(data[0])
        )
        for _ in range(100)
    ]
    # a variance that is cut off at 0 lies above 0 on average, but far below what the seeds make
    assert np.mean([f.prompt_sd**2 for f in found]) < 0.3 * np.mean([f.seed_sd**2 for f in found])


def test_what_makes_a_prompt_or_an_image_easy_for_every_recipe_does_not_count() -> None:
    rng = np.random.default_rng(2)
    recipes, repeated = simulated(rng, seed_sd=0.2, interaction_sd=0.1)
    easy = {key: float(rng.normal(0.0, 5.0)) for key in repeated}
    by_prompt = {name: float(rng.normal(0.0, 5.0)) for name, _ in repeated}
    plain = calibrate(recipes, repeated, equal_weights(recipes))
    shifted = calibrate(
        [{k: v + easy[k] + by_prompt[k[0]] for k, v in scores.items()} for scores in recipes],
        {k: v + by_prompt[k[0]] for k, v in repeated.items()},
        equal_weights(recipes),
    )
    assert shifted.prompt_sd == pytest.approx(plain.prompt_sd)
    assert shifted.seed_sd == pytest.approx(plain.seed_sd)
    assert shifted.alone_sd == pytest.approx(plain.alone_sd)
    assert shifted.spread == pytest.approx(plain.spread)


def test_the_proposed_number_of_prompts_brings_chance_to_15_percent() -> None:
    found = measured(seed_sd=0.5, interaction_sd=0.4, prompts=12)
    assert found.advice is Advice.TOO_FEW
    assert found.enough_prompts is not None
    ratio = found.enough_prompts / 12
    assert found.noise / np.sqrt(ratio) <= 0.15 * found.spread
    assert found.noise / np.sqrt(ratio - 1 / 12) > 0.15 * found.spread
    assert f"too few: use {found.enough_prompts} prompts" in found.sentence


def test_the_proposed_number_of_seeds_counts_what_prompts_leave() -> None:
    found = measured(seed_sd=1.0, interaction_sd=0.1, prompts=24, means=(0.0, 0.4, 0.8))
    assert found.advice is Advice.TOO_FEW
    assert found.enough_seeds is not None

    def noise(seeds: int) -> float:
        return float(np.hypot(found.prompt_sd, found.seed_sd * np.sqrt(2 / seeds)))

    assert noise(found.enough_seeds) <= 0.15 * found.spread < noise(found.enough_seeds - 1)
    assert f"{found.enough_seeds} seeds per prompt" in found.sentence


def test_more_seeds_are_not_proposed_where_only_more_prompts_help() -> None:
    found = measured(seed_sd=0.05, interaction_sd=1.0)
    assert found.advice is Advice.TOO_FEW
    assert found.enough_seeds is None
    assert "seeds per prompt" not in found.sentence


def test_enough_is_said_to_be_enough() -> None:
    found = measured(seed_sd=0.36, interaction_sd=0.25)
    assert 0.10 < found.share <= 0.15
    assert found.advice is Advice.ENOUGH
    assert found.sentence.endswith("12 prompts with 2 seeds each are enough.")


def test_fewer_are_proposed_where_fewer_would_do() -> None:
    found = measured(seed_sd=0.05, interaction_sd=0.02)
    assert found.advice is Advice.TOO_MANY
    assert "1 seed per prompt would do" in found.sentence
    found = measured(seed_sd=0.05, interaction_sd=0.05, seeds=1, prompts=30)
    assert found.advice is Advice.TOO_MANY
    assert "5 prompts would do" in found.sentence


def test_models_that_are_too_alike_are_called_that() -> None:
    found = measured(seed_sd=1.0, interaction_sd=0.5, means=(0.0, 0.001, 0.002))
    assert found.advice in (Advice.HOPELESS, Advice.TOO_FEW)
    rng = np.random.default_rng(4)
    recipes, repeated = simulated(rng, seed_sd=1.0, interaction_sd=0.5)
    same = calibrate([recipes[0]] * 3, repeated, equal_weights(recipes))
    assert same.spread == 0
    assert same.advice is Advice.HOPELESS
    assert "no reasonable number" in same.sentence


def test_without_chance_nothing_is_asked_for() -> None:
    found = measured(seed_sd=0.0, interaction_sd=0.0)
    assert found.noise == pytest.approx(0.0, abs=1e-12)
    assert found.advice is not Advice.TOO_FEW


def test_weights_of_payloads_count() -> None:
    rng = np.random.default_rng(5)
    recipes, repeated = simulated(rng, seed_sd=0.4, interaction_sd=0.0)
    weights = equal_weights(recipes)
    one_sided = weights | {"p0": 1000.0}
    even = calibrate(recipes, repeated, weights)
    # one prompt decides nearly alone: its two images do not average as 24 do
    assert calibrate(recipes, repeated, one_sided).seed_sd > 3 * even.seed_sd


def test_one_prompt_and_one_seed_are_enough_to_measure() -> None:
    rng = np.random.default_rng(6)
    recipes, repeated = simulated(rng, seed_sd=0.3, interaction_sd=0.3, prompts=1, seeds=1)
    found = calibrate(recipes, repeated, {"p0": 1.0})
    assert found.prompt_sd == 0.0
    assert found.seed_sd > 0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_scores_does_not_matter(scale: float) -> None:
    rng = np.random.default_rng(7)
    recipes, repeated = simulated(rng, seed_sd=0.5, interaction_sd=0.4)
    plain = calibrate(recipes, repeated, equal_weights(recipes))
    scaled = calibrate(
        [{k: v * scale for k, v in scores.items()} for scores in recipes],
        {k: v * scale for k, v in repeated.items()},
        equal_weights(recipes),
    )
    assert scaled.enough_prompts == plain.enough_prompts
    assert scaled.share == pytest.approx(plain.share)


def test_what_cannot_be_measured_is_said() -> None:
    rng = np.random.default_rng(8)
    recipes, repeated = simulated(rng, seed_sd=0.5, interaction_sd=0.4, seeds=1)
    with pytest.raises(ConfigError, match="no image in common"):
        calibrate([recipes[0], {("other", 1): 0.0}], repeated, equal_weights(recipes))
    with pytest.raises(ConfigError, match="no payload was scored on two seeds"):
        calibrate(recipes, recipes[2], equal_weights(recipes))
