"""Whatever can be written in a dialect is read back as the same recipe."""

from __future__ import annotations

import string
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_automerge.domain import architectures, score_log, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import catalogue, mecha_read, mecha_write
from lib_automerge.domain.dialects.sketch import Sketch, recipe_of
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.errors import AutomergeError

SD1, SD2, SDXL, SD3, FLUX = map(architectures.get, ("sd1", "sd2", "sdxl", "sd3_medium", "flux1"))

WEIGHTS = st.floats(-2, 4, allow_nan=False).map(lambda w: w or 0.0)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.text(string.ascii_letters + string.digits + "._-' é", min_size=1, max_size=20).map(
    lambda name: f"m{name.strip()}x"
)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def recipes(
    draw: st.DrawFn,
    methods: tuple[str, ...] = ("weighted_sum", "add_difference"),
    kinds: tuple[Architecture, ...] = (SD1, SD2, SDXL),
    order: str | None = None,
) -> Recipe:
    """Recipes; with an order, such as a list in it can say."""
    kind = draw(st.sampled_from(kinds))
    method = draw(st.sampled_from(methods))
    roles = (
        "abc"
        if method not in ("weighted_sum", "slerp", "cosine_a", "amplified_difference")
        else "ab"
    )
    digests = draw(st.lists(DIGESTS, min_size=3, max_size=3, unique=True))
    parameters: dict[str, ParameterValue] = {}
    if method in ("triple_sum", "sum_twice"):
        beta = draw(spreads(kind, order))
        parameters["beta"] = {**dict.fromkeys(kind.blocks, 0.0), **beta} if order else beta
    return Recipe(
        architecture=kind.name,
        method=method,
        models={
            role: ModelRef(role + draw(NAMES), digest)
            for role, digest in zip(roles, digests, strict=False)
        },
        weights=draw(spreads(kind, order)),
        parameters=parameters,
    )


@st.composite
def spreads(draw: st.DrawFn, kind: Architecture, order: str | None) -> dict[str, float]:
    if order is None:
        blocks = draw(st.lists(st.sampled_from(kind.blocks), unique=True))
        return {block: draw(WEIGHTS) for block in blocks}
    if kind is SDXL and order == "supermerger":
        order = "supermerger-xl"
    count = len(weights.blocks_of(order))
    listed = draw(st.lists(WEIGHTS, min_size=count, max_size=count))
    if order == "supermerger-xl":
        listed[0] = 0.0  # with another BASE, the reader is asked about the VAE
    return weights.from_list(listed, order, kind)


def effect(recipe: Recipe) -> Recipe:
    """The recipe without what changes nothing: zeros, and where the files were."""
    kind = architectures.get(recipe.architecture)
    parameters = {
        # blocks that beta does not name have none of C
        name: {block: value.get(block, 0.0) for block in kind.blocks}
        if isinstance(value, dict)
        else dict.fromkeys(kind.blocks, value)
        for name, value in recipe.parameters.items()
    }
    return Recipe(
        architecture=recipe.architecture,
        method=recipe.method,
        models={role: ModelRef(ref.name, ref.sha256) for role, ref in recipe.models.items()},
        weights=weights.effect(recipe.weights),
        parameters=parameters,
    )


def again(recipe: Recipe, target: str) -> Recipe:
    (found,) = catalogue.read(catalogue.write(recipe, target)).found
    if isinstance(found, Recipe):
        return found
    return recipe_of(found, architectures.get(recipe.architecture))


@FEW
@given(recipes())
def test_our_own(recipe: Recipe) -> None:
    assert again(recipe, "json") == recipe


@FEW
@given(
    recipes(
        methods=("weighted_sum", "add_difference", "train_difference", "triple_sum", "sum_twice"),
        order="supermerger",
    )
)
def test_supermergers_metadata(recipe: Recipe) -> None:
    assert catalogue.lost_of(recipe, "supermerger-metadata") == {}
    assert effect(again(recipe, "supermerger-metadata")) == effect(recipe)


@FEW
@given(recipes(order="supermerger"))
def test_supermergers_model_string(recipe: Recipe) -> None:
    found = again(recipe, "supermerger-text")
    assert {r: m.name for r, m in found.models.items()} == {
        r: m.name for r, m in recipe.models.items()
    }
    assert found.method == recipe.method
    if len({recipe.weights.get(b, 0.0) for b in architectures.get(recipe.architecture).blocks}) > 1:
        assert weights.effect(found.weights) == weights.effect(recipe.weights)


@FEW
@given(recipes(), WEIGHTS)
def test_the_webuis_metadata(recipe: Recipe, weight: float) -> None:
    kind = architectures.get(recipe.architecture)
    same = Recipe(
        architecture=kind.name,
        method=recipe.method,
        models=recipe.models,
        weights=dict.fromkeys(kind.blocks, weight),
    )
    assert effect(again(same, "webui-metadata")) == effect(same)


