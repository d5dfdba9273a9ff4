"""Whatever can be written in a dialect is read back as the same recipe."""

from __future__ import annotations

import string
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_automerge.app import recipes as app_recipes
from lib_automerge.domain import architectures, score_log, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import catalogue, supermerger
from lib_automerge.domain.dialects.sketch import Sketch, recipe_of
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe, recipe_json
from lib_automerge.errors import AutomergeError

SD1, SD2, SDXL, SD3, FLUX = map(architectures.get, ("sd1", "sd2", "sdxl", "sd3_medium", "flux1"))

WEIGHTS = st.floats(-2, 4, allow_nan=False).map(lambda w: w or 0.0)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.text(string.ascii_letters + string.digits + "._-' é", min_size=1, max_size=20).map(
    lambda name: f"m{name.strip()}x"
)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


PAIRS = ("weighted_sum", "slerp", "cosine_a", "cosine_b", "amplified_difference")


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
    roles = "abc" if method not in PAIRS else "ab"
    digests = draw(st.lists(DIGESTS, min_size=3, max_size=3, unique=True))
    parameters: dict[str, ParameterValue] = {}
    if method in ("triple_sum", "sum_twice"):
        beta = draw(spreads(kind, order))
        parameters["beta"] = {**dict.fromkeys(kind.blocks, 0.0), **beta} if order else beta
        if order is None and draw(st.booleans()):
            parameters["beta"] = draw(WEIGHTS)
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
    if order == "supermerger":
        order = supermerger.order_for(kind)
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


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(string.ascii_letters + string.digits + " .:#-é", max_size=8)


@st.composite
def lab_recipes(draw: st.DrawFn) -> Recipe:
    """Recipes of the merge lab, with all that a recipe of ours can say."""
    kind = architectures.get(draw(st.sampled_from(architectures.names())))
    by_block = st.dictionaries(st.sampled_from(kind.blocks), NUMBERS, max_size=5)
    count = draw(st.integers(1, 12))
    roles = [f"m{number:03d}" for number in range(1, count + 1)]
    if draw(st.booleans()):
        roles = ["base", *roles]
    return Recipe(
        architecture=kind.name,
        method=draw(WORDS),
        models={role: ModelRef(draw(NAMES), draw(DIGESTS), draw(WORDS)) for role in roles},
        weights=draw(by_block),
        parameters=draw(
            st.dictionaries(
                WORDS, NUMBERS | st.integers(-5, 2**53) | WORDS | st.booleans() | by_block
            )
        ),
        precision=draw(st.sampled_from(["fp32", "fp64"])),
        dtype=draw(st.sampled_from(["", "fp16", "fp8_e4m3"])),
        on_mismatch=draw(st.sampled_from(["refuse", "keep-a", "fill-base"])),
        on_nan=draw(st.sampled_from(["refuse", "zero"])),
        provenance={"run": draw(WORDS), "evaluation": draw(st.integers(0, 999))},
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lab_recipes())
@pytest.mark.parametrize("target", ["json", "yaml"])
def test_our_own_of_the_lab(target: str, recipe: Recipe) -> None:
    text = app_recipes.convert(app_recipes.read_text(recipe_json(recipe)), target).text
    (found,) = app_recipes.read_text(text).reading.found
    assert found == recipe
    assert isinstance(found, Recipe)
    # what decides bytes is not only equal, it is of the same type
    assert recipe_json(found) == recipe_json(recipe)


@FEW
@given(
    recipes(
        methods=("weighted_sum", "add_difference", "train_difference", "triple_sum", "sum_twice"),
        kinds=(SD1, SD2, SDXL, FLUX),
        order="supermerger",
    )
)
def test_supermergers_metadata(recipe: Recipe) -> None:
    assert catalogue.lost_of(recipe, "supermerger-metadata") == {}
    assert effect(again(recipe, "supermerger-metadata")) == effect(recipe)


@FEW
@given(recipes(kinds=(SD1, SD2, SDXL, FLUX), order="supermerger"))
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
            "cosine_b",
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


