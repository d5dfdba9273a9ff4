"""The demo's reward network: learns the words of a picture from drawings made with other seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lib_automerge.demo import drawing, networks
from lib_automerge.demo.drawing import VOCABULARY, Attributes
from lib_automerge.demo.latents import Basis
from lib_automerge.reward.demo import AttributeNetwork

PICTURES = 2500
HELD_OUT = 512
STEPS = 700
BATCH = 48
LEARNING_RATE = 2e-3
SMOOTHING = 0.05

Log = Callable[[str], None]
Labels = dict[str, Tensor]


def train(basis: Basis, autoencoder: AutoencoderKL, out: Path, log: Log) -> Path:
    """Train and calibrate the network; returns its file, whose metadata holds the vocabulary.

    Half of what it sees are decoded latents, and a third of those are blends of two pictures'
    latents with blended labels: so a half-right picture gets a middling score, and the search has
    something to climb.
    """
    done = out / "demo_reward.safetensors"
    if done.exists():
        return done
    torch.manual_seed(41)
    generator = torch.Generator().manual_seed(42)
    attributes = drawing.random_attributes(PICTURES, generator)
    drawings = drawing.draw(attributes, generator)
    decoded, labels = _decoded(basis, autoencoder, drawings, _one_hot(attributes), generator)
    pictures = torch.cat([drawings, decoded])
    labels = {kind: torch.cat([_one_hot(attributes)[kind], labels[kind]]) for kind in labels}
    model = AttributeNetwork(VOCABULARY)
    optimizer = torch.optim.AdamW(
        [value for value in model.parameters() if value.requires_grad],
        LEARNING_RATE,
        weight_decay=0.02,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for step in range(STEPS):
        index = torch.randint(0, len(pictures), (BATCH,), generator=generator)
        logits = model(augment(pictures[index], generator))
        loss = torch.stack(
            [
                functional.cross_entropy(
                    logits[kind], labels[kind][index], label_smoothing=SMOOTHING
                )
                for kind in VOCABULARY
            ]
        ).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            log(f"reward {step + 1}: loss {loss.item():.4f}")
    model.requires_grad_(False).eval()
    _calibrate(model, basis, autoencoder, log)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, done, metadata={"vocabulary": json.dumps(VOCABULARY)})
    return done


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, blur, re-light and add noise, differently for each picture."""
    count = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low)[:, None, None, None]

    shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
    pictures = torch.roll(pictures, shift, dims=(2, 3))
    blurred = functional.avg_pool2d(
        functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1
    )
    amount = uniform(-0.3, 1.0).clamp(min=0)
    pictures = pictures + amount * (blurred - pictures)
    pictures = pictures * uniform(0.85, 1.1) + uniform(-0.1, 0.1)
    tint = torch.randn(count, 3, 1, 1, generator=generator) * 0.03
    noise = torch.randn(pictures.shape, generator=generator) * uniform(0.0, 0.1)
    return (pictures + tint + noise).clamp(-1, 1)


def _one_hot(attributes: Attributes) -> Labels:
    return {
        kind: functional.one_hot(attributes.named(kind), len(words)).float()
        for kind, words in VOCABULARY.items()
    }


@torch.no_grad()
def _decoded(
    basis: Basis,
    autoencoder: AutoencoderKL,
    pictures: Tensor,
    labels: Labels,
    generator: torch.Generator,
) -> tuple[Tensor, Labels]:
    """Noisy latents of pictures, a third of them blended with another's, decoded; their labels."""
    latents = basis.latents(pictures)
    count = len(pictures)
    other = torch.randperm(count, generator=generator)
    share = torch.rand(count, generator=generator) * 0.5
    share = torch.where(torch.rand(count, generator=generator) < 1 / 3, share, 0.0)
    spread = torch.rand(count, generator=generator)[:, None, None, None] * 0.5
    noise = torch.randn(latents.shape, generator=generator)
    latents = latents + share[:, None, None, None] * (latents[other] - latents) + spread * noise
    blended = {
        kind: value + share[:, None] * (value[other] - value) for kind, value in labels.items()
    }
    return decode(autoencoder, latents), blended


@torch.no_grad()
def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents of spread 1 to pictures, 64 at a time."""
    return torch.cat(
        [
            autoencoder.decode(part / networks.SCALING_FACTOR).sample.clamp(-1, 1)
            for part in torch.split(latents, 64)
        ]
    )


@torch.no_grad()
def _calibrate(model: AttributeNetwork, basis: Basis, autoencoder: AutoencoderKL, log: Log) -> None:
    """Set each kind's temperature to what makes held-out pictures most likely."""
    generator = torch.Generator().manual_seed(43)
    attributes = drawing.random_attributes(HELD_OUT, generator)
    drawings = drawing.draw(attributes, generator)
    decoded, labels = _decoded(basis, autoencoder, drawings, _one_hot(attributes), generator)
    accuracy = _accuracy(model(drawings), attributes)
    log(f"reward accuracy on unseen drawings: {accuracy}")
    clean = decode(autoencoder, basis.latents(drawings))
    log(f"reward accuracy on unseen decoded drawings: {_accuracy(model(clean), attributes)}")
    logits = model(augment(decoded, generator))
    candidates = torch.linspace(0.5, 3.0, 51)
    for position, kind in enumerate(VOCABULARY):
        losses = torch.stack(
            [functional.cross_entropy(logits[kind] / value, labels[kind]) for value in candidates]
        )
        model.temperature[position] = candidates[losses.argmin()]
    log(f"reward temperatures: {model.temperature.tolist()}")


def _accuracy(logits: Mapping[str, Tensor], attributes: Attributes) -> dict[str, float]:
    return {
        kind: round((logits[kind].argmax(1) == attributes.named(kind)).float().mean().item(), 4)
        for kind in VOCABULARY
    }
