"""Architectures as data: which blocks a checkpoint has and which key belongs to which block.

One file per architecture in `data/architectures/` holds its blocks, the rules that map a key to a
block, and its key list. Adding an architecture of the same kind needs no code.

Keys here are *canonical*: named as in the original single-file checkpoint. `domain.detection` maps
the keys of a real file, which may lack prefixes, to canonical ones.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import msgspec

from lib_automerge.domain import keylists
from lib_automerge.errors import ConfigError, ModelError, unknown_name


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of one file in `data/architectures/`."""

    label: str
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


class Architecture(msgspec.Struct, frozen=True, dict=True, eq=False):
    """A family of checkpoints with the same keys, and the partition of these keys into blocks.

    Attributes:
        name: `sd1`, `sd2`, `sdxl` or `sdxl_refiner`.
        label: the name to show.
        parameters: the blocks of the denoiser; what a run searches unless told otherwise.
        text_encoders: the blocks of the text encoders.
        vae: the block of the image autoencoder.
        groups: group -> blocks: `IN`, `M`, `OUT`, `EXTRA` (embeddings and the last convolution),
            `BASE` (text encoders) and `VAE`; together every block once, in canonical order.
        unet_prefix: how the canonical keys of the denoiser start.
        aliases: prefix that some files use -> canonical prefix.
    """

    name: str
    label: str
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
    parameters = tuple(block for group in document.parameters.values() for block in group)
    return Architecture(
        name=name,
        label=document.label,
        parameters=parameters,
        text_encoders=document.text_encoders,
        vae=document.vae,
        groups=document.parameters | {"BASE": document.text_encoders, "VAE": document.vae},
        unet_prefix=document.unet,
        aliases=document.aliases,
        document=document,
    )


def _any_glob(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that matches what any of the globs matches; nothing if there are none."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or "(?!)")
