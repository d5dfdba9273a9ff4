"""Recipes as text that sd-mecha 1.1 reads and merges alike.

Weights go out by block where sd-mecha's blocks can say them, and else by key. EMA copies, which are
A's here, sd-mecha merges like the text encoder if all files have them.
"""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.mecha_configs import CONFIGS, Config
from lib_automerge.domain.dialects.mecha_text import Writer
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

WRITTEN = ("weighted_sum", "slerp", "add_difference")


def write(recipe: Recipe, architecture: Architecture) -> str:
    """Write a recipe; the text has no line break at its end, which sd-mecha could not read.

    Raises:
        ConfigError: sd-mecha has no such architecture or method, or cannot read a path.
    """
    config = CONFIGS.get(architecture.name)
    if config is None:
        raise ConfigError(
            f"sd-mecha knows no {architecture.label} that recipes here could be written for; it "
            f"knows {', '.join(CONFIGS)}. Use json or yaml."
        )
    if recipe.method not in WRITTEN or recipe.parameters:
        raise ConfigError(
            f"sd-mecha has nothing that merges like {recipe.method}. What can be written: "
            f"{', '.join(WRITTEN)}. Use json or yaml."
        )
    writer = Writer()
    models = {
        role: writer.model(ref.path or f"{ref.name}.safetensors", config.keys, ref.sha256, ref.name)
        for role, ref in sorted(recipe.models.items())
    }
    alpha, everywhere = _alpha(writer, recipe.weights, architecture, config)
    if recipe.method == "add_difference":
        delta = writer.merge("subtract", models["b"], models["c"])
        merged = writer.merge("add_difference", models["a"], delta, f"alpha={alpha}")
    else:
        merged = writer.merge(recipe.method, models["a"], models["b"], f"alpha={alpha}")
    if not everywhere:
        writer.merge("fallback", merged, models["a"])
    return writer.text()


def _alpha(
    writer: Writer, given: Mapping[str, float], architecture: Architecture, config: Config
) -> tuple[str, bool]:
    """The argument that holds the weights, and whether it has one for every key."""
    same = tables.everywhere(given, architecture)
    if same is not None:
        return repr(float(same)), True
    whole = {block: given.get(block, 0.0) for block in architecture.blocks}
    if not weights.lost(whole, config.order):
        blocks = weights.blocks_of(config.order)
        values = dict(zip(blocks, weights.to_list(whole, config.order), strict=True))
        return writer.merge(config.converter, writer.table(values)), True
    by_key = {
        key: whole[block]
        for key in architecture.reference_keys
        if (block := architecture.block_of(key)) is not None and whole[block]
    }
    literal = f'literal {writer.table(by_key)} model_config="{config.keys}" merge_space="param"'
    return writer.add(literal), False
