"""What a configuration searches of its merge method: weights of blocks, and other parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.candidate import given as before
from lib_automerge.domain.candidate import part
from lib_automerge.domain.config import ParameterRule, RunConfig
from lib_automerge.domain.recipe import BASE, parents
from lib_automerge.errors import ConfigError, unknown_name
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter, Settings
from lib_automerge.search.rules import check_order
from lib_automerge.search.space import Setting, Space


def space(
    config: RunConfig, architecture: Architecture, distances: Mapping[str, float] | None = None
) -> Space:
    """Return the space that a configuration describes.

    Args:
        config: of the run.
        architecture: of its models.
        distances: block -> how far the models are apart in it, to leave out equal ones; None if
            equal blocks may matter.

    Raises:
        ConfigError: a rule that its parameter does not allow, or nothing left to search; see
            `search.space.Space.of`.
    """
    method = catalogue.get(config.method)
    return Space.of(
        config.search,
        architecture,
        distances,
        settings(config, method, architecture),
        weighted=method.weight is not None and method.weight not in config.parameters,
    )


def check(config: RunConfig, architecture: Architecture) -> None:
    """Check what a configuration says about the method, its models and its parameters.

    Raises:
        ConfigError: says what is wrong.
    """
    method = catalogue.get(config.method)
    roles = _roles(config, method)
    given = Settings(
        method.name,
        method.parameters,
        config.parameters,
        blocks=architecture.blocks,
        roles=roles[method.based :],
    )
    first = before(config)
    # a run that measures needs no candidate
    fewest = first + (config.search.calibration == 0)
    if config.search.evaluations < fewest:
        raise ConfigError(
            f"search.evaluations is {config.search.evaluations}, but {first} come before any "
            f"candidate: {first - 1} models, and equal shares of all. Use {fewest} or more."
        )
    human = config.reward.human
    if human is not None and human.alone and len(parents(config.method, roles)) > 2:
        raise ConfigError(
            f"you alone cannot judge a merge of {len(roles)} models: the blind choices at the end "
            "are between two models and their merge. Add a learned reward."
        )
    for name in config.search.parameters:
        if name in config.parameters and isinstance(given.given[name], str | bool):
            raise ConfigError(f"{name} is both fixed and searched. Keep one of them.")
    found = space(config, architecture)
    _check_ends(config, method, given)
    if config.search.blocks and not set(found.blocks) & set(architecture.blocks):
        raise ConfigError(
            f"search.blocks has rules for {sorted(config.search.blocks)[0]}, but {method.name} has "
            "no weights by block. Remove them; parameters per block are under search.parameters."
        )
    weight = next((p for p in method.parameters if p.name == method.weight), None)
    if weight is not None and weight.low is not None and weight.high is not None:
        for block, source in found.blocks.items():
            ends = found.bounds[found.names.index(source)] if isinstance(source, str) else None
            low, high = ends if ends is not None else (float(source), float(source))
            if block in architecture.blocks and not weight.low <= low <= high <= weight.high:
                raise ConfigError(
                    f"the range of {block} is {low:g} to {high:g}. The weights of {method.name} "
                    f"must be within {weight.low:g} to {weight.high:g}."
                )


def _check_ends(config: RunConfig, method: LabMethod, given: Settings) -> None:
    """Raise ConfigError if the ends of the ranges do not go together for the method.

    Shares are left out: all of them are 0 in one corner, of which a candidate is lost at most.
    """
    ends: dict[str, Sequence[object]] = {}
    for parameter in method.parameters:
        rule = config.search.parameters.get(parameter.name)
        if rule is None or parameter.kind == "number per model":
            continue
        low = parameter.low if rule.low is None else rule.low
        high = parameter.high if rule.high is None else rule.high
        ends[parameter.name] = rule.values or (low, high)
    for corner in itertools.product(*ends.values()):
        try:
            method.check({**given.at(None), **dict(zip(ends, corner, strict=True))})
        except ConfigError as error:
            raise ConfigError(
                f"what is searched of {method.name} has values that do not go together: {error} "
                f"Narrow {' or '.join(ends)} under search.parameters."
            ) from error


def first_is_a(config: RunConfig, architecture: Architecture) -> bool:
    """Whether weight 0 in every block is the first model, so that its score is one of the space."""
    method = catalogue.get(config.method)
    if method.weight is None or method.weight in config.parameters:
        return False
    roles = _roles(config, method)
    values = Settings(
        method.name,
        method.parameters,
        {**config.parameters, method.weight: 0.0},
        blocks=architecture.blocks,
        roles=roles[method.based :],
    )
    models = len(roles) - method.based
    return all(
        method.identity(values.at(block), models) == roles[0] for block in architecture.blocks
    )


def settings(
    config: RunConfig, method: LabMethod, architecture: Architecture
) -> tuple[Setting, ...]:
    """Return what is searched besides the weights of blocks, in the order of the configuration.

    Raises:
        ConfigError: see `space`.
    """
    by_name = {each.name: each for each in method.parameters}
    found: list[Setting] = []
    for name, rule in config.search.parameters.items():
        if name not in by_name:
            raise ConfigError(unknown_name(f"parameter of {method.name}", name, by_name))
        if name == method.weight:
            raise ConfigError(
                f"{name} of {method.name} is the weight of each block, which search.low, "
                "search.high and search.blocks are about. Leave it out of search.parameters."
            )
        found += _settings(method.name, by_name[name], rule, config, architecture)
    return tuple(found)


def _settings(
    method: str,
    parameter: Parameter,
    rule: ParameterRule,
    config: RunConfig,
    architecture: Architecture,
) -> Sequence[Setting]:
    name = f"{parameter.name} of {method}"
    if rule.per_block and not parameter.per_block:
        raise ConfigError(f"{name} is one value for the whole merge. Leave out per_block.")
    if rule.values:
        return [_one_of(name, parameter, rule, config)]
    if parameter.low is None or parameter.high is None:
        raise ConfigError(
            f"{name} is a {parameter.kind}. Give the values to try, like values: "
            f"[{', '.join(parameter.choices) or 'true, false'}]."
        )
    if parameter.kind == "whole number":
        raise ConfigError(f"{name} is a whole number. Give the values to try, like values: [1, 2].")
    low = parameter.low if rule.low is None else float(rule.low)
    high = parameter.high if rule.high is None else float(rule.high)
    check_order(name, low, high)
    if not parameter.low <= low <= high <= parameter.high:
        raise ConfigError(
            f"the range of {name} is {low:g} to {high:g}. It must be within {parameter.low:g} to "
            f"{parameter.high:g}."
        )
    fixed = config.parameters.get(parameter.name, parameter.default)
    parts: Sequence[str] = ()
    if parameter.kind == "number per model":
        parts = sorted(role for role in config.models if role != BASE)
    elif rule.per_block:
        parts = architecture.parameters
    if not parts:
        return [Setting(name=parameter.name, low=low, high=high, default=_number(fixed, "", 1.0))]
    return [
        Setting(
            name=part(parameter.name, of),
            low=low,
            high=high,
            default=_number(fixed, of, float(parameter.default)),
            group=parameter.name,
        )
        for of in parts
    ]


def _one_of(name: str, parameter: Parameter, rule: ParameterRule, config: RunConfig) -> Setting:
    """A place among listed values, which are checked as the method's own."""
    if parameter.kind == "number per model":
        raise ConfigError(f"{name} is a {parameter.kind}. Give it a range.")
    if rule.low is not None or rule.high is not None or rule.per_block:
        raise ConfigError(f"{name} has values and a range or per_block. Keep one of them.")
    for value in rule.values:
        Settings(name, [parameter], {parameter.name: value})
    if len(set(map(repr, rule.values))) < max(len(rule.values), 2):
        raise ConfigError(f"{name} has the values {list(rule.values)}. Give two different ones.")
    fixed = config.parameters.get(parameter.name, parameter.default)
    place = rule.values.index(fixed) if fixed in rule.values else 0
    return Setting(
        name=parameter.name, low=0.0, high=len(rule.values) - 1.0, default=float(place), whole=True
    )


