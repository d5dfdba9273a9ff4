from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from lib_automerge.app.checkpoint_names import CHECKPOINT_NAME, checkpoint_name
from lib_automerge.app.checks import Level, Preflight
from lib_automerge.app.desk import Desk
from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain.config import OutputConfig, RewardConfig, RunConfig
from lib_automerge.domain.events import Scored, Stage
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.errors import BusyError, ConfigError, RewardError, StorageError
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.study.journal import Journal
from lib_automerge.study.store import RunFolder
from tests.checkpoints import write_tiny
from tests.fake_host import FakeCatalogue, FakeHost, tiny_config

LONG_S = 30.0


@pytest.fixture
def desk(host: FakeHost, models: Mapping[str, str], tmp_path: Path) -> Desk:
    return Desk(host, FakeCatalogue(tmp_path / "data", models))


def finished(desk: Desk, config: RunConfig) -> str:
    run = desk.start(config)
    assert desk.worker.wait(LONG_S)
    return run


def errors(found: Preflight) -> str:
    return " | ".join(c.text for c in found.checks if c.level is Level.ERROR)


def warnings(found: Preflight) -> str:
    return " | ".join(c.text for c in found.checks if c.level is Level.WARNING)


# --- before a run ---------------------------------------------------------------------------


def test_a_sound_configuration_is_ready(desk: Desk, models: Mapping[str, str]) -> None:
    found = desk.preflight(tiny_config(models))
    assert found.ready
    assert found.architecture == "sd1"
    told = " ".join(check.text for check in found.checks)
    assert "27 blocks can be searched" in told
    assert "2 prompts, 6 images for each candidate, 1 held-out prompt" in told


def test_everything_wrong_is_told_at_once(
    desk: Desk, models: Mapping[str, str], tmp_path: Path
) -> None:
    config = tiny_config({"a": models["a"], "b": models["a"]})
    config = msgspec.structs.replace(
        config,
        payloads=(Payload(prompt=" "),),
        reward=RewardConfig("image_reward", {"weights": str(tmp_path / "no.pt")}),
    )
    found = desk.preflight(config)
    assert not found.ready
    assert "the same file" in errors(found)
    assert "empty prompt" in errors(found)
    assert "there is no file" in errors(found)
    assert "huggingface.co/THUDM/ImageReward" in errors(found)


def test_models_that_do_not_fit_are_named(
    desk: Desk, models: Mapping[str, str], tmp_path: Path
) -> None:
    other = str(write_tiny(tmp_path / "xl.safetensors", "sdxl"))
    assert "different families" in errors(
        desk.preflight(tiny_config({"a": models["a"], "b": other}))
    )
    coarse = str(write_tiny(tmp_path / "8bit.safetensors", "sd1", dtype=torch.float8_e4m3fn))
    told = errors(desk.preflight(tiny_config({"a": models["a"], "b": coarse})))
    assert "8bit.safetensors stores weights in 8 bits (F8_E4M3)" in told
    scale = "conditioner.embedders.1.model.logit_scale"
    copied = {scale: torch.tensor(1.0).to(torch.float8_e4m3fn)}
    pair = {
        role: str(write_tiny(tmp_path / f"{role}8.safetensors", "sdxl", seed=seed, extra=copied))
        for role, seed in (("a", 1), ("b", 2))
    }
    # nothing that is merged is stored in 8 bits there
    assert "8 bits" not in errors(desk.preflight(tiny_config(pair)))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(Path(models["b"]).read_bytes()[:-100])
    assert "torn" in errors(desk.preflight(tiny_config({"a": models["a"], "b": str(torn)})))
    missing = str(tmp_path / "gone.safetensors")
    assert "gone" in errors(desk.preflight(tiny_config({"a": models["a"], "b": missing})))


def test_search_settings_are_checked_against_the_architecture(
    desk: Desk, models: Mapping[str, str]
) -> None:
    assert "IN0X" in errors(desk.preflight(tiny_config(models, blocks={"IN0X": {"fixed": 0}})))
    assert "nosuch" in errors(desk.preflight(tiny_config(models, optimizer="nosuch")))


def test_what_weakens_a_run_warns_but_does_not_forbid(
    desk: Desk, models: Mapping[str, str]
) -> None:
    config = tiny_config(models)
    alone = msgspec.structs.replace(config, payloads=(Payload(prompt="a cat", seeds=(1,)),))
    found = desk.preflight(alone)
    assert found.ready
    assert "Use eight or more" in warnings(found)
    assert "no prompt is held out" in warnings(found)
    assert isinstance(desk.catalogue, FakeCatalogue)
    desk.catalogue.news = ["the WebUI is generating; the run waits for it."]
    assert "waits for it" in warnings(desk.preflight(config))


