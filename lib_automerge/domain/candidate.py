"""Candidates: how the numbers of an evaluation become the recipe that is merged.

What is searched has names: `IN00` is the weight of a block, `k` a parameter of the method, `k.IN00`
that parameter in one block and `shares.m001` that of one model.
"""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BASELINES, GIVEN, PARENTS, Origin
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe, parents
from lib_automerge.domain.run import Evaluation

BASELINE_METHOD = "weighted_sum"
"""The method under which weight 1 is another model, whatever method the candidates use."""

UNIFORM = {Origin.MODEL_A: 0.0, Origin.MODEL_B: 1.0, Origin.HALF: 0.5, Origin.MEMBER: 1.0}


def given(config: RunConfig) -> int:
    """How many evaluations come before any candidate: the parents, and their equal shares."""
    # a chain estimates its searches before it knows their models
    return max(len(parents(config.method, config.models)), len(PARENTS)) + 1


def compared(config: RunConfig) -> int:
    """How many of them the winner meets in the proof: of many models the best of the others."""
    return min(given(config), len(GIVEN))


def part(parameter: str, of: str) -> str:
    """The name of a parameter in one block, or of one model."""
    return f"{parameter}.{of}"


def recipe_of(
    evaluation: Evaluation,
    config: RunConfig,
    models: Mapping[str, ModelRef],
    architecture: Architecture,
) -> Recipe:
    """What is merged for an evaluation; for what is given, one model or equal shares of all."""
    if evaluation.origin in GIVEN:
        return _given(evaluation, config.method, models, architecture)
    blocks = set(architecture.blocks)
    return Recipe(
        architecture=architecture.name,
        method=config.method,
        models=dict(models),
        weights={name: value for name, value in evaluation.weights.items() if name in blocks},
        parameters=_parameters(evaluation.weights, config, models, architecture),
    )


def parent_of(evaluation: Evaluation, method: str, models: Mapping[str, ModelRef]) -> str | None:
    """The role of the model that an evaluation is nothing but; None if it is a merge."""
    if evaluation.origin not in GIVEN or evaluation.origin is Origin.HALF:
        return None
    place = {Origin.MODEL_A: 0, Origin.MODEL_B: 1}.get(
        evaluation.origin, evaluation.number - len(BASELINES) + 1
    )
    return parents(method, models)[place]


def _given(
    evaluation: Evaluation,
    method: str,
    models: Mapping[str, ModelRef],
    architecture: Architecture,
) -> Recipe:
    roles = parents(method, models)
    if evaluation.origin is Origin.HALF and len(roles) > 2:
        return Recipe(
            architecture=architecture.name,
            method="average",
            models={f"m{place:03d}": models[role] for place, role in enumerate(roles, 1)},
        )
    if "a" in models and evaluation.origin is not Origin.MEMBER:
        weights, merged = evaluation.weights, dict(models)
    else:
        # what is live is the first model, so that it has the first place in every recipe
        other = parent_of(evaluation, method, models) or roles[1]
        merged = {"a": models[roles[0]], "b": models[roles[1] if other == roles[0] else other]}
        weights = dict.fromkeys(architecture.blocks, UNIFORM[evaluation.origin])
    return Recipe(
        architecture=architecture.name, method=BASELINE_METHOD, models=merged, weights=weights
    )


def _parameters(
    values: Mapping[str, float],
    config: RunConfig,
    models: Mapping[str, ModelRef],
    architecture: Architecture,
) -> dict[str, ParameterValue]:
    """The fixed parameters, and the searched ones in place of theirs."""
    found: dict[str, ParameterValue] = dict(config.parameters)
    for name, rule in config.search.parameters.items():
        if name in values:
            number = values[name]
            found[name] = rule.values[round(number)] if rule.values else number
            continue
        parts = {
            of: values[part(name, of)]
            for of in (*architecture.blocks, *models)
            if part(name, of) in values
        }
        fixed = found.get(name)
        if isinstance(fixed, dict):
            parts = {**fixed, **parts}
        elif isinstance(fixed, int | float):
            others = models if set(parts) & set(models) else architecture.blocks
            parts = {**dict.fromkeys(others, float(fixed)), **parts}
        if parts:
            found[name] = parts
    return found
