"""What is written for sd-mecha, read by sd-mecha itself, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib_automerge.domain import architectures
from lib_automerge.domain.dialects import mecha_read, mecha_write
from lib_automerge.domain.dialects.mecha_configs import CONFIGS
from lib_automerge.domain.dialects.sketch import recipe_of
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.sinks import DictSink
from tests.checkpoints import write_tiny

sd_mecha = pytest.importorskip("sd_mecha")

SD1 = architectures.get("sd1")
KINDS = [architectures.get(name) for name in CONFIGS]
MANY: dict[str, dict[str, ParameterValue]] = {
    "average": {},
    "geometric_median": {"iterations": 7.0},
    "ties": {"k": 0.5, "scale": {"VAE": 0.5}},
    "ties_soup": {},
}
FIXED = {
    "weighted_sum": "ab",
    "slerp": "ab",
    "cosine_a": "ab",
    "cosine_b": "ab",
    "amplified_difference": "ab",
    "add_difference": "abc",
    "train_difference": "abc",
    "sum_twice": "abc",
}


def recipe(method: str, architecture: str, weights: dict[str, float]) -> Recipe:
    roles = tuple(FIXED.get(method, ())) or ("base", "m001", "m002")
    if method in ("average", "geometric_median"):
        roles = ("m001", "m002")
    return Recipe(
        architecture=architecture,
        method=method,
        models={r: ModelRef(r, "ab" * 32, f'/some "where"\\{r} x.safetensors') for r in roles},
        weights=weights if method in FIXED else {},
        parameters=MANY.get(method, {}),
    )


@pytest.mark.parametrize("method", [*FIXED, *MANY])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("weights", ["same", "free"])
def test_sd_mecha_reads_what_is_written(
    method: str, kind: architectures.Architecture, weights: str
) -> None:
    given = {block: 0.5 if weights == "same" else n / 128 for n, block in enumerate(kind.blocks)}
    whole = recipe(method, kind.name, given)
    node = sd_mecha.deserialize(mecha_write.write(whole, kind))
    again = mecha_read.read(sd_mecha.serialize(node, finalize=False))
    found = recipe_of(again, kind)
    assert found.method == method
    assert found.weights == whole.weights
    assert [ref.path for ref in found.models.values()] == [r.path for r in whole.models.values()]


class Silent:
    """Takes the place of a progress bar."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "lacking"),
    [
        ("weighted_sum", "sd1", ()),
        ("add_difference", "sd1", ()),
        ("weighted_sum", "sd3_medium", ()),
        # files of the transformer alone, and of schnell
        ("add_difference", "sd3_medium", ("text_encoders.*",)),
        ("weighted_sum", "flux1", ()),
        ("add_difference", "flux1", ("text_encoders.*", "vae.*", "*.guidance_in.*")),
    ],
)
def test_sd_mecha_merges_the_same(
    method: str, kind: str, lacking: tuple[str, ...], tmp_path: Path
) -> None:
    architecture = architectures.get(kind)
    roles = FIXED[method]
    refs = {}
    for seed, role in enumerate(roles):
        path = tmp_path / f"{role}.safetensors"
        write_tiny(path, kind, seed=seed, dtype=torch.float32, drop=lacking)
        refs[role] = ModelRef(role, "", str(path))
    models = {role: open_checkpoint(Path(ref.path)) for role, ref in refs.items()}
    held = {architecture.block_of(key) for key in models["a"].keys()}  # noqa: SIM118
    weights = {b: n / 128 for n, b in enumerate(architecture.blocks) if b in held}
    whole = Recipe(architecture=kind, method=method, models=refs, weights=weights)
    merged = sd_mecha.merge(
        sd_mecha.deserialize(mecha_write.write(whole, architecture)),
        output=None,
        threads=1,
        merge_dtype=torch.float64,
        output_dtype=torch.float32,
        tqdm=Silent,
    )
    sink = DictSink()
    Merger(models, method).merge(weights, sink)
    for key, tensor in sink.tensors.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(merged[key], tensor, rtol=0, atol=1e-7)
