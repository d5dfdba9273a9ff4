"""What goes wrong in long runs: each of these once cost somebody a night."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from lib_automerge.app.service import Service
from lib_automerge.domain.config import (
    OutputConfig,
    RewardConfig,
    RewardMember,
    RunConfig,
    VerdictConfig,
)
from lib_automerge.domain.events import Origin, Stage
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.domain.run import Status
from lib_automerge.errors import (
    ConfigError,
    GenerationError,
    ModelError,
    RewardError,
    RunFailedError,
)
from lib_automerge.study.store import RunFolder
from tests.checkpoints import write_tiny
from tests.fake_host import BrightnessReward, FakeHost, tiny_config


def test_a_run_of_single_images_can_be_read_again(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    config = msgspec.structs.replace(
        tiny_config(models),
        payloads=(Payload(prompt="a red ball", seeds=(1,)),),
        verdict=VerdictConfig(finalists=1, finalist_seeds=1, seeds=2),
    )
    Service(host).start(config, folder)
    state = RunFolder(folder).state()
    assert state.status is Status.FINISHED
    assert state.evaluations[1].standard_error is None
    assert Service(host).status(folder).state == "finished"


def test_a_broken_50_50_image_in_the_verdict_leaves_out_that_pair(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        half = set(weights.values()) == {0.5}
        return "black" if half and job.payload.held_out and job.number == 1 else None

    host.broken = broken
    state = Service(host).start(tiny_config(models), folder)
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert state.verdict.images == 3
    assert all(c.pairs == 3 for c in state.verdict.comparisons)
    assert any("1 of 4 images of the verdict were left out" in text for text in state.warnings)


def test_a_winner_that_breaks_in_the_verdict_gives_way_to_the_next(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    whole = Service(host).start(tiny_config(models), tmp_path / "whole")
    assert whole.verdict is not None
    best = whole.evaluations[whole.verdict.winner].weights

    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        return "NaN" if weights == best and job.payload.held_out else None

    host.broken = broken
    state = Service(host).start(tiny_config(models), tmp_path / "run")
    assert state.verdict is not None
    assert state.verdict.winner != whole.verdict.winner
    assert any("the next one was proved instead" in text for text in state.warnings)


@pytest.mark.parametrize("name", ["demo", "ensemble"])
@pytest.mark.parametrize("both", [False, True])
def test_where_no_unseen_image_can_be_compared_the_search_is_not_lost(
    host: FakeHost, models: Mapping[str, str], folder: Path, both: bool, name: str
) -> None:
    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        blocks = {w for n, w in weights.items() if n.startswith(("IN", "M", "OUT"))}
        parent = blocks == {0.0} or (both and blocks == {1.0})
        return "black" if parent and job.payload.held_out else None

    host.broken = broken
    members = (RewardMember(name="demo"),) if name == "ensemble" else ()
    reward = RewardConfig(name=name, members=members)
    config = msgspec.structs.replace(tiny_config(models), reward=reward)
    state = Service(host).start(config, folder)
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert not state.verdict.gain
    assert state.verdict.winner > 3
    assert state.verdict.sentence.startswith("No significant gain: ")
    assert "image" in state.verdict.sentence
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["weights"] == state.evaluations[state.verdict.winner].weights
    assert "Nothing proved" in (folder / "report.html").read_text()


def test_when_every_candidate_is_broken_nothing_is_saved(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    host.broken = lambda weights, job: "NaN" if len(set(weights.values())) > 2 else None
    config = msgspec.structs.replace(tiny_config(models), output=OutputConfig(checkpoint="always"))
    state = Service(host).start(config, folder)
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert not state.verdict.gain
    assert state.saved is None


def test_what_the_verdict_needs_is_tried_before_the_search(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    class Particular(BrightnessReward):
        def score(self, images, prompts):  # type: ignore[no-untyped-def]
            if "a green moon" in prompts:
                raise RewardError("the prompt 'a green moon' cannot be judged. Change it.")
            return super().score(images, prompts)

    host.judge = Particular()
    with pytest.raises(RunFailedError, match="'a green moon' cannot be judged"):
        Service(host).start(tiny_config(models), folder)
    assert RunFolder(folder).state().evaluations == {}


def test_best_json_knows_all_baselines_while_a_leads(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    class Dark(BrightnessReward):
        def score(self, images, prompts):  # type: ignore[no-untyped-def]
            return [-score for score in super().score(images, prompts)]

    host.judge = Dark()
    state = Service(host).start(tiny_config(models), folder)
    best = json.loads((folder / "best.json").read_text())
    assert state.incumbent is not None
    assert state.incumbent.origin is Origin.MODEL_A
    assert best["evaluation"] == 1
    assert None not in best["baselines"].values()


def test_warnings_of_the_verdict_are_kept(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    host.news = [[] for _ in range(2 + 7 * 3 + 2 * 2)] + [["halved in the verdict."]]
    assert "halved in the verdict." in Service(host).start(tiny_config(models), folder).warnings


def test_every_image_is_told_when_it_is_on_disk(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def listen(event: object, state: object) -> None:
        on_disk = sum(b'"scored"' in line for line in journal().splitlines())
        told = sum(len(images) for images in state.scores.values())  # type: ignore[attr-defined]
        seen.append((told, on_disk))

    def journal() -> bytes:
        return (folder / "journal.jsonl").read_bytes()

    Service(host).start(tiny_config(models), folder, listener=listen)
    assert all(told <= on_disk <= told + 3 for told, on_disk in seen)


def test_a_lost_report_is_written_again(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    Service(host).start(tiny_config(models), folder)
    (folder / "report.html").unlink()
    Service(host).resume(folder)
    assert (folder / "report.html").is_file()


def test_what_cannot_work_is_refused_before_a_folder_is_made(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    key = "model.diffusion_model.out.2.bias"
    nan = write_tiny(
        tmp_path / "c.safetensors", "sd1", seed=5, extra={key: torch.full((4,), torch.nan).half()}
    )
    wide = [
        str(write_tiny(tmp_path / f"inpaint{n}.safetensors", "sd1", seed=n, channels=9))
        for n in range(2)
    ]
    plain = tiny_config(models)
    replace = msgspec.structs.replace
    cases = [
        (
            replace(plain, models={**models, "c": str(nan)}, method="add_difference"),
            ModelError,
            key,
        ),
        (replace(plain, models={**models, "c": str(nan)}), ConfigError, "no use for model 'c'"),
        (replace(plain, models={**models, "z": str(nan)}), ConfigError, "no use for model 'z'"),
        (
            replace(plain, parameters={"density": 0.3}),
            ConfigError,
            "unknown parameter of weigh",
        ),
        (replace(plain, models=dict(zip("ab", wide, strict=True))), ModelError, "inpaint"),
    ]
    for config, kind, words in cases:
        with pytest.raises(kind, match=words):
            Service(host).start(config, folder)
        assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_disk_that_fills_up_stops_in_words_and_the_run_goes_on_later(
    models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    program = textwrap.dedent(
        f"""
        import resource, signal, sys
        from pathlib import Path
        from lib_automerge import cli, run_commands
        from lib_automerge.app.service import Service
        from lib_automerge.host import detect
        from tests.fake_host import FakeHost, tiny_config
        detect.build_service = lambda: Service(FakeHost())
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = Path({str(folder)!r})
        import lib_automerge.app.configfile as configfile
        configfile.read_config = lambda path: tiny_config({dict(models)!r})
        def full(event, state):
            if len(state.history) == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        run_commands.Progress = lambda config, stream: type("P", (), {{
            "__call__": lambda self, e, s: full(e, s), "close": lambda self: None}})()
        sys.exit(cli.main(["run", "x.yaml", "--out", str(folder)]))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write the journal" in done.stderr
    state = RunFolder(folder).state()
    assert len(state.history) == 3
    finished = Service(FakeHost()).resume(folder)
    assert finished.status is Status.FINISHED
    assert len(finished.history) == 7


