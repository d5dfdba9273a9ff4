"""What the demo's latents are: a thumbnail in three colour axes, and a slant of brightness.

The autoencoder of a real checkpoint finds its own latents. A tiny one that trains for minutes on a
CPU does not find the colours in that time, so this one is told: its encoder and its decoder are
both taught the same fixed latents, which keep colour and place and leave the details of edges to
the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from lib_automerge.demo import drawing

FACTOR = 8
_PICTURES = 2048


@dataclass(frozen=True)
class Basis:
    """An affine map from patches to latents of mean 0 and spread 1 in each channel.

    Attributes:
        kernel: (4, 3, 8, 8), applied as a convolution of stride 8.
        offset: (4,).
    """

    kernel: Tensor
    offset: Tensor

    def latents(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, 64, 64) in [-1, 1] to latents (N, 4, 8, 8)."""
        return functional.conv2d(pictures, self.kernel, self.offset, stride=FACTOR)

    def save(self, path: Path) -> None:
        """Write the map as safetensors."""
        save_file({"kernel": self.kernel, "offset": self.offset}, path)


def load(path: Path) -> Basis:
    """Read what `Basis.save` wrote."""
    tensors = load_file(path)
    return Basis(tensors["kernel"], tensors["offset"])


def fit(seed: int) -> Basis:
    """Find the colour axes of freshly drawn pictures; the same seed gives the same map.

    The first three channels are the principal components of the patches' mean colours, each scaled
    to spread 1; the fourth is how brightness rises from a patch's upper left to its lower right.
    """
    generator = torch.Generator().manual_seed(seed)
    attributes = drawing.random_attributes(_PICTURES, generator)
    pictures = drawing.draw(attributes, generator)
    means = functional.avg_pool2d(pictures, FACTOR).transpose(0, 1).flatten(1)
    axes = torch.linalg.eigh(means.double().cov()).eigenvectors.float().T.flip(0)
    # An eigenvector's sign is arbitrary; fix it so that every machine finds the same latents.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    ramp = torch.linspace(-1, 1, FACTOR)
    kernel = torch.cat(
        [
            axes[:, :, None, None].expand(3, 3, FACTOR, FACTOR) / FACTOR**2,
            (ramp[:, None] + ramp[None, :]).expand(1, 3, FACTOR, FACTOR) / FACTOR**2,
        ]
    )
    raw = functional.conv2d(pictures, kernel, stride=FACTOR)
    centre, spread = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
    return Basis((kernel / spread[:, None, None, None]).contiguous(), -centre / spread)
