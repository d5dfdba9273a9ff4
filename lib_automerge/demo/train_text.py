"""The demo's text encoder: learns to say which attributes a caption names.

A real checkpoint's text encoder was trained long before its UNet; so is this one. Its states from
the end token on are taught fixed codes of the named attributes, which is what the UNet then reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from lib_automerge.demo import drawing, networks
from lib_automerge.demo.drawing import VOCABULARY

STEPS = 500
BATCH = 24
LEARNING_RATE = 3e-3

Log = Callable[[str], None]


def train(out: Path, log: Log) -> Path:
    """Train the text encoder; returns its weights' file."""
    done = out / "text.safetensors"
    if done.exists():
        return done
    torch.manual_seed(15)
    model = networks.text_encoder()
    tokens = networks.tokenizer()
    generator = torch.Generator().manual_seed(16)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1
    )
    for step in range(STEPS):
        texts = drawing.captions(drawing.random_attributes(BATCH, generator), generator)
        texts[0] = ""
        ids = networks.token_ids(texts, tokens)
        states = model(ids)[0]
        after = ids == networks.END_TOKEN
        wanted = codes(texts)[:, None].expand(states.shape)
        loss = functional.mse_loss(states[after], wanted[after])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            log(f"text {step + 1}: loss {loss.item():.4f}")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, done)
    return done


def load(path: Path) -> CLIPTextModel:
    """The trained text encoder, frozen."""
    model = networks.text_encoder()
    model.load_state_dict(load_file(path))
    return model.requires_grad_(False).eval()


def codes(texts: Sequence[str]) -> Tensor:
    """What the states should be, (N, 16): a corner of a simplex for each kind of attribute.

    A kind that is not named is at the simplex's centre, zero; so is the last channel of all.
    """
    corners = {kind: _simplex(len(words)) for kind, words in VOCABULARY.items()}
    rows = []
    for text in texts:
        named = drawing.named_attributes(text)
        parts = [
            corners[kind][VOCABULARY[kind].index(named[kind])]
            if kind in named
            else torch.zeros(corners[kind].shape[1])
            for kind in VOCABULARY
        ]
        rows.append(torch.cat(parts))
    found = torch.stack(rows)
    return functional.pad(found, (0, networks.TEXT_WIDTH - found.shape[1]))


def _simplex(corners: int) -> Tensor:
    """Equally distant points (corners, corners - 1) around zero, of length sqrt(corners - 1)."""
    centred = torch.eye(corners, dtype=torch.float64) - 1 / corners
    basis = torch.linalg.svd(centred).Vh[: corners - 1]
    points: Tensor = centred @ basis.T * math.sqrt(corners)
    return points.float()
