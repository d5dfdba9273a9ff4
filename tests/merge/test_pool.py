from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as numpy_file
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import pool
from lib_automerge.merge.pool import pool_distances, sampled
from lib_automerge.merge.pool_text import format_pool, pool_data
from tests.checkpoints import tiny_state, write_tiny

UNET = "model.diffusion_model."


def save(path: Path, state: dict[str, Tensor]) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


def vectors(path: Path) -> dict[str, np.ndarray]:
    """Block -> all its weights in a fixed order, in float64: read by another library."""
    block_of = architectures.get("sd1").block_of
    parts: dict[str, list[np.ndarray]] = {}
    for key, tensor in sorted(numpy_file(path).items()):
        block = block_of(key)
        if block is not None:
            parts.setdefault(block, []).append(tensor.astype(np.float64).ravel())
    return {block: np.concatenate(found) for block, found in parts.items()}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    dtypes = (torch.float16, torch.float32, torch.float16)
    return [
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed=seed, dtype=dtype)
        for seed, dtype in enumerate(dtypes)
    ]


@pytest.mark.parametrize("piece", [1, 999, 1 << 15])
@pytest.mark.parametrize("based", [False, True])
def test_distances_equal_those_of_whole_vectors(
    files: list[Path], piece: int, based: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if piece == 1:  # every element on its own takes long: a few blocks tell
        files = [smaller(path) for path in files]
    monkeypatch.setattr(pool, "PIECE", piece)
    found = pool_distances(files[1:], base=files[0]) if based else pool_distances(files)
    assert found.files == tuple(files)
    parts = {**found.blocks, **found.components}
    assert {"IN04", "UNet", "BASE", "VAE", "all"} <= parts.keys() or piece == 1
    sd1 = architectures.get("sd1")
    members = {name: [name] for name in found.blocks} | {"UNet": [*sd1.parameters]}
    states = [vectors(path) for path in files]
    for name, blocks in members.items():
        whole = np.stack([np.concatenate([state[b] for b in blocks]) for state in states])
        part = parts[name]
        assert part.parameters == whole.shape[1]
        expected = np.linalg.norm(whole[:, None] - whole[None], axis=-1)
        np.testing.assert_allclose(part.l2, expected, rtol=1e-12, atol=0)
        pointing = whole - whole[0] if based else whole
        for i, j in combinations(range(int(based), len(files)), 2):
            cosine = pointing[i] @ pointing[j]
            cosine /= np.linalg.norm(pointing[i]) * np.linalg.norm(pointing[j])
            assert part.cosine[i, j] == pytest.approx(cosine, abs=1e-12)
        assert np.isnan(part.cosine[0]).all() == based


def smaller(path: Path) -> Path:
    state = load_file(path)
    small = {k: v for k, v in state.items() if not k.startswith(("cond_", "first_"))}
    return save(path.with_name(f"small_{path.name}"), {k: thin(v) for k, v in small.items()})


def thin(tensor: Tensor) -> Tensor:
    """The first slice along every axis: one number."""
    return tensor[tuple(slice(0, 1) for _ in tensor.shape)]


def test_close_relatives_keep_their_digits_on_a_line(tmp_path: Path) -> None:
    """A, B and C on a line, a thousandth of the models' own length apart."""
    base = {k: t.double() for k, t in tiny_state("sd1").items() if k.startswith(UNET)}
    direction = tiny_state("sd1", seed=9)
    steps = (0.0, 1e-3, 4e-3)
    paths = [
        save(
            tmp_path / f"{step}.safetensors",
            {k: t + step * direction[k].double() for k, t in base.items()},
        )
        for step in steps
    ]
    for part in pool_distances(paths).blocks.values():
        ab, bc, ac = part.l2[0, 1], part.l2[1, 2], part.l2[0, 2]
        assert bc == pytest.approx(3 * ab, rel=1e-9)
        assert ac == pytest.approx(ab + bc, rel=1e-9)
    found = pool_distances(paths[1:], base=paths[0])
    assert found.components["UNet"].cosine[1, 2] == pytest.approx(1.0, abs=1e-12)


def test_close_relatives_keep_their_digits_beside_a_far_first_model(tmp_path: Path) -> None:
    """The first is a thousand away, the others a ten-thousandth of one from each other."""
    base = {k: t.double() for k, t in tiny_state("sd1").items() if k.startswith(UNET)}
    direction = {k: t.double() for k, t in tiny_state("sd1", seed=9).items()}
    steps = {"far": 300.0, "one": 0.0, "two": 1e-6, "three": 4e-6}
    paths = [
        save(
            tmp_path / f"{name}.safetensors", {k: t + step * direction[k] for k, t in base.items()}
        )
        for name, step in steps.items()
    ]
    found = pool_distances(paths)
    states = [vectors(path) for path in paths]
    for block, part in found.blocks.items():
        whole = np.stack([state[block] for state in states])
        expected = np.linalg.norm(whole[:, None] - whole[None], axis=-1)
        np.testing.assert_allclose(part.l2, expected, rtol=1e-8, atol=0)
    near = found.components["UNet"].l2[1, 2]
    assert found.components["UNet"].l2[0, 1] > 1e7 * near
    assert f"{near:.5g}" in format_pool(found)


def test_equal_models_are_at_distance_zero_exactly(files: list[Path], tmp_path: Path) -> None:
    state = tiny_state("sd1", seed=0)
    twin = save(tmp_path / "twin.safetensors", {k: t.float() for k, t in state.items()})
    near = {k: t.clone() for k, t in state.items()}
    near[f"{UNET}out.2.bias"][0] += 0.5
    other = save(tmp_path / "near.safetensors", near)
    found = pool_distances([files[1], files[0], other, twin])
    for name, part in found.blocks.items():
        assert (np.diag(part.l2) == 0).all()
        assert part.l2[1, 3] == 0.0
        assert part.cosine[1, 3] == 1.0
        assert bool(part.l2[1, 2] == 0.0) is (name != "OUT")
        assert part.l2[0, 1] > 0
    assert found.blocks["OUT"].l2[1, 2] == pytest.approx(0.5, rel=1e-2)


def test_what_some_file_lacks_is_left_out_and_told(files: list[Path], tmp_path: Path) -> None:
    bare = write_tiny(
        tmp_path / "bare.safetensors", "sd1", seed=7, drop=["first_stage_model.*"], channels=9
    )
    found = pool_distances([*files, bare])
    assert "VAE" not in found.blocks
    assert len(found.left_out) == 249
    assert f"{UNET}input_blocks.0.0.weight" in found.left_out
    assert "249 weights that some file lacks" in format_pool(found)
    assert (
        found.blocks["IN00"].parameters == tiny_state("sd1")[f"{UNET}input_blocks.0.0.bias"].numel()
    )


def test_pickled_files_and_transformers(tmp_path: Path) -> None:
    for seed in range(2):
        torch.save(tiny_state("sd1", seed=seed), tmp_path / f"{seed}.ckpt")
    saved = [write_tiny(tmp_path / f"{n}.safetensors", "sd1", seed=n) for n in range(2)]
    pickled = pool_distances([tmp_path / "0.ckpt", tmp_path / "1.ckpt"])
    assert (pickled.components["all"].l2 == pool_distances(saved).components["all"].l2).all()
    small = [
        write_tiny(tmp_path / f"f{n}.safetensors", "z_image", seed=n, dtype=torch.float8_e4m3fn)
        for n in range(2)
    ]
    found = pool_distances(small)
    assert next(iter(found.components)) == "transformer"
    assert set(found.blocks) == set(architectures.get("z_image").blocks)


def test_bad_pools_are_refused(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 file has no distance"):
        pool_distances(files[:1])
    with pytest.raises(ConfigError, match="named twice"):
        pool_distances([files[0], files[0]])
    xl = write_tiny(tmp_path / "xl.safetensors", "sdxl")
    with pytest.raises(ModelError, match=r"different families: 0\.safeten.*xl\.safeten"):
        pool_distances([files[0], xl])
    state = tiny_state("sd1")
    state[f"{UNET}out.2.bias"][1] = math.inf
    broken = save(tmp_path / "broken.safetensors", state)
    with pytest.raises(ModelError, match=r"broken\.safetensors: it holds NaN .*out\.2\.bias"):
        pool_distances([files[0], broken])


def test_a_file_by_two_names_is_one_model(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(files[0])
    monkeypatch.chdir(tmp_path)
    for other in (link, Path(files[0].name), tmp_path / ".." / tmp_path.name / files[0].name):
        with pytest.raises(ConfigError, match=f"named twice: {files[0]} and "):
            pool_distances([files[0], files[1], other])
        assert pool_distances(files[:2], base=other).files == (other, files[1])
        assert pool.without(files, other) == files[1:]


@pytest.mark.parametrize("size", [1e200, -1e160])
def test_numbers_that_no_model_has_are_refused(
    size: float, files: list[Path], tmp_path: Path
) -> None:
    state = {key: value.double() for key, value in tiny_state("sd1").items()}
    state[f"{UNET}out.2.bias"][1] = size
    broken = save(tmp_path / "broken.safetensors", state)
    for pair in ([files[0], broken], [broken, files[0]]):
        with pytest.raises(ModelError, match=rf"broken.*2\.bias' holds 1e.{str(size)[-3:]}"):
            pool_distances(pair)


def test_very_large_distances_stand_apart_in_the_table(files: list[Path], tmp_path: Path) -> None:
    state = {key: value.double() for key, value in tiny_state("sd1").items()}
    state[f"{UNET}out.2.bias"][1] = 1.23456e150
    large = save(tmp_path / "large.safetensors", state)
    table = format_pool(pool_distances([*files[:2], large])).split("UNet: L2 distance")[1]
    row = table.splitlines()[2].split()
    assert row[0] == "[1]"
    assert row[3] == "1.2346e+150"


def test_the_base_may_be_among_the_files(files: list[Path]) -> None:
    assert pool_distances(files, base=files[2]).files == (files[2], files[0], files[1])


def test_samples_are_reproducible_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n:03}.safetensors" for n in range(216)]
    drawn = sampled(paths, 20, 1)
    assert len(set(drawn)) == 20
    assert drawn == sampled(paths[::-1], 20, 1) == sorted(drawn)
    assert drawn != sampled(paths, 20, 2)
    counts = sum(path in sampled(paths, 20, seed) for seed in range(100) for path in paths[:108])
    assert 850 < counts < 1150  # about half of the 2000 drawn come from the first half
    for count in (1, 217):
        with pytest.raises(ConfigError, match=f"cannot draw {count} of 216"):
            sampled(paths, count, 0)
    with pytest.raises(ConfigError, match="the seed is -1"):
        sampled(paths, 2, -1)


def test_memory_does_not_grow_with_the_models(tmp_path: Path) -> None:
    """Eight files of 16 MB each: holding them would take 100 MB more than two do."""
    script = (
        "import resource, sys; from pathlib import Path; from lib_automerge.merge import pool;"
        "files = [Path(name) for name in sys.argv[1:]];"
        "pool.pool_distances(files[:2]);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "pool.pool_distances(files);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    state = tiny_state("sd1", dtype=torch.float32)
    state[f"{UNET}time_embed.0.weight"] = torch.zeros(4_000_000, 1)
    paths = [tmp_path / f"{n}.safetensors" for n in range(8)]
    for n, path in enumerate(paths):
        state[f"{UNET}time_embed.0.bias"][0] = n
        save(path, state)
    grown = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True
    ).stdout
    assert int(grown) < 16_000  # kB


def test_text_and_data(files: list[Path]) -> None:
    found = pool_distances(files[1:], base=files[0])
    text = format_pool(found)
    assert max(map(len, text.splitlines()[3:])) <= 100
    assert "(base)" in text.splitlines()[0]
    assert "cosine of the differences from the base" in text
    data = json.loads(json.dumps(pool_data(found), allow_nan=False))
    assert data["base"] == str(files[0])
    assert data["components"]["UNet"]["cosine"][0] == [None, None, None]
    assert data["blocks"]["M00"]["l2"] == found.blocks["M00"].l2.tolist()