def _number(value: object, of: str, otherwise: float) -> float:
    if isinstance(value, Mapping):
        value = value.get(of, otherwise)
    return float(value) if isinstance(value, int | float) else otherwise


def _roles(config: RunConfig, method: LabMethod) -> tuple[str, ...]:
    based = BASE in config.models
    if method.roles:
        idle = sorted(set(config.models) - set(method.roles))
        if idle:
            raise ConfigError(
                f"the method {method.name} has no use for model {idle[0]!r}; its models are "
                f"{', '.join(method.roles)}. Remove it, or choose another method."
            )
        missing = [role for role in method.roles if role not in config.models]
        if missing:
            raise ConfigError(
                f"the method {method.name} needs model {missing[0]!r}; given: "
                f"{sorted(config.models)}. Name {len(method.roles)} models: "
                f"{', '.join(method.roles)}."
            )
        return method.roles
    if based != method.based:
        told = "a base" if based else "no base"
        raise ConfigError(f"{method.name} takes {method.takes}; {told} was given.")
    roles = catalogue.roles_for(method, len(config.models) - based)
    if set(roles) != set(config.models):
        raise ConfigError(
            f"{method.name} takes {method.takes}; given: {sorted(config.models)}. Call them "
            f"{', '.join(roles)}."
        )
    return roles
