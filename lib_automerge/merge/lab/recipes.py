"""Recipes of the merge lab, from a list of models and a method's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_automerge.domain import architectures
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.number_types import output_type
from lib_automerge.merge.lab.parameters import Settings


def recipe_for(
    name: str,
    models: Sequence[ModelRef],
    base: ModelRef | None,
    parameters: Mapping[str, ParameterValue],
    *,
    architecture: str,
    dtype: str = "",
) -> Recipe:
    """Return the recipe of a merge in fp64.

    Args:
        name: of the method.
        models: without the base, in the order of the method's roles.
        base: of methods that count changes.
        parameters: by name; the others have their defaults.
        architecture: of the models.
        dtype: of the result; empty keeps the first model's.

    Raises:
        ConfigError: there is no such method, or it takes other models.
    """
    method = catalogue.get(name)
    roles = catalogue.roles_for(method, len(models))
    if method.based != (base is not None):
        told = "needs a base" if method.based else "takes no base"
        raise ConfigError(f"{name} {told}: it takes {method.takes}.")
    refs = [*([] if base is None else [base]), *models]
    given = dict(parameters)
    if method.weight is not None and method.weight not in given:
        # a recipe that says nothing of it would leave every block as the first model's
        given[method.weight] = next(p.default for p in method.parameters if p.name == method.weight)
    return Recipe(
        architecture=architecture,
        method=name,
        models=dict(zip(roles, refs, strict=True)),
        parameters=given,
        precision="fp64",
        dtype=dtype,
    )


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe of `recipe_for` says about parameters and dtype; reads no model.

    Raises:
        ConfigError: a name, a kind, a block or a value is wrong; says what is allowed.
    """
    method = catalogue.get(recipe.method)
    blocks = architectures.get(recipe.architecture).blocks
    settings = Settings(
        method.name,
        method.parameters,
        recipe.parameters,
        blocks=blocks,
        roles=tuple(recipe.models)[method.based :],
    )
    for block in blocks:
        method.check(settings.at(block))
    if recipe.dtype:
        output_type(recipe.dtype)
