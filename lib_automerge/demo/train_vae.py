"""The demo's autoencoder: 64x64 pictures to 4 x 8 x 8 latents and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lib_automerge.demo import drawing, networks
from lib_automerge.demo.latents import Basis

PICTURES = 5000
DECODER_STEPS = 900
ENCODER_STEPS = 250
BATCH = 8
LEARNING_RATE = 3e-3
# Noise on the latents while the decoder learns, in units of their spread, so that small errors of
# the denoiser do not show.
LATENT_NOISE = 0.1

# Brightness, and two axes of colour: plain red, green and blue differences let a grey picture with
# the right edges pass for a good one.
_COLOUR_AXES = torch.tensor([[0.30, 0.59, 0.11], [1.0, -0.5, -0.5], [0.0, 1.0, -1.0]])

Log = Callable[[str], None]


def train(basis: Basis, out: Path, log: Log) -> Path:
    """Train decoder and encoder against the fixed latents; returns the weights' file."""
    done = out / "vae.safetensors"
    if done.exists():
        return done
    torch.manual_seed(11)
    model = networks.vae().to(memory_format=torch.channels_last)
    _straight_start(model)
    generator = torch.Generator().manual_seed(12)
    pictures = _bank(generator, PICTURES)

    def decode(picture: Tensor, latents: Tensor) -> Tensor:
        noise = torch.randn(latents.shape, generator=generator)
        return reconstruction_loss(model.decode(latents + LATENT_NOISE * noise).sample, picture)

    def encode(picture: Tensor, latents: Tensor) -> Tensor:
        return functional.smooth_l1_loss(model.encode(picture).latent_dist.mean, latents)

    decoder = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    encoder = [*model.encoder.parameters(), *model.quant_conv.parameters()]
    _fit("decoder", decoder, decode, DECODER_STEPS, basis, pictures, generator, log)
    save_file(_state(model), out / "decoder.safetensors")
    _fit("encoder", encoder, encode, ENCODER_STEPS, basis, pictures, generator, log)
    _bake_scale(model)
    save_file(_state(model), done)
    return done


def _fit(
    name: str,
    parameters: list[nn.Parameter],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    basis: Basis,
    pictures: Tensor,
    generator: torch.Generator,
    log: Log,
) -> None:
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.08
    )
    started, recent = time.monotonic(), 1.0
    for step in range(steps):
        index = torch.randint(0, len(pictures), (BATCH,), generator=generator)
        picture = _to_float(pictures[index]).contiguous(memory_format=torch.channels_last)
        loss = loss_of(picture, basis.latents(picture))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        recent = 0.96 * recent + 0.04 * loss.item()
        if step % 50 == 49:
            log(f"{name} {step + 1}: loss {recent:.4f}, {time.monotonic() - started:.0f} s")


def reconstruction_loss(decoded: Tensor, picture: Tensor) -> Tensor:
    """Differences in brightness and colour, of pixels, of 4x4 patches and of edges."""
    error = torch.einsum("kc,nchw->nkhw", _COLOUR_AXES, decoded - picture)
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    patches = functional.avg_pool2d(error, 4).abs().mean()
    return error.abs().mean() + error.square().mean() + patches + 0.5 * edges


def load(path: Path) -> AutoencoderKL:
    """The trained autoencoder, frozen."""
    model = networks.vae()
    model.load_state_dict(load_file(path))
    return model.requires_grad_(False).eval()


def _bank(generator: torch.Generator, count: int) -> Tensor:
    """`count` pictures as bytes (N, 3, 64, 64): a quarter of the memory, drawn once."""
    attributes = drawing.random_attributes(count, generator)
    return ((drawing.draw(attributes, generator) + 1) * 127.5).round().to(torch.uint8)


def _to_float(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def _straight_start(model: AutoencoderKL) -> None:
    """Begin with a network that passes its input through, up to scale, in every channel pair.

    Residual branches start at zero; the other convolutions start as identities, with a negated
    second copy of what comes in, because the swish at the end keeps only the positive part.
    """
    for name, module in model.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith(("conv_shortcut", "samplers.0.conv", "post_quant_conv")):
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("conv_in"):
            width = module.in_channels
            with torch.no_grad():
                nn.init.dirac_(module.weight[:width])
                module.weight[width : 2 * width] = -module.weight[:width]


def _state(model: AutoencoderKL) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in model.state_dict().items()}


@torch.no_grad()
def _bake_scale(model: AutoencoderKL) -> None:
    """Divide the encoder's latents by 0.18215 and undo it at the decoder's entrance.

    So SD1's usual scaling factor holds and no loader needs to be told another. The encoder's
    spread around each latent is the noise that the decoder was trained with.
    """
    factor = networks.SCALING_FACTOR
    model.quant_conv.weight[:4] /= factor
    model.quant_conv.bias[:4] /= factor
    model.quant_conv.weight[4:] = 0
    model.quant_conv.bias[4:] = 2 * torch.log(torch.tensor(LATENT_NOISE / factor))
    model.post_quant_conv.weight *= factor
