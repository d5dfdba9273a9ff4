"""Recipes as text that sd-mecha 1.1 reads and merges alike.

Weights go out by block where sd-mecha's blocks can say them, and else by key. A difference remains
in what is the first model's here, whatever the weights: sd-mecha merges EMA copies and the scale of
CLIP-G's logits, which no image depends on, with the text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.mecha_configs import CONFIGS, Config
from lib_automerge.domain.dialects.mecha_text import Writer
from lib_automerge.domain.recipe import ParameterValue, Recipe
from lib_automerge.errors import ConfigError

_PAIRS = {
    "weighted_sum": "weighted_sum",
    "slerp": "slerp",
    "cosine_a": "add_cosine_a",
    "cosine_b": "add_cosine_b",
}
_TIES = {"ties": ("true", 0.2), "ties_soup": ("false", 1.0)}
"""Method -> `vote_sgn`, and our default of k."""
_MEDIAN = {"eps": ("floor", 1e-6), "maxiter": ("iterations", 100), "ftol": ("tolerance", 1e-20)}
"""Argument -> our parameter and its default."""

PARAMETERS: Mapping[str, frozenset[str]] = {
    **{name: frozenset[str]() for name in _PAIRS},
    "add_difference": frozenset(),
    "amplified_difference": frozenset(),
    "train_difference": frozenset(),
    "sum_twice": frozenset({"beta"}),
    "average": frozenset(),
    "geometric_median": frozenset({"scope", *(ours for ours, _ in _MEDIAN.values())}),
    "ties": frozenset({"k", "scale"}),
    "ties_soup": frozenset({"k", "scale"}),
}
"""The methods that can be written -> the parameters that can."""


def write(recipe: Recipe, architecture: Architecture) -> str:
    """Write a recipe; the text has no line break at its end, which sd-mecha could not read.

    Raises:
        ConfigError: sd-mecha has no such architecture or method, or cannot read a path.
    """
    config = CONFIGS.get(architecture.name)
    if config is None:
        raise ConfigError(
            f"recipes for {architecture.label} cannot be written for sd-mecha, but for "
            f"{', '.join(CONFIGS)}. Use json or yaml."
        )
    if recipe.method not in PARAMETERS:
        raise ConfigError(
            f"sd-mecha has nothing that merges exactly like {recipe.method}. What can be written: "
            f"{', '.join(PARAMETERS)}. Use json or yaml."
        )
    other = sorted(set(recipe.parameters) - PARAMETERS[recipe.method])
    if other or recipe.parameters.get("scope", "tensor") != "tensor":
        raise ConfigError(
            f"sd-mecha's {recipe.method} has nothing like {(other or ['scope model'])[0]}. Use "
            "json or yaml."
        )
    return _Graph(recipe, architecture, config).text()


class _Graph:
    """Writes the nodes of one recipe."""

    def __init__(self, recipe: Recipe, architecture: Architecture, config: Config) -> None:
        self._recipe = recipe
        self._architecture = architecture
        self._config = config
        self._writer = Writer()
        self._everywhere = True
        self._models = {
            role: self._writer.model(
                ref.path or f"{ref.name}.safetensors", config.keys, ref.sha256, ref.name
            )
            for role, ref in sorted(recipe.models.items())
        }

    def text(self) -> str:
        """The recipe's text."""
        method = self._recipe.method
        writers: Mapping[str, Callable[[], str]] = {
            **dict.fromkeys(_PAIRS, self._pair),
            **dict.fromkeys(_TIES, self._ties),
            "add_difference": self._difference,
            "amplified_difference": self._amplified,
            "train_difference": self._trained,
            "sum_twice": self._twice,
            "average": lambda: self._writer.merge("n_average", *self._models.values()),
            "geometric_median": self._median,
        }
        merged = writers[method]()
        if not self._everywhere:
            self._writer.merge("fallback", merged, next(iter(self._models.values())))
        return self._writer.text()

    def _pair(self) -> str:
        name = _PAIRS[self._recipe.method]
        return self._writer.merge(name, *self._roles("ab"), self._weights())

    def _difference(self) -> str:
        a, b, c = self._roles("abc")
        delta = self._writer.merge("subtract", b, c)
        return self._writer.merge("add_difference", a, delta, self._weights())

    def _amplified(self) -> str:
        a, b = self._roles("ab")
        delta = self._writer.merge("subtract", b, a)
        return self._writer.merge("add_difference", a, delta, self._weights())

    def _trained(self) -> str:
        a, b, c = self._roles("abc")
        mask = self._writer.merge("train_difference_mask", a, b, c, self._weights())
        delta = self._writer.merge("subtract", b, c)
        return self._writer.merge("add_difference", a, delta, f"alpha={mask}")

    def _twice(self) -> str:
        a, b, c = self._roles("abc")
        first = self._writer.merge("weighted_sum", a, b, self._weights())
        return self._writer.merge("weighted_sum", first, c, self._parameter("beta", 0.5, 0.0))

    def _ties(self) -> str:
        vote, default = _TIES[self._recipe.method]
        k = self._recipe.parameters.get("k", default)
        if isinstance(k, Mapping):
            raise ConfigError(
                "sd-mecha's ties_sum has one k for all blocks; the recipe has one for each. Use "
                "json or yaml."
            )
        base, *others = self._models.values()
        changes = [self._writer.merge("subtract", other, base) for other in others]
        delta = self._writer.merge(
            "ties_sum", *changes, f"k={tables.number(k)!r}", f"vote_sgn={vote}"
        )
        return self._writer.merge("add_difference", base, delta, self._parameter("scale", 1.0, 1.0))

    def _median(self) -> str:
        given = self._recipe.parameters
        arguments = [
            f"{theirs}={type(default)(tables.number(given.get(ours, default)))!r}"
            for theirs, (ours, default) in _MEDIAN.items()
        ]
        return self._writer.merge("geometric_median", *self._models.values(), *arguments)

    def _roles(self, roles: str) -> list[str]:
        missing = [role for role in roles if role not in self._models]
        if missing or len(roles) < len(self._models):
            raise ConfigError(
                f"{self._recipe.method} takes the models {', '.join(roles)}; the recipe has "
                f"{', '.join(self._models)}. Correct the recipe."
            )
        return [self._models[role] for role in roles]

    def _weights(self) -> str:
        return f"alpha={self._spread(self._recipe.weights, 0.0)}"

    def _parameter(self, name: str, default: float, unnamed: float) -> str:
        return f"alpha={self._spread(self._recipe.parameters.get(name, default), unnamed)}"

    def _spread(self, value: ParameterValue, unnamed: float) -> str:
        """The reference to a weight for every key."""
        whole = tables.by_block(value, self._architecture, unnamed)
        same = tables.everywhere(whole, self._architecture)
        if same is not None:
            return repr(same)
        blocks = self._config.blocks
        if blocks is not None and not weights.lost(whole, blocks.order):
            values = weights.to_list(whole, blocks.order)
            listed = dict(zip(weights.blocks_of(blocks.order), values, strict=True))
            return self._writer.merge(blocks.converter, self._writer.table(listed))
        self._everywhere = False
        by_key = {
            key: whole[block]
            for key in self._architecture.reference_keys
            if (block := self._architecture.block_of(key)) is not None
        }
        keys = self._config.keys
        table = self._writer.table(by_key)
        return self._writer.add(f'literal {table} model_config="{keys}" merge_space="param"')
