"""The dialects by name: which one a text is in, and writing a recipe in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import msgspec

from lib_automerge.domain import architectures, score_log, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import (
    autombw,
    lists,
    mecha_read,
    mecha_text,
    mecha_write,
    metadata,
    supermerger,
    supermerger_history,
    supermerger_text,
    webui,
)
from lib_automerge.domain.dialects.sketch import Named, Sketch
from lib_automerge.domain.recipe import Recipe, recipe_json
from lib_automerge.errors import ConfigError, unknown_name

RECIPES: Mapping[str, str] = {
    "json": "a recipe.json of Automerge",
    "supermerger-metadata": "the metadata that SuperMerger puts in a checkpoint",
    "supermerger-text": "the model string of SuperMerger's infotexts",
    "webui-metadata": "the metadata of the WebUI's own merger: one weight for all blocks",
    "autombw": "a recipe file of AutoMBW",
    "sd-mecha": "a .mecha recipe of sd-mecha 1.1",
}
"""Formats of whole recipes."""

_SUPERMERGER = ("supermerger-metadata", "supermerger-text")
PRESET = "preset"
TABLES: Mapping[str, str] = {
    "csv": "a table of scores that names the blocks",
    "autombw-csv": "a CSV log of AutoMBW",
}


class Reading(msgspec.Struct, frozen=True):
    """What a text holds: recipes (several if it is a file of presets), and the rows of a table."""

    found: tuple[Sketch | Recipe, ...]
    rows: tuple[score_log.ScoredWeights, ...] = ()

    @property
    def dialect(self) -> str:
        """What was read, in words."""
        first = self.found[0]
        return first.dialect if isinstance(first, Sketch) else "a recipe of Automerge"


def formats() -> dict[str, str]:
    """Every format that can be written, with what it is."""
    return {**RECIPES, **TABLES, PRESET: "a preset of SuperMerger", **weights.orders()}


def check_format(name: str) -> None:
    """Raise ConfigError for the name of a format that cannot be written."""
    if name not in formats():
        raise ConfigError(unknown_name("format", name, formats()))


def read(
    text: str,
    order: str | None = None,
    architecture: str | None = None,
    number: int | None = None,
) -> Reading:
    """Read a text in any dialect, told apart by what it looks like.

    Args:
        text: JSON, a `.mecha` recipe, a table, a history, a recipe file, presets, a model string or
            a list.
        order: of its list, a name of `weights.orders`; None takes it from the dialect.
        architecture: a name, if it is known.
        number: of a merge in a history of several.

    Raises:
        ConfigError: it is in no dialect, is damaged, or can mean several things; names them. Or it
            is no history, and a number is given.
    """
    if order is not None and order not in weights.orders():
        raise ConfigError(unknown_name("order of weights", order, weights.orders()))
    text = text.lstrip("\ufeff")
    known = None if architecture is None else architectures.get(architecture)
    if not text.strip():
        raise ConfigError("the text is empty. Give a recipe, metadata or weights.")
    if supermerger_history.is_history(text):
        return Reading((supermerger_history.read(text, order, number),))
    if number is not None:
        raise ConfigError(
            f"--number {number} chooses a merge of a mergehistory.csv, and this is none. Leave it "
            "out."
        )
    if mecha_text.is_recipe(text):
        return Reading((mecha_read.read(text),))
    if text.lstrip().startswith("{"):
        return _object(text, order, known)
    if autombw.is_recipe(text):
        return Reading((autombw.read(text, order),))
    if score_log.is_log(text):
        sketch, log = autombw.read_log(text, known or _holding(text))
        return Reading((sketch,), log.rows)
    if supermerger_text.is_string(text):
        return Reading((supermerger_text.read_string(text, order),))
    return Reading(lists.read(text, order, known))


def read_metadata(fields: Mapping[str, object], order: str | None = None) -> Reading:
    """Read the metadata of a checkpoint; see `metadata.read`."""
    return Reading((metadata.read(fields, order),))


def write(recipe: Recipe, target: str) -> str:
    """Write a recipe in a format of `RECIPES`.

    Raises:
        ConfigError: the format cannot hold this recipe.
    """
    architecture = architectures.get(recipe.architecture)
    writers: Mapping[str, Callable[[], str]] = {
        "json": lambda: recipe_json(recipe),
        "supermerger-metadata": lambda: _fields(supermerger.write_metadata(recipe, architecture)),
        "supermerger-text": lambda: supermerger_text.write_string(recipe, architecture) + "\n",
        "webui-metadata": lambda: _fields(webui.write(recipe, architecture)),
        "autombw": lambda: autombw.write(recipe),
        "sd-mecha": lambda: mecha_write.write(recipe, architecture),
    }
    return writers[target]()


def write_weights(
    given: Mapping[str, float], target: str, architecture: Architecture | None, name: str = ""
) -> str:
    """Write weights as a list in an order, as pairs (`named`) or as a preset.

    Raises:
        ConfigError: the format cannot hold them.
    """
    if target == PRESET:
        return lists.preset(name, given, architecture)
    return weights.format(given, target)


def write_rows(rows: tuple[score_log.ScoredWeights, ...], target: str) -> str:
    """Write a table in a format of `TABLES`.

    Raises:
        ConfigError: there are no rows.
    """
    return autombw.write_scores(rows) if target == "csv" else autombw.write_log(rows)


def lost(
    given: Mapping[str, float], target: str, architecture: Architecture | None
) -> dict[str, float]:
    """Return those of the weights that who reads the format would set to something else.

    Args:
        given: by block; with an architecture, a block that is not named has weight 0.
        target: a format.
        architecture: of the recipe, if it is known.

    Raises:
        ConfigError: the format has no list for the architecture.
    """
    order = _order_of(target, given, architecture)
    if order is None:
        return {}
    blocks = () if architecture is None else architecture.blocks
    return weights.lost({**dict.fromkeys(blocks, 0.0), **given}, order)


def lost_of(recipe: Recipe, target: str) -> dict[str, float]:
    """Return those of a recipe's weights that who reads the format would set to something else.

    Raises:
        ConfigError: the format has no list for the architecture.
    """
    architecture = architectures.get(recipe.architecture)
    found = lost(recipe.weights, target, architecture)
    if target in _SUPERMERGER:
        second = supermerger.beta(recipe, architecture)
        found |= {f"{b} (beta)": w for b, w in lost(second, target, architecture).items()}
    return found


def _order_of(
    target: str, given: Mapping[str, float], architecture: Architecture | None
) -> str | None:
    """The order in which a format lists weights; None if it names their blocks."""
    if target == PRESET:
        kind = "sd1" if architecture is None else architecture.name
        return lists.PRESET_ORDERS.get(kind)
    if target in _SUPERMERGER and architecture is not None:
        same = supermerger.everywhere(given, architecture) is not None
        return None if same else supermerger.order_for(architecture)
    return {"autombw": autombw.ORDER, "autombw-csv": score_log.ORDER}.get(
        target, None if target == weights.NAMED or target not in weights.orders() else target
    )


def _object(text: str, order: str | None, known: Architecture | None) -> Reading:
    """Read a JSON object: a recipe, metadata, the inside of metadata, or named weights."""
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"the text is not valid JSON: {error}. Correct it.") from error
    inside = content.get("__metadata__")
    fields = inside if isinstance(inside, dict) else content
    if metadata.holds_recipe(fields):
        return read_metadata(fields, order)
    if isinstance(fields.get("type"), str):
        if fields["type"] == "auto-mbw-rt":
            return Reading((autombw.read_metadata(fields, order),))
        return Reading((metadata.merged(fields, {}, order),))
    if "kind" in fields or ("method" in fields and "models" in fields):
        return Reading((metadata.ours(fields),))
    given = weights.parse(text, None, known)
    return Reading(
        (Sketch(dialect="a list of weights named by their blocks", spread=Named(given)),)
    )


def _holding(text: str) -> Architecture:
    """The first architecture that has all blocks which a table names."""
    blocks = set(score_log.blocks(text))
    fitting = [architectures.get(name) for name in weights.architectures_of(score_log.ORDER)]
    return next((a for a in fitting if blocks <= set(a.blocks)), fitting[0])


def _fields(fields: Mapping[str, str]) -> str:
    return json.dumps(fields, indent=2) + "\n"