@FEW
@given(recipes(methods=("weighted_sum",), order="recipe"))
def test_recipe_files_of_autombw(recipe: Recipe) -> None:
    assert catalogue.lost_of(recipe, "autombw") == {}
    found = again(recipe, "autombw")
    assert weights.effect(found.weights) == weights.effect(recipe.weights)
    assert [m.name for m in found.models.values()] == [m.name for m in recipe.models.values()]


@FEW
@given(
    recipes(
        methods=(
            "weighted_sum",
            "slerp",
            "cosine_a",
            "add_difference",
            "train_difference",
            "amplified_difference",
            "sum_twice",
        ),
        kinds=(SD1, SDXL, SD3, FLUX),
    )
)
def test_sd_mecha(recipe: Recipe) -> None:
    assert effect(again(recipe, "sd-mecha")) == effect(recipe)


@FEW
@given(st.integers(1, 5), st.sampled_from(["average", "geometric_median", "ties", "ties_soup"]))
def test_sd_mecha_with_many_models(count: int, method: str) -> None:
    roles = [f"m{number:03d}" for number in range(1, count + 1)]
    models = {role: ModelRef(role, f"{at:064x}") for at, role in enumerate(["base", *roles])}
    if method in ("average", "geometric_median"):
        del models["base"]
    given_to: dict[str, ParameterValue] = {}
    if method == "geometric_median":
        given_to = {"iterations": 7.0, "tolerance": 1e-9, "floor": 1e-7}
    if method in ("ties", "ties_soup"):
        given_to = {"k": 0.3, "scale": {"IN00": 0.25, "BASE": 0.5}}
    recipe = Recipe(architecture="sd1", method=method, models=models, parameters=given_to)
    sketch = mecha_read.read(mecha_write.write(recipe, SD1))
    found = recipe_of(sketch, SD1)
    assert found.method == method
    assert {r: (m.name, m.sha256) for r, m in found.models.items()} == {
        r: (m.name, m.sha256) for r, m in models.items()
    }
    if "scale" in given_to:
        scale = found.parameters["scale"]
        assert isinstance(scale, dict)
        # blocks that the recipe does not name have the whole scale
        assert (scale["IN00"], scale["BASE"], scale["IN01"]) == (0.25, 0.5, 1.0)
        assert found.parameters["k"] == 0.3
    else:
        assert found.parameters == given_to


ORDERS = ["nat", "slider", "recipe", "readme", "mbw", "supermerger", "mecha"]


@FEW
@given(st.sampled_from(ORDERS), st.data())
def test_lists(order: str, data: st.DataObject) -> None:
    count = len(weights.blocks_of(order))
    values = data.draw(st.lists(WEIGHTS, min_size=count, max_size=count))
    given_to = weights.from_list(values, order, SD1)
    assert catalogue.lost(given_to, order, SD1) == {}
    text = catalogue.write_weights(given_to, order, SD1)
    (found,) = catalogue.read(text, order, "sd1").found
    assert isinstance(found, Sketch)
    assert found.weights(SD1) == given_to


@FEW
@given(st.data())
def test_a_list_with_a_number_for_each_transformer_block(data: st.DataObject) -> None:
    given_to = {block: data.draw(WEIGHTS) for block in SDXL.blocks}
    given_to["VAE"] = given_to["BASE_L"]
    order = "supermerger-xl-parts"
    assert catalogue.lost(given_to, order, SDXL) == {}
    (found,) = catalogue.read(catalogue.write_weights(given_to, order, SDXL)).found
    assert isinstance(found, Sketch)
    assert found.weights(SDXL) == given_to
    given_to["VAE"] += 1
    assert catalogue.lost(given_to, order, SDXL) == {"VAE": given_to["VAE"]}


@FEW
@given(
    st.lists(
        st.tuples(spreads(SD1, "nat"), st.floats(-10, 10, allow_nan=False)), min_size=1, max_size=5
    )
)
@pytest.mark.parametrize("target", ["csv", "autombw-csv"])
def test_tables(target: str, rows: list[tuple[dict[str, float], float]]) -> None:
    scored = tuple(score_log.ScoredWeights(given_to, score) for given_to, score in rows)
    reading = catalogue.read(catalogue.write_rows(scored, target), None, "sd1")
    assert [(weights.effect(r.weights), r.score) for r in reading.rows] == [
        (weights.effect(r.weights), r.score) for r in scored
    ]


@FEW
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.data())
def test_presets(names: list[str], data: st.DataObject) -> None:
    lists = [data.draw(spreads(SD1, "supermerger")) for _ in names]
    text = "\n".join(
        catalogue.write_weights(given_to, "preset", SD1, name)
        for name, given_to in zip(names, lists, strict=True)
    )
    found = catalogue.read(text, None, "sd1").found
    assert [sketch.name for sketch in found if isinstance(sketch, Sketch)] == names
    assert [sketch.weights(SD1) for sketch in found if isinstance(sketch, Sketch)] == lists


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
@pytest.mark.parametrize(
    "start", ["", "{", "modelA=", "version 0.1.0\n", "0,score\n", "A x 0.3 + "]
)
def test_any_other_text_is_refused_in_words(start: str, text: str) -> None:
    with suppress(AutomergeError):
        catalogue.read(start + text)
