"""Architectures as data: which blocks a checkpoint has and which key belongs to which block.

One file per architecture in `data/architectures/` holds its blocks, the rules that map a key to a
block, and its key list. Adding an architecture of the same kind needs no code.

Keys here are *canonical*: named as in the original single-file checkpoint. `domain.detection` maps
the keys of a real file, which may lack prefixes, to canonical ones.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import Any, Literal

import msgspec

from lib_automerge.domain import keylists
from lib_automerge.errors import ConfigError, ModelError, unknown_name

Prediction = Literal["epsilon", "v", "edm", "flow", "unknown"]
"""What a denoiser predicts."""


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The layer whose number of input channels tells what a model is for.

    Attributes:
        key: the weight, without the denoiser's prefix; its second size is the number.
        plain: the number in a model that makes images from prompts alone.
        kinds: number -> what models with it are for.
    """

    key: str
    plain: int
    kinds: dict[str, str]


class Editions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two kinds of published models that one optional weight of the denoiser tells apart."""

    key: str  # without the denoiser's prefix
    present: str
    absent: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of one file in `data/architectures/`."""

    label: str
    prediction: Prediction  # what its models predict; "unknown" if that differs between them
    parameters: dict[str, tuple[str, ...]]  # group -> blocks; in order, the blocks of the denoiser
    text_encoders: tuple[str, ...]
    vae: tuple[str, ...]
    unet: str  # prefix of the denoiser's keys
    prefixes: tuple[str, ...]  # within these every key must have a block or be copied
    copied: tuple[str, ...]  # globs of keys that are never merged
    rules: tuple[tuple[str, str], ...]  # prefix, {n} a number -> block; the first match wins
    aliases: dict[str, str]  # prefix as some files have it -> canonical prefix
    optional: tuple[str, ...]  # globs of keys that complete files may lack
    keys: dict[str, Any]
    signature: tuple[str, ...] = ()  # keys of the denoiser that tell the family; !KEY must lack
    inputs: Inputs | None = None
    editions: Editions | None = None
    layers: tuple[str, ...] = ("IN", "M", "OUT")  # groups of the numbered layers
    varying: tuple[str, ...] = ()  # keys whose size differs between published models


