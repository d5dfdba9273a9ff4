"""Which configurations of sd-mecha are which architecture, and weights by their blocks and keys."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.dialects.mecha_text import (
    Argument,
    Literal,
    Merge,
    Model,
    Table,
    refused,
    words,
)
from lib_automerge.domain.dialects.sketch import Everywhere, Listed, Named, Spread
from lib_automerge.errors import ConfigError


class Blocks(msgspec.Struct, frozen=True):
    """Weights by block in sd-mecha.

    Attributes:
        config: their configuration.
        converter: the method that spreads them over keys.
        order: the order of `domain.weights` that says where the blocks that it lacks belong.
    """

    config: str
    converter: str
    order: str


class Config(msgspec.Struct, frozen=True):
    """What sd-mecha calls an architecture.

    Attributes:
        keys: the configuration of its checkpoints, whose keys are our canonical ones.
        blocks: of its weights; None where sd-mecha has no blocks, so that weights go by key.
    """

    keys: str
    blocks: Blocks | None = None


CONFIGS = {
    "sd1": Config(
        "sd1-ldm", Blocks("sd1-supermerger_blocks", "convert_sd1_blocks_to_ldm", "mecha")
    ),
    "sdxl": Config(
        "sdxl-sgm", Blocks("sdxl-supermerger_blocks", "convert_sdxl_blocks_to_sgm", "mecha-xl")
    ),
    "sd3_medium": Config("sd3-comfyui"),
    "flux1": Config("flux-flux"),
}
"""Architecture -> its configurations; the architectures that are not here sd-mecha lacks.

`sd3-comfyui` has the keys and shapes of SD3 medium: SD3.5's are others.
"""

_BLOCKS = {name: config.blocks for name, config in CONFIGS.items() if config.blocks is not None}

_SINGLETON = "singleton-mecha"
"""The configuration of one value for all keys, under the name `key`."""
_TO_ALL = "convert_singleton"


def architecture_of(model: Model) -> str:
    """The architecture of a file with a configuration.

    Raises:
        ConfigError: it is a LoRA or of a kind that is not known.
    """
    for name, config in CONFIGS.items():
        if model.config == config.keys:
            return name
    known = ", ".join(config.keys for config in CONFIGS.values())
    raise ConfigError(
        f"{words(model)} is a {model.config!r}, which cannot be merged from .mecha recipes. "
        f"Models may be: {known}."
    )


def spread_of(node: Merge, alpha: Argument) -> tuple[Spread, str | None]:
    """The weights of a node, and the architecture that their blocks or keys are of, if any.

    Raises:
        ConfigError: they are no numbers, or those of a block's keys differ.
    """
    literal = _unwrapped(node, alpha)
    if isinstance(literal, float):
        return Everywhere(literal), None
    numbers = {key: value for key, value in literal.table.values.items() if type(value) is float}
    if len(numbers) < len(literal.table.values) or not numbers:
        raise refused(node, f"{words(literal.table)} holds more than numbers")
    if literal.config in ("", _SINGLETON) and set(numbers) == {"key"}:
        return Everywhere(numbers["key"]), None
    for name, blocks in _BLOCKS.items():
        if literal.config == blocks.config:
            return _blocks(node, numbers, blocks.order), name
    for name, config in CONFIGS.items():
        if literal.config == config.keys:
            return _keys(node, numbers, name), name
    raise refused(node, f"its weights are for {literal.config or 'no configuration'}")


def _unwrapped(node: Merge, alpha: Argument) -> float | Literal:
    blocks = {blocks.converter: blocks.config for blocks in _BLOCKS.values()}
    if isinstance(alpha, Merge):
        if alpha.method not in (_TO_ALL, *blocks) or len(alpha.positional) != 1 or alpha.named:
            raise refused(alpha, f"the weight of {words(node)} must be numbers")
        held = alpha.positional[0]
        if isinstance(held, Table):
            return Literal(held.at, held, blocks.get(alpha.method, _SINGLETON))
        alpha = held
    if isinstance(alpha, Table):
        return Literal(alpha.at, alpha)
    if isinstance(alpha, Literal) or type(alpha) is float:
        return alpha
    raise refused(node, "its weight must be numbers")


def _blocks(node: Merge, numbers: Mapping[str, float], order: str) -> Listed:
    blocks = weights.blocks_of(order)
    other = sorted(set(numbers) ^ set(blocks))
    if other:
        raise refused(node, f"its weights must name every block once; {other[0]} is not so")
    return Listed(tuple(numbers[block] for block in blocks), order)


def _keys(node: Merge, numbers: Mapping[str, float], name: str) -> Named:
    """Weights of blocks from weights of keys; a block whose keys have none keeps A."""
    architecture = architectures.get(name)
    found: dict[str, float] = {}
    for key in architecture.reference_keys:
        block = architecture.block_of(key)
        if block is not None:
            weight = numbers.get(key, 0.0)
            if found.setdefault(block, weight) != weight:
                raise refused(node, f"the keys of {block} have different weights, first {key}")
    return Named(found)
