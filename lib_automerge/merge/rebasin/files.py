"""Writes pi(B): model B as a checkpoint with its channels where they are nearest to A's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec

import lib_automerge
from lib_automerge.domain.detection import check_mergeable
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.merge.rebasin.cache import cached_match
from lib_automerge.merge.rebasin.matching import Matching, Progress, distance
from lib_automerge.merge.rebasin.tensors import Stored, whole
from lib_automerge.merge.sinks import FileSink, check_room


class Permutation(msgspec.Struct, frozen=True):
    """What came of permuting a model.

    Attributes:
        matching: what was found.
        written: whether the file was written; False after a cancel.
        before: L2 distance of A and B over all tensors that have a symmetry.
        after: L2 distance of A and pi(B) over the same; never larger.
    """

    matching: Matching
    written: bool
    before: float
    after: float


def permute_file(
    path_a: Path,
    path_b: Path,
    output: Path,
    *,
    cache: Path | None,
    sweeps: int = 10,
    seed: int = 0,
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Permutation:
    """Match B with A and write pi(B) under the names and in the number types of B's file.

    It computes what B computes, to rounding, and merges with A without mixing features that lie in
    different places. What has no symmetry (image autoencoder, embeddings, ...) is B's, unchanged.

    Args:
        path_a: the model that stays as it is.
        path_b: the model to permute.
        output: must not exist.
        cache: folder in which matchings are kept; None keeps nothing.
        sweeps: see `matching.match`.
        seed: likewise.
        report: likewise.
        cancelled: likewise; nothing is written after a cancel.

    Raises:
        ConfigError: the output has another ending, or there are no sweeps.
        ModelError: a model cannot be read, does not fit, is of a family whose symmetries are not
            known, or changed meanwhile.
        StorageError: the output exists or cannot be written, or the cache cannot.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(
            f"the output is called {output.name}, but a safetensors file is written. Let its name "
            "end in .safetensors."
        )
    stamps = [_stamp(path) for path in (path_a, path_b)]
    with open_checkpoint(path_a) as a, open_checkpoint(path_b) as b:
        check_mergeable({"A": (a.header, a.detection), "B": (b.header, b.detection)})
        names = {stored: key for key, stored in b.detection.keys.items()}
        layout = {
            stored: (b.tensor(key).dtype, tuple(b.tensor(key).shape))
            for stored, key in names.items()
        }
        model_a, model_b = Stored(a), Stored(b)
        # what B has may be copied whatever it is: nothing is computed
        sink = FileSink(output, layout, _metadata(a, b, sweeps, seed), copied=layout)
        check_room(output, sink.size)
        found = cached_match(
            model_a,
            model_b,
            a.detection.architecture,
            cache=cache,
            sweeps=sweeps,
            seed=seed,
            report=report,
            cancelled=cancelled,
        )
        permuted = found.permuted(model_b)
        keys = sorted({key for symmetry in found.symmetries for key in symmetry.keys})
        before, after = (distance(model_a, model, keys) for model in (model_b, permuted))
        if found.complete:
            with sink:
                for stored in sink.order:
                    sink.put(stored, whole(permuted, names[stored]))
                for path, stamp in zip((path_a, path_b), stamps, strict=True):
                    _check_unchanged(path, stamp)
        return Permutation(found, found.complete, before, after)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()  # opening it says why
    return status.st_size, status.st_mtime_ns, status.st_ino


def _check_unchanged(path: Path, stamp: tuple[int, ...]) -> None:
    if _stamp(path) != stamp:
        raise ModelError(
            f"{path.name} was changed while it was read. Nothing was written; begin again."
        )


def _metadata(a: Checkpoint, b: Checkpoint, sweeps: int, seed: int) -> dict[str, str]:
    """Format: AUTOMATIC1111's own merge metadata, and what Automerge would need to do it again.

    What B's file says of the model (title, author, licence, prediction type) is kept but for its
    hash, since the model is the same.
    """
    kept = {
        name: value
        for name, value in b.header.metadata.items()
        if name.startswith("modelspec.") and "hash" not in name
    }
    models = {
        model.sha256(): {"name": model.name, "legacy_hash": None, "sd_merge_recipe": None}
        for model in (a, b)
    }
    recipe = {
        "type": "automerge-rebasin",
        "version": lib_automerge.__version__,
        "primary_model_hash": a.sha256(),
        "secondary_model_hash": b.sha256(),
        "tertiary_model_hash": None,
        "interp_method": "rebasin",
    }
    made = {
        "kind": "automerge-rebasin",
        "format": 1,
        "what": "model b with its channels nearest to those of a; computes what b does",
        "architecture": a.detection.architecture,
        "models": {
            role: {"name": model.name, "sha256": model.sha256()}
            for role, model in (("a", a), ("b", b))
        },
        "sweeps": sweeps,
        "seed": seed,
    }
    return {
        **kept,
        "format": "pt",
        "sd_merge_recipe": json.dumps(recipe),
        "sd_merge_models": json.dumps(models),
        "automerge_rebasin": json.dumps(made),
    }
