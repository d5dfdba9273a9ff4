"""Names of samplers."""

import functools
from typing import NamedTuple

from modules import sd_schedulers, shared


class SamplerData(NamedTuple):
    name: str
    constructor: object
    aliases: list[str]
    options: dict[str, object]

    def total_steps(self, steps):
        return steps * 2 if self.options.get("second_order") else steps


all_samplers = [
    SamplerData(name, None, aliases, options)
    for name, aliases, options in (
        ("DPM++ 2M", ["k_dpmpp_2m"], {"scheduler": "karras"}),
        ("DPM++ SDE", ["k_dpmpp_sde"], {"scheduler": "karras", "second_order": True}),
        ("DPM++ 2M SDE", ["k_dpmpp_2m_sde"], {"scheduler": "exponential"}),
        ("Euler a", ["k_euler_a", "k_euler_ancestral"], {}),
        ("Euler", ["k_euler"], {}),
        ("LMS", ["k_lms"], {}),
        ("Heun", ["k_heun"], {"second_order": True}),
        ("DDIM", ["ddim"], {}),
        ("DDIM CFG++", ["ddim_cfgpp"], {}),
        ("PLMS", ["plms"], {}),
        ("UniPC", ["unipc"], {}),
        ("LCM", ["k_lcm"], {}),
    )
]
all_samplers_map = {sampler.name: sampler for sampler in all_samplers}
samplers = all_samplers
samplers_for_img2img = all_samplers
samplers_hidden = set(shared.opts.hide_samplers)
samplers_map = {
    label.lower(): sampler.name
    for sampler in all_samplers
    for label in (sampler.name, *sampler.aliases)
}


def visible_samplers():
    return [sampler for sampler in samplers if sampler.name not in samplers_hidden]


def visible_sampler_names():
    return [sampler.name for sampler in visible_samplers()]


def find_sampler_config(name):
    return all_samplers[0] if name is None else all_samplers_map.get(name)


@functools.cache
def get_sampler_and_scheduler(sampler_name, scheduler_name, *, convert_automatic=True):
    """Split "DPM++ 2M Karras"; anything unknown silently becomes the first of its list."""
    automatic = sd_schedulers.schedulers[0]
    name = sampler_name or samplers[0].name
    scheduler = sd_schedulers.schedulers_map.get(scheduler_name, automatic)
    for candidate in sd_schedulers.schedulers:
        for ending in (candidate.label, candidate.name, *(candidate.aliases or [])):
            if name.endswith(f" {ending}"):
                scheduler = candidate
                name = name[: -len(ending) - 1]
                break
    sampler = all_samplers_map.get(name, samplers[0])
    if convert_automatic and sampler.options.get("scheduler") == scheduler.name:
        scheduler = automatic
    return sampler.name, scheduler.label


def fix_p_invalid_sampler_and_scheduler(p):
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(
        p.sampler_name, p.scheduler, convert_automatic=False
    )