def test_one_damaged_run_does_not_hide_the_others(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        Service(host).start(tiny_config(models), tmp_path / name)
    manifest = tmp_path / "one" / "run.json"
    manifest.write_text(manifest.read_text()[:200])
    assert [s.state for s in Service(host).runs(tmp_path)] == ["damaged", "finished"]


def test_infinite_scores_are_an_error(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    class Infinite(BrightnessReward):
        def score(self, images, prompts):  # type: ignore[no-untyped-def]
            return [float("inf") for _ in images]

    host.judge = Infinite()
    with pytest.raises(RunFailedError, match="gave inf for"):
        Service(host).start(tiny_config(models), folder)
    assert not RunFolder(folder).state().scores.get((Stage.SEARCH, 1))


def gain_config(models: Mapping[str, str], path: Path) -> RunConfig:
    config = tiny_config(models)
    output = msgspec.structs.replace(config.output, checkpoint="always", path=str(path))
    return msgspec.structs.replace(config, output=output)


def test_a_checkpoint_that_cannot_be_saved_does_not_undo_a_proved_result(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()

    def take_away(jobs: Sequence[ImageJob]) -> None:
        if len(host.batches) == 20 and target.is_dir():
            target.rmdir()

    host.before_batch = take_away
    state = Service(host).start(gain_config(models, target / "m.safetensors"), folder)
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert state.saved is None
    assert any("could not be saved: there is no folder" in text for text in state.warnings)


def test_a_checkpoint_that_cannot_be_checked_is_kept_and_said(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"

    def fail(jobs: Sequence[ImageJob]) -> None:
        if path.exists():
            raise GenerationError("out of memory with a single image of 64x64.")

    host.before_batch = fail
    state = Service(host).start(gain_config(models, path), folder)
    assert state.status is Status.FINISHED
    assert state.saved is not None
    assert (state.saved.checked, state.saved.reproduced) == (0, 0)
    assert any("could not be checked: out of memory" in text for text in state.warnings)


def test_what_a_crash_left_of_a_checkpoint_is_finished_by_resuming(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    mine = {
        r: str(write_tiny(tmp_path / f"{r}.safetensors", "sd1", seed=s)) for s, r in enumerate("ab")
    }
    (tmp_path / "a.yaml").write_text("model: of a")
    path = tmp_path / "m[1].safetensors"
    Service(host).start(gain_config(mine, path), folder)
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = next(n for n, line in enumerate(lines) if b'"event":"saved"' in line)
    journal.write_bytes(b"".join(lines[:kept]))
    # killed between the file and its YAML
    path.with_suffix(".yaml").unlink()
    assert Service(FakeHost()).resume(folder).status is Status.FINISHED
    assert path.with_suffix(".yaml").read_text() == "model: of a"
    # killed in the middle of the file
    journal.write_bytes(b"".join(lines[:kept]))
    path.unlink()
    half = tmp_path / ".m[1].safetensors.4242.partial"
    half.write_bytes(b"half")
    assert Service(FakeHost()).resume(folder).saved is not None
    assert path.is_file()
    assert not half.exists()
