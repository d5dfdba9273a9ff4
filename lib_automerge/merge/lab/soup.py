"""Methods of any number of models that weigh whole models: average, Model Stock, median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab.medians import better_origin, geometric_weights, stock_ratio
from lib_automerge.merge.lab.methods import BASE, Whole, register, role_of
from lib_automerge.merge.lab.number_types import Floats
from lib_automerge.merge.lab.parameters import Help, Within
from lib_automerge.merge.lab.stack import Pieces, Stack, scratch
from lib_automerge.merge.lab.sums import changes_gram, values_gram

Scope = Annotated[
    Literal["tensor", "model"],
    Help("look at each tensor by itself, or at all of them together"),
]


def average(
    stack: Stack,
    *,
    shares: Annotated[
        Sequence[float], Within(0, 1000, "how much each model counts", each="model")
    ] = (),
) -> Pieces:
    """`sum s_t M_t / sum s_t`; all shares are 1 unless given, which is the uniform soup."""
    total = sum(shares)
    even = len(set(shares)) == 1
    for start, stop in stack.chunks():
        merged = scratch("merged", stop - start)
        merged[:] = 0.0
        for model, share in enumerate(shares):
            if share:
                values = stack.value(model, start, stop)
                if not even:
                    values *= share
                merged += values
        merged /= len(shares) if even else total
        yield start, merged


def model_stock(stack: Stack, *, scope: Scope = "tensor", whole: Floats | None = None) -> Pieces:
    """`base + t mean(M_t - base)`; see `medians.stock_ratio` for t and its bounds."""
    together = whole if scope == "model" else None
    ratio = stock_ratio(changes_gram(stack) if together is None else together)
    for start, stop in stack.chunks():
        base = stack.base(start, stop)
        merged = scratch("merged", stop - start)
        merged[:] = 0.0
        for model in range(stack.models):
            merged += stack.change(model, base, start, stop)
        merged *= ratio / stack.models
        merged += base
        yield start, merged


def geometric_median(
    stack: Stack,
    *,
    scope: Scope = "tensor",
    iterations: Annotated[int, Within(1, 10000, "steps of Weiszfeld's iteration at most")] = 100,
    tolerance: Annotated[
        float, Within(0, 1, "stop when the sum of distances changes by less than this share")
    ] = 1e-20,
    floor: Annotated[float, Within(1e-300, 1, "smallest distance that is told from 0")] = 1e-6,
    whole: Floats | None = None,
) -> Pieces:
    """The point with the smallest sum of distances to all models (norm over the whole tensor)."""
    found = whole if scope == "model" else None
    if found is None:
        found = values_gram(stack)
        origin = better_origin(found)
        if origin:
            found = values_gram(stack, origin)
    weights = geometric_weights(found, iterations=iterations, tolerance=tolerance, floor=floor)
    yield from weighed(stack, weights)


def weighed(stack: Stack, weights: Sequence[float]) -> Pieces:
    """Yield the sum of the models times their weights."""
    for start, stop in stack.chunks():
        merged = scratch("merged", stop - start)
        merged[:] = 0.0
        for model, weight in enumerate(weights):
            if weight:
                values = stack.value(model, start, stop)
                values *= weight
                merged += values
        yield start, merged


def _only_share(values: Mapping[str, Any], _models: int) -> str | None:
    counting = [model for model, share in enumerate(values["shares"]) if share]
    return role_of(counting[0]) if len(counting) == 1 else None


def _some_share(values: Mapping[str, Any]) -> None:
    if not any(values["shares"]):
        raise ConfigError("all shares of average are 0. Let at least one model count.")


def _alone(_values: Mapping[str, Any], models: int) -> str | None:
    return role_of(0) if models == 1 else None


register(
    average,
    label="Average (uniform soup)",
    formula="sum s_t M_t / sum s_t",
    source="model soups, Wortsman et al. 2022 (2203.05482)",
    identity=_only_share,
    check=_some_share,
)
register(
    model_stock,
    label="Model Stock",
    formula=f"{BASE} + t mean(M_t - {BASE}), t = N cos / (1 + (N - 1) cos), cut to 0..1",
    source="Model Stock, Jang et al. 2024 (2403.19522)",
    based=True,
    identity=_alone,
    rereads=True,
    whole=Whole(changes_gram),
)
register(
    geometric_median,
    label="Geometric median",
    formula="argmin_x sum |M_t - x|",
    source="Weiszfeld 1937; Pillutla et al., Robust aggregation, 2022 (1912.13445)",
    identity=_alone,
    rereads=True,
    whole=Whole(values_gram, better_origin),
)
