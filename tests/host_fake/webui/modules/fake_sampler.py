"""How latents come about: noise fades step by step into what the model wants to show."""

import zlib

import torch

from modules import devices, shared
from modules.fake_faults import faults
from modules.shared import state


def noise(p, height, width):
    """One latent of noise per seed of the batch."""
    latents = [
        torch.randn((4, height, width), generator=torch.Generator().manual_seed(seed & 2**63 - 1))
        for seed in p.seeds
    ]
    return torch.stack(latents)


def sample(p, start, cond, uncond, sampler, scheduler, steps, strength=1.0):
    """Return the latents after all steps, or after those before an interrupt or a skip.

    The model runs once, before the first step: real ones run in every step, with equal weights.
    """
    faults.begin_pass(len(start))
    state.sampling_steps, state.sampling_step = steps, 0
    model = shared.sd_model
    config = (sampler, scheduler, steps, p.cfg_scale, p.eta, *_schedule(model))
    contexts = [_key(c, u) for c, u in zip(cond, uncond, strict=True)]
    latents = start
    target = None
    for step in range(steps):
        faults.before_step(step)
        if state.interrupted or state.skipped:
            break
        if target is None:
            wanted = model.model(start, torch.tensor([step]), contexts, settings=config)
            target = (1 - strength) * start + strength * (wanted + 0.2 * torch.tanh(start))
        latents = latents + (target - latents) / (steps - step)
        state.sampling_step = step
        shared.total_tqdm.update()
    return faults.end_pass(latents.to(devices.dtype).float(), model, p.prompts)


def _key(cond, uncond):
    both = torch.stack([cond, uncond]).contiguous()
    return zlib.crc32(both.numpy().tobytes())


def _schedule(model):
    return (
        zlib.crc32(model.alphas_cumprod.float().numpy().tobytes()),
        shared.opts.sd_noise_schedule,
        shared.opts.eta_noise_seed_delta,
        model.applied_token_merged_ratio,
    )
