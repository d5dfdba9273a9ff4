"""Heads that turn an embedding into one number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (1024, 128, 64, 16, 1)


class LinearStack(nn.Module):
    """Five linear layers without activations, as ImageReward and LAION's V2 have them.

    They were trained with dropout between the layers, which files count as layers of their own.
    """

    def __init__(self, width: int, attribute: str, numbers: Sequence[int]) -> None:
        """Build it.

        Args:
            width: of an embedding.
            attribute: what the keys of the file begin with, "layers" for "layers.0.weight".
            numbers: of the five layers in the file.
        """
        super().__init__()
        widths = pairwise((width, *_WIDTHS))
        layers = zip(map(str, numbers), widths, strict=True)
        stack = nn.Sequential(OrderedDict((number, nn.Linear(*pair)) for number, pair in layers))
        self.add_module(attribute, stack)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width) to (n, 1)."""
        for stack in self.children():
            x = stack(x)
        return x


class SmallPerceptron(nn.Module):
    """Three linear layers with ReLU between them, as Waifu Diffusion's aes-B32-v0 has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 256)
        self.fc2 = nn.Linear(256, 128)
        self.fc3 = nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width) to (n, 1); the file's own classifier would put a sigmoid after it."""
        out: Tensor = self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))
        return out
