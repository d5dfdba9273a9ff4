"""What must hold for any numbers: order, translation, scale, copies, dropping all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.number_types import Raw
from lib_automerge.merge.lab.parameters import Settings
from lib_automerge.merge.lab.sources import Entry
from lib_automerge.merge.lab.stack import Reading, Stack
from tests.lab_merges import PLAIN

Array = NDArray[np.float64]

SHAPE = (3, 4)
SIZE = 12
# multiples of 1/64 up to 8, exact in every float type: nothing below is due to rounding of inputs
NUMBERS = st.lists(st.integers(-512, 512), min_size=SIZE, max_size=SIZE)
SOME = settings(max_examples=6, deadline=None, derandomize=True)

MANY = [name for name in catalogue.names() if not catalogue.get(name).roles]
DROPPING = [
    name
    for name in catalogue.names()
    if any(parameter.name == "p" for parameter in catalogue.get(name).parameters)
]
# these look at models from 0: moved models are at other angles
FROM_ZERO = {"slerp", "cosine_a", "cosine_b"}
# distances are told from 0 by a fixed floor, and 100 steps may be too few
MEDIANS = {"geometric_median", "tgmd", "dgmla"}


class Held:
    """A model in memory."""

    def __init__(self, name: str, array: Array) -> None:
        self.name = name
        self.entries = {"w": Entry("F64", array.shape, 0)}
        self._array = array.reshape(-1)

    def read(self, _key: str, start: int, stop: int, out: Raw) -> None:
        out.view(np.float64)[: stop - start] = self._array[start:stop]

    def check_unchanged(self) -> None:
        pass


def merge(method: str, models: Sequence[Array], given: Mapping[str, Any] = {}) -> Array:
    """The result of a method, the base first where there is one, in odd chunks."""
    found = catalogue.get(method)
    roles = catalogue.roles_for(found, len(models) - found.based)
    options = Settings(method, found.parameters, given, blocks=("X",), roles=roles[found.based :])
    values = options.at("X")
    role = found.identity(values, len(models) - found.based)
    if role is not None:
        return models[roles.index(role)]
    sources = [Held(name, array) for name, array in zip(roles, models, strict=True)]
    stack = Stack(
        "w", sources, based=found.based, memory=1 << 24, rereads=True, reading=Reading(chunk=5)
    )
    out = np.empty(SIZE)
    for start, values_of in found.merge(stack, **values):
        out[start : start + len(values_of)] = values_of
    return out.reshape(SHAPE)


@st.composite
def models_of(draw: st.DrawFn, method: str) -> list[Array]:
    """As many models as a method takes, with its base: random ones, some of them equal."""
    found = catalogue.get(method)
    count = len(found.roles) or draw(st.integers(2, 5)) + found.based
    return [np.array(draw(NUMBERS)).reshape(SHAPE) / 64 for _ in range(count)]


def nothing_dropped(method: str) -> dict[str, Any]:
    names = {parameter.name for parameter in catalogue.get(method).parameters}
    return {name: 0.0 for name in ("p", "epsilon") if name in names}


def same(method: str, one: Array, other: Array) -> None:
    """Check that two results are the same but for rounding, or for steps that a median lacks."""
    tolerance = 1e-3 if method in MEDIANS else 1e-9
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", MANY)
@given(data=st.data())
@SOME
def test_the_order_of_models_does_not_matter(method: str, data: st.DataObject) -> None:
    models = data.draw(models_of(method))
    based = catalogue.get(method).based
    others = data.draw(st.permutations(models[based:]))
    # what is dropped depends on a model's number
    options = nothing_dropped(method)
    same(method, merge(method, models, options), merge(method, [*models[:based], *others], options))


@pytest.mark.parametrize("method", sorted(set(PLAIN) - FROM_ZERO))
@given(data=st.data())
@SOME
def test_moved_models_give_the_moved_result(method: str, data: st.DataObject) -> None:
    models = data.draw(models_of(method))
    far = np.array(data.draw(NUMBERS)).reshape(SHAPE) / 16
    moved = merge(method, [model + far for model in models])
    same(method, moved, merge(method, models) + far)


@pytest.mark.parametrize("method", sorted(set(PLAIN) - MEDIANS))
@given(data=st.data())
@SOME
def test_scaled_models_give_the_scaled_result(method: str, data: st.DataObject) -> None:
    models = data.draw(models_of(method))
    scaled = merge(method, [model * 8.0 for model in models])
    same(method, scaled, merge(method, models) * 8.0)


@pytest.mark.parametrize("method", PLAIN)
@given(data=st.data())
@SOME
def test_copies_of_one_model_are_the_result(method: str, data: st.DataObject) -> None:
    models = data.draw(models_of(method))
    assert np.array_equal(merge(method, [models[0]] * len(models)), models[0])


@pytest.mark.parametrize("method", MANY)
@given(data=st.data())
@SOME
def test_copies_of_one_change_are_that_change(method: str, data: st.DataObject) -> None:
    models = data.draw(models_of(method))
    based = catalogue.get(method).based
    options = {**nothing_dropped(method), **{"ties": {"k": 1.0}, "iso": {"z": 1.0}}.get(method, {})}
    copies = [models[-1]] * (len(models) - based)
    found = merge(method, [*models[:based], *copies], options)
    if method == "model_stock":
        # its cosine is rounded
        same(method, found, models[-1])
    else:
        assert np.array_equal(found, models[-1])


@pytest.mark.parametrize("method", DROPPING)
@given(data=st.data(), seed=st.integers(0, 2**53))
@SOME
def test_dropping_all_leaves_the_base(method: str, data: st.DataObject, seed: int) -> None:
    models = data.draw(models_of(method))
    options = {**nothing_dropped(method), "p": 1.0, "seed": seed}
    assert np.array_equal(merge(method, models, options), models[0])


WITHOUT = {
    "dare": ("ties", {"vote": "sum"}, {"k": 1.0}),
    "della": ("ties", {"vote": "sum"}, {"k": 1.0}),
    "tsd": ("ties_soup", {}, {}),
    "dgmla": ("tgmd", {}, {"p": 0.0}),
    "tgmd": ("tgmd", {}, {"p": 0.0, "seed": 1}),
}


@pytest.mark.parametrize("method", DROPPING)
@given(data=st.data(), seed=st.integers(0, 2**53))
@SOME
def test_dropping_nothing_is_the_method_without(
    method: str, data: st.DataObject, seed: int
) -> None:
    models = data.draw(models_of(method))
    other, options, others = WITHOUT[method]
    found = merge(method, models, {**nothing_dropped(method), **options, "seed": seed})
    assert np.array_equal(found, merge(other, models, others))
