"""AutoMBW and runtime-block-merge: recipe files, the metadata of one fork, and CSV logs.

modelA=A.safetensors
modelB=B.safetensors
modelO=name of the result                 (not in the oldest)
position_id_fix=Keep Original
output_mode=Max Precision
27 numbers, in the order `recipe`
"""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import score_log, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import tables
from lib_automerge.domain.dialects.sketch import Listed, Named, Sketch, hint
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

METADATA = "sd_mbwrt_receipe"
"""The field of the checkpoint's header, as it is spelled there."""

ORDER = "recipe"
OUTPUT = "output"
"""Where a recipe's provenance keeps the name of the result."""

_KEPT = "Keep Original"
_SEQUENCES = {"sl_OUT, sl_TIME_EMBED": ORDER, "sl_TIME_EMBED, sl_OUT": "slider"}
"""How the text ends with which the metadata describe their order -> order."""


def is_recipe(text: str) -> bool:
    """Tell whether a text is a recipe file."""
    return any(line.strip().startswith("modelA=") for line in text.splitlines())


def read(text: str, order: str | None = None) -> Sketch:
    """Read a recipe file.

    Args:
        text: of the file.
        order: of its list, if it is another than `recipe`.

    Raises:
        ConfigError: it lacks a model or the list.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    numbers = ",".join(line for line in lines if "=" not in line)
    return _sketch(fields, numbers, order or ORDER, "a recipe file of AutoMBW")


def read_metadata(fields: Mapping[str, object], order: str | None = None) -> Sketch:
    """Read what 6DammK9's runtime-block-merge puts in the header of a checkpoint.

    Raises:
        ConfigError: it lacks a model or the list, or the list has an unknown order.
    """
    sequence = tables.text(fields, "mbwrt_weights_seq", "sl_OUT, sl_TIME_EMBED").strip("[] ")
    told = [name for end, name in _SEQUENCES.items() if sequence.endswith(end)]
    if order is None and not told:
        raise ConfigError(
            f"AutoMBW's metadata describe an unknown order of weights: {sequence!r}. Name one with "
            f"--from: {', '.join(_SEQUENCES.values())}."
        )
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    numbers = tables.text(fields, "mbwrt_weights")
    return _sketch(texts, numbers, order or told[0], "AutoMBW's metadata")


def write(recipe: Recipe) -> str:
    """Write a recipe file.

    Raises:
        ConfigError: AutoMBW knows weighted sums of two models alone.
    """
    if recipe.method != "weighted_sum" or set(recipe.models) != {"a", "b"} or recipe.parameters:
        raise ConfigError(
            f"AutoMBW's recipes are weighted sums of two models; this one is {recipe.method}. Use "
            "json, yaml or sd-mecha."
        )
    output = recipe.provenance.get(OUTPUT)
    return "\n".join(
        [
            f"modelA={recipe.models['a'].name}.safetensors",
            f"modelB={recipe.models['b'].name}.safetensors",
            *([f"modelO={output}"] if isinstance(output, str) else []),
            f"position_id_fix={_KEPT}",
            "output_mode=Max Precision",
            ",".join(map(repr, weights.to_list(recipe.weights, ORDER))),
            "",
        ]
    )


def write_log(rows: tuple[score_log.ScoredWeights, ...]) -> str:
    """Write a CSV log as AutoMBW does; its columns of times, which tell nothing, are 0.

    Raises:
        ConfigError: there are no rows with a score.
    """
    if not rows:
        raise ConfigError("there are no scores in it. Convert a CSV log, or a run's scores.")
    header = [*map(str, range(score_log.POSITIONS)), "score", "eval_times", "iter_times"]
    lines = [
        [*map(repr, weights.to_list(row.weights, score_log.ORDER)), repr(row.score), "0.0", "0.0"]
        for row in rows
    ]
    return "\n".join(",".join(cells) for cells in [header, *lines]) + "\n"


def write_scores(rows: tuple[score_log.ScoredWeights, ...]) -> str:
    """Write a table of scores that names its blocks.

    Raises:
        ConfigError: there are no rows with a score.
    """
    if not rows:
        raise ConfigError("there are no scores in it. Convert a CSV log, or a run's scores.")
    blocks = list(dict.fromkeys(block for row in rows for block in row.weights))
    header = ["score", *(score_log.NAMED + block for block in blocks)]
    lines = [
        [repr(row.score), *(repr(row.weights[b]) if b in row.weights else "" for b in blocks)]
        for row in rows
    ]
    return "\n".join(",".join(cells) for cells in [header, *lines]) + "\n"


def read_log(text: str, architecture: Architecture) -> tuple[Sketch, score_log.ScoreLog]:
    """Read a table of scores; the sketch is its best row.

    Raises:
        ConfigError: see `score_log.parse`.
    """
    log = score_log.parse(text, architecture)
    best = max(log.rows, key=lambda row: row.score)
    notes = [f"it has {len(log.rows)} scored recipes; the best has {best.score:g}"]
    if log.unusable:
        notes.append(f"{log.unusable} rows were torn or held no finite score")
    return (
        Sketch(
            dialect="a table of scores",
            spread=Named(best.weights),
            notes=tuple(notes),
        ),
        log,
    )


def _sketch(fields: Mapping[str, str], numbers: str, order: str, dialect: str) -> Sketch:
    for name in ("modelA", "modelB"):
        if not fields.get(name, "").strip():
            raise ConfigError(f"{dialect} names no {name}. Give the whole text.")
    values = weights.numbers(weights.read(numbers))
    weights.from_list(values, order)
    fix = fields.get("position_id_fix", _KEPT)
    output = fields.get("modelO", "")
    return Sketch(
        dialect=f"{dialect}, its weights in the order {order!r}",
        method="weighted_sum",
        models={"a": hint(fields["modelA"]), "b": hint(fields["modelB"])},
        spread=Listed(values, order),
        architectures=weights.architectures_of(order),
        unsaid=() if fix == _KEPT else (f"that position ids were repaired: {fix}",),
        provenance={OUTPUT: output} if output else {},
    )
