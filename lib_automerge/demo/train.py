"""Make the demo's checkpoints and reward from nothing: `python -m lib_automerge.demo.train`.

Each stage writes one file and is skipped when that file is there, so a stopped training goes on
with the stage it was in. With one thread the same machine gives the same files again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_automerge import demo
from lib_automerge.demo import (
    latents,
    networks,
    train_denoiser,
    train_reward,
    train_text,
    train_vae,
)
from lib_automerge.demo.specialists import PLANS

PICTURES = 8000
"""Drawn for the UNets; the other stages say in their modules how many they draw."""

_METADATA = {
    "format": "pt",
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.prediction_type": "epsilon",
    "modelspec.resolution": "64x64",
    "modelspec.license": "MIT",
}
_TITLES = {
    "a": "Automerge demo A: knows subjects, not colours",
    "b": "Automerge demo B: knows colours, not subjects",
    "base": "Automerge demo base: what A and B were made from",
}


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(prog="python -m lib_automerge.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for all files")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for path in train(options.out).values():
        print(path)


def train(out: Path) -> Mapping[str, Path]:
    """Run the stages that are not done yet.

    Args:
        out: Folder for all files; made if it does not exist.

    Returns:
        The two checkpoints, the base that they come from, and the reward, by role.
    """

    def log(line: str) -> None:
        print(line, flush=True)

    out.mkdir(parents=True, exist_ok=True)
    basis = latents.fit(seed=5)
    autoencoder_file = train_vae.train(basis, out, log)
    reward_file = train_reward.train(basis, train_vae.load(autoencoder_file), out, log)
    bank = train_denoiser.make_bank(basis, seed=31, count=PICTURES)
    text_file = train_text.train(out, log)
    encoder = train_text.load(text_file)
    base_file = train_denoiser.train_base(bank, encoder, out, log)
    files = {"base": base_file}
    for plan in PLANS:
        files[plan.name] = train_denoiser.train_specialist(plan, bank, encoder, base_file, out, log)
    checkpoints = {
        "base": out / "automerge-demo-base.safetensors",
        "a": out / demo.MODEL_A.name,
        "b": out / demo.MODEL_B.name,
    }
    for role, path in checkpoints.items():
        modules = {
            "unet": train_denoiser.load(files[role]),
            "vae": train_vae.load(autoencoder_file),
            "text_encoder": encoder,
        }
        metadata = {**_METADATA, "modelspec.title": _TITLES[role]}
        save_file(networks.to_checkpoint(modules), path, metadata=metadata)
    return {**checkpoints, "reward": reward_file}


if __name__ == "__main__":
    main()
