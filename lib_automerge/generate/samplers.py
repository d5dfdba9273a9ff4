"""The WebUI's sampler and schedule names, and the diffusers schedulers that do the same.

Everything but `create` is a table, so that a run's settings can be checked before anything is
loaded. Where diffusers has no counterpart the combination is refused instead of replaced by a
similar one: a payload means the same images in every backend, as far as the libraries allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lib_automerge.errors import ConfigError, unknown_name

AUTOMATIC = "Automatic"

_KARRAS = {"use_karras_sigmas": True}
_EXPONENTIAL = {"use_exponential_sigmas": True}
_LINSPACE = {"timestep_spacing": "linspace"}
_TRAILING = {"timestep_spacing": "trailing"}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}

_SIGMAS: Mapping[str, Mapping[str, Any]] = {
    "Karras": _KARRAS,
    "Exponential": _EXPONENTIAL,
    # The WebUI's Polyexponential has rho 1, which is Exponential.
    "Polyexponential": _EXPONENTIAL,
    "Beta": {"use_beta_sigmas": True},
}
"""Schedules that are a formula for the noise levels."""

_SPACINGS: Mapping[str, Mapping[str, Any]] = {
    "Uniform": _LINSPACE,
    # For models with 1000 discrete steps Normal is Uniform, and Simple is SGM Uniform.
    "Normal": _LINSPACE,
    "SGM Uniform": _TRAILING,
    "Simple": _TRAILING,
    "DDIM": _LEADING,
}
"""Schedules that choose among the model's own 1000 noise levels."""

_ABSENT_SCHEDULES = ("KL Optimal", "Align Your Steps", "Align Your Steps 11", "Turbo")
_ABSENT_SAMPLERS = (
    "DPM++ 2S a",
    "DPM fast",
    "DPM adaptive",
    "Restart",
    "DDIM CFG++",
    "Euler CFG++",
    "Euler a CFG++",
)


class Sampler(msgspec.Struct, frozen=True):
    """One sampler of the WebUI.

    Attributes:
        scheduler: name of the diffusers class.
        options: arguments that make the class this sampler.
        automatic: the schedule that the WebUI means by "Automatic" for it.
        schedules: `all`; `sigmas` (formulas and Uniform); `spacings`; or `own`: the sampler has
            its own schedule, and only "Automatic" is allowed.
        zero_snr: whether it can start from pure noise, as models with zero terminal SNR need.
    """

    scheduler: str
    options: Mapping[str, Any] = {}
    automatic: str = "Uniform"
    schedules: Literal["all", "sigmas", "spacings", "own"] = "all"
    zero_snr: bool = False


_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Mapping[str, Sampler] = {
    "Euler a": Sampler("EulerAncestralDiscreteScheduler", schedules="spacings", zero_snr=True),
    "Euler": Sampler("EulerDiscreteScheduler", zero_snr=True),
    "LMS": Sampler("LMSDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler"),
    "DPM2": Sampler("KDPM2DiscreteScheduler", automatic="Karras"),
    "DPM2 a": Sampler("KDPM2AncestralDiscreteScheduler", automatic="Karras"),
    "DPM++ 2M": Sampler(_MULTISTEP, {"solver_order": 2}, "Karras", zero_snr=True),
    "DPM++ 2M SDE": Sampler(_MULTISTEP, {"solver_order": 2, **_SDE}, "Exponential", zero_snr=True),
    "DPM++ 2M SDE Heun": Sampler(
        _MULTISTEP, {"solver_order": 2, "solver_type": "heun", **_SDE}, "Exponential", zero_snr=True
    ),
    "DPM++ 3M SDE": Sampler(_MULTISTEP, {"solver_order": 3, **_SDE}, "Exponential", zero_snr=True),
    "DPM++ SDE": Sampler(
        "DPMSolverSinglestepScheduler",
        {"solver_order": 2, "lower_order_final": True, **_SDE},
        "Karras",
        "sigmas",
    ),
    "DDIM": Sampler(
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False, **_LEADING},
        schedules="own",
        zero_snr=True,
    ),
    "PLMS": Sampler(
        "PNDMScheduler",
        {"skip_prk_steps": True, "set_alpha_to_one": False, **_LEADING},
        schedules="own",
    ),
    "UniPC": Sampler(
        "UniPCMultistepScheduler",
        # Its last step goes to the smallest noise level: bh1 is not defined at zero.
        {
            "solver_order": 3,
            "solver_type": "bh1",
            "final_sigmas_type": "sigma_min",
            **_LINSPACE,
        },
        schedules="own",
        zero_snr=True,
    ),
    "LCM": Sampler("LCMScheduler", {"clip_sample": False}, schedules="own", zero_snr=True),
}

