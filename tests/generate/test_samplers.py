"""WebUI sampler and schedule names mean what they mean in the WebUI, or are refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.generate import samplers

# diffusers hands torch tensors to numpy functions that have come to dislike it.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

ALLOWED = [
    (sampler, schedule)
    for sampler, entry in samplers.SAMPLERS.items()
    for schedule in samplers.SCHEDULES
    if schedule == samplers.AUTOMATIC or entry.schedules == "all"
]


def scheduler(sampler: str, schedule: str = "Automatic", steps: int = 8):
    made = samplers.create(samplers.plan(sampler, schedule), prediction="epsilon", zero_snr=False)
    made.set_timesteps(steps)
    return made


def model_sigmas() -> np.ndarray:
    """The 1000 noise levels of Stable Diffusion, ascending, from its published betas."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    return ((1 - kept) / kept) ** 0.5


@pytest.mark.parametrize(("sampler", "schedule"), ALLOWED)
def test_diffusers_has_every_combination_that_is_allowed(sampler, schedule):
    made = scheduler(sampler, schedule)
    times = np.asarray(made.timesteps, dtype=float)
    assert type(made).__name__ == samplers.SAMPLERS[sampler].scheduler
    assert times[0] > 700
    assert times[-1] < 300
    assert np.all((times >= 0) & (times <= 999))


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "LMS", "Heun"])
def test_automatic_is_even_steps_from_999_to_0_as_in_k_diffusion(sampler):
    times = np.unique(np.asarray(scheduler(sampler).timesteps, dtype=float))
    assert times == pytest.approx(np.linspace(0, 999, 8), abs=1)


@pytest.mark.parametrize("schedule", ["SGM Uniform", "Simple"])
@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M"])
def test_sgm_uniform_leaves_out_the_last_of_one_step_more(sampler, schedule):
    times = np.asarray(scheduler(sampler, schedule).timesteps, dtype=float)
    assert times == pytest.approx(np.linspace(999, 0, 9)[:-1], abs=1)


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS"])
def test_timestep_samplers_step_from_1_on(sampler):
    times = np.unique(np.asarray(scheduler(sampler, steps=10).timesteps, dtype=float))
    assert times.tolist() == [1 + 100 * i for i in range(10)]


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DPM++ SDE", "DPM2 a"])
def test_karras_is_the_published_formula(sampler):
    low, high = model_sigmas()[[0, -1]]
    ramp = np.linspace(0, 1, 8)
    expected = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    found = np.asarray(scheduler(sampler, "Karras").sigmas, dtype=float)
    for sigma in expected:
        assert np.min(np.abs(found / sigma - 1)) < 1e-3


@pytest.mark.parametrize(
    ("sampler", "option"),
    [
        ("DPM++ 2M", "use_karras_sigmas"),
        ("DPM++ SDE", "use_karras_sigmas"),
        ("DPM++ 2M SDE", "use_exponential_sigmas"),
        ("DPM++ 3M SDE", "use_exponential_sigmas"),
    ],
)
def test_automatic_is_the_schedule_that_the_webui_prefers_for_the_sampler(sampler, option):
    assert samplers.plan(sampler).options[option]


@pytest.mark.parametrize(
    ("old", "sampler", "schedule"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
        ("LMS Karras", "LMS", "Karras"),
        ("euler A", "Euler a", "Automatic"),
    ],
)
def test_names_of_older_versions_are_understood(old, sampler, schedule):
    assert samplers.plan(old) == samplers.plan(sampler, schedule)


def test_a_combined_name_may_repeat_its_schedule_but_not_contradict_it():
    assert samplers.plan("LMS Karras", "Karras") == samplers.plan("LMS", "Karras")
    with pytest.raises(ConfigError, match=r"'LMS Karras'.*'Beta'.*Write 'LMS'"):
        samplers.check("LMS Karras", "Beta")


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(ConfigError, match=r"unknown sampler: 'Eular a'.*'Euler a'"):
        samplers.check("Eular a")
    with pytest.raises(ConfigError, match=r"unknown schedule type: 'Karas'.*'Karras'"):
        samplers.check("Euler", "Karas")


@pytest.mark.parametrize("sampler", ["DPM++ 2S a", "Restart", "DPM adaptive", "DPM++ 2S a Karras"])
def test_samplers_that_diffusers_lacks_are_refused_by_name(sampler):
    with pytest.raises(ConfigError, match="does not exist in diffusers"):
        samplers.check(sampler)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [("Euler a", "Karras"), ("DDIM", "Karras"), ("DPM++ SDE", "SGM Uniform"), ("LCM", "Simple")],
)
def test_schedules_that_a_sampler_cannot_take_are_refused(sampler, schedule):
    with pytest.raises(ConfigError) as refusal:
        samplers.check(sampler, schedule.lower())
    assert f"'{schedule}' does not go with sampler '{sampler}'" in str(refusal.value)


def test_zero_terminal_snr_starts_from_pure_noise_or_is_refused():
    made = samplers.create(samplers.plan("Euler"), prediction="v_prediction", zero_snr=True)
    assert made.config.prediction_type == "v_prediction"
    assert float(made.sigmas[0]) > 1000
    with pytest.raises(ConfigError, match=r"'LMS' cannot start from pure noise.*Use one of: Euler"):
        samplers.create(samplers.plan("LMS"), prediction="v_prediction", zero_snr=True)


def test_settings_are_checked_without_loading_torch_or_diffusers():
    code = (
        "import sys; from lib_automerge.generate import samplers; samplers.check('Euler a');"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
