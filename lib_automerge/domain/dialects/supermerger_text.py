"""SuperMerger's model strings, as they are in infotexts: models by name, and what was merged.

A x (1-alpha) + B x alpha (BASE,IN00,...)       A x 0.7 + B x 0.3
A + (B - C) x alpha (BASE,IN00,...)             A + (B -  C) x 0.5
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from lib_automerge.domain import weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import supermerger, tables
from lib_automerge.domain.dialects.sketch import Everywhere, Sketch, Spread, hint
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_LIST = r"\((?P<weights>[-\d.e,\s]+)\)?"
_STRINGS = (
    ("weighted_sum", rf"(?P<a>.+?) x \(1-alpha\) \+ (?P<b>.+) x alpha {_LIST}"),
    ("add_difference", rf"(?P<a>.+?) \+ \((?P<b>.+?) -\s+(?P<c>.+)\) x alpha {_LIST}"),
    ("add_difference", rf"(?P<a>.+?) \+ \((?P<b>.+?) -\s+(?P<c>.+)\) x (?P<alpha>{_NUMBER})"),
    ("weighted_sum", rf"(?P<a>.+?) x (?P<rest>{_NUMBER}) \+ (?P<b>.+) x (?P<alpha>{_NUMBER})"),
)
_OTHER_MODES = re.compile(r"x \(1-alpha-beta\)|x ?\(1-beta\)|\) x -?[\d.]+ \+ .+ x |( x .+){3}")
_CALCULATION = re.compile(
    r"_(cosineA|cosineB|trainDifference|smoothAdd MT|smoothAdd|extract|tensor2?|self)"
    r"(_beta_[\d.]+)?"
)
_INFOTEXT = re.compile(r"(?:^|[,\n]\s*)Model: (?P<model>[^,\n]*)")


def is_string(text: str) -> bool:
    """Tell whether a text is, or an infotext holds, the name of a merge."""
    merged = _model_string(text)
    return any(re.fullmatch(pattern, merged) for _, pattern in _STRINGS) or bool(
        _OTHER_MODES.search(merged) or (_CALCULATION.search(merged) and " x " in merged)
    )


def read_string(text: str, order: str | None = None) -> Sketch:
    """Read the model string of an infotext, or a whole infotext with one.

    Args:
        text: the string or the infotext.
        order: of SDXL's list, where it must be told.

    Raises:
        ConfigError: another mode or calculation, a list of an unknown length, or the order of
            SDXL's list must be told.
    """
    merged = _model_string(text)
    calculation = re.search(_CALCULATION.pattern + r"$", merged)
    if calculation:
        raise supermerger.other(f"the calculation {calculation[1]}")
    for method, pattern in _STRINGS:
        found = re.fullmatch(pattern, merged)
        if found and not _OTHER_MODES.search(merged):
            return _string_sketch(method, found.groupdict(), order)
    raise supermerger.other(f"this kind of merge: {merged[:80]!r}")


def names(text: str) -> dict[str, str]:
    """Role -> name of the models of a model string; empty if it is of a kind with other places."""
    for _, pattern in _STRINGS:
        found = re.fullmatch(pattern, text.strip())
        if found and not _OTHER_MODES.search(text):
            return {
                role: name for role, name in found.groupdict().items() if role in "abc" and name
            }
    return {}


def write_string(recipe: Recipe, architecture: Architecture) -> str:
    """Write the model string of a recipe, which names models without their content.

    Raises:
        ConfigError: SuperMerger has no such method or list.
    """
    if supermerger.mode_of(recipe)[1] != supermerger.NORMAL or supermerger.takes_beta(
        recipe.method
    ):
        raise ConfigError(
            f"model strings are written for weighted_sum and add_difference, not for "
            f"{recipe.method}. Use supermerger-metadata."
        )
    names = {role: ref.name for role, ref in recipe.models.items()}
    same = supermerger.everywhere(recipe.weights, architecture)
    add = recipe.method == "add_difference"
    if same is not None:
        alpha = round(same, 3)
        if add:
            return f"{names['a']} + ({names['b']} -  {names['c']}) x {alpha}"
        return f"{names['a']} x {round(1 - alpha, 3)} + {names['b']} x {alpha}"
    order = supermerger.order_for(architecture)
    numbers = weights.format(recipe.weights, order) + supermerger.vae_of(order)
    if add:
        return f"{names['a']} + ({names['b']} - {names['c']}) x alpha ({numbers})"
    return f"{names['a']} x (1-alpha) + {names['b']} x alpha ({numbers})"


def _model_string(text: str) -> str:
    """The model string of an infotext; in it, SuperMerger writes spaces for commas."""
    stripped = text.strip()
    if stripped.startswith("Model: ") or "Steps: " in stripped:
        found = _INFOTEXT.search(stripped)
        stripped = found["model"].strip() if found else stripped
    return re.sub(r"\s+ID \d+$", "", stripped)


def _string_sketch(method: str, found: Mapping[str, str | None], order: str | None) -> Sketch:
    numbers = found.get("weights")
    if numbers is None:
        alpha = float(found["alpha"] or 0.0)
        rest = found.get("rest")
        if rest is not None and abs(float(rest) - (1 - alpha)) > 0.0015:
            raise supermerger.other(f"shares that do not add up to 1: {rest} and {alpha:g}")
        spread: Spread = Everywhere(alpha)
    else:
        values = [tables.number(weight) for weight in re.split(r"[,\s]+", numbers.strip(" ,"))]
        spread = supermerger.list_of(values, order)
    sketch = supermerger.sketch_of(
        "SuperMerger's model string",
        method,
        {role: hint(found[role] or "") for role in "abc" if found.get(role)},
        (spread, None),
    )
    note = "its first weight is rounded to three digits"
    return msgspec.structs.replace(sketch, notes=(note,))