class Architecture(msgspec.Struct, frozen=True, dict=True, eq=False):
    """A family of checkpoints with the same keys, and the partition of these keys into blocks.

    Attributes:
        name: how recipes and files of the project call it, such as `sd1` or `flux1`.
        label: the name to show.
        prediction: what its models predict: `epsilon`, `v`, `flow`, or `unknown` if it differs.
        parameters: the blocks of the denoiser; what a run searches unless told otherwise.
        text_encoders: the blocks of the text encoders; empty if they come in files of their own.
        vae: the block of the image autoencoder; likewise.
        groups: group -> blocks: the numbered ones of the denoiser (`IN`, `M` and `OUT` of a UNet,
            the rows of layers of a transformer), `EXTRA` (embeddings and the last layers), `BASE`
            (text encoders) and `VAE`; together every block once, in canonical order.
        unet_prefix: how the canonical keys of the denoiser start.
        aliases: prefix that some files use -> canonical prefix.
    """

    name: str
    label: str
    prediction: Prediction
    parameters: tuple[str, ...]
    text_encoders: tuple[str, ...]
    vae: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    unet_prefix: str
    aliases: Mapping[str, str]
    document: _Document

    @property
    def blocks(self) -> tuple[str, ...]:
        """Every block that can be merged, in canonical order."""
        return self.parameters + self.text_encoders + self.vae

    @property
    def signature(self) -> tuple[str, ...]:
        """Keys of the denoiser, without its prefix, that tell the family; `!key` must be absent.

        Empty for UNets, whose families share their names.
        """
        return self.document.signature

    @property
    def denoiser(self) -> str:
        """What kind of network makes the images: `UNet` or `transformer`."""
        return "transformer" if self.document.signature else "UNet"

    @property
    def inputs(self) -> Inputs | None:
        """The layer that tells variants of the family, if there are any."""
        return self.document.inputs

    @property
    def editions(self) -> Editions | None:
        """The optional weight that tells two published kinds, if there are any."""
        return self.document.editions

    @cached_property
    def varying_keys(self) -> frozenset[str]:
        """Canonical keys whose size differs between published models of the family."""
        inputs = (self.unet_prefix + self.inputs.key,) if self.inputs else ()
        return frozenset((*self.document.varying, *inputs))

    @property
    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Group -> blocks of the network's numbered layers, in the order of the data flow.

        Together they are what merge tools count as a family's layers.
        """
        return {group: self.groups[group] for group in self.document.layers}

    @cached_property
    def reference_keys(self) -> Mapping[str, tuple[int, ...]]:
        """Every key of the model's own components -> its shape in a model of standard size.

        Without schedule buffers, EMA copies and markers, which any file may have or lack.
        """
        return keylists.expand(self.document.keys)

    def block_of(self, key: str) -> str | None:
        """Return the block of a canonical key, or None if the key is copied from model A.

        None covers what must never be interpolated (EMA copies, schedule buffers, position
        indices, markers) and keys that do not belong to the model.

        Raises:
            ModelError: `key` is inside one of the model's own prefixes and no rule knows it.
        """
        if self._copied.match(key):
            return None
        block = self._ruled(key)
        if block is None and key.startswith(self.document.prefixes):
            raise ModelError(
                f"unknown weight in a {self.label} model: {key!r}. "
                "Use a checkpoint whose layers are those of the original model."
            )
        return block

    def has_block(self, key: str) -> bool:
        """Return whether a canonical key belongs to a block; never raises."""
        return self._copied.match(key) is None and self._ruled(key) is not None

    def is_copied(self, key: str) -> bool:
        """Return whether `key` is a known companion of the weights that is never merged."""
        return self._copied.match(key) is not None

    def is_optional(self, key: str) -> bool:
        """Return whether complete checkpoints exist that lack this canonical key."""
        return self.is_copied(key) or self._optional.match(key) is not None

    def _ruled(self, key: str) -> str | None:
        """Return the block of the first rule that matches."""
        for pattern, block in self._rules:
            found = pattern.match(key)
            if found:
                name = block.format(n=int(found[1])) if found.lastindex else block
                return name if name in self.blocks else None
        return None

    @cached_property
    def _copied(self) -> re.Pattern[str]:
        return _any_glob(self.document.copied)

    @cached_property
    def _optional(self) -> re.Pattern[str]:
        return _any_glob(self.document.optional)

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        number = re.escape("{n}")
        return tuple(
            (re.compile(re.escape(prefix).replace(number, r"(\d+)")), block)
            for prefix, block in self.document.rules
        )


def names() -> tuple[str, ...]:
    """Return the names of all architectures, in alphabetical order."""
    return tuple(sorted(path.stem for path in (keylists.DATA / "architectures").glob("*.json")))


def get(name: str) -> Architecture:
    """Return the architecture of this name.

    Raises:
        ConfigError: there is none; says which name is nearest.
    """
    if name not in names():
        raise ConfigError(unknown_name("architecture", name, names()))
    return _load(name)


@cache
def _load(name: str) -> Architecture:
    path = keylists.DATA / "architectures" / f"{name}.json"
    document = msgspec.json.decode(path.read_bytes(), type=_Document)
    groups = {group: _spelled(blocks) for group, blocks in document.parameters.items()}
    parameters = tuple(block for blocks in groups.values() for block in blocks)
    return Architecture(
        name=name,
        label=document.label,
        prediction=document.prediction,
        parameters=parameters,
        text_encoders=document.text_encoders,
        vae=document.vae,
        groups=groups | {"BASE": document.text_encoders, "VAE": document.vae},
        unet_prefix=document.unet,
        aliases=document.aliases,
        document=document,
    )


def _spelled(blocks: Iterable[str]) -> tuple[str, ...]:
    """Return every block by name: `B{40}` stands for B00 to B39."""
    names: list[str] = []
    for block in blocks:
        repeat = re.fullmatch(r"(\w+)\{(\d+)\}", block)
        if repeat:
            names += [f"{repeat[1]}{index:02}" for index in range(int(repeat[2]))]
        else:
            names.append(block)
    return tuple(names)


def _any_glob(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that matches what any of the globs matches; nothing if there are none."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or "(?!)")
