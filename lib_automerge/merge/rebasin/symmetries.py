"""Which channels of a network can change places without changing what it computes.

A hidden channel that is written by one layer and read by another has no place of its own: if the
rows of the first and the columns of the second are put in another order, the network's outputs
stay the same. Two trained networks can therefore hold the same features in different places, and
an average of the two then mixes features that have nothing to do with each other.

The symmetries of a Stable Diffusion checkpoint, told from its keys and shapes:

- **ResBlock**: the channels between `in_layers.2` and `out_layers.3`, with the projection of the
  time embedding into them. A group norm stands between, so that only whole groups may change
  places, and channels within a group.
- **Attention** (UNet and text encoders): the features of queries and keys within a head, those of
  values within a head, and the heads among themselves.
- **Feed-forward layers**: their inner features; both halves of a GEGLU projection alike.
- **Embeddings**: the inner features of the time and label embeddings, and the embedding itself,
  which every ResBlock reads.
- **Transformer stream**: the channels between `proj_in` and `proj_out`, which all layers inside
  write to and read from; all norms there are layer norms, which know no order.

What stays fixed, because its order does matter:

- the residual stream of the UNet: its group norms also see concatenations of two levels of
  different widths (1280 + 640 channels in 32 groups of 60), whose groups straddle both parts;
- the residual stream and the projection of text encoders: their outputs are an interface. The UNet
  of the same file could be permuted along, but not other files that go with it: embeddings of
  textual inversion, LoRAs, exchanged text encoders;
- the image autoencoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.widths import heads, norm_groups, unet_heads
from lib_automerge.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
"""Canonical key -> shape."""

ARCHITECTURES = ("sd1", "sd2", "sdxl", "sdxl_refiner")
"""The architectures whose symmetries are known."""


class Touch(msgspec.Struct, frozen=True):
    """A range of a tensor that a permutation orders.

    Attributes:
        key: canonical name of the tensor.
        axis: 0 for its rows, 1 for its columns.
        start: the first index of the range; it is as long as the permutation.
    """

    key: str
    axis: int
    start: int


class Symmetry(msgspec.Struct, frozen=True):
    """Channels that may change places: `outer` groups of `inner` channels.

    Whole groups change places with each other, and channels within a group. Each part has its own
    order of the channels within the groups; the order of the groups is the same for all parts.
    Without groups `outer` is 1.

    Attributes:
        name: where it is in the network; unique in a checkpoint.
        outer: number of groups (of a group norm, or attention heads).
        inner: channels in a group.
        parts: the ranges that are ordered alike; attention has two parts (queries with keys, and
            values with outputs), everything else has one.
    """

    name: str
    outer: int
    inner: int
    parts: tuple[tuple[Touch, ...], ...]

    @property
    def size(self) -> int:
        """Number of channels in each part."""
        return self.outer * self.inner

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors that it touches, sorted."""
        return tuple(sorted({touch.key for part in self.parts for touch in part}))


class _Entry(NamedTuple):
    """A tensor of a rule: end of its key, axis, and which of the equal ranges along the axis."""

    end: str
    axis: int
    place: int = 0


class _Rule(NamedTuple):
    """A kind of symmetry.

    Attributes:
        name: what is appended to the name of the layer.
        anchor: end of a key; each such key gives one symmetry. Its rows have the ranges.
        ranges: equal ranges in the anchor's rows.
        grouped: which groups the channels are in.
        parts: the tensors of each part.
    """

    name: str
    anchor: str
    ranges: int
    grouped: Literal["no", "norm", "unet heads", "text heads"]
    parts: tuple[tuple[_Entry, ...], ...]


def _rows(*layers: str, place: int = 0) -> tuple[_Entry, ...]:
    """The outputs of layers with a bias, or the channels of norms."""
    kinds = ("weight", "bias")
    return tuple(_Entry(f"{layer}.{kind}", 0, place) for layer in layers for kind in kinds)


def _columns(*layers: str) -> tuple[_Entry, ...]:
    """The inputs of layers."""
    return tuple(_Entry(f"{layer}.weight", 1) for layer in layers)


_UNET_RULES = (
    _Rule(
        "inner",
        "in_layers.2.weight",
        1,
        "norm",
        ((*_rows("in_layers.2", "emb_layers.1", "out_layers.0"), *_columns("out_layers.3")),),
    ),
    _Rule(
        "heads",
        "to_q.weight",
        1,
        "unet heads",
        (
            (_Entry("to_q.weight", 0), _Entry("to_k.weight", 0)),
            (_Entry("to_v.weight", 0), *_columns("to_out.0")),
        ),
    ),
    _Rule(
        "inner",
        "net.0.proj.weight",
        2,
        "no",
        ((*_rows("net.0.proj"), *_rows("net.0.proj", place=1), *_columns("net.2")),),
    ),
    _Rule(
        "time_embed.inner",
        "time_embed.0.weight",
        1,
        "no",
        ((*_rows("time_embed.0"), *_columns("time_embed.2")),),
    ),
    _Rule(
        "label_emb.inner",
        "label_emb.0.0.weight",
        1,
        "no",
        ((*_rows("label_emb.0.0"), *_columns("label_emb.0.2")),),
    ),
)

