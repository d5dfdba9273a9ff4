"""The loaded model: the parts of a checkpoint and how they turn prompts into pictures.

Part of the fake alone; attribute and class names that the WebUI looks at are the real ones.
"""

import zlib

import torch
from torch import nn

from modules import sd_unet
from modules.fake_faults import faults
from modules.fake_network import Branch, Reading, build

SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)

TOKENS = 77
COND_WIDTH = 8


def pattern(shape, *key):
    """Uniform numbers in -1..1 that depend on every bit of `key`."""
    seed = zlib.crc32(repr(key).encode())
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def read(module, part):
    """Run the module and return what a picture shows of its weights: (checksum, tone)."""
    reading = Reading()
    module(reading)
    return faults.seen(part, reading.digest)


class UNetModel(Branch):
    def forward(self, x, timesteps=None, context=None, settings=(), **kwargs):
        """Return what the picture of each context will be, without noise."""
        if sd_unet.current_unet is not None:
            return sd_unet.current_unet.forward(x, timesteps, context, **kwargs)
        reading = Reading()
        super().forward(reading)
        checksum, tone = faults.seen("unet", reading.digest)
        tone = torch.tanh(torch.tensor(tone))
        return torch.stack(
            [0.6 * tone + 0.3 * pattern(x.shape[1:], checksum, *settings, c) for c in context]
        )


class DiffusionWrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.conditioning_key = "crossattn"
        self.diffusion_model = UNetModel()

    def forward(self, x, t=None, c_crossattn=None, settings=()):
        return self.diffusion_model(x, t, context=c_crossattn, settings=settings)


class AutoencoderKL(Branch):
    def encode(self, x):
        return nn.functional.interpolate(x, scale_factor=1 / 8)

    def decode(self, z):
        """Return an image in -1..1, eight times as large as the latents."""
        checksum, tone = read(self, "vae")
        grain = pattern((1, 3, 8, 8), checksum) * 0.1 + 0.1 * torch.tanh(torch.tensor(tone))
        image = z[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)
        return image + grain.repeat(1, 1, z.shape[2], z.shape[3])


class FrozenCLIPEmbedder(Branch): ...


class FrozenOpenCLIPEmbedder(Branch): ...


class FrozenOpenCLIPEmbedder2(Branch): ...


class LatentDiffusion(nn.Module):
    """SD1 and SD2."""

    def __init__(self, state_dict):
        super().__init__()
        self.cond_stage_key = "txt"
        self.latent_channels = 4
        self.lowvram = False
        self.model = DiffusionWrapper()
        self.first_stage_model = AutoencoderKL()
        for number, name in enumerate(SCHEDULE_BUFFERS):
            self.register_buffer(name, torch.linspace(0.9991, 0.0047, 1000) ** (number + 1))
        self.register_buffer("lvlb_weights", torch.ones(1000), persistent=False)
        build(_part(state_dict, "model.diffusion_model."), self.model.diffusion_model)
        build(_part(state_dict, "first_stage_model."), self.first_stage_model)
        self.first_stage_model.requires_grad_(False)
        self._add_text_encoders(state_dict)

    def _add_text_encoders(self, state_dict):
        shapes = _part(state_dict, "cond_stage_model.")
        kind = FrozenOpenCLIPEmbedder if any(k.startswith("model.") for k in shapes) else None
        self.cond_stage_model = (kind or FrozenCLIPEmbedder)()
        build(shapes, self.cond_stage_model)
        self.cond_stage_model.requires_grad_(False)

    def ema_scope(self):
        return torch.no_grad()

    def get_learned_conditioning(self, texts):
        return self.cond_stage_model(texts)

    def decode_first_stage(self, z):
        return self.first_stage_model.decode(z)


class DiffusionEngine(LatentDiffusion):
    """SDXL."""

    def _add_text_encoders(self, state_dict):
        shapes = _part(state_dict, "conditioner.embedders.")
        self.conditioner = GeneralConditioner()
        kinds = {"0": FrozenCLIPEmbedder, "1": FrozenOpenCLIPEmbedder2}
        for number, kind in kinds.items():
            mine = _part(shapes, f"{number}.")
            if mine:
                embedder = kind()
                build(mine, embedder)
                self.conditioner.embedders.append(embedder)
        self.conditioner.requires_grad_(False)

    def get_learned_conditioning(self, texts):
        return self.conditioner(texts)


class GeneralConditioner(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedders = nn.ModuleList()

    def forward(self, texts):
        return sum(embedder(texts) for embedder in self.embedders) / 2


def create(state_dict):
    """Return a model with the checkpoint's names and shapes, its weights still zero."""
    sdxl = any(key.startswith("conditioner.") for key in state_dict)
    return (DiffusionEngine if sdxl else LatentDiffusion)(state_dict)


def _part(state_dict, prefix):
    return {
        key[len(prefix) :]: tuple(getattr(value, "shape", value))
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
