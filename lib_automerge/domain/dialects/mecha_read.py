"""sd-mecha's recipes as sketches, as far as one method of ours does what the graph does.

sd-mecha composes small steps, here a method is a whole: the graphs that sd-mecha's own functions
build for these methods are read, any other is refused with the node that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from lib_automerge.domain.dialects.mecha_configs import CONFIGS, architecture_of, spread_of
from lib_automerge.domain.dialects.mecha_text import (
    Argument,
    Literal,
    Merge,
    Model,
    Node,
    Table,
    parse,
    refused,
    words,
)
from lib_automerge.domain.dialects.sketch import Hint, Sketch, Spread, hint
from lib_automerge.errors import ConfigError

_ROLES = "abc"
_PAIRS = {
    "weighted_sum": ("weighted_sum", 0.5),
    "slerp": ("slerp", 0.5),
    "add_cosine_a": ("cosine_a", 1.0),
    "add_cosine_b": ("cosine_b", 1.0),
}
"""sd-mecha's methods of two models -> ours, and the weight that is theirs when none is given."""

_OTHERWISE = {
    "model_stock": "sd-mecha looks at rows and neighbouring models, not at tensors and all pairs",
    "ties_sum_extended": "it is Model Stock by rows, or a median; write ties_sum",
    "ties_sum_with_dropout": "it draws other random masks",
    "dropout": "it draws other random masks",
}
"""Why methods that have the name of one of ours are none of them."""

_TRIM_NOTE = (
    "with k below 1, sd-mecha keeps about one change more in each tensor than TIES, which is "
    "what is merged here"
)


def read(text: str) -> Sketch:
    """Read the text of a `.mecha` file, or of the field `mecha_recipe` of a checkpoint.

    Raises:
        ConfigError: it is damaged, of another version, or does what no method of ours does; names
            the node.
    """
    root = parse(text)
    merged = _without_fallback(root)
    if not isinstance(merged, Merge):
        raise ConfigError(
            f"the recipe ends with {words(merged)}, which merges nothing. Give the whole recipe."
        )
    readers: Mapping[str, Callable[[Merge], Sketch]] = {
        **dict.fromkeys(_PAIRS, _pair),
        "add_difference": _difference,
        "n_average": _average,
        "geometric_median": _median,
    }
    if merged.method not in readers:
        raise refused(merged, f"the last step can be {', '.join(readers)}")
    sketch = readers[merged.method](merged)
    if isinstance(root, Merge) and root is not merged:
        _check_fallback(root, sketch)
    return sketch


def _without_fallback(root: Node) -> Node:
    if isinstance(root, Merge) and root.method == "fallback" and root.positional:
        first = root.positional[0]
        return first if isinstance(first, Merge) else root
    return root


def _check_fallback(root: Merge, sketch: Sketch) -> None:
    """Keys that are not merged come from the first model here, always; so must they there."""
    default = _arguments(root, ("a", "default"))["default"]
    first = next(role for role in ("a", "base", "m001") if role in sketch.models)
    if _hint(_model(root, default)) != sketch.models[first]:
        raise refused(root, "what is not merged can only come from the first model")


def _pair(node: Merge) -> Sketch:
    """Methods of `(a, b, alpha)`; a weighted sum of a weighted sum is a sum twice."""
    method, default = _PAIRS[node.method]
    given = _arguments(node, ("a", "b"), {"alpha": default})
    inner = given["a"]
    if node.method == "weighted_sum" and isinstance(inner, Merge) and inner.method == node.method:
        first = _arguments(inner, ("a", "b"), {"alpha": default})
        models = {"a": first["a"], "b": first["b"], "c": given["b"]}
        return _sketch(node, "sum_twice", models, first["alpha"], {"beta": given["alpha"]})
    return _sketch(node, method, {"a": inner, "b": given["b"]}, given["alpha"])


def _difference(node: Merge) -> Sketch:
    """`add_difference(a, delta, alpha)`, where the delta says which method it is."""
    given = _arguments(node, ("a", "b"), {"alpha": 1.0})
    a, delta, alpha = given["a"], given["b"], given["alpha"]
    if isinstance(delta, Merge) and delta.method == "ties_sum":
        return _ties(node, a, delta, alpha)
    if not isinstance(delta, Merge) or delta.method != "subtract":
        found = words(delta) if isinstance(delta, Node) else repr(delta)
        method = delta.method if isinstance(delta, Merge) else ""
        why = _OTHERWISE.get(method, "what is added must be a subtract of two models or a ties_sum")
        raise refused(node, f"it adds {found}: {why}")
    parts = _arguments(delta, ("a", "b"))
    b, c = parts["a"], parts["b"]
    if isinstance(alpha, Merge) and alpha.method == "train_difference_mask":
        mask = _arguments(alpha, ("a", "b", "c"), {"alpha": 1.0})
        if [mask[role] for role in _ROLES] != [a, b, c]:
            raise refused(alpha, "its models must be those of the difference, in the same order")
        return _sketch(node, "train_difference", {"a": a, "b": b, "c": c}, mask["alpha"])
    if c == a:
        return _sketch(node, "amplified_difference", {"a": a, "b": b}, alpha)
    return _sketch(node, "add_difference", {"a": a, "b": b, "c": c}, alpha)