_TEXT_RULES = (
    _Rule("inner", "fc1.weight", 1, "no", ((*_rows("fc1"), *_columns("fc2")),)),
    _Rule("inner", "c_fc.weight", 1, "no", ((*_rows("c_fc"), *_columns("c_proj")),)),
    _Rule(
        "heads",
        "q_proj.weight",
        1,
        "text heads",
        (_rows("q_proj", "k_proj"), (*_rows("v_proj"), *_columns("out_proj"))),
    ),
    _Rule(
        "heads",
        "in_proj_weight",
        3,
        "text heads",
        (
            (
                _Entry("in_proj_weight", 0, 0),
                _Entry("in_proj_bias", 0, 0),
                _Entry("in_proj_weight", 0, 1),
                _Entry("in_proj_bias", 0, 1),
            ),
            (
                _Entry("in_proj_weight", 0, 2),
                _Entry("in_proj_bias", 0, 2),
                *_columns("out_proj"),
            ),
        ),
    ),
)


def symmetries(architecture: str, shapes: Shapes) -> tuple[Symmetry, ...]:
    """Return every symmetry of the checkpoint, sorted by name.

    A layer that is not there in full, or whose width its heads do not divide, has none: leaving
    channels in their places is always right.

    Args:
        architecture: one of `ARCHITECTURES`.
        shapes: of the checkpoint's tensors.

    Raises:
        ModelError: the symmetries of this architecture are not known.
    """
    if architecture not in ARCHITECTURES:
        labels = ", ".join(architectures.get(name).label for name in ARCHITECTURES)
        raise ModelError(
            f"Re-Basin does not know the layers of {architectures.get(architecture).label}. "
            f"Use models of: {labels}."
        )
    family = architectures.get(architecture)
    unet = {key: shape for key, shape in shapes.items() if key.startswith(family.unet_prefix)}
    text = {
        key: shape
        for key, shape in shapes.items()
        if not family.is_copied(key)
        and family.has_block(key)
        and family.block_of(key) in family.text_encoders
    }
    found = [
        *_ruled(family, unet, _UNET_RULES),
        *_ruled(family, text, _TEXT_RULES),
        *_streams(unet),
        *_embedding(family.unet_prefix, unet),
    ]
    return tuple(sorted(found, key=lambda symmetry: symmetry.name))


def _ruled(family: Architecture, shapes: Shapes, rules: tuple[_Rule, ...]) -> Iterator[Symmetry]:
    ends = [shape[0] for key, shape in shapes.items() if key.endswith(".out_layers.3.weight")]
    norm = norm_groups(ends) if ends else 1
    for rule in rules:
        for key, shape in shapes.items():
            if not key.endswith("." + rule.anchor):
                continue
            size = shape[0] // rule.ranges
            groups = {
                "no": 1,
                "norm": norm,
                "unet heads": unet_heads(family.name, size),
                "text heads": heads(size),
            }[rule.grouped]
            at = key.removesuffix(rule.anchor)
            parts = [
                [Touch(at + entry.end, entry.axis, entry.place * size) for entry in part]
                for part in rule.parts
            ]
            yield from _complete(at + rule.name, groups, size, parts, shapes)


def _streams(shapes: Shapes) -> Iterator[Symmetry]:
    """The channels that the transformer blocks between `proj_in` and `proj_out` share."""
    for key, shape in shapes.items():
        if not key.endswith(".proj_in.weight"):
            continue
        at = key.removesuffix("proj_in.weight")
        entries = [*_rows("proj_in"), *_columns("proj_out")]
        number = 0
        while f"{at}transformer_blocks.{number}.norm1.weight" in shapes:
            block = f"transformer_blocks.{number}."
            entries += [entry._replace(end=block + entry.end) for entry in _STREAM]
            number += 1
        touches = [Touch(at + entry.end, entry.axis, 0) for entry in entries]
        yield from _complete(f"{at}stream", 1, shape[0], [touches], shapes)


_STREAM = (
    *_rows("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2"),
    # the keys and values of attn2 are made of the prompt
    *_columns("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q", "ff.net.0.proj"),
)


def _embedding(prefix: str, shapes: Shapes) -> Iterator[Symmetry]:
    """The sum of the time and label embeddings, which every ResBlock reads."""
    last = f"{prefix}time_embed.2.weight"
    if last not in shapes:
        return
    entries = list(_rows("time_embed.2"))
    if f"{prefix}label_emb.0.2.weight" in shapes:
        entries += _rows("label_emb.0.2")
    touches = [Touch(prefix + entry.end, entry.axis, 0) for entry in entries]
    touches += [Touch(key, 1, 0) for key in sorted(shapes) if key.endswith(".emb_layers.1.weight")]
    yield from _complete(f"{prefix}embedding", 1, shapes[last][0], [touches], shapes)


def _complete(
    name: str, groups: int, size: int, parts: list[list[Touch]], shapes: Shapes
) -> Iterator[Symmetry]:
    """Yield the symmetry if every tensor is there with room for it, and groups are of one size."""
    for touch in (touch for part in parts for touch in part):
        shape = shapes.get(touch.key, ())
        if len(shape) <= touch.axis or shape[touch.axis] < touch.start + size:
            return
    if size > 1 and size % groups == 0:
        yield Symmetry(name, groups, size // groups, tuple(tuple(part) for part in parts))
