from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lib_automerge import cli
from lib_automerge.app.service import Service
from lib_automerge.domain.run import RunState
from lib_automerge.host import detect
from lib_automerge.terminal import Progress, duration
from tests.checkpoints import write_tiny
from tests.fake_host import FakeHost, tiny_config, tiny_models
from tests.run_folders import Plan, build, payloads


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    host = FakeHost()
    monkeypatch.setattr(detect, "build_service", lambda: Service(host))
    return host


@pytest.fixture
def config(tmp_path: Path) -> Path:
    models = tiny_models(tmp_path)
    raw = {
        "models": models,
        "payloads": [
            {"prompt": "a red ball", "seeds": [1, 2]},
            {"prompt": "a moon", "held_out": True},
        ],
        "search": {"evaluations": 5, "optimizer": "random"},
        "output": {"checkpoint": "always"},
    }
    path = tmp_path / "night.json"
    path.write_text(json.dumps(raw))
    return path


def test_run_ends_with_the_verdict_and_what_was_written(
    fake: FakeHost, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["run", str(config), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    for name in ("report.html", "recipe.json"):
        assert str(out / name) in text
        assert (out / name).is_file()
    assert "evaluation" in text
    assert "better parent" in text
    merged = next(out.glob("*.safetensors"))
    assert str(merged) in text
    assert cli.main(["status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"
    assert cli.main(["runs", str(tmp_path), "--json"]) == 0
    assert [run["state"] for run in json.loads(capsys.readouterr().out)] == ["finished"]
    again = tmp_path / "again.safetensors"
    assert cli.main(["merge", str(out / "recipe.json"), "-o", str(again)]) == 0
    assert again.stat().st_size > 0
    assert cli.main(["merge", str(out / "recipe.json"), "-o", str(again)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_second_run_into_the_same_folder_is_refused(
    fake: FakeHost, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["run", str(config), "--out", str(out)]) == 0
    journal = (out / "journal.jsonl").read_bytes()
    assert cli.main(["run", str(config), "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (out / "journal.jsonl").read_bytes() == journal


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nothing.yaml"],
        ["resume", "nowhere"],
        ["status", "nowhere"],
        ["report", "nowhere"],
        ["runs", "nowhere"],
        ["merge", "none.json", "-o", "x.safetensors"],
        ["inspect", "none.safetensors"],
        ["convert", "--to", "nonsense", "0.5"],
    ],
)
def test_user_errors_are_one_sentence_and_exit_2(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_inspect_describes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1)
    assert cli.main(["inspect", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "OUT11" in text
    assert "TIME_EMBED" in text
    assert cli.main(["inspect", str(a), str(b), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["files"]) == 2
    assert data["comparison"] is not None


def test_inspect_tells_files_of_several_families_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("sd1", "sdxl", "flux1", "hunyuandit", "z_image")
    files = [str(write_tiny(tmp_path / f"{name}.safetensors", name)) for name in names]
    assert cli.main(["inspect", *files]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["IN00"][1:] != rows["IN00"][:-1]
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("  layers")] == [
        ["25", "19", "57", "40"],
        ["30"],
    ]
    assert "30" in rows["layers"]
    assert max(map(len, (line for line in text.splitlines() if "/" not in line))) <= 100


def test_inspect_draws_sizes_distances_and_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", seed=0)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1)
    other = write_tiny(tmp_path / "x.safetensors", "sdxl")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        json.dumps(
            {
                "architecture": "sd1",
                "method": "weighted_sum",
                "models": {"a": {"name": "a"}, "b": {"name": "b"}},
                "weights": {"IN04": 0.625},
            }
        )
    )
    drawn = [tmp_path / f"{n}.svg" for n in range(3)]
    assert cli.main(["inspect", str(a), "--svg", str(drawn[0])]) == 0
    assert cli.main(["inspect", str(a), str(b), "--svg", str(drawn[1])]) == 0
    arguments = ["inspect", str(a), "--recipe", str(recipe), "--svg"]
    assert cli.main([*arguments, str(drawn[2])]) == 0
    sizes, distances, weights = (path.read_text() for path in drawn)
    assert "share of the parameters" in sizes
    assert "distance, relative to A" in distances
    assert "IN04: 4,120 parameters, weight 0.62" in weights
    capsys.readouterr()
    assert cli.main([*arguments, str(drawn[2])]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["inspect", str(a), str(other), "--svg", str(tmp_path / "n.svg")]) == 2
    assert "no common diagram" in capsys.readouterr().err
    assert cli.main(["inspect", str(a), "--recipe", str(recipe)]) == 2
    assert "--svg" in capsys.readouterr().err
    assert not (tmp_path / "n.svg").exists()


def test_distance_tells_and_draws_a_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_tiny(tmp_path / f"m{n}.safetensors", "sd1", seed=n)) for n in range(5)]
    folder = tmp_path / "drawn" / "pool"
    assert cli.main(["distance", *files, "--base", files[0], "--svg", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "UNet: L2 distance" in text
    assert "(base)" in text
    for name in ("tree", "map", "pairs"):
        drawn = (folder / f"{name}.svg").read_text()
        assert drawn.startswith("<svg")
        assert "5 models of Stable Diffusion 1: UNet" in drawn
        assert "m4" in drawn
    assert cli.main(["distance", *files, "--svg", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["distance", *files, "--sample", "3", "--seed", "1", "--json"]) == 0
    drawn_files = json.loads(capsys.readouterr().out)["files"]
    assert len(drawn_files) == 3
    assert set(drawn_files) < set(files)
    assert cli.main(["distance", *files, "--sample", "3", "--seed", "1"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("3 of 5 files, drawn with seed 1:")
    assert all(path in told for path in drawn_files)
    assert cli.main(["distance", files[0]]) == 2
    assert "Give two files" in capsys.readouterr().err


def test_a_refused_distance_leaves_no_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_tiny(tmp_path / "one.safetensors", "sd1")
    other = write_tiny(tmp_path / "other.safetensors", "sdxl")
    folder = tmp_path / "new" / "drawn"
    assert cli.main(["distance", str(one), str(other), "--svg", str(folder)]) == 2
    assert "different families" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("")
    assert cli.main(["distance", str(one), str(other), "--svg", str(folder)]) == 2
    assert (folder / "mine.txt").exists()


def test_edit_writes_another_file_and_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tiny(tmp_path / "a.safetensors", "sd1", dtype=torch.float32)
    donor = write_tiny(tmp_path / "b.safetensors", "sd1", seed=1, dtype=torch.float32)
    output = tmp_path / "out.safetensors"
    arguments = ["edit", str(source), "-o", str(output), "--vae", str(donor), "--fix-positions"]
    assert cli.main([*arguments, "--dtype", "fp16", "--dtype-vae", "bf16"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "put in the VAE of b.safetensors"
    assert told[2:] == [
        "stored the denoiser as fp16",
        "stored the text encoder as fp16",
        "stored the vae as bf16",
        str(output),
    ]
    with safe_open(output, "pt") as file:
        dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert {t for k, t in dtypes.items() if k.startswith("first_stage_model.")} == {"BF16"}
    assert dtypes["model.diffusion_model.out.2.bias"] == "F16"
    assert cli.main([*arguments]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["edit", str(source), "-o", str(tmp_path / "x.safetensors")]) == 2
    assert "nothing to change" in capsys.readouterr().err


def test_insights_are_told_in_words_and_as_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path / "run", Plan(evaluations=16, payloads=payloads(2, 2), size=0)).path
    assert cli.main(["insights", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "after 16 evaluations" in text
    assert len([line for line in text.splitlines() if line.startswith(("IN", "OUT"))]) == 25
    assert cli.main(["insights", str(folder), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["evaluations"] == 16
    assert {"effects", "lengths", "interactions", "predicted", "rounding"} <= data.keys()
    short = build(tmp_path / "short", Plan(evaluations=4, payloads=payloads(2, 2), size=0)).path
    assert cli.main(["insights", str(short)]) == 0
    assert "Too little is known" in capsys.readouterr().out
    assert cli.main(["insights", str(short), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) is None
    assert cli.main(["insights", str(tmp_path / "nowhere")]) == 2


def test_convert_speaks_named_weights(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ",".join(f"0.{n:02}" for n in range(26))
    assert cli.main(["convert", "--to", "named", numbers]) == 2
    assert "order" in capsys.readouterr().err


def test_progress_tells_evaluation_gain_and_time_left(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = tiny_config(tiny_models(tmp_path))
    progress = Progress(config, stream)
    Service(FakeHost()).start(config, tmp_path / "run", listener=progress)
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("evaluation 5/7 | best ") for line in lines)
    assert any("on the better parent (" in line for line in lines)
    assert any(" left, done at " in line for line in lines)
    assert Progress(config, stream).line(RunState()) == "evaluation 1/7"


def test_durations_are_said_as_people_do() -> None:
    assert [duration(s) for s in (4.4, 59.6, 200, 7500)] == [
        "4 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_ctrl_c_keeps_every_score_and_exits_130(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import sys, time\n"
        "from lib_automerge import cli\n"
        "from lib_automerge.app.service import Service\n"
        "from lib_automerge.host import detect\n"
        "from tests.fake_host import FakeHost\n"
        "host = FakeHost()\n"
        "host.broken = lambda weights, job: time.sleep(0.2)\n"
        "detect.build_service = lambda: Service(host)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", str(config), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    journal = out / "journal.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        journal.exists() and b'"scored"' in journal.read_bytes()
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130, text
    assert "resume" in text
    assert "Traceback" not in text
    last = journal.read_text().splitlines()[-1]
    assert '"event":"stopped"' in last


def test_calibrate_measures_and_says_how_many_images_it_takes(
    fake: FakeHost, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "noise"
    assert cli.main(["calibrate", str(config), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "Other seeds move the score of a recipe by ±" in told
    assert str(out / "report.html") in told
    assert "Proving" not in told
    assert "recipe.json" not in told
    assert cli.main(["status", str(out), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "finished"
    assert status["evaluations"] == 3
    assert status["noise"] in told
    assert status["ended"].lower() == status["noise"].lower()
    assert cli.main(["status", str(out)]) == 0
    assert status["noise"] in capsys.readouterr().out
    assert cli.main(["resume", str(out)]) == 0


def test_calibrate_prints_numbers_as_json(
    fake: FakeHost, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "noise"
    command = ["calibrate", str(config), "--out", str(out), "--seed-sets", "2", "--json"]
    assert cli.main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == str(out)
    found = told["calibration"]
    assert found["seed_sd"] > 0
    assert found["advice"] in ("enough", "too few", "more than needed", "too alike")
    assert found["sentence"].endswith(".")
    assert len(list((out / "images").rglob("calibration-*.png"))) == 2 * 2
    assert cli.main([*command[:-3], "--seed-sets", "0"]) == 2
    assert "--seed-sets is 0" in capsys.readouterr().err
