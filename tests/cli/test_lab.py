from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_automerge import cli
from lib_automerge.merge.lab import catalogue
from tests.checkpoints import write_tiny

KEY = "model.diffusion_model.out.2.weight"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [
        str(write_tiny(tmp_path / f"m{seed}.safetensors", "sd1", seed=seed)) for seed in range(3)
    ]


def test_soup_merges_what_the_command_line_names(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert cli.main(["soup", "average", *files, "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    expected = torch.stack([load_file(file)[KEY].double() for file in files]).mean(0)
    assert torch.allclose(load_file(out)[KEY].double(), expected, atol=1e-4)


def test_soup_takes_a_base_and_parameters_by_block(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    words = ["soup", "ties", *files[1:], "--base", files[0], "--set", "k=0.5"]
    words += ["--set", "scale=OUT:0,M00:2", "-o", str(out), "--threads", "2", "--memory", "3GiB"]
    assert cli.main(words) == 0
    base, found = load_file(files[0]), load_file(out)
    assert torch.equal(found[KEY], base[KEY])
    assert not torch.equal(
        found["model.diffusion_model.middle_block.0.in_layers.2.weight"],
        base["model.diffusion_model.middle_block.0.in_layers.2.weight"],
    )


def test_soup_without_parameters_uses_the_default_of_the_weight(
    files: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    assert cli.main(["soup", "weighted_sum", *files[:2], "-o", str(out)]) == 0
    a, b = (load_file(file)[KEY].double() for file in files[:2])
    assert torch.allclose(load_file(out)[KEY].double(), (a + b) / 2, atol=1e-4)


def test_merge_carries_out_what_a_soup_embeds(files: list[str], tmp_path: Path) -> None:
    from safetensors import safe_open

    out = tmp_path / "out.safetensors"
    cli.main(["soup", "dare", *files[1:], "--base", files[0], "--set", "seed=4", "-o", str(out)])
    with safe_open(out, "pt") as file:
        recipe = json.loads(file.metadata()["automerge_recipe"])
    for model, path in zip(recipe["models"].values(), files, strict=True):
        model["path"] = path
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    again = tmp_path / "again.safetensors"
    words = ["merge", str(tmp_path / "recipe.json"), "-o", str(again), "--threads", "1"]
    assert cli.main(words) == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["soup", "tiess", "A", "B"], "Did you mean 'ties'"),
        (["soup", "ties", "A", "B"], "needs --base FILE"),
        (["soup", "average", "A", "B", "--base", "C"], "takes no --base"),
        (["soup", "slerp", "A"], "takes 2 models: a, b; 1 were given"),
        (["soup", "slerp", "A", "B", "--set", "weight"], "cannot be read"),
        (["soup", "slerp", "A", "B", "--set", "weight=3"], "It must be from -1 to 2"),
        (["soup", "slerp", "A", "B", "--set", "weight=M00:0.1,M00:0.2"], "each block once"),
        (["soup", "slerp", "A", "B", "--set", "weight=M00:x"], "cannot be read at 'M00:x'"),
        (["soup", "slerp", "A", "B", "--memory", "big"], "memory cannot be read: 'big'"),
        (["soup", "slerp", "A", "B", "--memory", "10MiB"], "too little for this merge"),
        (["soup", "slerp", "A", "B", "--threads", "0"], "--threads is 0"),
        (["soup", "slerp", "A", "B", "--resume"], "nothing to resume"),
        (["soup", "slerp", "A", "nowhere.safetensors"], "no such file"),
    ],
)
def test_errors_are_sentences_and_nothing_is_written(
    words: list[str], told: str, files: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = dict(zip("ABC", files, strict=True))
    out = tmp_path / "out.safetensors"
    assert cli.main([names.get(word, word) for word in words] + ["-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert told in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out*"))


def test_options_of_the_lab_are_refused_for_other_recipes(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "architecture": "sd1", "method": "weighted_sum", "weights": {"M00": 0.5},
        "models": {"a": {"name": "A", "path": files[0]}, "b": {"name": "B", "path": files[1]}},
    }  # fmt: skip
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    out = str(tmp_path / "out.safetensors")
    assert cli.main(["merge", str(path), "-o", out, "--memory", "1GiB"]) == 2
    assert "do not reach weighted_sum in fp32" in capsys.readouterr().err
    assert cli.main(["merge", str(path), "-o", out]) == 0


def test_methods_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    told = capsys.readouterr().out
    for name in catalogue.names():
        assert f"\n{name}: " in f"\n{told}"
    assert "2306.01708" in told
    assert cli.main(["methods", "della", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    favour = next(one for one in found["parameters"] if one["name"] == "favour")
    assert favour["choices"] == ["large", "small"]
    assert cli.main(["methods", "delta"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_leaves_no_file_and_resume_completes_it(tmp_path: Path) -> None:
    # large enough that a signal arrives in the middle
    extra = {"model_ema.x": torch.zeros(40_000_000)}
    files = [
        str(
            write_tiny(tmp_path / f"m{n}.safetensors", "sd1", seed=n, extra=extra if n == 0 else {})
        )
        for n in range(2)
    ]
    out = tmp_path / "out.safetensors"
    words = [sys.executable, "-m", "lib_automerge", "soup", "average", *files, "-o", str(out)]
    whole = tmp_path / "whole.safetensors"
    assert cli.main(["soup", "average", *files, "-o", str(whole)]) == 0
    process = subprocess.Popen([*words, "--threads", "1"], stderr=subprocess.PIPE, text=True)
    partial = tmp_path / ".out.safetensors.partial"
    deadline = time.monotonic() + 60
    while not partial.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the merge was faster than the signal")
    assert process.returncode == 130, error
    assert "Stopped: the merge was cancelled" in error
    assert "Traceback" not in error
    assert not out.exists()
    if "--resume" in error:
        assert partial.exists()
        assert subprocess.run([*words, "--resume"], check=False).returncode == 0
        assert out.read_bytes() == whole.read_bytes()
    else:
        assert not partial.exists()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_components_are_changed_on_save(
    precision: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "format": 1, "kind": "automerge-recipe", "architecture": "sd1", "method": "weighted_sum",
        "precision": precision, "weights": {"OUT": 0.5, "BASE": 0.5},
        "models": {"a": {"name": "A", "path": files[0]}, "b": {"name": "B", "path": files[1]}},
    }  # fmt: skip
    path, out = tmp_path / "recipe.json", tmp_path / "out.safetensors"
    path.write_text(json.dumps(recipe))
    words = ["merge", str(path), "-o", str(out), "--text-encoder", files[2], "--fix-positions"]
    assert cli.main(words) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out)
    assert "Note: Took the text encoder of m2.safetensors." in told.err
    found, donor = load_file(out), load_file(files[2])
    text = [key for key in found if key.startswith("cond_stage_model.")]
    assert all(torch.equal(found[key], donor[key]) for key in text)
    assert not torch.equal(found[KEY], donor[KEY])
    assert cli.main(["merge", str(path), "-o", str(tmp_path / "2.safetensors"), "--drop-ema"]) == 2
    assert "the merge holds no EMA copy" in capsys.readouterr().err


def test_a_soup_gets_another_vae(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert cli.main(["soup", "average", *files[:2], "-o", str(out), "--vae", files[2]]) == 0
    found, donor = load_file(out), load_file(files[2])
    vae = [key for key in found if key.startswith("first_stage_model.")]
    assert vae
    assert all(torch.equal(found[key], donor[key]) for key in vae)
