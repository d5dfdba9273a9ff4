"""SuperMerger's choices below the block: elemental merges, and included or excluded elements.

It decides key by key. Every key of the architecture is decided here as it does, and the result is
read if all keys of each block come out with one weight.

    BLOCKS:ELEMENTS:RATIO       names with spaces between them; NOT before them turns them round
    OUT03-OUT06:attn2:0.5       the last rule that holds for a key counts

What has neither "weight" nor "bias" in its name, which for SDXL are two tensors of CLIP-G, it
leaves as A's; here they belong to their block. The VAE of Flux.1 it never merges.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.sketch import Listed, Spread
from lib_automerge.errors import ConfigError

PARTS = "supermerger-xl-parts"
"""The order of lists with a number for each transformer block of SDXL."""

_ORDERS = {
    "sd1": "supermerger",
    "sd2": "supermerger",
    "sdxl": "supermerger-xl-vae",
    "flux1": "supermerger-flux",
}
"""Architecture -> the order whose positions are SuperMerger's blocks."""

_PARTS_ELSEWHERE = {
    "BASE_L": "CLIPL",
    "BASE_G": "CLIPG",
    "OUT": "OUT9",
    "TIME_EMBED": "TIME",
    "LABEL_EMB": "LABEL",
    "VAE": "VAE",
    "UNUSED_IN": "IN0",
    "UNUSED_VAE": "VAE",
}
"""What SuperMerger calls the parts of SDXL that are none of a numbered block."""

_ENDS = ("input_blocks.0.0.", "out.0.", "out.2.")
"""The layers that it calls "Adjust" where blocks are excluded."""


_RANDOM = ("R", "U", "X")
"""Ratios that SuperMerger draws."""


class UnsaidError(ConfigError):
    """Weights below the block, which a recipe here cannot say."""


class Rule(msgspec.Struct, frozen=True):
    """One rule of an elemental merge, with its names as they are between the spaces.

    `weight` is None if SuperMerger drew it at random.
    """

    blocks: tuple[str, ...]
    elements: tuple[str, ...]
    weight: float | None


class Choice(msgspec.Struct, frozen=True):
    """Blocks and parts of keys' names that alone are merged, or that are not."""

    include: bool
    names: tuple[str, ...]


class PerKey(msgspec.Struct, frozen=True):
    """Weights that SuperMerger changes for some keys.

    Attributes:
        base: what is changed.
        rules: of an elemental merge.
        choice: what is merged; None merges all.
    """

    base: Spread
    rules: tuple[Rule, ...] = ()
    choice: Choice | None = None

    def by_block(self, architecture: Architecture | None) -> dict[str, float]:
        """The weights by block.

        Raises:
            UnsaidError: keys of a block come out with different weights, or it is not certain
                which ones a rule is for.
            ConfigError: the architecture is not known or has no blocks in SuperMerger.
        """
        given = self.base.by_block(architecture)
        if architecture is not None and architecture.name == "flux1":
            given = {**given, "VAE": 0.0}
        if not self.rules and self.choice is None:
            return given
        if architecture is None or architecture.name not in _ORDERS:
            known = "unknown" if architecture is None else architecture.name
            raise ConfigError(
                f"SuperMerger's elements and exclusions depend on the kind of model, which is "
                f"{known}. Add --architecture, one of: {', '.join(_ORDERS)}."
            )
        order = _ORDERS[architecture.name]
        parts = isinstance(self.base, Listed) and self.base.order == PARTS
        self._check_rules(architecture.name, parts)
        known_blocks = _names_of_parts() if parts else weights.blocks_of(order)
        rules = [_spelled(rule, known_blocks) for rule in self.rules]
        found: dict[str, float] = {}
        first: dict[str, str] = {}
        for key in architecture.reference_keys:
            block = architecture.block_of(key)
            if block is None or not ("weight" in key or "bias" in key):
                continue
            named = weights.position(block, order, architecture)
            part = _part(block, key) if architecture.name == "sdxl" else named
            weight = given.get(block, 0.0)
            for rule in rules:
                if rule.weight is not None and _holds(rule, part if parts else named, key):
                    weight = rule.weight
            if self.choice is not None and _skipped(self.choice, (named, part), key):
                weight = 0.0
            if found.setdefault(block, weight) != weight:
                raise UnsaidError(
                    f"SuperMerger gave keys of the block {block} different weights: "
                    f"{first[block]} has {found[block]:g}, {key} {weight:g}. A recipe here has "
                    "one for each block"
                )
            first.setdefault(block, key)
        return found

    def _check_rules(self, architecture: str, parts: bool) -> None:
        """Raise UnsaidError if it cannot be known which keys SuperMerger took the rules for."""
        if any(rule.weight is None for rule in self.rules):
            raise UnsaidError("the elemental merge has weights that SuperMerger drew at random")
        if self.rules and architecture == "flux1":
            raise UnsaidError("SuperMerger's elemental merge does not work with Flux.1")
        named = any(name for rule in self.rules for name in rule.blocks)
        if named and architecture == "sdxl" and not parts:
            raise UnsaidError(
                "the blocks of an elemental merge of SDXL are SD1's or those of SuperMerger's "
                "list of 110, and its files do not say which"
            )