@st.composite
def many(draw: st.DrawFn) -> Recipe:
    """Recipes of many models that sd-mecha can say."""
    kind = draw(st.sampled_from((SD1, SDXL, SD3, FLUX)))
    method = draw(st.sampled_from(["average", "geometric_median", "ties", "ties_soup"]))
    roles = [f"m{number:03d}" for number in range(1, draw(st.integers(1, 5)) + 1)]
    parameters: dict[str, ParameterValue] = {}
    if method == "geometric_median":
        parameters = {
            "iterations": draw(st.integers(1, 1000)),
            "tolerance": draw(st.floats(0, 1)),
            "floor": draw(st.floats(1e-12, 1)),
        }
    if method in ("ties", "ties_soup"):
        roles = ["base", *roles]
        blocks = st.dictionaries(st.sampled_from(kind.blocks), WEIGHTS)
        parameters = {"k": draw(st.floats(0.01, 1)), "scale": draw(WEIGHTS | blocks)}
    models = {role: ModelRef(f"{role}{draw(NAMES)}", draw(DIGESTS)) for role in roles}
    return Recipe(architecture=kind.name, method=method, models=models, parameters=parameters)


@FEW
@given(many())
def test_sd_mecha_with_many_models(recipe: Recipe) -> None:
    found = again(recipe, "sd-mecha")
    kind = architectures.get(recipe.architecture)
    assert found.method == recipe.method
    assert {r: (m.name, m.sha256) for r, m in found.models.items()} == {
        r: (m.name, m.sha256) for r, m in recipe.models.items()
    }

    def whole(parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        scale = parameters.get("scale", 1.0)
        # blocks that the recipe does not name have the whole scale
        spread = (
            {block: scale.get(block, 1.0) for block in kind.blocks}
            if isinstance(scale, dict)
            else dict.fromkeys(kind.blocks, scale)
        )
        return {**parameters, "scale": spread}

    assert whole(found.parameters) == whole(recipe.parameters)
    assert again(found, "sd-mecha") == found


ORDERS = {
    **dict.fromkeys(["nat", "slider", "recipe", "readme", "mbw", "supermerger", "mecha"], SD1),
    **dict.fromkeys(["supermerger-xl", "supermerger-xl-vae", "mecha-xl"], SDXL),
    "supermerger-flux": FLUX,
}


@FEW
@given(st.sampled_from(sorted(ORDERS)), st.data())
def test_lists(order: str, data: st.DataObject) -> None:
    kind = ORDERS[order]
    count = len(weights.blocks_of(order))
    values = data.draw(st.lists(WEIGHTS, min_size=count, max_size=count))
    given_to = weights.from_list(values, order, kind)
    assert catalogue.lost(given_to, order, kind) == {}
    text = catalogue.write_weights(given_to, order, kind)
    (found,) = catalogue.read(text, order, kind.name).found
    assert isinstance(found, Sketch)
    assert found.weights(kind) == given_to


@FEW
@given(st.data())
def test_pairs(data: st.DataObject) -> None:
    kind = architectures.get(data.draw(st.sampled_from(architectures.names())))
    blocks = st.dictionaries(st.sampled_from(kind.blocks), WEIGHTS, min_size=1)
    given_to = data.draw(blocks)
    text = catalogue.write_weights(given_to, "named", kind)
    (found,) = catalogue.read(text, None, kind.name).found
    assert isinstance(found, Sketch)
    assert found.weights(kind) == given_to


def test_every_format_is_written_and_read_again_here() -> None:
    """A format that is added needs a round trip of its own; then it belongs into this list."""
    recipes_of_others = {"supermerger-metadata", "supermerger-text", "webui-metadata", "autombw"}
    others = {"csv", "autombw-csv", "preset", "named", "supermerger-xl-parts", "json", "sd-mecha"}
    assert set(catalogue.formats()) == recipes_of_others | others | set(ORDERS)


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
