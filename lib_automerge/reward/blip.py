"""The network behind ImageReward: BLIP's image-grounded text encoder and a linear head.

Structure and key names are those of the published file `ImageReward.pt` (Xu et al. 2023,
"ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation"; BLIP: Li et
al. 2022): a ViT-L/16 turns the image into tokens, a BERT-base whose layers also attend to those
tokens reads the prompt, and the output at the first position becomes one number. Attributes are
therefore named as in the file (`attention.self.query`), not as we would name them.

Shapes in this module: n images, t text ids, v = 1 + patches image tokens, d a layer's width.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_automerge.reward.heads import LinearStack
from lib_automerge.reward.linear import Linear

# Mean and standard deviation of the raw scores on ImageReward's validation set: published scores
# are standardised by them.
_RAW_MEAN = 0.16717362830052426
_RAW_SD = 1.0333394966054072

_HEAD_WIDTH = 64


class BlipSizes(msgspec.Struct, frozen=True):
    """Sizes of the network; the defaults are those of the published file.

    Widths are multiples of 64, the width of one attention head in both encoders.
    """

    image_side: int = 224
    patch_side: int = 16
    image_width: int = 1024
    image_layers: int = 24
    text_width: int = 768
    text_layers: int = 12
    vocabulary: int = 30524
    positions: int = 512


class BlipReward(nn.Module):
    """Scores of images given prompts, standardised as ImageReward's authors publish them."""

    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.blip = _Blip(sizes)
        self.mlp = LinearStack(sizes.text_width, "layers", (0, 2, 4, 6, 7))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Score a batch.

        Args:
            pixels: (n, 3, side, side), normalised; any floating-point type.
            ids: (n, t) token ids, t at most the number of positions.
            mask: (n, t) bool, False for padding.

        Returns:
            (n,) scores in the head's precision.
        """
        tokens = self.blip.visual_encoder(pixels.to(self.blip.visual_encoder.cls_token.dtype))
        read = self.blip.text_encoder(ids, mask, tokens)
        raw = self.mlp(read.to(next(self.mlp.parameters()).dtype))
        scores: Tensor = (raw[:, 0] - _RAW_MEAN) / _RAW_SD
        return scores


class _Blip(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.visual_encoder = _ImageEncoder(sizes)
        self.text_encoder = _TextEncoder(sizes)


class _ImageEncoder(nn.Module):
    """ViT with pre-normalised blocks; (n, 3, side, side) to (n, v, d)."""

    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        width = sizes.image_width
        patches = (sizes.image_side // sizes.patch_side) ** 2
        self.patch_embed = _PatchEmbedding(width, sizes.patch_side)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, width))
        self.blocks = nn.ModuleList(_ImageBlock(width) for _ in range(sizes.image_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed(pixels)
        first = self.cls_token.expand(len(patches), -1, -1)
        x = torch.cat((first, patches), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        return tokens


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=side, stride=side)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.proj(pixels).flatten(2).transpose(1, 2)
        return patches


class _ImageBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _ImageAttention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _ImageFeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _ImageAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        attended: Tensor = self.proj(_attend(query, key, value))
        return attended


class _ImageFeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class _TextEncoder(nn.Module):
    """BERT without token types, each layer attending to the text and then to the image."""

    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings(sizes)
        self.encoder = _TextLayers(sizes)

    def forward(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Map (n, t) ids, (n, t) bool mask and (n, v, d_image) tokens to the first of (n, t, d)."""
        x = self.embeddings(ids)
        *layers, last = self.encoder.layer
        for layer in layers:
            x = layer(x, x, mask, image)
        read: Tensor = last(x[:, :1], x, mask, image)[:, 0]
        return read


class _TextEmbeddings(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocabulary, sizes.text_width)
        self.position_embeddings = nn.Embedding(sizes.positions, sizes.text_width)
        self.LayerNorm = nn.LayerNorm(sizes.text_width, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        embedded: Tensor = self.LayerNorm(self.word_embeddings(ids) + positions)
        return embedded


class _TextLayers(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            _TextLayer(sizes.text_width, sizes.image_width) for _ in range(sizes.text_layers)
        )


class _TextLayer(nn.Module):
    def __init__(self, width: int, image_width: int) -> None:
        super().__init__()
        self.attention = _TextAttention(width, width)
        self.crossattention = _TextAttention(width, image_width)
        self.intermediate = _Dense(width, 4 * width)
        self.output = _ResidualNorm(4 * width, width)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        x = self.attention(x, text, mask)
        x = self.crossattention(x, image)
        out: Tensor = self.output(functional.gelu(self.intermediate.dense(x)), x)
        return out


class _TextAttention(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.self = _QueryKeyValue(width, source_width)
        self.output = _ResidualNorm(width, width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.self.query(x), self.self.key(source), self.self.value(source)
        out: Tensor = self.output(_attend(query, key, value, mask), x)
        return out


class _QueryKeyValue(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(source_width, width)
        self.value = Linear(source_width, width)


class _Dense(nn.Module):
    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.dense = Linear(width, out_width)


class _ResidualNorm(nn.Module):
    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.dense = Linear(width, out_width)
        self.LayerNorm = nn.LayerNorm(out_width, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Let (n, t, d) queries attend to (n, s, d) keys and values; returns (n, t, d).

    The mask is (n, s) bool, False for the keys that must not be seen; None shows all.
    """
    visible = None if mask is None else mask[:, None, None, :]
    out = functional.scaled_dot_product_attention(
        _split_heads(query), _split_heads(key), _split_heads(value), attn_mask=visible
    )
    joined: Tensor = out.transpose(1, 2).flatten(2)
    return joined


def _split_heads(x: Tensor) -> Tensor:
    """Turn (n, t, d) into (n, heads, t, 64)."""
    n, length, width = x.shape
    return x.view(n, length, width // _HEAD_WIDTH, _HEAD_WIDTH).transpose(1, 2)