SCHEDULES: tuple[str, ...] = (AUTOMATIC, *_SPACINGS, *_SIGMAS)


class Plan(msgspec.Struct, frozen=True):
    """A sampler with its schedule: the diffusers class and its arguments."""

    sampler: str
    scheduler: str
    options: Mapping[str, Any]
    zero_snr: bool


def plan(sampler: str, schedule: str = AUTOMATIC) -> Plan:
    """Return what diffusers needs for a sampler and a schedule type of the WebUI.

    The names that older versions used for both at once are understood ("DPM++ 2M Karras").

    Raises:
        ConfigError: a name is unknown, diffusers has nothing like it, or the two do not go
            together.
    """
    name, wanted = _split(sampler, schedule)
    found = SAMPLERS[name]
    return Plan(
        sampler=name,
        scheduler=found.scheduler,
        options={**found.options, **_schedule_options(name, found, wanted)},
        zero_snr=found.zero_snr,
    )


def check(sampler: str, schedule: str = AUTOMATIC) -> None:
    """Raise ConfigError if `plan` would; imports nothing heavy."""
    plan(sampler, schedule)


def create(settings: Plan, *, prediction: str, zero_snr: bool) -> Any:
    """Return a new diffusers scheduler with the noise schedule of Stable Diffusion.

    Args:
        settings: from `plan`.
        prediction: what the model predicts: `epsilon` or `v_prediction`.
        zero_snr: whether the model was trained to start from pure noise.

    Raises:
        ConfigError: the model needs zero terminal SNR, and the sampler has no such mode.
    """
    import diffusers  # takes seconds, and no check of a configuration needs it

    options = dict(settings.options)
    if zero_snr:
        if not settings.zero_snr:
            able = ", ".join(name for name, sampler in SAMPLERS.items() if sampler.zero_snr)
            raise ConfigError(
                f"sampler {settings.sampler!r} cannot start from pure noise, which this model "
                f"(zero terminal SNR) needs. Use one of: {able}."
            )
        options["rescale_betas_zero_snr"] = True
    return getattr(diffusers, settings.scheduler)(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        **options,
    )


def _split(sampler: str, schedule: str) -> tuple[str, str]:
    """Return the known names of a sampler and a schedule."""
    wanted = _known("schedule type", schedule, SCHEDULES, _ABSENT_SCHEDULES)
    lower = sampler.lower()
    for suffix in _SIGMAS:
        if lower.endswith(f" {suffix.lower()}"):
            name = _known("sampler", sampler[: -len(suffix) - 1], SAMPLERS, _ABSENT_SAMPLERS)
            if wanted not in (AUTOMATIC, suffix):
                raise ConfigError(
                    f"sampler {sampler!r} names the schedule {suffix}, but the schedule type is "
                    f"{wanted!r}. Write {name!r} and choose one schedule type."
                )
            return name, suffix
    return _known("sampler", sampler, SAMPLERS, _ABSENT_SAMPLERS), wanted


def _known(
    kind: str, name: str, known: Mapping[str, Any] | tuple[str, ...], absent: tuple[str, ...]
) -> str:
    for candidate in known:
        if candidate.lower() == name.lower():
            return candidate
    if name.lower() in {candidate.lower() for candidate in absent}:
        raise ConfigError(
            f"{kind} {name!r} does not exist in diffusers. Use one of: {', '.join(known)}; "
            "or generate with a WebUI."
        )
    raise ConfigError(unknown_name(kind, name, known))


def _schedule_options(name: str, sampler: Sampler, schedule: str) -> Mapping[str, Any]:
    if sampler.schedules == "own":
        allowed: tuple[str, ...] = ()
    elif sampler.schedules == "spacings":
        allowed = tuple(_SPACINGS)
    elif sampler.schedules == "sigmas":
        # diffusers' single-step solver spaces its steps evenly and takes no argument for it.
        allowed = ("Uniform", "Normal", *_SIGMAS)
    else:
        allowed = (*_SPACINGS, *_SIGMAS)
    if schedule == AUTOMATIC:
        schedule = sampler.automatic if allowed else schedule
    elif schedule not in allowed:
        choices = ", ".join((AUTOMATIC, *allowed))
        raise ConfigError(
            f"schedule type {schedule!r} does not go with sampler {name!r} in diffusers. "
            f"Use {choices}."
        )
    if schedule in _SIGMAS:
        return _SIGMAS[schedule]
    if sampler.schedules == "sigmas":
        return {}
    return _SPACINGS.get(schedule, {})
