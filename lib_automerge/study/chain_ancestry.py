"""How a model of a chain was made, as nested lists: recipes down to the files of the pool."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.recipe import Recipe, read_recipe
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.study.chain_store import ChainFolder, ChainManifest
from lib_automerge.study.formats import size
from lib_automerge.study.markup import EMPTY, Markup, element


def ancestry(folder: ChainFolder, manifest: ChainManifest, state: ChainState, name: str) -> Markup:
    """A model with the recipe that it was made by, and so for each of its inputs."""
    member = manifest.member(name)
    if member is not None:
        told = [element("b", name), f" {size(member.size)}, SHA-256 "]
        return element("p", *told, element("code", member.ref.sha256))
    made = state.made[name]
    try:
        recipe: Recipe | None = read_recipe(folder.path / made.recipe)
    except (StorageError, ConfigError):
        recipe = None
    summary = element("summary", element("b", name), " SHA-256 ", element("code", made.ref.sha256))
    if recipe is None:
        return element("details", summary, element("p", f"{made.recipe} cannot be read."))
    by_digest = {member.ref.sha256: member.name for member in manifest.pool}
    by_digest |= {made.ref.sha256: made.model for made in state.made.values()}
    inputs = [
        element("li", f"{role}: ", ancestry(folder, manifest, state, by_digest[ref.sha256]))
        for role, ref in recipe.models.items()
        if ref.sha256 in by_digest
    ]
    settings = {**recipe.parameters, **({"weights": recipe.weights} if recipe.weights else {})}
    method = f"{recipe.method}, {recipe.precision}"
    return element(
        "details",
        summary,
        element("p", method),
        element("pre", _lines(settings)) if settings else EMPTY,
        element("ul", *inputs),
        open=True,
    )


def _lines(settings: Mapping[str, object]) -> str:
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            numbers = ", ".join(f"{block} {weight:g}" for block, weight in value.items())
            lines.append(f"{name}: {numbers}")
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)
