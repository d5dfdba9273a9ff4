"""Making the result of a chain again, from the files of its pool alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.dialects.sketch import Hint
from lib_automerge.domain.lineage import Lineage
from lib_automerge.domain.recipe import read_recipe
from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge import lookup
from lib_automerge.merge.files import merge_files
from lib_automerge.merge.sinks import check_output
from lib_automerge.study.chain_store import ChainFolder, ChainManifest

WHOLE = "whole.json"
"""In the folder `recipes` of a chain: the lineage of its result."""


def lineage_of(
    name: str, folder: ChainFolder, manifest: ChainManifest, state: ChainState
) -> Lineage:
    """How a model of a chain came about.

    Raises:
        StorageError, ConfigError: a recipe of the chain cannot be read.
    """
    member = manifest.member(name)
    if member is not None:
        return Lineage(name=name, sha256=member.ref.sha256, path=member.ref.path)
    by_digest = {member.ref.sha256: member.name for member in manifest.pool}
    by_digest |= {made.ref.sha256: made.model for made in state.made.values()}
    made = state.made[name]
    recipe = read_recipe(folder.path / made.recipe)
    inputs = {
        role: lineage_of(by_digest[ref.sha256], folder, manifest, state)
        for role, ref in recipe.models.items()
    }
    nowhere = {role: msgspec.structs.replace(ref, path="") for role, ref in recipe.models.items()}
    return Lineage(
        name=name,
        sha256=made.ref.sha256,
        recipe=msgspec.structs.replace(recipe, models=nowhere),
        inputs=inputs,
    )


def rebuild(
    lineage: Lineage,
    output: Path,
    folders: Sequence[Path] = (),
    told: Callable[[str], None] = lambda _sentence: None,
) -> Path:
    """Make a model again; the file has the same bytes as the first one.

    What is made on the way lies in a folder beside the output until it is done.

    Args:
        lineage: of the model.
        output: must not exist.
        folders: searched for the given files, which must have their SHA-256, where they are no
            longer at their last known path.
        told: of every merge, in words.

    Raises:
        ConfigError: the model was given, not made.
        ModelError: a file is not found, or the result is another one.
        StorageError: it cannot be written.
        AutomergeError: as `merge_files`.
    """
    check_output(output)
    if lineage.recipe is None:
        raise ConfigError(
            f"{lineage.name} was not made by the chain: it is the file {lineage.path}. There is "
            "nothing to rebuild."
        )
    if output.exists():
        raise StorageError(f"the file exists already: {output}. Choose another name.")
    if not output.parent.is_dir():
        raise StorageError(f"there is no folder {output.parent}. Create it or choose another one.")
    paths = _given(lineage, folders, told)
    with tempfile.TemporaryDirectory(prefix=".rebuild-", dir=output.parent) as parts:
        for number, model in enumerate(lineage.models()):
            if model.recipe is None:
                continue
            target = (
                output if model.sha256 == lineage.sha256 else Path(parts, f"{number}.safetensors")
            )
            told(f"making {model.name}")
            models = {
                role: msgspec.structs.replace(ref, path=str(paths[ref.sha256]))
                for role, ref in model.recipe.models.items()
            }
            merge_files(msgspec.structs.replace(model.recipe, models=models), target)
            found = lookup.sha256(target)
            if found != model.sha256:
                target.unlink()
                raise ModelError(
                    f"{model.name} was made again, but is another file: its SHA-256 is "
                    f"{found[:12]}..., it was {model.sha256[:12]}.... Use the version of Automerge "
                    "that the chain was made with; its chain.json tells it."
                )
            paths[model.sha256] = target
    return output


def _given(
    lineage: Lineage, folders: Sequence[Path], told: Callable[[str], None]
) -> dict[str, Path]:
    """Where the files lie that were given: SHA-256 -> path."""
    given = [model for model in lineage.models() if model.recipe is None]
    paths = {}
    missing = {}
    for model in given:
        path = Path(model.path)
        if path.is_file() and lookup.sha256(path) == model.sha256:
            paths[model.sha256] = path
        else:
            missing[model.name] = Hint(name=path.stem, sha256=model.sha256)
    if missing:
        found = lookup.find(missing, folders, told=told)
        paths |= {ref.sha256: Path(ref.path) for ref in found.models.values()}
    return paths
