from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from lib_automerge import cli
from tests.checkpoints import write_tiny
from tests.domain.dialects import published


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, where digests of models are kept."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for seed, name in enumerate(("08b-AstolfoMix-_13a_14a", "09b-AstolfoMix-_15a_16a")):
        write_tiny(folder / f"{name}.safetensors", "sd1", seed=seed)
    return folder


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_result_is_made_again_from_its_own_metadata(
    dtype: str | None, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "15b.recipe.txt"
    text.write_text(published.AUTOMBW_15B)
    recipe, merged = tmp_path / "recipe.json", tmp_path / "merged.safetensors"
    arguments = ["convert", str(text), "--to", "json", "--models", str(pair), "-o", str(recipe)]
    assert cli.main(arguments) == 0
    assert "found by its name alone" in capsys.readouterr().err
    chosen = [] if dtype is None else ["--dtype", dtype]
    assert cli.main(["merge", str(recipe), "-o", str(merged), *chosen]) == 0

    moved = tmp_path / "elsewhere" / "deep"
    shutil.move(pair, moved)
    (moved / "08b-AstolfoMix-_13a_14a.safetensors").rename(moved / "renamed.safetensors")
    again = tmp_path / "again.safetensors"
    assert cli.main(["merge", str(recipe), "-o", str(again)]) == 2
    assert "no such file" in capsys.readouterr().err
    read, second = tmp_path / "read.json", tmp_path / "second.safetensors"
    where = ["--models", str(tmp_path / "elsewhere")]
    assert cli.main(["convert", str(merged), "--to", "json", "-o", str(read), *where]) == 0
    assert cli.main(["merge", str(read), "-o", str(second)]) == 0
    assert digest(second) == digest(merged)
    # or straight from the checkpoint
    assert cli.main(["merge", str(merged), "-o", str(again), *where]) == 0
    assert digest(again) == digest(merged)


def test_a_merge_of_the_lab_is_made_again_from_its_own_metadata(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(pair / "base.safetensors", "sd1", seed=7)
    names = [path.stem for path in sorted(pair.iterdir())]
    text = published.MECHA_TIES
    for old, name in zip(("models/a", "models/b", "models/base"), names, strict=True):
        text = text.replace(f'"{old}.safetensors"', f'"{name}.safetensors"')
    merged, again = tmp_path / "merged.safetensors", tmp_path / "again.safetensors"
    mecha = tmp_path / "ties.mecha"
    mecha.write_text(text)
    where = ["--models", str(pair)]
    assert cli.main(["merge", str(mecha), "-o", str(merged), *where]) == 0
    pair.rename(tmp_path / "moved")
    (tmp_path / "moved" / "base.safetensors").rename(tmp_path / "moved" / "other.safetensors")
    where = ["--models", str(tmp_path / "moved")]
    assert cli.main(["merge", str(merged), "-o", str(again), *where]) == 0
    assert digest(again) == digest(merged)
    assert cli.main(["convert", str(merged), "--to", "sd-mecha"]) == 0
    assert "vote_sgn=true" in capsys.readouterr().out


def test_a_merge_of_supermergers_history(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pair.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))  # one that is just written is not trusted
    a, b = (digest(path)[:10] for path in sorted(pair.iterdir()))
    head = '"ID","time","name","weights alpha","weights beta","model A"\n'
    row = f"2024.05.01 12.00.00,x,,,{a},{b},{a},0.7,0,Weight sum,False,,[],[],,normal\n"
    history, recipe = tmp_path / "mergehistory.csv", tmp_path / "recipe.json"
    history.write_text(f"{head}1,{row}2,{row.replace('0.7', '0.4')}")
    arguments = ["convert", str(history), "--to", "json", "--models", str(pair), "-o", str(recipe)]
    assert cli.main(arguments) == 2
    assert "Say which with --number" in capsys.readouterr().err
    assert cli.main([*arguments, "--number", "2"]) == 0
    assert "merge 2" in capsys.readouterr().err
    found = json.loads(recipe.read_text())
    assert set(found["weights"].values()) == {0.4}
    assert found["architecture"] == "sd1"
    assert Path(found["models"]["b"]["path"]).name.startswith("09b")
    assert (tmp_path / "automerge-data" / "model-digests.json").is_file()


def test_json_tells_what_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ",".join(["0.5"] * 26)
    assert cli.main(["convert", f"FLAT:{numbers}", "--to", "named", "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert data["text"].startswith("IN00:0.5,IN01:0.5")
    assert "'supermerger'" in data["dialect"]
    assert "Read: a preset" in captured.err


def test_what_is_printed_is_what_belongs_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(published.AUTOMBW_15B))
    assert cli.main(["convert", "--to", "sd-mecha", "--architecture", "sd1"]) == 0
    printed = capsys.readouterr().out
    assert not printed.endswith("\n")
    path = tmp_path / "x.mecha"
    monkeypatch.setattr("sys.stdin", io.StringIO(published.AUTOMBW_15B))
    assert cli.main(["convert", "--to", "sd-mecha", "--architecture", "sd1", "-o", str(path)]) == 0
    assert path.read_text() == printed
    monkeypatch.setattr("sys.stdin", io.StringIO(published.AUTOMBW_15B))
    assert cli.main(["convert", "--to", "sd-mecha", "--architecture", "sd1", "-o", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["convert", str(path), "--to", "recipe"]) == 0
    line = (
        "0.4,0.9,0.5,0.6,0.5,0,0.9,0.9,1,0.4,0.3,0.8,0.3,0.9,0.6,0.8,0.9,0.7,0.6,1,0.9,0.6,0.7,0.3,"
    )
    assert capsys.readouterr().out == f"{line}0.6,1,0\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.json", "--to", "json"], "cannot read nothing.json"),
        (["IN00:0.5", "--to", "yaml"], "no models"),
        (["IN00:0.5", "--to", "jsn"], "unknown format"),
        (["IN00:0.5", "--to", "named", "--from", "natt"], "unknown order"),
        (["IN00:0.5", "--to", "named", "--architecture", "sd9"], "unknown architecture"),
        (["IN00:0.5", "--to", "preset"], "cannot name a preset"),
        (["x" * 5000, "--to", "named"], "not a number"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["convert", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert told in error
    assert len(error.strip().splitlines()) == 1
