"""SigLIP's image tower (Zhai et al. 2023): a ViT whose tokens are pooled by attention.

Structure and key names are those of transformers' `SiglipVisionModel` and of the files that Google
publishes with it. Built of the same blocks as CLIP's towers.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_automerge.reward.clip import Encoder, FeedForward, TowerSizes, attend
from lib_automerge.reward.linear import Linear, linear

_EPS = 1e-6


class SiglipSizes(msgspec.Struct, frozen=True):
    """Sizes of the tower; the defaults are those of siglip-so400m-patch14-384."""

    image: TowerSizes = TowerSizes(1152, 27, 16, 4304)
    image_side: int = 384
    patch_side: int = 14

    @property
    def embedding(self) -> int:
        """Width of an embedding."""
        return self.image.width


class Siglip(nn.Module):
    """The tower; embeddings come out as fp32 vectors of length 1."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.vision_model = _ImageTower(sizes)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Map (n, 3, side, side) normalised pixels of any floating-point type to (n, width)."""
        dtype = self.vision_model.post_layernorm.weight.dtype
        return functional.normalize(self.vision_model(pixels.to(dtype)).float(), dim=-1)


class _ImageTower(nn.Module):
    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        # PyTorch's name for the approximation of GELU by a hyperbolic tangent.
        activation = nn.GELU(approximate="tanh")
        self.embeddings = _Embeddings(sizes)
        self.encoder = Encoder(sizes.image, activation, _EPS)
        self.post_layernorm = nn.LayerNorm(sizes.image.width, eps=_EPS)
        self.head = _AttentionPool(sizes.image, activation)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.post_layernorm(self.encoder(self.embeddings(pixels)))
        pooled: Tensor = self.head(tokens)
        return pooled


class _Embeddings(nn.Module):
    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        width, side = sizes.image.width, sizes.patch_side
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=side, stride=side)
        self.position_embedding = nn.Embedding((sizes.image_side // side) ** 2, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        embedded: Tensor = patches + self.position_embedding.weight
        return embedded


class _AttentionPool(nn.Module):
    """One learned query attends to all tokens; (n, v, d) to (n, d)."""

    def __init__(self, sizes: TowerSizes, activation: nn.Module) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.attention = _JointAttention(sizes)
        self.layernorm = nn.LayerNorm(sizes.width, eps=_EPS)
        self.mlp = FeedForward(sizes, activation)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = self.attention(self.probe.expand(len(tokens), -1, -1), tokens)
        out: Tensor = pooled + self.mlp(self.layernorm(pooled))
        return out[:, 0]


class _JointAttention(nn.Module):
    """Attention whose three projections are stored as one, as `nn.MultiheadAttention` does."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * sizes.width, sizes.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * sizes.width))
        self.out_proj = Linear(sizes.width, sizes.width)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            linear(x, weight, bias)
            for x, weight, bias in zip((query, tokens, tokens), weights, biases, strict=True)
        )
        out: Tensor = self.out_proj(attend(query, key, value, self.heads, causal=False))
        return out
