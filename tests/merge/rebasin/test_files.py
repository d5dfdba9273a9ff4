from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_automerge import demo
from lib_automerge.cli import main
from lib_automerge.errors import ConfigError, ModelError, StorageError
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin import files
from lib_automerge.merge.rebasin.files import permute_file
from lib_automerge.merge.rebasin.matching import Progress
from lib_automerge.merge.rebasin.orders import Layout, shuffled
from lib_automerge.merge.rebasin.tensors import Permuted, Stored, shared_symmetries, whole
from lib_automerge.run_commands import DONE, INTERRUPTED
from tests.checkpoints import write_tiny


def write_shuffled(source: Path, target: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a checkpoint with its channels in random order, under the names of its file."""
    with open_checkpoint(source) as checkpoint:
        model = Stored(checkpoint)
        found = shared_symmetries(checkpoint.detection.architecture, model, model)
        permuted = Permuted(model, Layout(found), shuffled(found, 0))
        names = checkpoint.detection.keys
        tensors = {stored: whole(permuted, key) for key, stored in names.items()}
    save_file(tensors, target, metadata)
    return target


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's two models, the second one shuffled."""
    folder = tmp_path_factory.mktemp("pair")
    return demo.MODEL_A, write_shuffled(demo.MODEL_B, folder / "shuffled.safetensors")


def test_the_file_is_b_with_its_channels_back(pair: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    made = permute_file(*pair, output, cache=tmp_path / "cache")
    assert made.written
    assert made.matching.converged
    assert made.after < 0.25 * made.before
    found, original = load_file(output), load_file(demo.MODEL_B)
    assert found.keys() == original.keys()
    assert all(found[key].dtype == original[key].dtype for key in original)
    different = [key for key in original if not torch.equal(found[key], original[key])]
    # Both were trained from one start, so that B's own order is the nearest to A.
    assert different == []
    with safe_open(output, "pt") as file:
        metadata = file.metadata()
    told = json.loads(metadata["automerge_rebasin"])
    assert told["kind"] == "automerge-rebasin"
    assert told["models"]["a"]["name"] == pair[0].stem
    assert told["models"]["b"]["name"] == "shuffled"
    assert (
        json.loads(metadata["sd_merge_recipe"])["secondary_model_hash"]
        == (told["models"]["b"]["sha256"])
    )
    assert str(tmp_path) not in json.dumps(metadata)


def test_names_of_the_file_and_what_has_no_symmetry_are_kept(tmp_path: Path) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1")
    strange = torch.tensor([torch.inf, 1.0])
    b = write_tiny(
        tmp_path / "b.safetensors",
        "sd1",
        rename=lambda key: key.replace("model.diffusion_model.", "diffusion_model.").replace(
            "transformer.text_model.", "transformer."
        ),
        extra={"betas": strange},
        dtype=torch.float32,
    )
    told = {"modelspec.title": "B", "modelspec.hash_sha256": "0x1", "notes": "private"}
    shuffled_b = write_shuffled(b, tmp_path / "shuffled.safetensors", metadata=told)
    output = tmp_path / "out.safetensors"
    permute_file(a, shuffled_b, output, cache=None)
    found, original = load_file(output), load_file(b)
    assert found.keys() == original.keys()
    assert torch.equal(found["betas"], strange)
    with safe_open(output, "pt") as file:
        assert {name for name in told if name in file.metadata()} == {"modelspec.title"}
    assert all(torch.equal(found[key], original[key]) for key in original)


def test_a_cancelled_one_writes_nothing_and_goes_on(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    output, steps = tmp_path / "out.safetensors", list[Progress]()
    made = permute_file(
        *pair,
        output,
        cache=tmp_path / "cache",
        report=steps.append,
        cancelled=lambda: len(steps) == 30,
    )
    assert not made.written
    assert not made.matching.complete
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    made = permute_file(*pair, output, cache=tmp_path / "cache", report=steps.append)
    assert made.written
    assert steps[30].done == 31


def test_what_cannot_work_is_told_before_the_work(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("it began to match")

    monkeypatch.setattr(files, "cached_match", fail)
    with pytest.raises(ConfigError, match=r"end in \.safetensors"):
        permute_file(*pair, tmp_path / "out.ckpt", cache=None)
    (tmp_path / "there.safetensors").write_text("")
    with pytest.raises(StorageError, match="exists already"):
        permute_file(*pair, tmp_path / "there.safetensors", cache=None)
    with pytest.raises(StorageError, match="no folder"):
        permute_file(*pair, tmp_path / "no" / "out.safetensors", cache=None)
    with pytest.raises(ModelError, match="no such file"):
        permute_file(pair[0], tmp_path / "none.safetensors", tmp_path / "o.safetensors", cache=None)
    other = write_tiny(tmp_path / "sdxl.safetensors", "sdxl")
    with pytest.raises(ModelError, match="different families"):
        permute_file(pair[0], other, tmp_path / "o.safetensors", cache=None)
    assert not list(tmp_path.glob("*.partial"))


def test_a_model_that_changes_meanwhile_gives_no_file(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    b = tmp_path / "b.safetensors"
    b.write_bytes(pair[1].read_bytes())
    content = b.read_bytes()

    def report(step: Progress) -> None:
        if step.sweep == 1 and step.done == 1:
            b.unlink()
            b.write_bytes(content)

    with pytest.raises(ModelError, match=r"b\.safetensors was changed while it was read"):
        permute_file(pair[0], b, tmp_path / "out.safetensors", cache=None, report=report)
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


def test_the_command_shows_progress_and_what_came_of_it(
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["rebasin", *map(str, pair), "-o", "out.safetensors", "--sweeps", "4", "--seed", "3"]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lib_automerge.merge.rebasin.files.distance", interrupt)
        assert main([*command, "--cache", "kept"]) == INTERRUPTED
    told = capsys.readouterr().out
    assert "sweep 1 of at most 4: 112 of 112 | " in told
    assert "The same command goes on from there." in told
    assert not Path("out.safetensors").exists()
    assert main([*command, "--cache", "kept"]) == DONE
    told = capsys.readouterr().out
    assert "sweep" not in told  # it was known
    assert "Channels moved in 112 of 112 places: the L2 distance to A is " in told
    with safe_open("out.safetensors", "pt") as file:
        made = json.loads(file.metadata()["automerge_rebasin"])
    assert (made["sweeps"], made["seed"]) == (4, 3)
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    # matched with itself
    assert main(["rebasin", str(pair[0]), str(pair[0]), "-o", "same.safetensors"]) == DONE
    assert "lie best as they are in all 112 places" in capsys.readouterr().out
    assert (tmp_path / "automerge-data" / "rebasin").is_dir()