def _ties(node: Merge, base: Argument, delta: Merge, alpha: Argument) -> Sketch:
    """`ties_sum` of differences to the base; with `vote_sgn` signs are elected as in the paper."""
    unknown = set(delta.named) - {"k", "vote_sgn"}
    if unknown:
        raise refused(delta, f"an argument that is not known: {min(unknown)}")
    models: dict[str, Argument] = {"base": base}
    for number, change in enumerate(delta.positional, 1):
        if not isinstance(change, Merge) or change.method != "subtract":
            raise refused(delta, "it must sum differences of models to the base")
        parts = _arguments(change, ("a", "b"))
        if parts["b"] != base:
            raise refused(change, "the difference must be to the model that all is added to")
        models[f"m{number:03d}"] = parts["a"]
    paper = _plain(delta, delta.named.get("vote_sgn", False))
    k = _plain(delta, delta.named.get("k", 1.0))
    if not isinstance(paper, bool) or isinstance(k, bool):
        raise refused(delta, "vote_sgn must be true or false, and k a number")
    sketch = _sketch(node, "ties" if paper else "ties_soup", models, None, {"k": k, "scale": alpha})
    return sketch if k == 1.0 else _noted(sketch, _TRIM_NOTE)


def _average(node: Merge) -> Sketch:
    if node.named:
        raise refused(node, f"an argument that is not known: {min(node.named)}")
    return _sketch(node, "average", _numbered(node), None)


def _median(node: Merge) -> Sketch:
    """`geometric_median(*models, eps, maxiter, ftol)`: of every tensor by itself."""
    names = {"eps": ("floor", 1e-6), "maxiter": ("iterations", 100.0), "ftol": ("tolerance", 1e-20)}
    unknown = set(node.named) - set(names)
    if unknown:
        raise refused(node, f"an argument that is not known: {min(unknown)}")
    parameters = {
        ours: _plain(node, node.named.get(theirs, default))
        for theirs, (ours, default) in names.items()
    }
    parameters["iterations"] = int(parameters["iterations"])
    return _sketch(node, "geometric_median", _numbered(node), None, parameters)


def _numbered(node: Merge) -> dict[str, Argument]:
    return {f"m{number:03d}": given for number, given in enumerate(node.positional, 1)}


def _sketch(
    node: Merge,
    method: str,
    arguments: Mapping[str, Argument],
    alpha: Argument | None,
    more: Mapping[str, Argument] | None = None,
) -> Sketch:
    models = {role: _model(node, given) for role, given in arguments.items()}
    kinds = {architecture_of(model) for model in models.values() if model.config}
    spread: Spread | None = None
    if alpha is not None:
        spread, kind = spread_of(node, alpha)
        kinds |= {kind} if kind else set()
    parameters: dict[str, float | str | bool | Spread] = {}
    for name, given in (more or {}).items():
        if isinstance(given, Node):
            parameters[name], kind = spread_of(node, given)
            kinds |= {kind} if kind else set()
        elif given is not None:
            parameters[name] = given
    if len(kinds) > 1:
        raise refused(node, f"it mixes kinds of models: {', '.join(sorted(kinds))}")
    return Sketch(
        dialect="a recipe of sd-mecha",
        method=method,
        models={role: _hint(model) for role, model in models.items()},
        spread=spread,
        parameters=parameters,
        architectures=tuple(kinds) or tuple(CONFIGS),
    )


def _arguments(
    node: Merge, names: tuple[str, ...], defaults: Mapping[str, Argument] | None = None
) -> dict[str, Argument]:
    """The arguments by name, given by place or by name; those with a default may be missing."""
    defaults = defaults or {}
    places = (*names, *defaults)
    given = {**dict(zip(places, node.positional, strict=False)), **node.named}
    unknown = sorted(set(given) - set(places))
    if unknown or len(node.positional) > len(places):
        raise refused(node, f"an argument that is not known: {(unknown or ['one too many'])[0]}")
    missing = [name for name in names if name not in given]
    if missing:
        raise refused(node, f"its argument {missing[0]} is missing")
    return {**defaults, **given}


def _plain(node: Merge, given: Argument) -> float | bool:
    """One number, or true or false, directly or as sd-mecha wraps it."""
    if isinstance(given, Merge) and given.method == "convert_singleton" and given.positional:
        given = given.positional[0]
    if isinstance(given, Literal):
        given = given.table
    if isinstance(given, Table):
        given = given.values.get("key")
    if not isinstance(given, (bool, float)):
        raise refused(node, "a number, or true or false, was expected")
    return given


def _model(node: Merge, given: Argument) -> Model:
    if isinstance(given, Model):
        if given.space not in ("", "weight"):
            raise refused(node, f"{words(given)} holds {given.space!r}, not a model's weights")
        return given
    found = words(given) if isinstance(given, Node) else repr(given)
    raise refused(node, f"it merges {found}, and a recipe here merges files: save that step first")


def _hint(model: Model) -> Hint:
    told = hint(model.path)
    return Hint(name=model.name or told.name, sha256=model.digest, path=told.path)


def _noted(sketch: Sketch, note: str) -> Sketch:
    return msgspec.structs.replace(sketch, notes=(*sketch.notes, note))
