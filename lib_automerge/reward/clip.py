"""CLIP: one network that puts images and texts into one space (Radford et al. 2021).

Structure and key names are those of the files that Hugging Face publishes, the spelling of
`pre_layrnorm` included; `lib_automerge.reward.clip_files` brings other layouts into this one. Its
keys hold every matrix by itself, so that files of the other layouts, which store some joined or
transposed, become views rather than copies.

The activation is not stored in any file, and a network with the wrong one runs and gives wrong
numbers: it is a part of `ClipSizes`, which whoever makes a reward binds to the file it takes.

Shapes in this module: n images or texts, t ids, v = 1 + patches image tokens, d a tower's width, e
the width of the common space.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_automerge.reward.linear import Linear


class TowerSizes(msgspec.Struct, frozen=True):
    """Sizes of one of the two transformers.

    Attributes:
        width: of a token; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads of a block.
        hidden: width between the two linear layers of a block.
    """

    width: int
    layers: int
    heads: int
    hidden: int


class ClipSizes(msgspec.Struct, frozen=True):
    """Sizes of a CLIP, and its activation.

    Attributes:
        image: the tower that sees.
        text: the tower that reads.
        image_side: pixels of the square that it sees.
        patch_side: pixels of one patch.
        embedding: width of the common space.
        quick_gelu: True for OpenAI's approximation of GELU, with which its own files were trained;
            False for GELU.
        vocabulary: number of ids.
        positions: the longest text, in ids, START and END included.
    """

    image: TowerSizes
    text: TowerSizes
    image_side: int
    patch_side: int
    embedding: int
    quick_gelu: bool
    vocabulary: int = 49408
    positions: int = 77


VIT_B_32 = ClipSizes(
    image=TowerSizes(768, 12, 12, 3072),
    text=TowerSizes(512, 12, 8, 2048),
    image_side=224,
    patch_side=32,
    embedding=512,
    quick_gelu=True,
)
VIT_L_14 = ClipSizes(
    image=TowerSizes(1024, 24, 16, 4096),
    text=TowerSizes(768, 12, 12, 3072),
    image_side=224,
    patch_side=14,
    embedding=768,
    quick_gelu=True,
)
# Trained by LAION with open_clip. Its image heads are 80 wide, not 64.
VIT_H_14 = ClipSizes(
    image=TowerSizes(1280, 32, 16, 5120),
    text=TowerSizes(1024, 24, 16, 4096),
    image_side=224,
    patch_side=14,
    embedding=1024,
    quick_gelu=False,
)


class Clip(nn.Module):
    """Both towers; embeddings come out as fp32 vectors of length 1."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.vision_model = _ImageTower(sizes)
        self.visual_projection = Linear(sizes.image.width, sizes.embedding, bias=False)
        self.text_model = _TextTower(sizes)
        self.text_projection = Linear(sizes.text.width, sizes.embedding, bias=False)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Map (n, 3, side, side) normalised pixels of any floating-point type to (n, e)."""
        seen = self.vision_model(pixels.to(self.visual_projection.weight.dtype))
        return functional.normalize(self.visual_projection(seen).float(), dim=-1)

    def embed_texts(self, ids: Tensor) -> Tensor:
        """Map (n, t) ids to (n, e).

        What follows a text's END is never seen, and END is the largest id: any padding will do.
        """
        read = self.text_model(ids)
        return functional.normalize(self.text_projection(read).float(), dim=-1)


class Encoder(nn.Module):
    """Transformer blocks that normalise before they attend; (n, t, d) to (n, t, d)."""

    def __init__(self, sizes: TowerSizes, activation: nn.Module, eps: float = 1e-5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(sizes, activation, eps) for _ in range(sizes.layers))

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Apply all blocks; if `causal`, a token sees itself and those before it only."""
        for layer in self.layers:
            x = layer(x, causal)
        return x


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, sizes: TowerSizes, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = Linear(sizes.width, sizes.hidden)
        self.fc2 = Linear(sizes.hidden, sizes.width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., d)."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class QuickGelu(nn.Module):
    """OpenAI's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every number."""
        return x * torch.sigmoid(1.702 * x)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool) -> Tensor:
    """Let (n, t, d) queries attend to (n, s, d) keys and values; returns (n, t, d)."""
    out = functional.scaled_dot_product_attention(
        _split(query, heads), _split(key, heads), _split(value, heads), is_causal=causal
    )
    return out.transpose(1, 2).flatten(2)


def _split(x: Tensor, heads: int) -> Tensor:
    """Turn (n, t, d) into (n, heads, t, d / heads)."""
    n, length, width = x.shape
    return x.view(n, length, heads, width // heads).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, sizes: TowerSizes, activation: nn.Module, eps: float) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.width, eps=eps)
        self.self_attn = _SelfAttention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.width, eps=eps)
        self.mlp = FeedForward(sizes, activation)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _SelfAttention(nn.Module):
    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj = Linear(sizes.width, sizes.width)
        self.k_proj = Linear(sizes.width, sizes.width)
        self.v_proj = Linear(sizes.width, sizes.width)
        self.out_proj = Linear(sizes.width, sizes.width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        attended = attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=causal)
        out: Tensor = self.out_proj(attended)
        return out


class _ImageTower(nn.Module):
    """ViT; (n, 3, side, side) to (n, d), its output at the class token."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.embeddings = _ImageEmbeddings(sizes)
        self.pre_layrnorm = nn.LayerNorm(sizes.image.width)
        self.encoder = Encoder(sizes.image, _activation(sizes))
        self.post_layernorm = nn.LayerNorm(sizes.image.width)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        seen: Tensor = self.post_layernorm(tokens[:, 0])
        return seen


class _ImageEmbeddings(nn.Module):
    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, side = sizes.image.width, sizes.patch_side
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=side, stride=side, bias=False)
        self.position_embedding = nn.Embedding((sizes.image_side // side) ** 2 + 1, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embedding.weight


class _TextTower(nn.Module):
    """A causal transformer; (n, t) ids to (n, d), its output at END."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings(sizes)
        self.encoder = Encoder(sizes.text, _activation(sizes))
        self.final_layer_norm = nn.LayerNorm(sizes.text.width)

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.encoder(self.embeddings(ids), causal=True)
        ends = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        read: Tensor = self.final_layer_norm(ends)
        return read


class _TextEmbeddings(nn.Module):
    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.text.width)
        self.position_embedding = nn.Embedding(sizes.positions, sizes.text.width)

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = (
            self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]
        )
        return embedded


def _activation(sizes: ClipSizes) -> nn.Module:
    return QuickGelu() if sizes.quick_gelu else nn.GELU()
