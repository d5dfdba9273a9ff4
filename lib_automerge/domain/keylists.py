"""Full key lists of checkpoints, written as nested modules instead of thousands of lines.

`data/modules.json` names the modules that all architectures share. A module is declared as
`"name parameter parameter": {child: body}`, and a body is one of

- a list, the shape of a tensor: `["o", "i", 3, 3]`;
- a string, a module with its arguments: `"conv3 o i"`;
- a mapping, a group of further children.

Sizes are numbers, parameters, or a multiple of a parameter (`"4*c"`). A child named `blocks.{n}`
stands for `blocks.0` to `blocks.n-1`, `blocks.{3-5}` for 3 to 5, and a child named `""` puts the
keys of its body directly into the parent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

Body = Any  # list | str | dict: JSON, checked by expand

DATA = Path(__file__).parent.parent / "data"

_REPEAT = re.compile(r"\{(?:(\d+)-(\d+)|(\w+))\}")


def expand(body: Body) -> dict[str, tuple[int, ...]]:
    """Return every key of `body` with its shape, in the order of the file.

    Args:
        body: the `keys` of an architecture, see the module docstring.

    Raises:
        KeyError: `body` names a module or a parameter that is not declared.
    """
    return dict(_expand("", body, {}))


@cache
def _modules() -> dict[str, tuple[list[str], Body]]:
    """Return module name -> (names of its parameters, its body)."""
    declared = msgspec.json.decode((DATA / "modules.json").read_bytes(), type=dict[str, Any])
    heads = ((head.split(), body) for head, body in declared.items())
    return {name: (parameters, body) for (name, *parameters), body in heads}


def _expand(
    prefix: str, body: Body, sizes: Mapping[str, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(body, list):
        yield prefix, tuple(_size(dimension, sizes) for dimension in body)
    elif isinstance(body, str):
        name, *arguments = body.split()
        parameters, inner = _modules()[name]
        values = [_size(argument, sizes) for argument in arguments]
        yield from _expand(prefix, inner, dict(zip(parameters, values, strict=True)))
    else:
        for child, inner in body.items():
            for name in _repeated(child, sizes):
                yield from _expand(".".join(filter(None, (prefix, name))), inner, sizes)


def _repeated(child: str, sizes: Mapping[str, int]) -> list[str]:
    repeat = _REPEAT.search(child)
    if repeat is None:
        return [child]
    first, last, count = repeat.groups()
    indices = range(_size(count, sizes)) if count else range(int(first), int(last) + 1)
    return [child.replace(repeat.group(0), str(index)) for index in indices]


def _size(dimension: str | int, sizes: Mapping[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.rpartition("*")
    value = int(name) if name.isdigit() else sizes[name]
    return value * int(factor or 1)