def rules_of(told: object, calculation: str) -> tuple[Rule, ...]:
    """Read an elemental merge, as a text or as the list that metadata hold.

    Args:
        told: nothing, a text or a list of texts.
        calculation: the mode of calculation, whose name SuperMerger takes out of the text.

    Raises:
        ConfigError: a ratio is no number.
    """
    if isinstance(told, str):
        told = told.replace("\n", ",").replace(f"{calculation},", "").split(",")
    if told is None or not isinstance(told, Sequence):
        return ()
    # what has not two colons SuperMerger passes over
    split = [part.split(":") for part in told if isinstance(part, str) and part.count(":") == 2]
    return tuple(
        Rule(tuple(blocks.split(" ")), tuple(elements.split(" ")), _ratio(ratio))
        for blocks, elements, ratio in split
    )


def choice_of(mode: str, names: object) -> Choice | None:
    """Read what is included or excluded; None if all is merged.

    Args:
        mode: "Include", "Exclude" or another word for neither.
        names: of blocks and elements.
    """
    if mode not in ("Include", "Exclude") or not isinstance(names, Sequence):
        return None
    given = [name for name in names if isinstance(name, str) and name]
    chosen = tuple(name for name in given if name != "print")  # which asks it to tell what it does
    return Choice(mode == "Include", chosen) if given else None


def _ratio(text: str) -> float | None:
    if text.strip() in _RANDOM:
        return None
    return tables.number(text)


def _spelled(rule: Rule, blocks: Sequence[str]) -> Rule:
    """The rule with its ranges of blocks written out."""
    spelled: list[str] = []
    for name in rule.blocks:
        ends = [end.strip() for end in name.split("-")]
        if len(ends) == 1:
            spelled.append(name)
            continue
        unknown = [end for end in ends[:2] if end not in blocks]
        if unknown:
            raise ConfigError(
                f"the elemental merge names {name!r}, and {unknown[0]!r} is no block of "
                "SuperMerger's. Correct it."
            )
        start, stop = sorted(blocks.index(end) for end in ends[:2])
        spelled += blocks[start : stop + 1]
    return Rule(tuple(spelled), rule.elements, rule.weight)


def _holds(rule: Rule, block: str, key: str) -> bool:
    blocks, other_blocks = _turned(rule.blocks)
    elements, other_elements = _turned(rule.elements)
    everywhere = blocks == ("",)
    if not everywhere and (block in blocks) == other_blocks:
        return False
    return any(element in key for element in elements) != other_elements


def _turned(names: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The names, and whether all others are meant."""
    return (names[1:], True) if names[0] == "NOT" else (names, False)


def _skipped(choice: Choice, blocks: tuple[str, ...], key: str) -> bool:
    named = any(
        name in blocks
        or name in key
        or (name == "Adjust" and any(f"diffusion_model.{end}" in key for end in _ENDS))
        or (name == "VAE" and "first_stage_model" in key)
        for name in choice.names
    )
    return named != choice.include


def _names_of_parts() -> list[str]:
    return [_named_part(position) for position in weights.blocks_of(PARTS)]


def _part(block: str, key: str) -> str:
    """What SuperMerger calls the part of SDXL that a key is in: `IN41` is input_blocks.4.1."""
    if block in _PARTS_ELSEWHERE:
        return _PARTS_ELSEWHERE[block]
    steps = key.split("_block.", 1)[-1] if block == "M00" else key.split("_blocks.", 1)[-1]
    numbers = steps.split(".")
    inner = numbers[0] if block == "M00" else numbers[1]
    _, transformer, rest = steps.partition("transformer_blocks.")
    depth = [rest.partition(".")[0]] if transformer else []
    return _named_part(".".join([block, inner, *depth]))


def _named_part(position: str) -> str:
    if position in _PARTS_ELSEWHERE:
        return _PARTS_ELSEWHERE[position]
    block, inner, *depth = position.split(".")
    if block == "M00":
        return f"MID{inner}0{''.join(depth)}"
    return f"{block[:-2]}{int(block[-2:])}{inner}{''.join(depth)}"
