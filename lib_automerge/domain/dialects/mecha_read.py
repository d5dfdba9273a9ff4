"""sd-mecha's recipes as sketches, as far as one method of ours does what the graph does.

sd-mecha composes small steps, here a method is a whole: only the graphs that sd-mecha's own
functions build for these methods are read, any other is refused with the node that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.dialects.mecha_configs import CONFIGS, SINGLETON, TO_ALL
from lib_automerge.domain.dialects.mecha_text import (
    Argument,
    Literal,
    Merge,
    Model,
    Node,
    Table,
    parse,
    words,
)
from lib_automerge.domain.dialects.sketch import (
    Everywhere,
    Hint,
    Listed,
    Named,
    Sketch,
    Spread,
    model_name,
)
from lib_automerge.errors import ConfigError

READ = ("weighted_sum", "slerp", "add_difference")
"""The methods of sd-mecha that can be the last step of a recipe."""


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
        "weighted_sum": _pair,
        "slerp": _pair,
        "add_difference": _difference,
    }
    if merged.method not in readers:
        raise _refused(merged, f"only {', '.join(READ)} can be the last step")
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
    """Keys that are not merged come from A here, always; so must they there."""
    (_, *others) = _arguments(root, "a", "default")
    if len(others) != 1 or _hint(_model(root, others[0])) != sketch.models["a"]:
        raise _refused(root, "what is not merged can only come from the first model")


def _pair(node: Merge) -> Sketch:
    """`weighted_sum(a, b, alpha)` and `slerp(a, b, alpha)`."""
    a, b, *rest = _arguments(node, "a", "b", "alpha")
    return _sketch(node, node.method, {"a": a, "b": b}, rest[0] if rest else 0.5)


def _difference(node: Merge) -> Sketch:
    """`add_difference(a, subtract(b, c), alpha)`."""
    a, delta, *rest = _arguments(node, "a", "b", "alpha")
    if not isinstance(delta, Merge) or delta.method != "subtract":
        found = words(delta) if isinstance(delta, Node) else repr(delta)
        raise _refused(node, f"what it adds must be a subtract of two models, not {found}")
    b, c = _arguments(delta, "a", "b")
    return _sketch(node, "add_difference", {"a": a, "b": b, "c": c}, rest[0] if rest else 1.0)


def _sketch(node: Merge, method: str, arguments: Mapping[str, Argument], alpha: Argument) -> Sketch:
    models = {role: _model(node, given) for role, given in arguments.items()}
    spread, fitting = _spread(node, alpha)
    configured = {_architecture(model) for model in models.values() if model.config}
    named = configured | ({fitting} if fitting else set())
    if len(named) > 1:
        raise _refused(node, f"it mixes kinds of models: {', '.join(sorted(named))}")
    return Sketch(
        dialect="a recipe of sd-mecha",
        method=method,
        models={role: _hint(model) for role, model in models.items()},
        spread=spread,
        architectures=tuple(named) or tuple(CONFIGS),
    )


def _arguments(node: Merge, *names: str) -> tuple[Argument, ...]:
    """The arguments in the order of the names, given by place or by name.

    Those at the end may be missing; the last name is the only one that a caller may do without.
    """
    given = dict(zip(names, node.positional, strict=False))
    unknown = [name for name in node.named if name not in names]
    if unknown or len(node.positional) > len(names):
        raise _refused(node, f"an argument that is not known: {(unknown or ['too many'])[0]}")
    given |= node.named
    found = tuple(given[name] for name in names if name in given)
    if len(found) < min(len(names), 2) or any(n not in given for n in names[:2]):
        raise _refused(node, f"it needs {' and '.join(names[:2])}")
    return found


def _model(node: Merge, given: Argument) -> Model:
    if isinstance(given, Model):
        if given.space not in ("", "weight"):
            raise _refused(
                node, f"{words(given)} holds {given.space!r}, not the weights of a model"
            )
        return given
    found = words(given) if isinstance(given, Node) else repr(given)
    raise _refused(node, f"it merges {found}, and a recipe here merges files. Save that step first")


def _hint(model: Model) -> Hint:
    return Hint(name=model.name or model_name(model.path), sha256=model.digest, path=model.path)


def _architecture(model: Model) -> str:
    for name, config in CONFIGS.items():
        if model.config == config.keys:
            return name
    known = ", ".join(config.keys for config in CONFIGS.values())
    raise ConfigError(
        f"{words(model)} is a {model.config!r}, which cannot be merged from .mecha recipes. "
        f"Models may be: {known}."
    )


def _spread(node: Merge, alpha: Argument) -> tuple[Spread, str | None]:
    """The weights, and the architecture that their blocks or keys are of."""
    while isinstance(alpha, Merge):
        converters = {TO_ALL, *(config.converter for config in CONFIGS.values())}
        if alpha.method not in converters or len(alpha.positional) != 1 or alpha.named:
            raise _refused(alpha, f"the weight of {words(node)} must be numbers")
        held = alpha.positional[0]
        if isinstance(held, Table) and alpha.method != TO_ALL:
            by = {config.converter: config.blocks for config in CONFIGS.values()}
            held = Literal(held.at, held, by[alpha.method])
        alpha = held
    if isinstance(alpha, float) and not isinstance(alpha, bool):
        return Everywhere(alpha), None
    if not isinstance(alpha, (Literal, Table)):
        raise _refused(node, f"its weight is {alpha!r}, not numbers")
    table, config = (alpha.table, alpha.config) if isinstance(alpha, Literal) else (alpha, "")
    numbers = {key: value for key, value in table.values.items() if type(value) is float}
    if len(numbers) < len(table.values) or not numbers:
        raise _refused(node, f"{words(table)} holds more than numbers")
    if config in ("", SINGLETON) and set(numbers) == {"key"}:
        return Everywhere(numbers["key"]), None
    for name, known in CONFIGS.items():
        if config == known.blocks:
            return _blocks(node, numbers, known.order), name
        if config == known.keys:
            return _keys(node, numbers, name), name
    raise _refused(node, f"its weights are for {config or 'keys without a configuration'!r}")


def _blocks(node: Merge, numbers: Mapping[str, float], order: str) -> Listed:
    blocks = weights.blocks_of(order)
    unknown = sorted(set(numbers) ^ set(blocks))
    if unknown:
        raise _refused(
            node, f"its weights must be for all blocks; {unknown[0]} is one too many or few"
        )
    return Listed(tuple(numbers[block] for block in blocks), order)


def _keys(node: Merge, numbers: Mapping[str, float], name: str) -> Named:
    """Weights of blocks from weights of keys; a block whose keys have none keeps A."""
    architecture = architectures.get(name)
    found: dict[str, float] = {}
    for key in architecture.reference_keys:
        block = architecture.block_of(key)
        if block is None:
            continue
        weight = numbers.get(key, 0.0)
        if found.setdefault(block, weight) != weight:
            raise _refused(node, f"the keys of {block} have different weights, first {key}")
    return Named(found)


def _refused(node: Node, why: str) -> ConfigError:
    return ConfigError(
        f"{words(node)} of the .mecha recipe has no counterpart here: {why}. Change the recipe, or "
        "merge it with sd-mecha."
    )
