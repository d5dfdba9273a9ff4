"""The registry of the lab's merge methods: what each computes, takes and is described by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Parameter, describe
from lib_automerge.merge.lab.sources import Source
from lib_automerge.merge.lab.stack import Pieces, Stack

BASE = "base"
LIMIT = 999
"""Models that a method of many can take; their roles are `m001` to `m999`."""


@dataclass(frozen=True)
class Whole:
    """How a method looks at all tensors together before it merges any of them.

    The method has a parameter `scope`; for "model" its function is given `whole`, the sum of what
    `survey` returns for every tensor.

    Attributes:
        survey: a Gram matrix (models x models) of one tensor, seen from the model `origin`.
        origin: the model from which a survey is more exact than this one, 0 for none.
    """

    survey: Callable[[Stack, int], Floats]
    origin: Callable[[Floats], int] = lambda _gram: 0


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """What a method is given that looks at whole models before anything is merged.

    Attributes:
        architecture: the name of the models' family.
        values: the method's parameters, as for a block that no mapping names.
        memory: cap for the whole process, in bytes.
        threads: to use.
        cache: a folder for what took long to find; None keeps nothing.
        zero_bad: take NaN and infinite numbers as 0 instead of refusing them.
        cancelled: asked often; then the method raises CancelledError.
        step: told of steps that are done, of how many, and what is done, in words.
        tell: told of what the user should know, in sentences.
        found: what a preparation of the same models with the same values has found, and where this
            one leaves what it finds.
    """

    architecture: str
    values: Mapping[str, Any]
    memory: int
    threads: int
    cache: Path | None
    zero_bad: bool
    cancelled: Callable[[], bool]
    step: Callable[[int, int, str], None]
    tell: Callable[[str], None]
    found: MutableMapping[str, Any]


@dataclass(frozen=True)
class LabMethod:
    """A way to merge models.

    Attributes:
        name: as in recipes.
        label: the name to show.
        formula: in one line.
        source: paper or tool that the formula is from.
        roles: fixed roles; empty for methods of any number of models.
        based: whether a method of any number takes a base, from which changes are counted.
        minimum: fewest models, without the base.
        merge: `merge(stack, **parameters)` yields the merged tensor piece by piece. The models of
            the stack are those of `roles`, or all after the base, in order.
        identity: `identity(parameters, models)` names the role that is the result bit for bit.
        parameters: read from the signature of `merge`.
        weight: the parameter that a recipe's `weights` sets by block, unless `parameters` do; None
            if there is none. Blocks that the weights do not name are the first model's.
        rereads: whether a tensor is read more than once.
        needs: `needs(shape, models)`: bytes of memory that `merge` of a tensor cannot do without,
            besides a few chunks.
        appetite: `appetite(shape, models)`: bytes that make it fastest besides; less is enough.
        whole: set if the method can look at all tensors together.
        check: raises ConfigError if parameters do not go together.
        before: looks at the models before anything is merged, and returns those that `merge` sees:
            as many or more, for instance a permuted one. Not called if nothing is to be merged.
    """

    name: str
    label: str
    formula: str
    source: str
    roles: tuple[str, ...]
    based: bool
    minimum: int
    merge: Callable[..., Pieces]
    identity: Callable[[Mapping[str, Any], int], str | None]
    parameters: tuple[Parameter, ...]
    weight: str | None = None
    rereads: bool = False
    needs: Callable[[tuple[int, ...], int], int] = lambda _shape, _models: 0
    appetite: Callable[[tuple[int, ...], int], int] = lambda _shape, _models: 0
    whole: Whole | None = None
    check: Callable[[Mapping[str, Any]], None] = lambda _values: None
    before: Callable[[Sequence[Source], Preparation], Sequence[Source]] | None = None

    @property
    def takes(self) -> str:
        """Which models it takes, in words."""
        if self.roles:
            return f"{len(self.roles)} models: {', '.join(self.roles)}"
        many = f"{self.minimum} or more models"
        return f"a base and {many}" if self.based else many


METHODS: dict[str, LabMethod] = {}


def register(
    function: Callable[..., Pieces],
    *,
    label: str,
    formula: str,
    source: str,
    roles: tuple[str, ...] = (),
    based: bool = False,
    minimum: int = 1,
    name: str = "",
    identity: Callable[[Mapping[str, Any], int], str | None] = lambda _values, _models: None,
    **more: Any,
) -> LabMethod:
    """Make a method known under the name of its function (or `name`); see `LabMethod`."""
    method = LabMethod(
        name=name or function.__name__,
        label=label,
        formula=formula,
        source=source,
        roles=roles,
        based=based,
        minimum=minimum,
        merge=function,
        identity=identity,
        parameters=describe(function),
        **more,
    )
    METHODS[method.name] = method
    return method


def get(name: str) -> LabMethod:
    """The method of this name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in METHODS:
        raise ConfigError(unknown_name("merge method", name, METHODS))
    return METHODS[name]


def role_of(model: int) -> str:
    """The role of a model of a method of many, counted from 0."""
    return f"m{model + 1:03d}"


def roles_for(method: LabMethod, models: int) -> tuple[str, ...]:
    """The roles of a merge of `models` models (without the base), the base first.

    Raises:
        ConfigError: the method takes another number of models.
    """
    if method.roles:
        if models != len(method.roles):
            raise ConfigError(f"{method.name} takes {method.takes}; {models} were given.")
        return method.roles
    if not method.minimum <= models <= LIMIT:
        raise ConfigError(
            f"{method.name} takes {method.takes} (up to {LIMIT}); {models} were given."
        )
    many = tuple(role_of(model) for model in range(models))
    return (BASE, *many) if method.based else many
