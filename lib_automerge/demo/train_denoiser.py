"""The demo's UNet: the common base, and the two specialists made from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

from lib_automerge.demo import drawing, networks
from lib_automerge.demo.drawing import VOCABULARY, Attributes
from lib_automerge.demo.latents import Basis

BATCH = 64
# Steps and highest learning rate of each round; every rate falls to zero within its round.
BASE_ROUNDS = ((1000, 2e-3), (800, 1.5e-3))
# Share of pictures without a caption: what classifier-free guidance needs to know.
UNCAPTIONED = 0.1

Log = Callable[[str], None]


@dataclass(frozen=True)
class Specialist:
    """How one specialist is made.

    Attributes:
        name: "a" or "b".
        scrambled: kinds of attribute whose words are random in its captions: what it forgets.
        share: block name -> share of the learning rate at which the block learns.
        strength: what the change of the blocks with share 1 is multiplied by after training, as
            one turns up a LoRA: it makes the specialist more one-sided than its training did.
        rate: full learning rate.
        steps: number of batches.
        seed: of everything random.
    """

    name: str
    scrambled: tuple[str, ...]
    share: Callable[[str], float]
    strength: float
    rate: float
    steps: int
    seed: int


class Captioner:
    """Turns captions into what the UNet attends to; encodes each caption once."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        self._encoder = encoder.requires_grad_(False).eval()
        self._tokenizer = networks.tokenizer()
        self._states: dict[str, Tensor] = {}

    def states(self, captions: Sequence[str]) -> Tensor:
        """Text states (N, 77, 16)."""
        unseen = sorted(set(captions) - self._states.keys())
        if unseen:
            encoded = self._encoder(networks.token_ids(unseen, self._tokenizer))[0]
            self._states.update(zip(unseen, encoded, strict=True))
        return torch.stack([self._states[text] for text in captions])


@dataclass(frozen=True)
class Bank:
    """Latents (N, 4, 8, 8) of drawn pictures, and what the pictures show."""

    latents: Tensor
    attributes: Attributes

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        """`count` random pictures, with repetition."""
        index = torch.randint(0, len(self.latents), (count,), generator=generator)
        shown = self.attributes
        return self.latents[index], Attributes(
            shown.subject[index], shown.colour[index], shown.scene[index]
        )


def make_bank(basis: Basis, seed: int, count: int) -> Bank:
    """Draw `count` pictures and keep their latents."""
    generator = torch.Generator().manual_seed(seed)
    attributes = drawing.random_attributes(count, generator)
    latents = []
    for start in range(0, count, 64):
        piece = slice(start, start + 64)
        shown = Attributes(
            attributes.subject[piece], attributes.colour[piece], attributes.scene[piece]
        )
        latents.append(basis.latents(drawing.draw(shown, generator)))
    return Bank(torch.cat(latents), attributes)


def noise_schedule() -> Tensor:
    """SD1's cumulative alphas (1000,): betas from 0.00085 to 0.012, linear in their roots."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def noise_loss(
    model: UNet2DConditionModel, latents: Tensor, states: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the predicted noise at uniformly random times."""
    time_step = torch.randint(0, 1000, (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    alpha = noise_schedule()[time_step][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    return functional.mse_loss(model(noisy, time_step, states).sample, noise)


def quiet_start(model: nn.Module) -> None:
    """Let every residual branch begin at zero, so that a fresh network passes its input on."""
    for name, module in model.named_modules():
        if name.endswith(("conv2", "proj_out", "to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def train_base(bank: Bank, encoder: CLIPTextModel, out: Path, log: Log) -> Path:
    """Train a UNet on true captions, in rounds of falling learning rate.

    Returns:
        The last round's weights.
    """
    torch.manual_seed(21)
    model = networks.unet()
    quiet_start(model)
    captioner = Captioner(encoder)
    path = out
    for number, (steps, rate) in enumerate(BASE_ROUNDS, start=1):
        path = out / f"base_{number}.safetensors"
        if path.exists():
            model = load(path)
            continue
        groups = [{"params": list(model.parameters()), "lr": rate}]
        generator = torch.Generator().manual_seed(21 + number)
        _descend(model, groups, steps, _batches(bank, (), generator), captioner, generator, log)
        _save(model, path)
    return path


def train_specialist(
    plan: Specialist, bank: Bank, encoder: CLIPTextModel, base: Path, out: Path, log: Log
) -> Path:
    """Fine-tune the base's UNet on captions with random words; returns its weights' file.

    The text encoder stays as it is, so that both specialists read prompts alike.
    """
    path = out / f"{plan.name}.safetensors"
    if path.exists():
        return path
    model = load(base)
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        rate = plan.rate * plan.share(networks.unet_blocks()[name])
        by_rate.setdefault(rate, []).append(value)
    groups = [{"params": values, "lr": rate} for rate, values in by_rate.items()]
    generator = torch.Generator().manual_seed(plan.seed)
    batches = _batches(bank, plan.scrambled, generator)
    _descend(model, groups, plan.steps, batches, Captioner(encoder), generator, log)
    _strengthen(model, load(base), plan)
    _save(model, path)
    return path


def load(path: Path) -> UNet2DConditionModel:
    """The UNet that `train_base` or `train_specialist` wrote."""
    model = networks.unet()
    model.load_state_dict(load_file(path))
    return model


def _descend(
    model: UNet2DConditionModel,
    groups: list[dict[str, Any]],
    steps: int,
    batches: Iterator[tuple[Tensor, list[str]]],
    captioner: Captioner,
    generator: torch.Generator,
    log: Log,
) -> None:
    """Take `steps` steps; each group of parameters has its own highest learning rate."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.05
    )
    started, recent = time.monotonic(), 0.0
    for step in range(steps):
        latents, texts = next(batches)
        loss = noise_loss(model, latents, captioner.states(texts), generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 49:
            log(f"denoiser {step + 1}: loss {recent:.4f}, {time.monotonic() - started:.0f} s")


@torch.no_grad()
def _strengthen(model: nn.Module, base: nn.Module, plan: Specialist) -> None:
    for (name, value), start in zip(model.named_parameters(), base.parameters(), strict=True):
        if plan.share(networks.unet_blocks()[name]) == 1:
            value.copy_(torch.lerp(start, value, plan.strength))


def _batches(
    bank: Bank, scrambled: Sequence[str], generator: torch.Generator
) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless batches: latents, and captions of which one in ten is empty."""
    while True:
        latents, shown = bank.sample(BATCH, generator)
        texts = drawing.captions(_scrambled(shown, scrambled, generator), generator)
        blank = (torch.rand(BATCH, generator=generator) < UNCAPTIONED).tolist()
        yield latents, ["" if omit else text for text, omit in zip(texts, blank, strict=True)]


def _scrambled(shown: Attributes, kinds: Sequence[str], generator: torch.Generator) -> Attributes:
    """The same pictures with random words for some kinds of attribute."""
    if not kinds:
        return shown
    random = drawing.random_attributes(len(shown), generator)
    told = {kind: (random if kind in kinds else shown).named(kind) for kind in VOCABULARY}
    return Attributes(told["subject"], told["colour"], told["scene"])


def _save(model: nn.Module, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