def test_a_disk_that_is_too_small_is_told_before(
    desk: Desk, models: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.library, "free_space", lambda: 1000)
    assert "Free some space" in errors(desk.preflight(tiny_config(models)))


def test_the_forecast_takes_the_pace_of_the_latest_run(
    desk: Desk, models: Mapping[str, str]
) -> None:
    config = tiny_config(models)
    assert desk.forecast(config).seconds is None
    finished(desk, msgspec.structs.replace(config, generator=config.generator))
    first = desk.forecast(config)
    assert first.seconds is not None
    assert first.evaluations == 7
    assert first.images == 7 * 6 + 3 * 2 * 2 * 1 + 4 * 4  # three rounds of finalists at most
    larger = msgspec.structs.replace(
        config,
        payloads=tuple(msgspec.structs.replace(p, width=1024) for p in config.payloads),
    )
    doubled = desk.forecast(larger).seconds
    assert doubled == pytest.approx(2 * first.seconds)
    hours = msgspec.structs.replace(
        config,
        search=msgspec.structs.replace(
            config.search, evaluations=1000, hours=first.seconds / first.images * 6 * 20 / 3600
        ),
    )
    assert desk.forecast(hours).evaluations == pytest.approx(20, abs=1)


def test_the_form_is_kept_and_a_damaged_draft_is_an_empty_one(desk: Desk) -> None:
    assert desk.draft() == {}
    desk.save_draft({"model_b": "x <y>", "n": 3})
    assert desk.draft() == {"model_b": "x <y>", "n": 3}
    (desk.catalogue.data / "draft.json").write_text('{"a": ')
    assert desk.draft() == {}
    with pytest.raises(StorageError, match="save them as a set"):
        desk.save_draft({"prompts": "x" * (1 << 20)})


# --- runs -----------------------------------------------------------------------------------


def test_start_refuses_what_the_preflight_refuses(desk: Desk, models: Mapping[str, str]) -> None:
    bad = msgspec.structs.replace(tiny_config(models), models={"a": models["a"], "b": "/no/b"})
    with pytest.raises(ConfigError, match="/no/b"):
        desk.start(bad)
    assert desk.library.entries() == []


def test_a_run_can_be_opened_while_it_goes_on_and_afterwards(
    host: FakeHost, desk: Desk, models: Mapping[str, str]
) -> None:
    reached, go = threading.Event(), threading.Event()

    def hold(jobs: Sequence[ImageJob]) -> None:
        if len(host.batches) == 2 + 3 * 3 + 1:
            reached.set()
            assert go.wait(LONG_S)

    host.before_batch = hold
    run = desk.start(tiny_config(models))
    assert reached.wait(LONG_S)
    opened = desk.open(run)
    assert opened.live
    assert opened.status == "running"
    assert len(opened.state.history) == 3
    with pytest.raises(BusyError):
        desk.start(tiny_config(models))
    with pytest.raises(StorageError, match="in progress"):
        desk.library.trash(run)
    # the best so far can be had at any time
    assert desk.recipe(run).provenance["evaluation"] in (1, 2, 3)
    go.set()
    assert desk.worker.wait(LONG_S)
    opened = desk.open(run)
    assert not opened.live
    assert opened.status == "finished"


def test_a_run_whose_process_died_is_interrupted_and_goes_on_with_one_call(
    desk: Desk, models: Mapping[str, str], tmp_path: Path
) -> None:
    folder = desk.library.root / "20260101-abcd"
    controls = Controls(pause=lambda: True)
    Service(FakeHost()).start(tiny_config(models), folder, controls=controls)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))  # as kill -9 leaves it
    (entry,) = desk.entries()
    assert entry.id == "20260101-abcd"
    assert desk.open(entry.id).status == "interrupted"
    desk.resume(entry.id)
    assert desk.worker.wait(LONG_S)
    assert desk.open(entry.id).status == "finished"


def test_images_are_found_in_the_journal_only(desk: Desk, models: Mapping[str, str]) -> None:
    run = finished(desk, tiny_config(models))
    assert desk.image(run, 1, Stage.SEARCH, 0).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StorageError, match="has no image 99"):
        desk.image(run, 1, Stage.SEARCH, 99)
    journal = desk.library.root / run / "journal.jsonl"
    events = [
        msgspec.structs.replace(e, file="../../draft.json") if isinstance(e, Scored) else e
        for e in RunFolder(journal.parent).events()
    ]
    desk.save_draft({"secret": 1})
    journal.unlink()
    Journal(journal, lambda: 0.0).append(*events)
    with pytest.raises(StorageError):
        desk.image(run, 1, Stage.SEARCH, 0)
    for bad in ("..", ".", "trash", "nosuch", f"../runs/{run}"):
        with pytest.raises(StorageError, match="there is no run"):
            desk.open(bad)


