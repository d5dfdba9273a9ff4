"""What a run hands over: best.json, the recipe, the verdict and, on request, the checkpoint."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BASELINES, Origin, Scored
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.pictures import pixel_digest
from lib_automerge.domain.recipe import Recipe, recipe_json
from lib_automerge.domain.run import RunState
from lib_automerge.errors import ModelError, StorageError
from lib_automerge.generate.base import Generator, StopFlag
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.study.choices import UNIT as CHOICES_UNIT
from lib_automerge.study.judges import UNIT
from lib_automerge.study.store import RunFolder

BASELINE_KEYS = {Origin.MODEL_A: "a", Origin.MODEL_B: "b", Origin.HALF: "half"}


def write_best(folder: RunFolder, state: RunState) -> None:
    """Replace `best.json` by the incumbent."""
    incumbent = state.incumbent
    if incumbent is None:
        return
    found = {origin: state.baseline(origin) for origin in BASELINES}
    best = {
        "format": 1,
        "evaluation": incumbent.number,
        "score": incumbent.score,
        "weights": incumbent.weights,
        "baselines": {
            BASELINE_KEYS[origin]: evaluation.score if evaluation else None
            for origin, evaluation in found.items()
        },
    }
    folder.write("best.json", (json.dumps(best, indent=2) + "\n").encode())


def write_outcome(folder: RunFolder, recipe: Recipe, state: RunState) -> Recipe:
    """Write `recipe.json` and `verdict.json`; returns the recipe with its provenance."""
    verdict = state.verdict
    assert verdict is not None
    winner = state.evaluations[verdict.winner]
    recipe = msgspec.structs.replace(
        recipe,
        provenance={
            "evaluation": winner.number,
            "search_score": winner.score,
            "verdict": verdict.sentence,
            "gain": verdict.gain,
        },
    )
    folder.write("recipe.json", recipe_json(recipe).encode())
    facts = msgspec.to_builtins(verdict, str_keys=True)
    del facts["event"], facts["time"]
    # none for a reward that has a scale of its own
    unit = None if state.scale is None else f"{UNIT} of the same prompt"
    if any(comparison.choices is not None for comparison in verdict.comparisons):
        unit = CHOICES_UNIT
    facts = {"format": 1, "unit": unit, **facts}
    for comparison, shown in zip(verdict.comparisons, facts["comparisons"], strict=True):
        shown["significant"] = comparison.significant
    folder.write("verdict.json", (json.dumps(facts, indent=2) + "\n").encode())
    return recipe


def save_checkpoint(
    folder: RunFolder, recipe: Recipe, models: Mapping[str, Checkpoint], config: RunConfig
) -> Path:
    """Write the merged checkpoint where the configuration says; a complete one is kept.

    Raises:
        StorageError: another file has its name, or it cannot be written.
    """
    own = folder.path / f"merged-e{recipe.provenance['evaluation']:04d}.safetensors"
    path = own if config.output.path is None else Path(config.output.path)
    if not path.exists():
        # what a killed process left; this one holds the run, so nobody else writes the file
        for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            partial.unlink(missing_ok=True)
        write_merge(recipe, models, path, dtype=config.output.dtype)
    elif not _holds(path, recipe):
        raise StorageError(
            f"another file has the name of the merged checkpoint: {path}. Move it away and "
            "resume the run."
        )
    copy_host_config(models["a"].path, path)
    return path


def copy_host_config(model_a: Path, checkpoint: Path) -> None:
    """Give a merge the configuration file that model A has for the WebUI, if it has one.

    A YAML beside a checkpoint says how the WebUI builds its network; the merge needs the same.
    """
    config, copy = model_a.with_suffix(".yaml"), checkpoint.with_suffix(".yaml")
    if not config.is_file() or copy.exists():
        return
    try:
        shutil.copyfile(config, copy)
    except OSError as error:
        raise StorageError(
            f"cannot copy {config} to {copy}: {error.strerror}. The checkpoint is saved; copy the "
            "file yourself."
        ) from error


def _holds(path: Path, recipe: Recipe) -> bool:
    try:
        with open_checkpoint(path) as checkpoint:
            stored = json.loads(checkpoint.header.metadata.get("automerge_recipe", "{}"))
    except (ModelError, ValueError):
        return False
    return bool(stored.get("weights") == recipe.weights and stored.get("method") == recipe.method)


def reproduced(
    path: Path,
    generator: Generator,
    batch: Sequence[ImageJob],
    scored: Mapping[int, Scored],
    stop: StopFlag,
) -> int:
    """How many of the batch's scored images a saved checkpoint gives again, bit for bit."""
    with (
        open_checkpoint(path) as checkpoint,
        generator.open({"a": checkpoint}, stop) as session,
    ):
        images = list(session.images(batch, stop))
    return sum(pixel_digest(image) == scored[job.number].digest for job, image in images)


def sha256(path: Path) -> str:
    """The SHA-256 of a checkpoint file, in hex."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.sha256()