def test_a_checkpoint_can_be_saved_beside_model_a(
    desk: Desk, tmp_path: Path, models: Mapping[str, str]
) -> None:
    mine = {
        role: str(write_tiny(tmp_path / f"{role}.safetensors", "sd1", seed=s))
        for s, role in enumerate("ab")
    }
    (tmp_path / "a.yaml").write_text("model: of a")
    run = finished(desk, tiny_config(mine))
    saved = desk.open(run).state.saved
    assert saved is not None
    assert saved.file == str(tmp_path / f"a-b-automerge-{run[-4:]}.safetensors")
    assert Path(saved.file).is_file()
    assert saved.reproduced == saved.checked > 0
    path = desk.save_checkpoint(run, None, "", None)
    assert path.parent == tmp_path
    assert re.fullmatch(rf"a-b-automerge-{run[-4:]}-e\d+\.safetensors", path.name)
    assert path.with_suffix(".yaml").read_text() == "model: of a"
    with open_checkpoint(path) as checkpoint:
        assert '"weights"' in checkpoint.header.metadata["automerge_recipe"]
    with pytest.raises(StorageError, match="exists already"):
        desk.save_checkpoint(run, None, "", None)
    assert desk.save_checkpoint(run, 2, "all of b.safetensors", "fp16").name == (
        "all of b.safetensors"
    )
    for bad in ("../up", "a/b", "a\\b", ".hidden", "x" * 101, "a\nb", "nul\0"):
        with pytest.raises(ConfigError, match="cannot be the name"):
            desk.save_checkpoint(run, None, bad, None)
    with pytest.raises(ConfigError, match="no evaluation 99"):
        desk.save_checkpoint(run, 99, "x", None)


def test_a_reward_that_cannot_be_loaded_says_so_without_a_run(
    host: FakeHost, desk: Desk, models: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: RewardConfig) -> None:
        raise RewardError("the weights are damaged: w.pt. Download them again.")

    monkeypatch.setattr(host, "reward", broken)
    desk.start(tiny_config(models))
    assert desk.worker.wait(LONG_S)
    assert desk.worker.snapshot().failure.startswith("the weights are damaged")
    assert desk.library.entries() == []


def test_wildcards_are_drawn_once_and_recorded(desk: Desk, models: Mapping[str, str]) -> None:
    pytest.importorskip("dynamicprompts")
    folder = desk.catalogue.wildcards[0]
    folder.mkdir(parents=True)
    (folder / "animal.txt").write_text("fox\nowl\nelk\n")
    config = tiny_config(models)
    first = msgspec.structs.replace(config.payloads[0], prompt="a {red|blue} __animal__")
    config = msgspec.structs.replace(config, payloads=(first, *config.payloads[1:]))
    assert desk.preflight(config).ready
    run = finished(desk, config)
    opened = desk.open(run)
    prompt = opened.manifest.config.payloads[0].prompt
    assert prompt.split()[1] in ("red", "blue")
    assert prompt.split()[2] in ("fox", "owl", "elk")
    assert any(prompt in text for text in opened.state.warnings)
    missing = msgspec.structs.replace(first, prompt="a __nosuch__")
    config = msgspec.structs.replace(config, payloads=(missing, *config.payloads[1:]))
    assert "nosuch" in errors(desk.preflight(config))
    with pytest.raises(ConfigError, match="nosuch"):
        desk.start(config)


def test_a_checkpoint_that_could_not_be_written_is_told_before_the_night(
    host: FakeHost, models: Mapping[str, str], tmp_path: Path
) -> None:
    config = tiny_config(models)
    for path, words in ((models["a"], "exists already"), ("/no/such/x.safetensors", "no folder")):
        output = msgspec.structs.replace(config.output, path=path)
        with pytest.raises(ConfigError, match=words):
            Service(host).start(msgspec.structs.replace(config, output=output), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_folder_that_is_full_is_told_before_the_night(
    desk: Desk, models: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("lib_automerge.app.checks.shutil.disk_usage", lambda path: usage)
    found = desk.preflight(tiny_config(models))
    assert "the checkpoint needs" in errors(found)
    never = msgspec.structs.replace(tiny_config(models), output=OutputConfig())
    assert "the checkpoint needs" not in errors(desk.preflight(never))


@pytest.mark.parametrize(
    "models",
    [
        ["a", "b"],
        ["x" * 60, "y" * 60, "z" * 60],
        ["\u6a21" * 40, "\u578b" * 40],
        ["+plus", "-minus"],
        ["...", "b"],
    ],
)
def test_proposed_names_are_valid_and_tell_the_run(models: list[str]) -> None:
    name = checkpoint_name("20261123-k3fa", models, "-e0012")
    assert CHECKPOINT_NAME.fullmatch(name)
    assert name.endswith("-automerge-k3fa-e0012")
    assert len(name.encode()) <= 100
